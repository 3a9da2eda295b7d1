"""Figures that kvbench ships of what its strategies lose, with what they were measured on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kvbench.strategy.base import Strategy
from kvbench.studies.quality.cells import described

Figures = tuple[float, float, float, float, float]
FILE = Path(__file__).with_name("smollm2.json")


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A table of losses.

    Args:
        name_or_path: the model's.
        model_name: for people.
        source: where its weights come from, and their licence.
        dtype: that it computes in.
        text_name: of what was predicted.
        licence: the text's.
        sizes: how much was measured, as `losses.Sizes` has it.
        measured: on which day, on what, with which versions.
        made_by: the command that makes the file anew.
        rows: strategy, as `described` says it; kept_share; and the figures of a `Loss` in order.
    """

    name_or_path: str
    model_name: str
    source: str
    dtype: str
    text_name: str
    licence: str
    sizes: Mapping[str, int]
    measured: str
    made_by: str
    rows: Sequence[Mapping[str, Any]]

    def figures(self, strategy: Strategy, kept_share: float | None) -> Figures | None:
        """What it loses; None where that is not in the table."""
        about = json.loads(json.dumps(described(strategy)))
        for row in self.rows:
            if row["strategy"] == about and row["kept_share"] == kept_share:
                kl_nats, kl_low, kl_high, perplexity_ratio, needle_share = map(float, row["figures"])
                return kl_nats, kl_low, kl_high, perplexity_ratio, needle_share
        return None


@cache
def shipped() -> Shipped:
    """The table of SmolLM2."""
    return Shipped(**json.loads(FILE.read_text(encoding="utf-8")))

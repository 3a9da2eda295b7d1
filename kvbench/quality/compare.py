"""Probe strategies beside each other, on one request and one sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kvbench.backend.storage.casting import check_held
from kvbench.model.geometry import KVGeometry
from kvbench.quality import recorded
from kvbench.quality.probe import Probe, Quality, request_to_probe
from kvbench.quality.structured import structured
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session

RECALL = "needle_recall"


@dataclass(frozen=True)
class Comparison:
    """What probing found.

    Args:
        num_tokens: tokens of the request that was probed.
        data: what K and V were, for people.
        rounding: relative errors that the dtype of K and V gives by rounding alone.
        found: by strategy; None where it cannot hold that request.
    """

    num_tokens: int
    data: str
    rounding: float
    found: dict[str, Quality | None]

    def columns(self, strategy: str) -> dict[str, object]:
        """A strategy's columns of the summary."""
        found = self.found.get(strategy)
        if found is None:
            return {"probed_tokens": self.num_tokens}
        recall = list(found.needle_recall.values())
        planted: dict[str, object] = {RECALL: sum(recall) / len(recall)} if recall else {}
        return planted | {
            "error_relative": found.error_relative,
            "error_rounding": self.rounding,
            "cosine": found.cosine,
            "mass_kept": found.mass_kept,
            "probed_tokens": self.num_tokens,
            "probed_queries": found.num_queries,
            "probed_altered_tokens": found.num_altered,
        }

    def by_depth(self) -> list[dict[str, object]]:
        """Recall by depth, a row a strategy and depth, columns as in schema.QUALITY."""
        return [
            {"strategy": name, "metric": RECALL, "depth": depth, "value": value}
            for name, found in self.found.items()
            if found is not None
            for depth, value in found.needle_recall.items()
        ]


def compare(
    strategies: Mapping[str, Strategy],
    sessions: Sequence[Session],
    *,
    geometry: KVGeometry,
    device: str,
    seed: int,
    max_tokens: int,
    data: Path | None,
    on_strategy: Callable[[str], None] | None = None,
) -> Comparison:
    """Probe each strategy.

    Args:
        strategies: by name.
        sessions: the scenario's; the longest of at most max_tokens is probed.
        geometry: the model's; its layers that see all tokens are probed.
        device: auto, cpu or cuda.
        seed: of what is made up.
        max_tokens: tokens probed at most; fewer where recorded data is shorter.
        data: a file of recorded K and V; None makes them.
        on_strategy: called with the name of each strategy before it is probed.
    Raises:
        ValueError: the data is broken, or does not fit the geometry.
    """
    of_some = "" if geometry.is_plain else ", in layers that see all tokens"
    geometry = probed(geometry)
    sample = None if data is None else recorded.read(data, geometry, max_tokens, seed)
    session = request_to_probe(sessions, max_tokens if sample is None else sample.num_tokens)
    if sample is None:
        sample = structured(geometry, session.num_tokens, seed)
    probe = Probe(session, sample, geometry, device)
    found = {}
    for name, strategy in strategies.items():
        if on_strategy is not None:
            on_strategy(name)
        found[name] = probe(strategy)
    return Comparison(session.num_tokens, sample.about + of_some, torch.finfo(sample.keys.dtype).eps, found)


def probed(geometry: KVGeometry) -> KVGeometry:
    """The layers that strategies decide over: those that see all tokens, where others do not.

    Raises:
        ValueError: there are none, or others than such as hold K and V alike.
    """
    if geometry.is_plain:
        return geometry
    full = [group for group in geometry.groups if group.holds_tokens and group.tokens is None]
    if len(full) == 1:
        found = replace(geometry, groups=(replace(full[0], layers=tuple(range(full[0].num_layers))),))
        if found.is_plain:
            return found
    raise ValueError(
        f"the probe holds K and V of layers that see all tokens, alike, and {geometry.called} has {geometry.kinds}"
    )


def check(geometry: KVGeometry, max_tokens: int, data: Path | None) -> None:
    """Refuse before anything is run what `compare` would refuse after.

    Raises:
        ValueError: the data is broken, or does not fit the geometry, or nothing carries that out.
    """
    geometry = probed(geometry)
    check_held(geometry)
    if data is None:
        structured(geometry, 1, 0)
    else:
        recorded.read(data, geometry, max_tokens, 0)

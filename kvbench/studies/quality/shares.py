"""What share of a workload's tokens a strategy keeps, and whether it alters any: counted on typical requests."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kvbench.backend.counted import CountedBackend
from kvbench.decide.sweep import Point
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import SIGNALS
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Request, Session

NUM_COUNTED = 8
"""Requests that stand for all, evenly spaced by length."""
SHAPE = KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=64, dtype="float32", name="counted")


class Keeping(CountedBackend):
    """Counts how many are kept, which no score changes: whichever they are, a rule keeps as many."""

    @property
    def signals(self) -> tuple[str, ...]:
        """All are taken for supplied."""
        return tuple(SIGNALS.values())


class Length(NamedTuple):
    """A request's tokens.

    Args:
        prompt_tokens: of the whole prompt, history included.
        output_tokens: of the answer.
    """

    prompt_tokens: int
    output_tokens: int


class Kept(NamedTuple):
    """What becomes of a workload's tokens.

    Args:
        share: that are still attended at the requests' ends / that were held.
        alters: whether any are evicted, or rounded.
    """

    share: float
    alters: bool


def typical(prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> tuple[Length, ...]:
    """Requests of a workload that stand for all.

    Args:
        prompt_tokens: a request each.
        output_tokens: likewise.
    """
    order = np.argsort(prompt_tokens + output_tokens, kind="stable")
    most = min(NUM_COUNTED, len(order))
    chosen = order[((np.arange(most) + 0.5) / most * len(order)).astype(int)]
    return tuple(dict.fromkeys(Length(int(prompt_tokens[each]), int(output_tokens[each])) for each in chosen))


def kept_of(strategy: Strategy, lengths: Sequence[Length]) -> Kept:
    """Drive a strategy over requests of such lengths, without tensors.

    Raises:
        ValueError: it cannot be counted.
    """
    sessions = [Session(number, (Request(*each),)) for number, each in enumerate(lengths)]
    point = Point(scenario="counted", sessions=sessions, strategies={"own": strategy})
    results = point.run(Keeping(SHAPE), num_repetitions=1, num_warmup=0, budget_bytes=None)
    (row,) = results.summary.to_dict("records")
    return Kept(float(row["kept_fraction"]), float(row["altered_tokens"]) > 0)

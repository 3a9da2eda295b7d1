"""Tokens of prompts that were looked for and found, by turn and by tenant, in memory that is bounded."""

from collections.abc import Iterator

import numpy as np

from kvbench.fleet.result import Served
from kvbench.fleet.sessions import num_sessions, sessions_of
from kvbench.workload.trace_columns import TraceColumns

MOST_NUMBERED = 64
"""Turns and tenants that are counted by themselves; the rest of each are together."""
COUNTS = ("num_requests", "prompt_tokens", "hit_tokens")
HITS = ("strategy", "by", "number", *COUNTS, "hit_share")


class HitSums:
    """Sums over requests that were begun, by turn and by tenant.

    Args:
        columns: the trace, once.
    """

    def __init__(self, columns: TraceColumns) -> None:
        self._tenants = np.zeros(num_sessions(columns), np.int64)
        if columns.tenants is not None:
            self._tenants[sessions_of(columns)] = columns.tenants
        self._counts = {by: np.zeros((len(COUNTS), MOST_NUMBERED + 1), np.int64) for by in ("turn", "tenant")}

    def add(self, ended: Served) -> None:
        """Add requests that have ended."""
        begun = ended.admitted_ns >= 0
        tokens = np.ones(begun.sum(), np.int64), ended.prompt_tokens[begun], ended.hit_tokens[begun]
        numbers = {"turn": ended.turn[begun], "tenant": self._tenants[ended.session[begun] % self._tenants.size]}
        for by, own in numbers.items():
            places = np.minimum(own, MOST_NUMBERED)
            for counts, added in zip(self._counts[by], tokens, strict=True):
                np.add.at(counts, places, added)

    def rows(self) -> Iterator[dict[str, object]]:
        """By column of HITS, but for the strategy; of turns, or tenants, where several are and anything was found."""
        for by, counts in self._counts.items():
            there = np.flatnonzero(counts[0])
            if there.size == 1 or not counts[2].any():
                continue
            for number, (num_requests, prompt_tokens, hit_tokens) in zip(there, counts[:, there].T, strict=True):
                yield {
                    "by": by,
                    "number": f"{number}" if number < MOST_NUMBERED else f"{number} and on",
                    "num_requests": int(num_requests),
                    "prompt_tokens": int(prompt_tokens),
                    "hit_tokens": int(hit_tokens),
                    "hit_share": hit_tokens / prompt_tokens,
                }

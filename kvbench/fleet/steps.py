"""What a replica does step by step, seen from outside between steps of equal length: as schedulers are recorded."""

from typing import NamedTuple

import numpy as np

from kvbench.fleet.blocks import filled, run_filled
from kvbench.fleet.prefix.runs import Runs
from kvbench.fleet.result import Served
from kvbench.fleet.rules import BoundRule
from kvbench.fleet.state import FOREVER, NONE, Tables
from kvbench.timing.prices import PREFILL, PS_PER_NS, SIZES, STEP, UNBOUNDED, Prices, Sight
from kvbench.workload.trace_columns import TraceColumns

STEP_NS = 1_000


class WatchedStep(NamedTuple):
    """One step of one replica.

    Args:
        scheduled: requests and how many tokens of each were computed, in order of admission.
        preempted: requests that gave way, by number.
        free_blocks: after it.
    """

    scheduled: tuple[tuple[int, int], ...]
    preempted: tuple[int, ...]
    free_blocks: int


def steady_prices(unit_bytes: int) -> Prices:
    """Prices of steps that all take STEP_NS, with tokens of so many bytes."""
    tables = np.zeros((PREFILL + 1, SIZES + 1), np.int64)
    step_ps = tables[STEP] = STEP_NS * PS_PER_NS
    none = dict.fromkeys(("write_ps", "state_ps", "storage_ps", "transfer_ps", "prompt_ps"), 0)
    sights = (Sight(UNBOUNDED, 0, 1, 0, 0),)
    each = {"unit_bytes": unit_bytes, "copy_ps": 1, "swap_ps": 1, "step_ps": step_ps}
    return Prices(**none, **each, num_sights=1, sights=sights, tables=tables)


class _Seen(NamedTuple):
    """A live request between two steps: in which order it was admitted, tokens that it holds, and found."""

    arrived: int
    held: int
    found: int


class Watched:
    """Serves a trace as `blocks.run_whole` does, on one replica in steps of STEP_NS, and notes them."""

    def __init__(self) -> None:
        self.steps: list[WatchedStep] = []

    def __call__(
        self, tables: Tables, rule: BoundRule, columns: TraceColumns, repeats: int, runs: Runs | None
    ) -> tuple[Served, int]:
        """See `blocks.run_whole`."""
        tables = filled(tables, columns, repeats, runs)
        watch, arriving = _Watch(tables), np.arange(tables.requests.size)
        while (tables.requests["finish_ns"] == NONE).any():
            # An iteration that begins as the step does is the step.
            run_filled(tables, rule, arriving, len(self.steps) * STEP_NS + 1)
            arriving = arriving[:0]
            self.steps.append(watch.step())
        return run_filled(tables, rule, arriving, FOREVER)


class _Watch:
    """What has changed in the tables since a step before."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self._waiting = tables, list[int]()
        self._live: dict[int, _Seen] = {}
        self._has_ended = np.zeros(tables.requests.size, bool)
        self._num_preemptions = np.zeros(tables.requests.size, np.int64)
        self._num_admitted = 0

    def step(self) -> WatchedStep:
        """What has happened since it was last asked."""
        requests, (now,) = self._tables.requests, self._tables.replicas
        before, after = self._live, self._seen()
        preempted = np.flatnonzero(requests["num_preemptions"] > self._num_preemptions)
        ended = np.flatnonzero((requests["finish_ns"] != NONE) & ~self._has_ended)
        found = [
            (own.arrived, request, own.held - (before[request].held if request in before else own.found))
            for request, own in after.items()
        ]
        found += [
            (before[request].arrived, request, int(requests["held"][request]) - before[request].held)
            for request in ended.tolist()
            if request in before
        ]
        found += self._passed([request for request in ended.tolist() if request not in before], after)
        self._waiting = [request for request in self._waiting if request not in after and request not in ended]
        # The last one to give way is the first to come back.
        self._waiting += sorted(preempted.tolist(), key=lambda request: -before[request].arrived)
        self._live, self._num_preemptions = after, requests["num_preemptions"].copy()
        self._has_ended[ended] = True
        self._num_admitted = int(now["num_admitted"])
        return WatchedStep(
            tuple((request, num_tokens) for _, request, num_tokens in sorted(found) if num_tokens),
            tuple(preempted.tolist()),
            self._free_blocks(),
        )

    def _seen(self) -> dict[int, _Seen]:
        """Who is live now, in order of admission."""
        (now,), live, (fixed,) = self._tables.replicas, self._tables.live[0], self._tables.fixed
        found, place = {}, int(now["oldest"])
        while place != NONE:
            own = live[place]
            held = own["held"] if own["key"] == NONE else own["origin"] + now["counter"]
            found[int(own["request"])] = _Seen(int(own["arrived"]), int(held), int(own["hit_blocks"] * fixed["unit"]))
            place = int(own["younger"])
        return found

    def _passed(self, ended: list[int], after: dict[int, _Seen]) -> list[tuple[int, int, int]]:
        """Those that came and ended in the step: their rows are left as they were, and they came in their order."""
        live, (fixed,) = self._tables.live[0], self._tables.fixed
        known = {own.arrived for own in after.values()}
        is_new = (live["arrived"] >= self._num_admitted) & (live["final"] > 0)
        left = [row for row in live[is_new] if int(row["arrived"]) not in known]
        back = self._waiting[::-1]
        ended = sorted(ended, key=lambda request: (request not in back, back.index(request) if request in back else 0))
        left = sorted(left, key=lambda row: int(row["arrived"]))
        return [
            (int(row["arrived"]), request, int(row["final"] - row["hit_blocks"] * fixed["unit"]))
            for row, request in zip(left, ended, strict=True)
        ]

    def _free_blocks(self) -> int:
        (now,), (fixed,) = self._tables.replicas, self._tables.fixed
        slot_bytes = fixed["holds"][0]["slot_bytes"] if fixed["num_groups"] else fixed["slot_bytes"]
        return int((fixed["limit_bytes"] - now["allocated"]) // (fixed["unit"] * slot_bytes))

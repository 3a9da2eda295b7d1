"""Up to which load a deployment holds, and who would be best at others: the same requests, denser or sparser."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvbench.api.basis import Basis
from kvbench.api.deployments import serve
from kvbench.api.progress import watched
from kvbench.decide.advice import Row
from kvbench.decide.constraints import Constraint
from kvbench.decide.highest import STEPS, Ladder
from kvbench.decide.kept import identity
from kvbench.decide.objectives import Goal
from kvbench.decide.space import Deployment
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns

SCALE = "backend.rate_scale"
LESS = 0.25
"""A quiet hour's load, of the one that was asked."""


@dataclass(frozen=True, kw_only=True)
class Loads:
    """Loads as multiples of the one that was asked.

    Args:
        rate_per_s: requests a second that were asked.
        highest: up to which the best holds, by figures alone; 0: not even a small one, infinite: all that were tried.
        limited_by: the conditions that it breaks next; "": none.
        beyond: who would be best just above; None: nobody of those tried holds there.
        quiet: who would be best at a quarter of the load; None: nobody.
    """

    rate_per_s: float
    highest: float
    limited_by: str
    beyond: Row | None
    quiet: Row | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values; of winners, what tells them apart."""
        told = dict(vars(self))
        for name in ("beyond", "quiet"):
            row = told[name]
            told[name] = None if row is None else {str(key): row[key] for key in row if key in row["keys"]}
        return told | {"highest": self.highest if math.isfinite(self.highest) else None}


def loads_of(
    basis: Basis,
    columns: TraceColumns,
    best: Deployment,
    smaller: Sequence[Deployment],
    larger: Sequence[Deployment],
    goal: Goal,
    constraints: Sequence[Constraint],
) -> Loads | None:
    """Serve the same requests, denser or sparser.

    Args:
        basis: of the search.
        columns: the requests.
        best: the deployment that is recommended.
        smaller: that may be better at a smaller load.
        larger: that may be at a larger.
        goal: what is wanted.
        constraints: what has to hold.
    Returns:
        None where no load can be changed: clients wait for their answers, or all requests come at once.
    """
    arrivals_ns = columns.arrival_ns
    if columns.num_clients is not None or arrivals_ns is None or not int(arrivals_ns[-1] - arrivals_ns[0]):
        return None
    base = float(basis.settings.get(SCALE, 1.0))

    def served(deployment: Deployment, load: float) -> dict[str, Any]:
        at = replace(basis, settings={**basis.settings, SCALE: base * load})
        became = serve(at, deployment, columns)
        return {**became.row, **deployment, "error": became.error, "keys": tuple(deployment)}

    def holds(row: Mapping[str, Any]) -> bool:
        return not row["error"] and all(each.excess(row) <= 0 for each in constraints)

    def winner(load: float, contenders: Sequence[Deployment]) -> Row | None:
        several = {identity(each): each for each in contenders}.values()
        rows = [row for each in several if holds(row := served(each, load))]
        return min(rows, key=goal.cost, default=None)

    with watched(0, "loads") as advance:

        def at(load: float) -> dict[str, Any]:
            advance(f"{load:.3g} times the load", 1)
            return served(best, load)

        ladder = Ladder(lambda step: 2 ** (step / STEPS), at)
        step = ladder.highest(holds)
        highest = 0.0 if step is None else ladder.load_at(step)
        above = ladder.load_at(0 if step is None else step + 1)
        row = ladder.row(0 if step is None else step + 1)
        broken = [each.text for each in constraints if row["error"] or each.excess(row) > 0]
        beyond, quiet = winner(above, larger), winner(LESS, smaller)
    span_s = float(arrivals_ns[-1] - arrivals_ns[0]) / NS_PER_S
    return Loads(
        rate_per_s=(arrivals_ns.size - 1) / span_s * base,
        highest=highest,
        limited_by=", ".join(broken),
        beyond=beyond,
        quiet=quiet,
    )

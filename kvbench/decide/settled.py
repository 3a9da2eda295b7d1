"""What intervals say of deployments: whether constraints hold, who is on the front, who cannot be told from whom."""

import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kvbench.decide.constraints import SATISFIED, VIOLATED, Constraint
from kvbench.decide.objectives import Goal
from kvbench.results.conditions import UNTOLD
from kvbench.results.front import Cost, cost_of, leaders, may_win, pareto_front
from kvbench.results.replays import DRAWS

FAILED = "failed"
NOBODY = -1
"""That stands for a deployment off the front."""
MACHINE = "hardware"


def settled(rows: pd.DataFrame, goals: Sequence[Goal], constraints: Sequence[Constraint]) -> pd.DataFrame:
    """Rows of deployments with what is said of them.

    Args:
        rows: of a summary, with intervals and, beside them, figures in replays; error, "" where it was served.
        goals: what is wanted.
        constraints: what has to hold.
    Returns:
        The same with verdict (of all constraints; FAILED where it was not served), limited_by (those that are not
        satisfied), on_front (who may be chosen and is beaten by none beyond doubt) and merged: of those, the place of
        the one that stands for it, from which it cannot be told in any goal; NOBODY off the front.
    """
    rows = judged(rows, constraints)
    competing = may_win(rows) & (rows["verdict"] == SATISFIED).to_numpy()
    apart = machines_apart(rows)
    costs = [cost_of(apart, goal.column, not goal.more).among(competing) for goal in goals]
    front = leaders(costs[0]) if len(costs) == 1 else pareto_front(*costs)
    return rows.assign(
        on_front=front,
        merged=merged(costs, front, (-1 if goals[0].more else 1) * rows[goals[0].column].to_numpy(dtype=float)),
    )


def judged(rows: pd.DataFrame, constraints: Sequence[Constraint]) -> pd.DataFrame:
    """Rows with their verdict and what they are limited by, as in `settled`; without intervals, by figures alone."""
    told = [_told(row, constraints) for row in rows.to_dict("records")]
    return rows.assign(
        verdict=pd.Series([verdict for verdict, _ in told], index=rows.index, dtype=object),
        limited_by=pd.Series([", ".join(limits) for _, limits in told], index=rows.index, dtype=object),
    )


def _told(row: dict[object, object], constraints: Sequence[Constraint]) -> tuple[str, list[str]]:
    if row["error"]:
        return FAILED, []
    own = {str(name): value for name, value in row.items()}
    verdicts = {each.text: each.verdict(own) for each in constraints}
    limits = [text for text, verdict in verdicts.items() if verdict != SATISFIED]
    for verdict in (VIOLATED, UNTOLD):
        if verdict in verdicts.values():
            return verdict, limits
    return SATISFIED, limits


def merged(costs: Sequence[Cost], front: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each on a front the place of who stands for it: the first, by `order`, from whom it cannot be told apart.

    Args:
        costs: of all points.
        front: who is on it.
        order: least first; who stands for others is not stood for.
    """
    apart = np.logical_or.reduce([each.less() | each.less().T for each in costs])
    found = np.full(len(front), NOBODY)
    standing: list[int] = []
    for place in sorted(np.flatnonzero(front), key=lambda each: order[each]):
        found[place] = next((each for each in standing if not apart[place, each]), place)
        if found[place] == place:
            standing.append(int(place))
    return found


def machines_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose figures in replays are in an order of each machine's own, so that what is paired is one machine's.

    What two machines' times are off by was measured apart; of one, replay i has the same times in every row.
    """
    drawn = [name for name in map(str, rows) if name.endswith(DRAWS)]
    if rows[MACHINE].nunique() < 2:  # noqa: PLR2004
        return rows
    told = {
        name: pd.Series(
            [_in_order(values, str(machine)) for values, machine in zip(rows[name], rows[MACHINE], strict=True)],
            index=rows.index,
            dtype=object,
        )
        for name in drawn
    }
    return rows.assign(**told)


def _in_order(values: np.ndarray, machine: str) -> np.ndarray:
    shuffled: np.ndarray = np.random.default_rng(zlib.crc32(machine.encode())).permutation(values)
    return shuffled

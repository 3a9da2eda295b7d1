"""What was found of prompts by turn and by tenant: counted by hand, kept or folded."""

import numpy as np
import pytest

from kvbench.fleet.frames import FleetRun, fleet_frames
from kvbench.fleet.hits import HITS, MOST_NUMBERED, HitSums
from kvbench.workload.trace_columns import TraceColumns
from tests.support.fleet_columns import OBJECTIVE, columns

MANY = MOST_NUMBERED + 6


def trace(num, sessions, tenants=None):
    ones = np.ones(num, np.int64)
    return TraceColumns(
        arrival_ns=ones * 0, num_prompt_tokens=ones, num_output_tokens=ones, sessions=sessions, tenants=tenants
    )


def ended(**changed):
    return columns(num_requests=len(changed["turn"]), **changed).result


def test_turns_and_tenants_by_hand():
    # Two sessions of two turns, of tenants 5 and 0; and the same once more, of which the last was never begun.
    sums = HitSums(trace(4, np.array([0, 1, 0, 1]), np.array([5, 0, 5, 0])))
    served = {
        "session": np.array([0, 1, 0, 1, 2, 3, 2, 3]),
        "turn": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "prompt_tokens": np.array([10, 20, 40, 80, 10, 20, 40, 80]),
        "hit_tokens": np.array([0, 0, 8, 16, 2, 4, 10, 0]),
        "admitted_ns": np.array([0, 0, 0, 0, 0, 0, 0, -1]),
    }
    sums.add(ended(**served))
    rows = [[row[name] for name in HITS[1:]] for row in sums.rows()]
    assert rows == [
        ["turn", "0", 4, 60, 6, 0.1],
        ["turn", "1", 3, 160, 34, 0.2125],
        ["tenant", "0", 3, 120, 20, pytest.approx(1 / 6)],
        ["tenant", "5", 4, 100, 20, 0.2],
    ]
    folded = HitSums(trace(4, np.array([0, 1, 0, 1]), np.array([5, 0, 5, 0])))
    for first in range(0, 8, 3):
        folded.add(ended(**{name: column[first : first + 3] for name, column in served.items()}))
    assert list(folded.rows()) == list(sums.rows())


def test_late_turns_stand_together_and_one_tenant_is_none():
    sums = HitSums(trace(MANY, np.zeros(MANY, np.int64)))
    tokens = np.full(MANY, 10)
    sums.add(ended(session=tokens * 0, turn=np.arange(MANY), prompt_tokens=tokens, hit_tokens=tokens // 2))
    *_, last = rows = list(sums.rows())
    assert len(rows) == MOST_NUMBERED + 1
    assert (last["number"], last["num_requests"], last["hit_share"]) == (f"{MOST_NUMBERED} and on", 6, 0.5)
    assert {row["by"] for row in rows} == {"turn"}


def test_a_table_of_results_where_anything_was_found():
    run = columns(num_requests=2)
    assert not fleet_frames({"a": run}, "chat", OBJECTIVE).tables
    sums = HitSums(trace(2, np.array([0, 0])))
    sums.add(ended(session=np.zeros(2, int), turn=np.arange(2), hit_tokens=np.array([0, 3])))
    ((name, table),) = fleet_frames({"a": run._replace(hits=sums)}, "chat", OBJECTIVE).tables.items()
    assert (name, table.columns.tolist(), table["strategy"].tolist()) == ("hits", list(HITS), ["a", "a"])
    assert isinstance(run, FleetRun)

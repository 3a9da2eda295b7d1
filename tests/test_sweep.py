"""A sweep's points and the joining of what they leave."""

import pandas as pd
import pytest

from kvbench.backend.counted import CountedBackend
from kvbench.decide.sweep import Point, joined, swept_values
from kvbench.results.results import Results
from kvbench.results.schema import REQUESTS, STEPS, SUMMARY
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session
from tests.test_golden import ARTICLE

HOW = {"num_repetitions": 1, "num_warmup": 0, "budget_bytes": None}


def point(scenario, *appends, **values):
    strategies = {
        "static": Static(max_seq_len=64),
        "dynamic": Dynamic(initial_capacity=4, growth_factor=2.0, max_capacity=64, round_to=1),
    }
    sessions = (Session(0, tuple(Request(count) for count in appends)),)
    return Point(scenario=scenario, sessions=sessions, strategies=strategies, values=values)


def test_points_are_run_and_their_rows_told_apart():
    points = [point("short", 3, 3, size=1, kind="a"), point("long", 20, size=2, kind="b")]
    assert [each.num_tokens for each in points] == [2 * 6, 2 * 20]
    found = joined([each.run(CountedBackend(ARTICLE), **HOW) for each in points], [each.values for each in points])
    columns = ["scenario", "strategy", "size", "kind"]
    rows = [
        ("short", "static", 1, "a"),
        ("short", "dynamic", 1, "a"),
        ("long", "static", 2, "b"),
        ("long", "dynamic", 2, "b"),
    ]
    assert list(found.summary[columns].itertuples(index=False, name=None)) == rows
    assert found.summary["num_tokens"].tolist() == [6, 6, 20, 20]
    for frame in (found.requests, found.steps):
        told = frame[columns].drop_duplicates().astype({"scenario": str, "strategy": str, "kind": str})
        assert list(told.itertuples(index=False, name=None)) == rows
        assert (frame[["kind", "scenario", "strategy"]].dtypes == "category").all()  # there may be millions of them
    assert found.timeline is None


def test_a_sweep_of_nothing_has_the_columns_of_rows():
    nothing = joined([], [])
    for frame, columns in ((nothing.summary, SUMMARY), (nothing.requests, REQUESTS), (nothing.steps, STEPS)):
        assert (list(frame), len(frame)) == (list(columns), 0)


def test_a_jobs_rows_that_name_their_scenario_keep_it():
    study = Results(
        summary=pd.DataFrame({"fraction": [0.5]}), steps=pd.DataFrame({"strategy": ["a"], "scenario": ["its own"]})
    )
    found = joined([study], [{"size": 3}])
    assert found.summary.to_dict("records") == [{"fraction": 0.5, "size": 3}]
    assert found.steps["scenario"].tolist() == ["its own"]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        joined([study], [])


def test_what_was_swept_is_read_from_what_was_asked_for():
    asked = [
        "+scenario=bursty",
        "strategy=static",
        "device=cpu",
        "+model.num_layers=2",
        "x=1.5",
        "y=[1,2]",
        "attend=true",
    ]
    parameters = ["strategy", "scenario", "model.num_layers", "x", "y", "attend", "unsaid"]
    values = {"model.num_layers": 2, "x": 1.5, "y": "[1,2]", "attend": "true", "unsaid": None}
    assert swept_values(asked, parameters) == values

"""Which keys a goal depends on: by hand, and of a figure that is a product of known factors."""

import itertools

import numpy as np
import pandas as pd
import pytest

from kvbench.decide.importance import importance
from kvbench.decide.objectives import Goal

GOAL = Goal("cost_per_million_tokens")


def grid(cost):
    """Each of two machines, three strategies and five sizes once."""
    rows = pd.DataFrame(itertools.product("ab", "xyz", range(1, 6)), columns=["hardware", "strategy", "size"])
    return rows.assign(error="", cost_per_million_tokens=[cost(*each) for each in rows.itertuples(index=False)])


def test_shares_by_hand():
    """Machines differ by e², sizes by e a step: 30 rows, sums of squares 30 of machines and 60 of sizes, 0 within."""
    rows = grid(lambda hardware, strategy, size: np.exp(2 * (hardware == "b") + size))
    found = importance(rows, ["hardware", "strategy", "size"], GOAL)
    assert list(found) == ["size", "hardware", "strategy"]
    assert found["size"] == pytest.approx(1 - (30 / 25) / (90 / 29))
    assert found["hardware"] == pytest.approx(1 - (60 / 28) / (90 / 29))
    assert found["strategy"] == 0


def test_what_is_chance_has_about_no_share():
    rng = np.random.default_rng(0)
    many = pd.DataFrame({"range": rng.uniform(1, 3, 400), "kind": rng.integers(0, 3, 400), "error": ""})
    rows = many.assign(cost_per_million_tokens=np.exp(many["range"]) * rng.uniform(0.99, 1.01, 400))
    found = importance(rows, ["kind", "range"], GOAL)
    assert list(found) == ["range", "kind"]
    assert 0.9 < found["range"] < 0.96  # quarters of a range leave a sixteenth of its spread
    assert found["kind"] < 0.02


def test_a_key_is_judged_among_those_that_have_it_and_of_few_nothing_is_said():
    rows = grid(lambda hardware, strategy, size: float(size))
    rows["strategy.x.growth"] = rows["size"].where(rows["strategy"] == "x")
    assert "strategy.x.growth" not in importance(rows, ["strategy.x.growth"], GOAL)  # ten have it
    twice = pd.concat([rows, rows])
    assert importance(twice, ["strategy.x.growth"], GOAL) == {"strategy.x.growth": pytest.approx(1)}
    assert importance(rows[:19], ["size"], GOAL) == {}
    assert importance(rows.assign(error="no room"), ["size"], GOAL) == {}
    assert importance(rows.assign(cost_per_million_tokens=1.0), ["size"], GOAL) == {}

"""Verdicts, the front and who stands for whom, by hand; and who is worth a closer look."""

import numpy as np
import pandas as pd

from kvbench.decide.constraints import constraints_of
from kvbench.decide.near import layered, near_front
from kvbench.decide.objectives import goals_of
from kvbench.decide.settled import settled

COST, WAIT = "cost_per_million_tokens", "ttft_p99_s"
MOVES = np.array([-0.02, 0.0, 0.02, 0.04])


def row(cost, wait, half=0.1, own=0.0, hardware="h100", **changed):
    """Replays of one machine move alike; `own` is what a row moves by against them."""
    return {
        "hardware": hardware, "outcome": "completed", "error": "", "source": "modelled", "scope": "model",
        "interval_from": "residuals", "step_error": np.nan, "reference": False,
        COST: cost, f"{COST}_low": cost - half, f"{COST}_high": cost + half,
        f"{COST}_draws": cost + MOVES + own * np.array([1, -1, 1, -1]),
        WAIT: wait, f"{WAIT}_low": wait - half, f"{WAIT}_high": wait + half, f"{WAIT}_draws": wait + MOVES,
    } | changed  # fmt: skip


def told(rows, goals=(COST,), subject_to=("ttft_p99<=1",)):
    frame = settled(pd.DataFrame(rows), goals_of(goals, []), constraints_of(subject_to) if subject_to else ())
    return frame[["verdict", "limited_by", "on_front", "merged"]].values.tolist()


def test_a_constraint_is_judged_by_all_of_the_interval():
    assert told([row(1, 0.5), row(0.5, 0.95), row(0.4, 1.05), row(0.3, 1.2), row(0.2, 0.5, error="no room")]) == [
        ["satisfied", "", True, 0],
        ["cannot be told", "ttft_p99<=1", False, -1],
        ["cannot be told", "ttft_p99<=1", False, -1],
        ["violated", "ttft_p99<=1", False, -1],
        ["failed", "", False, -1],
    ]


def test_one_that_is_less_in_each_replay_is_not_merged_though_intervals_overlap():
    found = told([row(1.00, 0.5), row(1.01, 0.5), row(0.999, 0.5, own=0.01)])
    assert [each[2:] for each in found] == [[True, 2], [False, -1], [True, 2]]


def test_two_machines_are_told_apart_by_their_own_intervals():
    # Moves of 0.06 within either machine's replays: paired, a difference of 0.01 would be one.
    assert [each[2:] for each in told([row(1.00, 0.5), row(1.01, 0.5, hardware="l40s")])] == [[True, 0], [True, 0]]
    assert [each[2:] for each in told([row(1.00, 0.5), row(1.2, 0.5, hardware="l40s")])] == [[True, 0], [False, -1]]


def test_references_and_what_was_cut_short_are_never_chosen():
    found = told([row(1, 0.5), row(0.5, 0.5, reference=True), row(0.4, 0.5, outcome="too_long 1 of 3")])
    assert [each[2] for each in found] == [True, False, False]


def test_a_front_of_two_goals_merges_what_cannot_be_told_apart_in_either():
    rows = [row(1.0, 0.5), row(1.001, 0.5, own=0.01), row(2.0, 0.3), row(2.0, 0.6), row(1.0, 0.7)]
    found = told(rows, goals=(COST, WAIT), subject_to=())
    assert [each[2:] for each in found] == [[True, 0], [True, 0], [True, 2], [False, -1], [False, -1]]


def test_who_is_looked_at_closely():
    def figures(cost, wait):
        return {COST: cost, WAIT: wait}

    goals, limits = goals_of([COST], []), constraints_of(["ttft_p99<=1"])
    rows = [figures(3, 0.5), figures(1, 0.9), figures(2, 0.9), figures(0.5, 1.2), figures(0.1, 9), figures(5, 1.1)]
    assert near_front(rows, goals, limits, 4) == [1, 2, 0, 3]
    assert near_front(rows, goals, limits, 2) == [1, 2]
    assert near_front([figures(1, 9), figures(2, 8)], goals, limits, 4) == [1]
    assert near_front([figures(float("nan"), 0.5), figures(1, 0.5)], goals, limits, 4) == [1]
    assert near_front([], goals, limits) == []


def beats(costs, others):
    return (costs <= others).all() and (costs < others).any()


def test_layers_are_those_of_a_plain_count():
    rng = np.random.default_rng(5)
    for _ in range(50):
        costs = rng.integers(0, 6, size=(12, 2)).astype(float)
        left, plain = list(range(12)), []
        while left:
            layer = [each for each in left if not any(beats(costs[other], costs[each]) for other in left)]
            plain.append(set(layer))
            left = [each for each in left if each not in layer]
        found = layered(costs, np.arange(12), 12)
        for layer in plain:
            taken, found = found[: len(layer)], found[len(layer) :]
            assert set(taken) == layer

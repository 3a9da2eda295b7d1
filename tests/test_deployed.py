"""C9 as a deployment: answers by hand, and what no fleet serves."""

import math
import re

import pandas as pd
import pytest

pytest.importorskip("numba", reason="the extra fleet is not installed")

from kvbench.results.schema import SUMMARY
from kvbench.strategy.predictive import Predictive
from kvbench.studies.base import Advised
from kvbench.studies.claims.deployed import (
    ABOUT,
    BROKEN,
    CHOICES,
    CONDITIONS,
    COSTS,
    KINDS,
    OF_OWN,
    OTHERS,
    deployed,
    judged_choice,
    refusal,
)
from kvbench.studies.claims.finding import FAILS, HOLDS, NO_FIGURE, NOT_CLAIMED, UNDECIDED
from tests.test_claims import ARTICLE, CountedBackend, setting

CODE = next(kind for kind in KINDS if kind.name == "code")


def row(strategy, cost, verdict="satisfied", limited_by="", half=0.0, error=""):
    """A deployment by hand, whose cost has ends that far away."""
    return dict.fromkeys(SUMMARY, math.nan) | {
        "strategy": strategy, "cost_per_million_tokens": cost, "cost_per_million_tokens_low": cost - half,
        "cost_per_million_tokens_high": cost + half, "interval_from": "residuals", "verdict": verdict,
        "limited_by": limited_by, "error": error,
    }  # fmt: skip


def judged(*rows, best=0):
    frame = pd.DataFrame(rows).assign(deployment=range(len(rows)))
    findings, said = judged_choice(CODE, Advised("Use it.", frame, best))
    return {each.definition: (each.measured, each.verdict) for each in findings}, said


def test_the_choice_holds_where_nothing_costs_less_by_what_is_worth_a_change():
    found, said = judged(row("paged", 1.0), row(CODE.choice, 1.009), row("static", 2.0))
    assert found == {BROKEN: (0, HOLDS), COSTS: (1.009, HOLDS), OF_OWN: (1, HOLDS)}
    assert said == (
        "holds: dynamic, factor 2 costs 1.009 times what paged does; of the article's own, dynamic, factor 2 costs the "
        "least. Use it."
    )
    found, said = judged(row("int4", 1.0), row(CODE.choice, 1.2), row("static", 1.0))
    assert found == {BROKEN: (0, HOLDS), COSTS: (1.2, FAILS), OF_OWN: (1.2, FAILS)}
    assert said.startswith("does not hold: dynamic, factor 2 costs 1.2 times what int4 does; of the article's own, ")


def test_intervals_that_reach_both_sides_decide_nothing():
    found, said = judged(row("paged", 1.0, half=0.1), row(CODE.choice, 1.05, half=0.1))
    assert found[COSTS][1] == UNDECIDED
    assert said.startswith("cannot be told: dynamic, factor 2 costs 1.05 times (0.")


def test_what_breaks_a_condition_does_not_hold_however_little_it_costs():
    found, said = judged(row("paged", 1.0), row(CODE.choice, 0.5, "violated", "ttft_p99_s<=10, quality.kl<=0.02"))
    assert found == {BROKEN: (2, FAILS), COSTS: (0.5, NOT_CLAIMED)}
    assert said.startswith("does not hold: it breaks ttft_p99_s<=10, quality.kl<=0.02; dynamic, factor 2 costs 0.5")
    found, said = judged(row("paged", 1.0), row(CODE.choice, 1.0, "cannot be told", "quality.kl<=0.02"))
    assert (found[BROKEN][1], found[COSTS][1]) == (UNDECIDED, HOLDS)
    assert said.startswith("cannot be told: it may break quality.kl<=0.02; ")


def test_where_nothing_holds_or_it_was_not_served_it_cannot_be_told():
    for rows, best, why in (
        ([row("paged", 1.0), row(CODE.choice, 1.0, error="no room")], 0, "no room"),
        ([row(CODE.choice, 1.0, "violated", "x")], None, "nothing that was tried is known to hold"),
    ):
        found, said = judged(*rows, best=best)
        assert [verdict for _, verdict in found.values()] == [NO_FIGURE]
        assert said == f"cannot be told: {why}. Use it."


def test_each_kind_is_asked_for_with_the_choice_beside_others():
    asked = []

    def recommend(scenario, strategies, **said):
        asked.append((scenario, [*strategies], said["subject_to"]))
        return Advised("Use paged.", pd.DataFrame([row(name, 1.0) | {"deployment": 0} for name in strategies]), 0)

    findings, sentences = deployed(setting(CountedBackend(ARTICLE), recommend=recommend))
    assert [names for _, names, _ in asked] == [
        [*OTHERS], [*OTHERS], [*OTHERS, "dynamic, factor 2"], [*OTHERS],
    ]  # fmt: skip
    assert {conditions for *_, conditions in asked} == {CONDITIONS}
    assert [each.verdict for each in findings if each.condition.startswith("short chat")] == [NO_FIGURE]
    assert sentences[0] == ABOUT
    assert re.match("C9, short chat, deployed: cannot be told: no fleet serves it: Predictive decides by", sentences[1])
    assert all(
        kind.scenario.num_requests == scenario.num_requests for kind, (scenario, *_) in zip(KINDS, asked, strict=True)
    )
    assert deployed(setting(CountedBackend(ARTICLE))) == ([], [])


def test_what_no_fleet_serves_is_said():
    assert refusal(Predictive()) == "no fleet serves it: Predictive decides by each sequence's past appends"
    assert refusal(CHOICES["dynamic, factor 2"]) == ""

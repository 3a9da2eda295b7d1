"""An answer in plain words, with its doubt: of searches by hand, and of one that is served."""

import json
import math
import re

import pandas as pd
import pytest

import kvbench as kv
from kvbench.api.advice_text import CHANGES, LEFT_OUT, LIMITED, SAVES, SURE, USE, Facts, parts_of
from kvbench.api.advising import deployment_of
from kvbench.api.loads import Loads
from kvbench.api.recommending import Recommended
from kvbench.api.tuning import Tuned
from kvbench.configuration.errors import UsageError
from kvbench.decide.advice import (
    BEST,
    EVEN,
    advised_of,
    contenders_of,
    nearest_of,
    otherwise,
    records,
    rooms,
    unmet,
    untold,
    verdict_of,
)
from kvbench.decide.constraints import SATISFIED, VIOLATED, constraints_of
from kvbench.decide.objectives import goals_of
from kvbench.decide.settled import judged
from kvbench.decide.space import Dimension, Space
from kvbench.results.conditions import UNTOLD
from kvbench.results.schema import SUMMARY
from kvbench.tried import Tried
from kvbench.workload.arrivals import Poisson
from kvbench.workload.conversation import Conversations
from kvbench.workload.lengths import Uniform

COST, KEYS = "cost_per_million_tokens", ("hardware", "strategy", "parallel.tensor")
GOALS = goals_of((COST,), ())
LIMITS = constraints_of(["ttft_p99<=1", "quality.kl<=0.02"])


def row(strategy, cost, ttft_s, kl=0.0, hardware="h100", **changed):
    """A deployment by hand, with intervals of a tenth."""
    found = dict.fromkeys(SUMMARY, math.nan) | {
        "hardware": hardware, "strategy": strategy, "parallel.tensor": 1, "num_accelerators": 1, "error": "",
        "outcome": "completed", "reference": False, "source": "modelled", "interval_from": "residuals",
        "memory_share": 0.75, "arrivals_share": 0.1, "computing_share": 0.15, "batch_share": 0.0, "pool_share": 0.0,
        "quality_kl": kl, "quality_from": "by definition: lossless" if kl == 0 else "proxy Small, some predictions",
        "quality_kl_low": kl, "quality_kl_high": kl,
    }  # fmt: skip
    for name, value in ((COST, cost), ("ttft_p99_s", ttft_s)):
        found |= {name: value, f"{name}_low": 0.9 * value, f"{name}_high": 1.1 * value}
    if math.isnan(kl):
        found["quality_from"] = "cannot be told: not measured"
    return found | changed


def searched(*rows, best=None, against=()):
    """A search by hand, whose best is a place, and its comparisons with the first row as the default."""
    frame = judged(pd.DataFrame(rows), LIMITS)
    frame.insert(0, "deployment", range(len(frame)))
    frame = frame.assign(
        on_front=frame["deployment"] == best, merged=[best if n == best else -1 for n in range(len(frame))]
    )
    chosen = ([best] if best is not None else []) + [0]
    roles = (["best"] if best is not None else []) + ["default"]
    columns = ("default", "holds", "metric", "best", "usual", "ratio", "ratio_low", "ratio_high", "verdict")
    return Tuned(
        rows=frame,
        judged=frame.iloc[chosen].assign(role=roles).reset_index(drop=True),
        against=pd.DataFrame(list(against), columns=list(columns)),
        keys=KEYS,
        goals=GOALS,
        subject_to=tuple(each.text for each in LIMITS),
        scenario="chats",
        requests="100 requests, judged on as many of another seed",
        size=len(frame),
        is_exhaustive=True,
    )


def parts(found, loads=None, doubts=("Nobody measured it.",)):
    verdict = verdict_of(found.rows, found.judged, found.against, COST)
    advised = advised_of(found.judged, verdict, GOALS[0])
    facts = Facts(
        verdict=verdict,
        tuned=found,
        best=next(iter(records(found.judged[found.judged["role"] == BEST])), None),
        advised=advised,
        rooms=[] if advised is None else rooms(advised, LIMITS),
        unmet=unmet(found.rows, LIMITS),
        nearest=nearest_of(found.rows, LIMITS),
        otherwise=otherwise(found.rows, GOALS, LIMITS, found.best),
        untold=untold(found.rows, LIMITS),
        loads=loads,
        doubts=doubts,
        not_tried=["recompute"],
        searched=(),
    )
    return Recommended(verdict=facts.verdict, tuned=found, loads=loads, parts=parts_of(facts))


def against(ratio, verdict, holds="satisfied"):
    return {
        "default": "h100", "holds": holds, "metric": COST, "best": 1.0, "usual": 1.0 / ratio, "ratio": ratio,
        "ratio_low": ratio - 0.01, "ratio_high": ratio + 0.01, "verdict": verdict,
    }  # fmt: skip


def test_the_answer_says_what_it_saves_what_limits_it_and_what_would_change_it():
    found = searched(
        row("paged", 2.0, 0.5),
        row("int4", 1.0, 0.8, kl=0.01),
        row("int2", 0.5, 0.5, kl=0.06),
        row("sinks", 1.2, 0.5, kl=math.nan),
        best=1,
        against=[against(0.5, "better")],
    )
    winner = records(found.rows)[2] | {"keys": KEYS}
    loads = Loads(rate_per_s=3.0, highest=1.6, limited_by="ttft_p99<=1", beyond=None, quiet=winner)
    made = parts(found, loads)
    assert made.verdict == SATISFIED
    assert made.parts[USE] == ("Use int4 on 1 × h100.",)
    assert made.parts[SAVES] == (
        "Cost of a million tokens: 0.5 times (0.49 to 0.51) that of the usual choice (paged on 1 × h100): better.",
    )
    assert "it is satisfied." in made.parts[SURE][0]
    assert made.parts[SURE][1:] == (
        "Intervals are at 90 %, from residuals.",
        "Nobody measured it.",
        "Quality: proxy Small, some predictions.",
    )
    assert made.parts[LIMITED] == (
        "What the next request waited for, most of the time: memory 75 %.",
        "The condition with least room is ttft_p99<=1: TTFT, 99th percentile 800 ms (720 ms to 880 ms).",
    )
    assert made.parts[CHANGES] == (
        "ttft_p99<=1 is the nearest: 20 % of it is left.",
        "Without quality.kl<=0.02, int2 on 1 × h100 would win: Cost of a million tokens 0.5 (0.45 to 0.55).",
        "It holds up to 1.6 times this load of 3 requests/s, by figures alone; then ttft_p99<=1 breaks.",
        "Above that, none of the best of each size holds; more replicas or ranks than these were not tried.",
        "At a quarter of this load, int2 on 1 × h100 wins: Cost of a million tokens 0.5 (0.45 to 0.55).",
    )
    assert "sinks: cannot be told: not measured." in made.parts[LEFT_OUT]
    assert "Strategies that were not tried: recompute." in made.parts[LEFT_OUT]
    table = made.text
    assert re.search(r"best tried +int4 on 1 × h100 +satisfied +1 ± 0.1", table)
    assert re.search(r"usual +paged on 1 × h100 +satisfied +2 ± 0.2", table)
    assert json.loads(json.dumps(made.as_dict()))["verdict"] == SATISFIED


def test_what_is_no_better_than_the_usual_choice_is_not_sold():
    found = searched(row("paged", 1.0, 0.5), row("static", 0.99, 0.5), best=1, against=[against(0.99, UNTOLD)])
    made = parts(found)
    assert made.verdict == EVEN
    assert made.parts[USE] == (
        "Keep the usual choice, paged on 1 × h100: static on 1 × h100 is not better beyond doubt, or by less than 1 %.",
    )
    same = searched(row("paged", 1.0, 0.5), row("static", 1.2, 0.5), best=0, against=[against(1.0, "equal")])
    assert parts(same).parts[USE] == (
        "Keep the usual choice, paged on 1 × h100: what else was tried is not better beyond doubt, or by less than "
        "1 %.",
    )
    little = searched(row("paged", 1.0, 0.5), row("static", 0.995, 0.5), best=1, against=[against(0.995, "better")])
    assert parts(little).verdict == EVEN  # beyond doubt, and not worth a change
    better = searched(row("paged", 2.0, 1.5), row("static", 1.0, 0.5), best=1, against=[against(0.5, UNTOLD, VIOLATED)])
    made = parts(better)
    assert made.verdict == SATISFIED  # the usual choice does not hold: there is nothing to beat
    assert made.parts[SAVES] == ("The usual choice (paged on 1 × h100) does not hold: ttft_p99<=1.",)


def test_how_sure_it_is_is_said_of_what_is_advised():
    """Of the usual choice, where that is to be kept: its room, and its verdict."""
    lossy = row("int4", 0.995, 0.9, kl=0.01)
    found = searched(row("paged", 1.0, 0.5), lossy, best=1, against=[against(0.995, "better")])
    made = parts(found)
    assert made.verdict == EVEN
    assert made.parts[SURE][-1] == "Quality: by definition: lossless."
    assert made.parts[LIMITED][-1].endswith("TTFT, 99th percentile 500 ms (450 ms to 550 ms).")
    assert made.parts[CHANGES][0] == "ttft_p99<=1 is the nearest: 50 % of it is left."


@pytest.mark.parametrize(
    ("later", "how"),
    [
        ({"verdict": VIOLATED, "limited_by": "ttft_p99<=1"}, "it is violated: ttft_p99<=1"),
        ({"verdict": UNTOLD, "limited_by": "ttft_p99<=1"}, "it cannot be told: ttft_p99<=1"),
        ({"verdict": "failed", "error": "no room"}, "could not serve: no room"),
    ],
)
def test_a_best_that_fails_on_other_requests_is_not_advised(later, how):
    best = "int4 on 1 × h100 holds on the requests that were searched on, and on others"
    for usual, verdict, said in (
        (0.5, EVEN, f"Keep the usual choice, paged on 1 × h100: {best} {how}."),
        (3.0, UNTOLD, f"It cannot be told: {best} {how}."),
    ):
        found = searched(row("paged", 2.0, usual), row("int4", 1.0, 0.8), best=1, against=[against(0.5, "better")])
        for name, value in later.items():
            found.judged.loc[found.judged["role"] == BEST, name] = value
        made = parts(found)
        assert made.verdict == verdict
        assert made.parts[USE][0] == said


def test_where_nothing_holds_it_says_which_condition_nothing_meets_and_the_nearest():
    found = searched(row("paged", 1.0, 3.0), row("int2", 0.5, 2.0, kl=0.06), row("exact", 0.1, 0.5, reference=True))
    made = parts(found)
    assert made.verdict == VIOLATED
    assert made.parts[USE] == (
        "Nothing that was tried holds.",
        "Nothing meets ttft_p99<=1; nearest is int2 on 1 × h100, TTFT, 99th percentile 2 s (1.8 s to 2.2 s).",
    )
    assert SAVES not in made.parts
    assert LIMITED not in made.parts
    apart = parts(searched(row("paged", 1.0, 3.0), row("int2", 0.5, 0.5, kl=0.2)))
    assert apart.parts[USE] == (
        "Nothing that was tried holds.",
        "Each condition is met by some, and all together by none; nearest is paged on 1 × h100.",
    )
    assert apart.parts[CHANGES] == (
        "Without ttft_p99<=1, paged on 1 × h100 would win: Cost of a million tokens 1 (0.9 to 1.1).",
        "Without quality.kl<=0.02, int2 on 1 × h100 would win: Cost of a million tokens 0.5 (0.45 to 0.55).",
    )


def test_what_cannot_be_told_is_an_answer():
    made = parts(searched(row("sinks", 1.0, 0.5, kl=math.nan), row("paged", 1.0, 2.0)))
    assert made.verdict == UNTOLD
    assert made.parts[USE] == ("It cannot be told: nothing that was tried is known to hold beyond doubt.",)
    assert "sinks: cannot be told: not measured." in made.parts[LEFT_OUT]


def test_contenders_are_the_best_of_each_kind_and_none_that_cannot_be_told():
    found = searched(
        row("paged", 2.0, 0.5), row("paged", 1.0, 3.0), row("sinks", 0.1, 0.5, kl=math.nan), row("static", 1.5, 0.5)
    )
    assert [each["deployment"] for each in contenders_of(found.rows, GOALS, LIMITS, ["strategy"], 8)] == [1, 3]
    assert [each["deployment"] for each in contenders_of(found.rows, GOALS, LIMITS, ["strategy"], 1)] == [1]
    assert [each["deployment"] for each in contenders_of(found.rows, GOALS, LIMITS, ["strategy"], 8, 0)] == [3, 0]
    near = searched(row("paged", 2.0, 0.5), row("static", 1.0, 0.95))  # by its interval it may be later than 1 s
    assert near.rows["verdict"].tolist() == [SATISFIED, UNTOLD]
    assert [each["deployment"] for each in contenders_of(near.rows, GOALS, LIMITS, ["strategy"], 8)] == [1, 0]


def test_a_rows_deployment_has_values_as_they_were_tried():
    space = Space(
        (
            Dimension(key="strategy", tried=Tried(choices=("paged", "sinks"))),
            Dimension(key="model.kv_dtype", tried=Tried(choices=(None, "fp8_e4m3"))),
            Dimension(key="strategy.sinks.window", tried=Tried(64, 4096), of="strategy", at=("sinks",)),
            Dimension(key="strategy.sinks.share", tried=Tried(0.1, 0.9), of="strategy", at=("sinks",)),
        )
    )
    tried = [
        {"strategy": "paged", "model.kv_dtype": None},
        {"strategy": "sinks", "model.kv_dtype": "fp8_e4m3", "strategy.sinks.window": 100, "strategy.sinks.share": 0.5},
    ]
    back = [deployment_of(space, each) for each in records(pd.DataFrame(tried))]  # 100 is 100.0 there
    assert back == tried
    assert type(back[1]["strategy.sinks.window"]) is int


CHATS = Conversations(
    num_requests=120,
    turns=1,
    arrivals=Poisson(rate_per_s=20),
    prompts=Uniform(low=200, high=900),
    outputs=Uniform(low=20, high=60),
)
SERVED = {
    "model": "llama3_8b",
    "hardware": ["h100", "l40s"],
    "parallel": {"tensor": [1]},
    "settings": {"backend.replays": 2, "quality.proxy": "smollm2"},
}


def test_a_served_answer_holds_together():
    pytest.importorskip("numba", reason="the extra fleet is not installed")
    found = kv.recommend(CHATS, ["paged", "int8", "int2"], subject_to=["ttft_p90<=0.5", "quality.kl<=0.02"], **SERVED)
    assert found.verdict in (SATISFIED, EVEN)
    assert list(found.parts) == [USE, SAVES, SURE, LIMITED, CHANGES, LEFT_OUT]
    assert found.tuned.best["strategy"] in ("paged", "int8")  # int2 is cheaper in bytes, and loses too much
    assert (found.tuned.rows.loc[found.tuned.rows["strategy"] == "int2", "verdict"] == VIOLATED).all()
    assert found.loads.highest > 1
    assert found.text.splitlines()[2] == "What to use"
    assert any("vllm 0.24.0" in sentence or "widest" in sentence for sentence in found.parts[SURE])
    told = json.loads(json.dumps(found.as_dict()))
    assert told["loads"]["highest"] == found.loads.highest
    nothing = kv.recommend(CHATS, ["paged", "static"], subject_to="ttft_p90<=0.000001", **SERVED)
    assert nothing.verdict == VIOLATED
    assert nothing.loads is None
    assert nothing.parts[USE][1].startswith("Nothing meets ttft_p90<=0.000001; nearest is ")
    few = kv.recommend(CHATS, ["paged", "static"], subject_to=["ttft_p90<=0.5", "ttft_p99<=1"], **SERVED)
    assert few.verdict == UNTOLD
    assert few.parts[USE][1:] == ("Nothing has a figure for ttft_p99<=1.",)
    assert few.parts[LEFT_OUT][0].startswith("paged and static: ttft_p99_s is empty; a percentile takes ten requests")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"subject_to": "ttft_p9<=1"}, "unknown metric 'ttft_p9'"),
        ({"subject_to": "fast"}, "subject_to is a measure, a comparison and a number"),
        ({"subject_to": []}, "subject_to says what has to hold"),
        ({"minimise": ["speed"]}, "unknown metric 'speed'"),
        ({"strategies": ["paged"], "hardware": ["h100"]}, "there is one deployment, and nothing to search"),
        ({"hardware": ["h1000"]}, "Did you mean 'h100'"),
    ],
)
def test_bad_input_is_refused(changed, said):
    given = SERVED | {"subject_to": "ttft_p90<=1"} | changed
    with pytest.raises(UsageError, match=re.escape(said)):
        kv.recommend(CHATS, given.pop("strategies", ["paged", "static"]), **given)

"""Experiments: figures by hand on a backend without tensors, and what configuration gives them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from kvbench.api.study import experiment_of
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.configuration.errors import UsageError
from kvbench.studies.base import Findings, Setting
from kvbench.studies.comprehensive import sentences_of as comprehensive_sentences
from kvbench.studies.growth_factors import with_cost
from kvbench.studies.ranges import COSTS_LITTLE, GROWTH, KEPT, ON_GROWTH_FRONT, SAVES
from tests.support.catalogue import TINY, node_of
from tests.support.drawing import words
from tests.support.fake import Fake
from tests.test_configuration import composed
from tests.test_golden import ARTICLE, TOKEN


def setting(backend=None, num_repetitions=2):
    return Setting(
        backend=backend or Fake(ARTICLE),
        backend_of=Fake,
        num_repetitions=num_repetitions,
        num_warmup=1,
        budget_bytes=None,
        seed=0,
    )


def experiment(name, **changed):
    return experiment_of({"experiment": node_of("experiment", name) | changed, "trusted": []})


@pytest.fixture(scope="module")
def comprehensive():
    made = experiment("comprehensive")
    return made, made.run(setting())


def row_of(table, scenario, strategy):
    (found,) = table[(table["scenario"] == scenario) & (table["strategy"] == strategy)].to_dict("records")
    return found


def test_dynamic_on_short_chat_by_hand(comprehensive):
    # 256, 384, 576, 864, 1296 slots (tests/test_golden.py): 4 resizes; at the last, half of 864 is held beside 1296.
    # Utilization is highest where 500 tokens are in 576 slots.
    row = row_of(comprehensive[1].summary, "short_chat", "dynamic")
    assert row["num_resizes"] == 4
    assert row["peak_bytes"] == (1296 + 432) * TOKEN
    assert row["cumulative_bytes"] == (256 + 384 + 576 + 864 + 1296) * TOKEN
    assert row["utilization_peak"] == 500 / 576
    assert row["efficiency"] == pytest.approx(500 / 576 / (3376 * 32 / 1024 / 1000))
    assert row["total_s"] == pytest.approx(6 * 0.05, rel=0.01)  # the backend's 50 ms an append


def test_what_cannot_be_held_has_an_outcome_and_no_figures(comprehensive):
    table = comprehensive[1].summary
    failed = table[table["outcome"] != "completed"]
    assert failed["scenario"].unique().tolist() == ["long_document"]
    assert failed["strategy"].tolist() == ["static", "dynamic", "predictive", "hierarchical"]
    assert failed["appended_tokens"].tolist() == [2500, 7000, 7000, 4500]  # 1000 + 1500; then 2000 and 2500 more
    assert failed.loc[:, "peak_bytes":].isna().all(axis=None)
    assert row_of(table, "long_document", "compressed")["kept_tokens"] == 9450  # 0.7 of 13,500
    assert row_of(table, "short_chat", "static")["peak_bytes"] == 4000 * TOKEN


def test_raised_capacities_hold_each_workload(comprehensive):
    raised = comprehensive[1].tables["raised_capacities"]
    assert (raised["outcome"] == "completed").all()
    assert raised.loc[:, "peak_bytes":"efficiency"].notna().all(axis=None)
    # 256 slots, then 1000, 2500, 4500, 7000, 10500, 15750 (10,500 × 1.5): 6 resizes, and half of 10,500 beside them.
    row = row_of(raised, "long_document", "dynamic")
    assert (row["num_resizes"], row["peak_bytes"]) == (6, (15_750 + 5_250) * TOKEN)


def test_the_benchmarks_sentences_and_rows(comprehensive):
    made, findings = comprehensive
    assert made.num_tokens == 2 * 5 * (1050 + 13_500 + 1100 + 2700)
    said = "\n".join(findings.sentences)
    assert "static, dynamic, predictive and hierarchical cannot hold long_document (13,500 tokens)" in said
    assert "keeps 9,450 tokens of long_document: the article's, which holds 8,192, would fail there too" in said
    assert "attention is off" in said
    table = findings.tables["raised_capacities"]
    best = table.loc[table[table["scenario"] == "short_chat"]["peak_bytes"].idxmin(), "strategy"]
    short_chat = "on short_chat " + str(best)
    assert short_chat in "".join(comprehensive_sentences(table, "raised"))
    assert short_chat not in "".join(comprehensive_sentences(table, "raised", [best]))
    for frame in (findings.requests, findings.steps):
        assert set(frame["capacities"]) == {"article", "raised"}
        assert set(frame["scenario"]) == {"short_chat", "long_document", "streaming", "bursty"}


def test_each_panel_marks_what_cannot_be_held(comprehensive):
    article, raised = comprehensive[1].charts.values()
    for axes in article.axes:
        assert [text.get_text() for text in axes.texts] == ["too long"] * 4
    assert not [text for axes in raised.axes for text in axes.texts]
    memory, utilization, *_ = article.axes
    assert memory.get_yscale() == "log"
    assert memory.get_ylabel() == "Memory (MiB, log)"
    assert utilization.get_ylim() == (0, 1.06)


def test_sets_of_strategies_have_the_same_names():
    with pytest.raises(UsageError, match=r"raised_strategies are those of strategies \(static.*, got static$"):
        experiment("comprehensive", raised_strategies={"static": {}})


@pytest.fixture(scope="module")
def growth():
    return experiment("growth_factors").run(setting())


def test_growth_by_two_on_short_chat_by_hand(growth):
    # 300 > 256: 512, copying 150; 750 > 512: 1024, copying 500; 1050 > 1024: 2048, copying 750, beside half of 1024.
    table = growth.summary
    (row,) = table[(table["scenario"] == "short_chat") & (table["growth_factor"] == 2.0)].to_dict("records")
    assert (row["num_resizes"], row["copied_bytes"]) == (3, (150 + 500 + 750) * TOKEN)
    assert row["peak_bytes"] == (2048 + 512) * TOKEN
    assert row["peak_per_needed"] == pytest.approx(2560 / 1050)
    assert row["cost"] == pytest.approx((2560 + 1400) / 1050)
    assert len(table) == 5 * 9
    assert not growth.charts["growth_factors"].axes[0].texts


def test_the_best_range_and_the_verdict_by_hand():
    table = pd.DataFrame(
        {
            "scenario": "chat",
            "growth_factor": [1.1, 1.5, 2.0, 3.0],
            "workload_tokens": 100,
            "peak_per_needed": [1.1, 1.5, 1.6, 2.3],
            "copied_per_needed": [3.0, 1.0, 1.0, 0.5],
            "stall_s": [0.3, 0.2, 0.1, 0.1],
        }
    )
    table = with_cost(table)
    assert table["cost"].tolist() == pytest.approx([4.1, 2.5, 2.6, 2.8])
    assert table["on_front"].tolist() == [True, True, False, True]  # 2.0 copies as much as 1.5 and peaks higher
    assert GROWTH.shares(table, COSTS_LITTLE).tolist() == [0, 1, 1, 1]  # at most 3.75
    first, mean, on_front, little, stall = experiment("growth_factors").sentences(table)
    assert "1.5 costs least, 2.5 times the tokens' bytes (1.5 at the peak, 1 copied)" in first
    assert first.endswith("at most 1.5 times that: 1.5, 2 and 3.")
    assert "1.5 costs least (2.5)" in mean
    assert f"range of 1.2 to 2 does not hold where useful is {ON_GROWTH_FRONT}: 50 % of the growth factors" in on_front
    assert on_front.endswith("100 % of those outside.")
    assert f"holds where useful is {COSTS_LITTLE}: 100 % of" in little  # 50 points more often than the others
    assert little.endswith("50 % of those outside.")
    assert "300 ms at 1.1 and 100 ms at 3" in stall


def test_a_budget_that_holds_nothing_is_said():
    held = experiment("growth_factors", scenarios=["short_chat"])
    findings = held.run(dataclasses.replace(setting(), budget_bytes=300 * TOKEN))
    assert findings.summary["peak_bytes"].isna().all()
    assert findings.sentences == ["short_chat: no factor was completed within the budget."]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"growth_factors": [1.0, 2.0]}, "growth_factor is a number above 1"),
        ({"growth_factors": [2.0]}, "at least two factors"),
        ({"max_capacity": 1000}, "max_capacity holds short_chat, 1050 tokens, got 1000"),
        ({"scenarios": ["chat_poisson"]}, "chat_poisson is no list of appends"),
        ({"scenarios": ["short_chatt"]}, "unknown scenario 'short_chatt'"),
        ({"scenarios": "short_chat"}, "a list of at least one scenario's name"),
        ({"scenarios": []}, "a list of at least one scenario's name"),
        ({"scenarios": [{"_target_": "os.system"}]}, "a list of at least one scenario's name"),
        ({"factors": [2.0]}, "unknown parameter 'factors'"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_before_it_runs(changed, message):
    with pytest.raises(UsageError, match=message):
        experiment("growth_factors", **changed)


@pytest.mark.parametrize(
    ("strategies", "message"),
    [
        ({"statik": {}}, "unknown strategy 'statik'"),
        ({"static": {"max": 1}}, r"strategies\.static: unknown parameter 'max'"),
        ({"static": {"_target_": "os.system"}}, "unknown target 'os.system'"),
        ({"static": 4000}, "a mapping from strategies' names"),
        ([], "a mapping from strategies' names"),
    ],
)
def test_strategies_are_the_projects_own(strategies, message):
    with pytest.raises(UsageError, match=message):
        experiment("comprehensive", strategies=strategies)


def test_fractions_without_tensors_count_and_judge_nothing():
    findings = experiment("kept_fractions", scenarios=["short_chat"]).run(setting())
    table = findings.summary.set_index("fraction")
    assert table.loc[0.7, "kept_tokens"] == 735  # 0.7 of 1,050
    assert table["error_relative"].isna().all()
    assert "no range can be judged" in findings.sentences[-1]
    figure = findings.charts["kept_fractions"]
    assert "Attention error: attention was not probed: this backend holds no tensors." in words(figure)
    assert "Attention error" not in [axes.get_title(loc="left") for axes in figure.axes]


def test_fractions_on_tensors_lose_more_the_less_they_keep():
    backend = MeasuredBackend(Conditions(geometry=TINY, device="cpu", attend=False))
    fractions = {"kept_fractions": [0.2, 0.6, 1.0], "probed_tokens": 300, "probed_heads": 1}
    findings = experiment("kept_fractions", scenarios=["short_chat"], **fractions).run(setting(backend, 1))
    errors, masses = findings.summary["error_relative"], findings.summary["mass_kept"]
    assert errors[0] > errors[1] > errors[2] == pytest.approx(0, abs=1e-5)
    assert masses[0] < masses[1] < masses[2] == pytest.approx(1)


def test_useful_fractions_by_hand():
    rows = pd.DataFrame(
        {
            "scenario": "chat",
            "fraction": [0.5, 0.6, 0.9, 1.0],
            "workload_tokens": 100,
            "kept_share": [0.5, 0.6, 0.9, 1.0],
            "peak_bytes": 1.0,
            "peak_per_needed": [0.5, 0.6, 0.9, 1.0],
            "token_us": 2.0,
            "error_relative": [0.3, 0.1, 0.05, 0.0],
        }
    )
    assert KEPT.shares(rows, SAVES).tolist() == [0, 1, 1, 0]
    assert KEPT.shares(rows.assign(error_relative=np.nan), SAVES).isna().all()
    made = experiment("kept_fractions")
    workload, on_front, verdict, _ = made.sentences(rows)
    assert workload.endswith("useful: 0.6 and 0.9.")
    assert "range of 0.6 to 0.9 does not hold where useful is on the front of memory" in on_front  # all four are
    assert f"range of 0.6 to 0.9 holds where useful is {SAVES}: 100 % of the kept fractions inside it" in verdict
    assert verdict.endswith("0 % of those outside.")
    assert "50 % of the kept" in made.sentences(rows.assign(error_relative=[0.3, 0.2, 0.05, 0.0]))[2]
    assert "does not hold" in made.sentences(rows.assign(error_relative=[0.3, 0.2, 0.2, 0.0]))[2]


def test_an_experiment_says_how_it_is_measured_unless_the_command_line_does():
    own = composed("+experiment=comprehensive")
    assert (own["repetitions"], own["attend"]) == (3, False)
    told = composed("+experiment=comprehensive", "repetitions=7", "attend=true")
    assert (told["repetitions"], told["attend"]) == (7, True)
    scenario = composed("+scenario=short_chat")
    assert (scenario["repetitions"], scenario["attend"]) == (5, True)


def test_the_main_tables_file_is_its_own():
    nothing = pd.DataFrame()
    with pytest.raises(ValueError, match=r"summary\.csv is another table"):
        Findings(summary=nothing, requests=nothing, steps=nothing, sentences=[], tables={"summary": nothing})


def test_growth_stalls_have_intervals(growth):
    low, high = (growth.summary[f"stall_s_{end}"] for end in ("low", "high"))
    assert low.notna().all()
    assert np.allclose(low, high)  # the backend's resizes take no time
    assert set(growth.summary["interval_from"]) == {"repetitions"}


def test_a_range_of_which_nothing_was_run_is_not_judged():
    rows = pd.DataFrame(
        {
            "scenario": "chat",
            "workload_tokens": 100,
            "growth_factor": [3.0, 4.0],
            "fraction": [0.5, 1.0],
            "kept_share": [0.5, 1.0],
            "error_relative": [0.05, 0.0],
            "peak_bytes": [100.0, 120.0],
            "peak_per_needed": [1.0, 1.2],
            "copied_bytes": [20.0, 10.0],
            "token_us": 1.0,
            "stall_s": 0.1,
        }
    )
    rows["copied_per_needed"] = [0.2, 0.1]
    nothing = "No {} that was run is of the article's range of"
    assert experiment("kept_fractions").sentences(rows)[1].startswith(nothing.format("kept fraction"))
    assert experiment("growth_factors").sentences(with_cost(rows))[2].startswith(nothing.format("growth factor"))


def test_each_length_of_recompute_has_its_own_figures():
    made = experiment("recompute", context_tokens=[50, 400])
    found = made.run(setting())
    table = found.summary
    assert table["context_tokens"].tolist() == [50, 400]
    assert table[["cached_us", "recompute_us"]].notna().all(axis=None)
    assert table["speedup"].tolist() == (table["recompute_us"] / table["cached_us"]).tolist()
    assert table["formula"].tolist() == [50**2 / 150, 400**2 / 500]
    assert found.steps["scenario"].unique().tolist() == ["50 tokens", "400 tokens"]
    assert made.num_tokens == 2 * (50 + 3 + 400 + 3)

"""Replays with other times of work: intervals, and differences in which what two strategies share cancels."""

import numpy as np
import pandas as pd
import pytest

import kvbench as kv
from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled
from kvbench.charts import rows
from kvbench.model.geometry import geometry_in
from kvbench.model.hardware import hardware_from
from kvbench.model.parameters import parameters_of
from kvbench.results.front import cost_of, leaders, leaders_of
from kvbench.results.intervals import RESIDUALS, of_row
from kvbench.results.provenance import model_notes
from kvbench.results.replays import draws_of, with_draws
from kvbench.results.results import Results, load
from kvbench.runner.doubted import spent_s
from kvbench.timing.doubt import LEVELS, Doubt, Margin, checked_quantiles, margin_of, quantiles_of, reaching
from kvbench.timing.shapes import KINDS, Factors
from tests.support.catalogue import node_of, preset

SPEEDS = np.linspace(0.8, 1.25, 32)
"""Of a machine, whatever is run on it."""


def summary_and_replays(ratio=1.03):
    """Two strategies, the second slower in every replay; and a third that was not replayed."""
    summary = pd.DataFrame({"strategy": ["quick", "slow", "alone"], "total_s": [10.0, 10 * ratio, 10.1]})
    replays = pd.concat(
        pd.DataFrame({"strategy": name, "replay": range(32), "total_s": base / SPEEDS})
        for name, base in (("quick", 10.0), ("slow", 10 * ratio))
    )
    rows = [
        of_row({"total_s": 10.0, "source": "modelled"}, ["total_s"], {}, {"total_s": replays["total_s"][:32]}),
        of_row({"total_s": 10 * ratio, "source": "modelled"}, ["total_s"], {}, {"total_s": replays["total_s"][32:]}),
        {"total_s_low": 10.1, "total_s_high": 10.1, "interval_from": None},
    ]
    summary = summary.assign(source="modelled", outcome="completed", **pd.DataFrame(rows).to_dict("list"))
    return summary, replays


def test_an_interval_is_what_nine_of_ten_replays_are_within():
    summary, _ = summary_and_replays()
    low, high = summary.loc[0, ["total_s_low", "total_s_high"]]
    assert summary.loc[0, "interval_from"] == RESIDUALS
    times = 10 / SPEEDS
    assert ((times >= low) & (times <= high)).mean() == pytest.approx(0.9, abs=0.04)
    assert low < 10 < high


def test_a_difference_is_judged_by_what_is_not_shared():
    summary, replays = summary_and_replays()
    judged = with_draws(summary, replays)
    assert summary.loc[0, "total_s_high"] > summary.loc[1, "total_s"]  # the intervals themselves overlap
    assert leaders(cost_of(summary[:2], "total_s")).tolist() == [True, True]
    assert leaders(cost_of(judged[:2], "total_s")).tolist() == [True, False]
    assert leaders_of(judged[judged["strategy"] != "alone"], "total_s", less_is_better=True).tolist() == [True, False]


def test_what_differs_no_more_than_replays_do_cannot_be_told():
    summary, replays = summary_and_replays(1.0)
    noise = np.where(np.arange(32) % 2, 0.99, 1.01)
    replays = replays.assign(total_s=replays["total_s"] * np.concatenate([noise, np.ones(32)]))
    assert leaders(cost_of(with_draws(summary, replays)[:2], "total_s")).tolist() == [True, True]


def test_a_row_without_replays_is_judged_by_its_own_interval():
    judged = with_draws(*summary_and_replays())
    assert np.isnan(draws_of(judged, "total_s")[2]).all()
    cost = cost_of(judged, "total_s")
    assert cost.less()[0, 1]
    assert not cost.less()[2, 0]
    assert draws_of(judged[2:], "total_s") is None


def test_draws_are_no_parameter_that_rows_are_named_by():
    summary, replays = summary_and_replays()
    assert rows.parameters_of(with_draws(summary, replays)) == rows.parameters_of(summary)


def test_jobs_of_a_sweep_are_told_apart():
    summary, replays = summary_and_replays()
    both = pd.concat([summary.assign(load=1.0), summary.assign(load=2.0)], ignore_index=True)
    jobs = pd.concat([replays.assign(load=1.0), replays.assign(load=2.0, total_s=replays["total_s"] * 2)])
    draws = draws_of(with_draws(both, jobs), "total_s")
    np.testing.assert_allclose(draws[3], 2 * draws[0])


def test_replays_are_saved_and_read(tmp_path):
    summary, replays = summary_and_replays()
    Results(summary=summary, replays=replays.reset_index(drop=True)).save(tmp_path)
    found = load(tmp_path)
    assert found.replays is not None
    assert draws_of(found.judged, "total_s").shape == (3, 32)
    assert "total_s_draws" not in found.summary


def test_draws_are_spread_over_a_kinds_quantiles_and_paired():
    doubt = Doubt({"products": tuple(np.log(np.linspace(0.8, 1.2, 9)))}, is_measured=True)
    draws = doubt.draws(32)
    own = np.array([draw.products for draw in draws])
    assert np.quantile(own, [0.05, 0.95]) == pytest.approx(np.exp(np.log([0.85, 1.15])), abs=0.02)
    assert all(draw.decode == 1.0 for draw in draws)
    other = Doubt({"products": tuple(2 * np.log(np.linspace(0.8, 1.2, 9)))}, is_measured=True).draws(32)
    np.testing.assert_allclose(np.log([draw.products for draw in other]), 2 * np.log(own))
    assert doubt.draws(0) == []


def test_two_kinds_of_work_are_not_drawn_together():
    quantiles = tuple(np.linspace(-0.2, 0.2, 9))
    draws = np.log(np.array(Doubt(dict.fromkeys(KINDS, quantiles), is_measured=True).draws(32)))
    assert draws.shape == (32, len(Factors._fields))
    off_diagonal = np.corrcoef(draws.T)[~np.eye(len(KINDS), dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.6


def test_quantiles_reach_as_far_as_rows_can_tell():
    off = np.linspace(-0.5, 0.5, 99)
    found = quantiles_of(np.exp(off), np.ones(99))
    assert found[LEVELS.index(0.5)] == pytest.approx(0.0)
    assert found[LEVELS.index(0.1)] == pytest.approx(off[9])  # the tenth of 99: one in ten lies below it
    assert found[LEVELS.index(0.9)] == pytest.approx(off[89])
    assert found[0] == pytest.approx(off[1])


def test_of_few_rows_quantiles_are_students():
    off = np.array([-0.1, 0.0, 0.1, 0.2, -0.2])
    found = quantiles_of(np.exp(off), np.ones(5))
    spread = off.std(ddof=1) * np.sqrt(1.2)
    assert found[LEVELS.index(0.95)] == pytest.approx(2.132 * spread, rel=0.01)  # t of 4 degrees of freedom
    assert found[LEVELS.index(0.05)] == pytest.approx(-found[LEVELS.index(0.95)])


@pytest.mark.parametrize(
    "given", [[1], {"speed": [0] * 9}, {"decode": [0] * 8}, {"decode": [1, *[0] * 8]}, {"decode": "wide"}]
)
def test_broken_quantiles_are_refused(given):
    with pytest.raises(ValueError, match=r"kernels\.residuals"):
        checked_quantiles("kernels.residuals", given)


def served(hardware, replays=8, strategies=("static", "paged"), **settings):
    settings = {"backend.replays": replays, "scenario.max_requests": 6, **settings}
    return kv.run(
        "chat_poisson", strategies=strategies, backend="fleet", hardware=hardware, model="qwen3_0_6b", settings=settings
    )


def test_a_fleets_figures_have_intervals_as_wide_as_times_are_in_doubt():
    results = served("l4")
    row = results.summary.iloc[0]
    assert row["interval_from"] == "data sheets"
    assert row["tpot_mean_s_low"] < row["tpot_mean_s"] < row["tpot_mean_s_high"]
    assert row["tokens_per_s_low"] <= row["tokens_per_s"] <= row["tokens_per_s_high"]
    assert len(results.replays) == 2 * 8
    assert results.replays["tpot_mean_s"].nunique() > 2
    assert "unvalidated" in model_notes(results.summary)[0]


def test_what_is_served_reaches_as_far_as_published_figures_do():
    assert margin_of("ttft_p50_s") == margin_of("queue_mean_s") != margin_of("latency_mean_s")
    assert margin_of("output_tokens_per_s") == margin_of("goodput_per_s")
    assert margin_of("attained_share") == margin_of("tpot_p50_s") == Margin()
    assert reaching("tpot", 2.0, 1.0, 4.0) == (1.0, 4.0)
    assert reaching("tokens_per_s", 2.0, 1.0, 4.0) == pytest.approx((2 * 0.5**1.23, 2 * 2**1.23))
    assert reaching("ttft", 2.0, 1.0, 4.0) == pytest.approx((np.exp(-0.15), 4 * np.exp(0.15)))
    assert reaching("tokens_per_s", 0.0, 0.0, 1.0) == (0.0, 1.0)


def test_without_replays_there_are_no_intervals():
    results = served("l4", replays=0, strategies=("static",))
    assert results.replays is None
    assert np.isnan(results.summary.loc[0, "tpot_mean_s_low"])


def test_summaries_alone_are_replayed_too():
    rows, alone = (served("l4", 3, ("static",), **{"backend.keep": keep}) for keep in ("requests", "summary"))
    assert alone.replays["ttft_mean_s"].tolist() == pytest.approx(rows.replays["ttft_mean_s"].tolist())


def stepped(hardware="l4", **settings):
    settings = {"backend.replays": 8, "scenario.max_requests": 3, **settings}
    return kv.run(
        "chat_poisson",
        strategies=("static", "concat"),
        backend="modelled",
        hardware=hardware,
        model="qwen3_0_6b",
        settings=settings,
    )


def test_steps_that_are_modelled_have_intervals_by_what_they_are_made_of():
    results = stepped()
    row = results.summary.iloc[0]
    assert row["interval_from"] == "data sheets"
    assert row["total_s_low"] < row["total_s"] < row["total_s_high"]
    assert row["tokens_per_s_low"] < row["tokens_per_s"] < row["tokens_per_s_high"]
    rates = results.replays["tokens_per_s"] * results.replays["total_s"]
    assert rates[:8].tolist() == pytest.approx([row["tokens_per_s"] * row["total_s"]] * 8)


def test_what_steps_took_is_told_by_kind_of_work():
    model, hardware = preset("qwen3_0_6b"), hardware_from(node_of("hardware", "l4"))
    weights, geometry = parameters_of(model), geometry_in(model)
    backend = Modelled().made(Conditions(geometry=geometry, weights=weights, model=model, hardware=hardware))
    steps = stepped(**{"backend.replays": 0}).steps
    spent = spent_s(steps[steps["strategy"] == "static"], backend)
    assert sum(spent.values()) == pytest.approx(
        steps.loc[steps["strategy"] == "static", "step_us"].sum() / 1e6, rel=1e-3
    )
    assert spent["products"] > spent["decode"] > spent["prefill"] > 0
    assert spent["experts"] == spent["exchange"] == 0
    assert spent["host"] == pytest.approx(
        0.2e-3 * steps[["iteration"]][steps["strategy"] == "static"].nunique().sum(), rel=0.05
    )

"""The report's figures are the rows' figures, and what comes from outside stays text."""

import numpy as np
import pandas as pd
import pytest

from kvbench.charts.catalogue import run_charts, sweep_charts
from kvbench.charts.cautions import warnings
from kvbench.charts.chart import Chart
from kvbench.charts.latency import LatencyChart
from kvbench.charts.limits import binding_limits, bound_by
from kvbench.charts.memory import MemoryChart
from kvbench.charts.panels import PanelsChart
from kvbench.charts.report import report_markdown
from kvbench.charts.table import table_text
from kvbench.charts.text import duration, listed, markdown_escape
from kvbench.charts.tradeoff import ParetoChart
from kvbench.charts.verdict import verdict
from tests.support.frames import THREE, Growth, decode_work, make_frames, sweep_summary, within

FACTOR = "strategy.dynamic.growth_factor"
TOO_LONG = THREE | {"static": Growth(400, 1.0, 400)}


@pytest.fixture(scope="module")
def summary():
    """Static 256 MiB; dynamic 60 MiB in 2 resizes; concat 56.25 MiB in 5; each with an interval in time."""
    made = make_frames(noise=0.001).summary
    made["stall_s"] = made["allocation_s"] = [0.0, 1.2e-3, 0.5]
    made["tokens_per_s"] = [2000.0, 1500.0, 1000.0]
    made["step_max_us"] = [100.0, 200.0, 300.0]
    made["spread"] = [0.01, 0.02, 0.03]
    return within(made, tokens_per_s=10.0)


def of_memory(summary):
    return MemoryChart(summary=summary, steps=pd.DataFrame()).sentences()


def of_pareto(summary):
    return ParetoChart(summary=summary).sentences()


def test_memory_sentences(summary):
    assert of_memory(summary) == [
        "Peaks run from 56.2 MiB (concat) to 256 MiB (static).",
        "concat pays most for growing: 5 resizes (500 ms stalled).",
    ]
    assert of_memory(summary.assign(peak_bytes=2**20, num_resizes=0)) == [
        "The peak is 1 MiB (static, dynamic and concat)."
    ]


def test_what_is_held_for_reading_and_on_other_tiers_is_told(summary):
    names = ("workspace_bytes", "pool_bytes", "peak_host_bytes", "peak_disk_bytes", "moved_bytes")
    rows = summary.assign(**dict.fromkeys(names, 0.0))
    assert not {"staging", "pool", "host", "disk", "moved"} & set(table_text(rows).split())
    rows = rows.assign(workspace_bytes=[0, 2**25, 0], peak_host_bytes=[0, 2**26, 0], pool_bytes=[0, 0, 2**29])
    text = table_text(rows).split()
    assert {"staging", "pool", "host"} <= set(text)
    assert not {"disk", "moved"} & set(text)
    assert of_memory(rows)[1] == (
        "dynamic holds 32 MiB of staging buffers, in its peak and 64 MiB in the host's memory beside it."
    )


def test_pareto_sentences_name_the_front(summary):
    rows = within(summary.assign(total_s=[1.0, 3.0, 2.0]), total_s=0.1, allocation_s=0.0)
    total, stall = of_pareto(rows)
    assert total == "On the front of peak memory against total time: static and concat; 1 other is beaten."
    assert stall == "On the front of peak memory against stalls and admissions: static, dynamic and concat."


ALL = "static, dynamic and concat"


@pytest.mark.parametrize(
    ("changed", "total"),
    [
        ({}, f"{ALL}."),
        ({"half": [0.6, 0.6, 0.1]}, "dynamic and concat; 1 other is beaten."),  # the time decides nothing
        ({"half": [9.0, 9.0, 9.0]}, "concat; 2 others are beaten."),
        (
            {"peak_bytes": 2**20, "peak_least_bytes": 2**20, "half": [0.6, 0.6, 0.1]},
            "static and dynamic; 1 other",
        ),
        ({"peak_least_bytes": 2**20, "peak_bytes": [2**22, 2**21, 2**21]}, "static; 2 others"),  # peaks overlap
        ({"reference": [False, False, True]}, "static and dynamic."),
        ({"outcome": ["completed", "completed", "too_long 1 of 1"]}, "static and dynamic."),
        ({"reference": [True, True, True]}, "no value."),
        ({"half": np.nan}, "no front, since one repetition has no interval."),
        ({"source": "modelled", "half": np.nan}, f"{ALL}."),
        ({"source": "modelled", "half": np.nan, "step_error": 0.8}, "static and concat; 1 other is beaten."),
    ],
)
def test_what_decides_a_front(summary, changed, total):
    own = {name: value for name, value in changed.items() if name != "half"}
    rows = within(summary.assign(total_s=[1.0, 2.0, 4.0], **own), total_s=changed.get("half", 0.1))
    said = of_pareto(rows)
    assert total in said[0]
    assert ("For reference" in "".join(said)) == ("reference" in changed)


def test_the_slowest_step_and_smaller_steps_win_nothing(summary):
    """Streaming splits its appends: its steps are short, and its time is not."""
    rows = within(summary.assign(total_s=[1.0, 1.0, 4.0], step_max_us=[300.0, 200.0, 1.0]), total_s=0.1)
    rows["num_steps"] = [6.0, 6.0, 90.0]
    assert "slowest" not in "".join(of_pareto(rows))
    (found,) = warnings(rows)
    assert found.startswith("concat takes 90 steps for what takes others 6: its steps are smaller")


def test_latency_sentence(summary):
    rows = summary.assign(step_p50_us=[50.0, np.nan, 60.0], step_mean_us=[1.0, 80.0, 1.0])
    assert LatencyChart(summary=rows, steps=pd.DataFrame()).sentences() == [
        "Steadiest: static, whose slowest step takes 100 µs, 2 times the median.",
        "Least steady: concat, whose slowest step takes 300 µs, 5 times the median.",
    ]
    (alone,) = LatencyChart(summary=rows.iloc[1:2], steps=pd.DataFrame()).sentences()
    assert alone == "Steadiest: dynamic, whose slowest step takes 200 µs, 2.5 times the mean."


def test_panels_sentence_names_the_best_and_ties(summary):
    rows = summary.assign(num_resizes=[0, 0, 5], efficiency=[0.5, 12.8, 11.4])
    (sentence,) = PanelsChart(summary=rows).sentences()
    assert "in peak memory concat (56.2 MiB)" in sentence
    assert "in resizes static and dynamic (0)" in sentence
    assert "in efficiency dynamic (12.8)" in sentence
    assert "in throughput static (2,000 tokens/s)" in sentence
    close = within(rows.assign(tokens_per_s=[281.0, 305.0, 100.0]), tokens_per_s=[255.0, 92.0, 1.0])
    (sentence,) = PanelsChart(summary=close).sentences()
    assert "in throughput static and dynamic (281 tokens/s to 305 tokens/s)" in sentence
    (sentence,) = PanelsChart(summary=rows.assign(reference=[False, True, False])).sentences()
    assert "dynamic" not in sentence
    assert "none is the best" in PanelsChart(summary=rows.assign(reference=True)).sentences()[0]


def equal(summary, parameters=None):
    return verdict(summary, parameters)[1].removeprefix("**Equal within noise:** ")


def choice(summary, parameters=None):
    return verdict(summary, parameters)[2].removeprefix("**What to choose:** ")


def test_overlapping_intervals_cannot_be_told_apart(summary):
    assert warnings(summary) == []
    assert equal(summary) == "none by throughput: all intervals are apart."
    close = within(summary.assign(tokens_per_s=[1520.0, 1500.0, 1000.0]), tokens_per_s=10.0)
    assert equal(close) == "by throughput: static and dynamic."
    assert equal(within(close, tokens_per_s=[9.9, 10.0, 10.0])) == "none by throughput: all intervals are apart."
    assert equal(close.assign(reference=[True, False, False])) == "none by throughput: all intervals are apart."
    assert equal(close.assign(outcome="too_long 1 of 1")) == "no deployable strategy completed."
    assert equal(within(close, tokens_per_s=np.nan)).startswith("cannot be told by throughput, since one repetition")


def test_what_to_choose(summary):
    rows = within(summary.assign(total_s=[1.0, 2.0, 4.0]), total_s=0.1)
    assert choice(rows) == "for memory concat (peak 56.2 MiB), for time static (1 s for all steps)."
    best = within(rows.assign(total_s=[4.0, 2.0, 1.0]), total_s=0.1)
    both = "which no other beats in peak memory or in time (peak 56.2 MiB, 1 s for all steps)."
    assert choice(best) == f"concat, {both}"
    assert choice(within(rows, total_s=np.nan)).endswith(
        "by time it cannot be told, since one repetition has no interval."
    )
    assert choice(rows.assign(reference=True)) == "nothing, since no deployable strategy completed."
    assert choice(rows.assign(reference=[False, True, True])) == "static, the only one that completed."
    lossy = best.assign(lossless=[True, True, False], error_relative=[0.0, 0.0, 0.02])
    assert choice(lossy).startswith("dynamic, which no other beats")
    assert choice(lossy).endswith("Where answers may change, less peaks: concat 56.2 MiB (error 2 %).")
    priced = within(best.assign(source="modelled"), total_s=np.nan, tokens_per_s=np.nan)
    assert choice(priced).endswith("by the model alone: how far the model's times are off was never measured.")
    jobs = pd.concat([rows.assign(scenario="a"), best.assign(scenario="b")], ignore_index=True)
    assert "a: for memory concat" in choice(jobs)
    assert f"b: concat, {both}" in choice(jobs)


def test_one_repetition_has_no_intervals():
    (found,) = warnings(make_frames(num_repetitions=1).summary)
    assert found.startswith("One repetition only")


def test_large_spread_is_a_warning(summary):
    (found,) = warnings(summary.assign(spread=[0.1, 0.101, np.nan]))
    assert found.endswith("dynamic 10.1 %.")


def test_failures_are_listed_and_compared_with_nothing():
    made = make_frames([[100, 300, 700]], TOO_LONG).summary
    charts = [MemoryChart(summary=made, steps=pd.DataFrame()), PanelsChart(summary=made)]
    report = report_markdown("x", [], made, charts)
    assert "## Not completed\n\n- static: too\\_long 1 of 1\n" in report
    assert "static did not complete; it peaked at 12.5 MiB." in report
    assert "in resizes dynamic (1)" in report


def test_all_failed_is_still_a_report():
    frames = make_frames([[500]], {"static": Growth(400, 1.0, 400)})
    report = report_markdown("x", [], frames.summary, run_charts(frames.summary, frames.requests, frames.steps))
    assert "No strategy completed." in report
    assert "No strategy appended a token." in report


def test_a_sweep_says_where_the_ends_are():
    swept = sweep_summary(FACTOR, [1.2, 2.0], lambda factor: THREE | {"dynamic": Growth(64, factor, 8192)})
    swept["peak_bytes"] = [256 << 20, 50 << 20, 40 << 20, 256 << 20, 70 << 20, 40 << 20]
    sweep, pareto = sweep_charts(swept, [FACTOR])
    sentences = sweep.sentences()
    assert sentences[0].startswith("dynamic: peak memory from 50 MiB at 1.2 to 70 MiB at 2; stalls and admissions")
    assert sentences[1].endswith("unchanged by this parameter: static and concat.")
    front = pareto.sentences()[0]
    assert "static (" not in front, "another strategy's parameter is none of its own"


def test_jobs_are_compared_with_themselves_only(summary):
    jobs = pd.concat([summary.assign(scenario="a"), summary.assign(scenario="b")], ignore_index=True)
    assert equal(jobs) == "none by throughput: all intervals are apart."
    jobs.loc[5, "tokens_per_s"] = 1495.0
    assert equal(jobs).endswith("dynamic and concat (b).")


SIZE = "budget_bytes"


def swept_times(parameter, means, halves):
    """Static and dynamic in as many jobs; dynamic's throughputs and their intervals are given, static's far above."""
    made = sweep_summary(parameter, range(len(means)), lambda _: {name: THREE[name] for name in ("static", "dynamic")})
    is_dynamic = (made["strategy"] == "dynamic").to_numpy()
    made["tokens_per_s"], half = 9000.0, np.ones(len(made))
    made.loc[is_dynamic, "tokens_per_s"], half[is_dynamic] = means, halves
    return within(made.assign(spread=0.0), tokens_per_s=half)


@pytest.mark.parametrize("parameter", [FACTOR, SIZE])
@pytest.mark.parametrize(
    ("means", "halves", "alike", "said"),
    [
        ([281.0, 305.0], [255.0, 92.0], "0) and D1)", "281 tokens/s to 305 tokens/s, cannot be told apart"),
        ([281.0, 305.0], [2.0, 3.0], "", "from 281 tokens/s at 0 to 305 tokens/s at 1"),
        ([281.0, 305.0, 900.0], [255.0, 92.0, 9.0], "0) and D1)", "from 281 tokens/s at 0 to 900 tokens/s at 2"),
        ([281.0, 305.0, 300.0], [255.0, 92.0, 9.0], "0), D1) and D2)", "281 tokens/s to 305 tokens/s, cannot be told"),
        ([281.0, 305.0], [np.nan, np.nan], "", "cannot be told apart without intervals"),
    ],
)
def test_jobs_of_a_sweep_that_cannot_be_told_apart_are_not_ranked(parameter, means, halves, alike, said):
    made = swept_times(parameter, means, halves)
    found = equal(made, [parameter])
    of_dynamic = f"dynamic ({markdown_escape(parameter.removeprefix('strategy.'))} "
    assert (f"{of_dynamic}{alike.replace('D', of_dynamic)}" in found) == bool(alike)
    told = "".join(sweep_charts(made, [parameter])[0].sentences())
    assert said in told.replace("throughput, ", "").replace("throughput ", "")


def test_what_bound_each_row_stands_in_the_table_and_first_in_the_report(summary):
    shares = {"arrivals": [1.0, 0.17, np.nan], "batch": [0.0, 0.83, np.nan], "memory": 0.0, "pool": 0.0}
    rows = summary.assign(**{f"{name}_share": values for name, values in (shares | {"computing": 0.0}).items()})
    table = table_text(rows, [])
    assert "bound by" in table
    assert [line.split()[2:5] for line in table.splitlines()[2:4]] == [["arrivals", "100", "%"], ["batch", "83", "%"]]
    told = "Waiting, in shares of the time, is nobody waited: static 100 %; for a place in the batch: dynamic 83 %."
    first = f"- **What limits this run:** {told}"
    assert report_markdown("x", ["on a CPU"], rows, [], []).splitlines()[2] == first
    for unbound in (summary, rows.assign(batch_share=0.0, arrivals_share=1.0)):
        assert "bound by" not in table_text(unbound, [])
        assert "Nothing made a request wait" in report_markdown("x", [], unbound, [], []).splitlines()[2]


def test_who_was_refused_throughout_was_bound_by_nothing(summary):
    shares = {f"{name}_share": [1.0, 0.17, 1.0] for name in ("arrivals", "batch", "memory", "pool", "computing")}
    rows = summary.assign(**shares, num_completed=[0, 1, 0])
    assert binding_limits(rows) == ["", "arrivals 17 %", ""]
    assert "static" not in bound_by(rows, [])


def test_the_order_and_the_images(summary):
    charts = [MemoryChart(summary=summary, steps=pd.DataFrame()), Chart(name="recompute", heading="Recompute")]
    report = report_markdown("chat", ["on a CPU"], summary, charts, again="cd here && run")
    parts = [
        *("# chat", "- **What limits", "- **Equal within noise", "- **What to choose", "```sh\ncd here && run\n```"),
        *("- on a CPU", "## Results", "| static |", "![Memory over tokens](charts/memory.png)", "- Peaks run"),
        "![Recompute](charts/recompute.png)",
    ]
    places = [report.index(part) for part in parts]
    assert places == sorted(places)


def test_text_from_outside_is_escaped():
    evil = "<b>|`x`|[a](b)*_~#\n- y"
    made = make_frames(strategies={evil: THREE["dynamic"]}, scenario=evil)
    charts = run_charts(made.summary, made.requests, made.steps)
    report = report_markdown(evil, [evil, "1. x", "- y"], made.summary, charts)
    rows = [line for line in report.splitlines() if line.startswith("| ")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {rows[0].count("|")}
    assert "<b>" not in report.replace(r"\<b\>", "")
    assert "\n- y" not in report
    assert "- 1\\. x" in report
    assert markdown_escape("http://a.b") == r"http\://a.b"
    assert markdown_escape("1.5") == "1.5"


def test_table_text_has_rows_columns_and_no_empty_ones(summary):
    lines = table_text(summary).splitlines()
    assert lines[0].split() == [
        *("strategy", "outcome", "peak", "mean", "util.", "waste", "resizes", "copied", "admit", "stall"),
        *("step", "mean", "step", "max", "throughput"),
    ]
    assert lines[1].split()[:4] == ["MiB", "MiB", "%", "%"]
    row = lines[3].split()
    assert row[:6] == ["dynamic", "completed", "60", "23.6", "83.8", "16.2"]
    assert row[-3:] == ["1,500", "±", "10"]
    assert "TTFT" not in lines[0]
    assert "step p50" not in lines[0]


def test_table_text_fits_a_terminal_and_moves_no_cursor():
    names = {f"a-very-long-name-\x1b[2J-of-a-strategy-{i}": Growth(100, 1.5) for i in range(3)}
    made = make_frames(decode_work(300, 1200), names, num_repetitions=2).summary
    shown = table_text(made)
    assert max(map(len, shown.splitlines())) <= 120
    assert "\x1b" not in shown
    for head in ("step p50", "step p99", "step max", "TTFT", "TPOT", "throughput"):
        assert head in shown
    assert "step mean" not in shown
    assert shown.count("a-very-long") == 3 * len(shown.split("\n\n"))


def test_table_text_of_a_sweep_shows_the_parameter():
    swept = sweep_summary(FACTOR, [1.25, 8192], lambda factor: THREE)
    assert "dynamic.growth_factor" in table_text(swept)
    assert "  8,192  " in table_text(swept, [FACTOR])
    assert "growth_factor" not in table_text(swept, [])


def test_words():
    assert [duration(s) for s in (2.5, 0.0012, 8.2e-5, 0)] == ["2.5 s", "1.2 ms", "82 µs", "0 µs"]
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"


def test_requests_that_stood_in_each_others_way_are_told_of(summary):
    made = summary.copy()
    assert not any("preempted" in text or "Peak memory differs" in text for text in warnings(made))
    made["num_preemptions"], made["recomputed_tokens"] = [0.0, 8.0, 0.0], [0.0, 3959.0, 0.0]
    made["peak_least_bytes"] = made["peak_bytes"] - [0, 0, 2**20]
    texts = "\n".join(warnings(made))
    assert "computed again: dynamic 8 times (3,959 tokens)." in texts
    assert "Peak memory differs between repetitions" in texts
    assert "concat 55.2 MiB to 56.2 MiB" in texts
    assert "preempted" not in table_text(made)  # one request stands in nobody's way
    assert "preempted" in table_text(made.assign(num_requests=2))
    assert "preempted" not in table_text(summary)

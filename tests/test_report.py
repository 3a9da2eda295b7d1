"""The report's figures are the rows' figures, and what comes from outside stays text."""

import numpy as np
import pandas as pd
import pytest

from kvbench.charts.cautions import warnings
from kvbench.charts.limits import binding_limits, bound_by
from kvbench.charts.markdown import report_markdown
from kvbench.charts.sentences import chart_sentences
from kvbench.charts.table import table_text
from kvbench.charts.text import duration, listed, markdown_escape
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


def test_memory_sentences(summary):
    assert chart_sentences(summary)["memory"] == [
        "static peaks at 256 MiB and pays no resize.",
        "dynamic peaks at 60 MiB, 23.4 % of static's 256 MiB, and pays 2 resizes (1.2 ms stalled).",
        "concat peaks at 56.2 MiB, 22 % of static's 256 MiB, and pays 5 resizes (500 ms stalled).",
    ]


def test_what_is_held_for_reading_and_on_other_tiers_is_told(summary):
    names = ("workspace_bytes", "pool_bytes", "peak_host_bytes", "peak_disk_bytes", "moved_bytes")
    rows = summary.assign(**dict.fromkeys(names, 0.0))
    assert not {"staging", "pool", "host", "disk", "moved"} & set(table_text(rows).split())
    rows = rows.assign(workspace_bytes=[0, 2**25, 0], peak_host_bytes=[0, 2**26, 0], pool_bytes=[0, 0, 2**29])
    text = table_text(rows).split()
    assert {"staging", "pool", "host"} <= set(text)
    assert not {"disk", "moved"} & set(text)
    assert chart_sentences(rows)["memory"][1] == (
        "dynamic peaks at 60 MiB (32 MiB of it staging buffers and 64 MiB in the host's memory beside it), 23.4 % of "
        "static's 256 MiB, and pays 2 resizes (1.2 ms stalled)."
    )


def test_pareto_sentences_name_the_front(summary):
    rows = within(summary.assign(total_s=[1.0, 3.0, 2.0]), total_s=0.1, allocation_s=0.0)
    total, stall = chart_sentences(rows)["pareto"]
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
    said = chart_sentences(rows)["pareto"]
    assert total in said[0]
    assert ("For reference" in "".join(said)) == ("reference" in changed)


def test_the_slowest_step_and_smaller_steps_win_nothing(summary):
    """Streaming splits its appends: its steps are short, and its time is not."""
    rows = within(summary.assign(total_s=[1.0, 1.0, 4.0], step_max_us=[300.0, 200.0, 1.0]), total_s=0.1)
    rows["num_steps"] = [6.0, 6.0, 90.0]
    assert "slowest" not in "".join(chart_sentences(rows)["pareto"])
    (found,) = warnings(rows)
    assert found.startswith("concat takes 90 steps for what takes others 6: its steps are smaller")


def test_latency_sentence(summary):
    rows = summary.assign(step_p50_us=[50.0, np.nan, 60.0], step_mean_us=[1.0, 80.0, 1.0], step_p99_us=[90, np.nan, 95])
    first, second, _ = chart_sentences(rows)["latency"]
    median = "the median step takes 50 µs, the 99th percentile 90 µs, the slowest 100 µs, 2 times the median."
    assert first == f"static: {median}"
    assert second == "dynamic: the mean step takes 80 µs, the slowest 200 µs, 2.5 times the mean."


def test_panels_sentence_names_the_best_and_ties(summary):
    rows = summary.assign(num_resizes=[0, 0, 5], efficiency=[0.5, 12.8, 11.4])
    (sentence,) = chart_sentences(rows)["panels"]
    assert "in peak memory concat (56.2 MiB)" in sentence
    assert "in resizes static and dynamic (0)" in sentence
    assert "in efficiency dynamic (12.8)" in sentence
    assert "in throughput static (2,000 tokens/s)" in sentence
    close = within(rows.assign(tokens_per_s=[281.0, 305.0, 100.0]), tokens_per_s=[255.0, 92.0, 1.0])
    assert "in throughput static and dynamic (281 tokens/s to 305 tokens/s)" in chart_sentences(close)["panels"][0]
    (sentence,) = chart_sentences(rows.assign(reference=[False, True, False]))["panels"]
    assert "dynamic" not in sentence
    assert "none is the best" in chart_sentences(rows.assign(reference=True))["panels"][0]


def test_overlapping_intervals_cannot_be_told_apart(summary):
    assert warnings(summary) == []
    close = within(summary.assign(tokens_per_s=[1520.0, 1500.0, 1000.0]), tokens_per_s=10.0)
    (found,) = warnings(close)
    assert "By throughput" in found
    assert found.endswith("overlap: static and dynamic.")
    apart = within(close, tokens_per_s=[9.9, 10.0, 10.0])
    assert warnings(apart) == []


def test_one_repetition_has_no_intervals():
    (found,) = warnings(make_frames(num_repetitions=1).summary)
    assert found.startswith("One repetition only")


def test_large_spread_is_a_warning(summary):
    (found,) = warnings(summary.assign(spread=[0.1, 0.101, np.nan]))
    assert found.endswith("dynamic 10.1 %.")


def test_failures_are_listed_and_compared_with_nothing():
    made = make_frames([[100, 300, 700]], TOO_LONG).summary
    report = report_markdown("x", [], made, ["memory", "panels"])
    assert "## Not completed\n\n- static: too\\_long 1 of 1\n" in report
    assert "static did not complete; it peaked at 12.5 MiB." in report
    assert "in resizes dynamic (1)" in report


def test_all_failed_is_still_a_report():
    made = make_frames([[500]], {"static": Growth(400, 1.0, 400)}).summary
    report = report_markdown("x", [], made, ["memory", "latency", "panels", "pareto"])
    assert "No strategy completed." in report
    assert "No strategy appended a token." in report


def test_a_sweep_says_where_the_ends_are():
    swept = sweep_summary(FACTOR, [1.2, 2.0], lambda factor: THREE | {"dynamic": Growth(64, factor, 8192)})
    swept["peak_bytes"] = [256 << 20, 50 << 20, 40 << 20, 256 << 20, 70 << 20, 40 << 20]
    sentences = chart_sentences(swept)["sweep"]
    assert sentences[0].startswith("dynamic: peak memory from 50 MiB at 1.2 to 70 MiB at 2; stalls and admissions")
    assert sentences[1].endswith("unchanged by this parameter: static and concat.")
    front = chart_sentences(swept)["pareto"][0]
    assert "static (" not in front, "another strategy's parameter is none of its own"


def test_jobs_are_compared_with_themselves_only(summary):
    jobs = pd.concat([summary.assign(scenario="a"), summary.assign(scenario="b")], ignore_index=True)
    assert warnings(jobs) == []
    jobs.loc[5, "tokens_per_s"] = 1495.0
    assert warnings(jobs)[0].endswith("dynamic and concat (b).")


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
    found = "".join(text for text in warnings(made, [parameter]) if text.startswith("By throughput"))
    of_dynamic = f"dynamic ({markdown_escape(parameter.removeprefix('strategy.'))} "
    assert (f"{of_dynamic}{alike.replace('D', of_dynamic)}" in found) == bool(alike)
    told = "".join(chart_sentences(made, [parameter])["sweep"])
    assert said in told.replace("throughput, ", "").replace("throughput ", "")


def test_what_bound_each_row_stands_in_the_table_and_first_in_the_report(summary):
    shares = {"arrivals": [1.0, 0.17, np.nan], "batch": [0.0, 0.83, np.nan], "memory": 0.0, "pool": 0.0}
    rows = summary.assign(**{f"{name}_share": values for name, values in (shares | {"computing": 0.0}).items()})
    table = table_text(rows, [])
    assert "bound by" in table
    assert [line.split()[2:5] for line in table.splitlines()[2:4]] == [["arrivals", "100", "%"], ["batch", "83", "%"]]
    told = (
        "What the next request waited for, as shares of the time. static: nobody waited 100 %; dynamic: for a place in "
        "the batch 83 % and nobody waited 17 %."
    )
    assert report_markdown("x", ["on a CPU"], rows, [], []).splitlines()[2] == f"- {told}"
    for unbound in (summary, rows.assign(batch_share=0.0, arrivals_share=1.0)):
        assert "bound by" not in table_text(unbound, [])
        assert "waited" not in report_markdown("x", [], unbound, [], []).split("## ")[0]


def test_who_was_refused_throughout_was_bound_by_nothing(summary):
    shares = {f"{name}_share": [1.0, 0.17, 1.0] for name in ("arrivals", "batch", "memory", "pool", "computing")}
    rows = summary.assign(**shares, num_completed=[0, 1, 0])
    assert binding_limits(rows) == ["", "arrivals 17 %", ""]
    assert "static" not in bound_by(rows)[0]


def test_the_order_and_the_images(summary):
    report = report_markdown("chat", ["on a CPU"], summary, {"memory": "One more.", "recompute": ["Two.", "Three."]})
    parts = [
        *("# chat", "- on a CPU", "## Results", "| static |", "![Memory over tokens](charts/memory.png)"),
        *("- static peaks at 256 MiB", "- One more.", "![Recompute](charts/recompute.png)", "- Two.", "- Three."),
    ]
    places = [report.index(part) for part in parts]
    assert places == sorted(places)


def test_text_from_outside_is_escaped():
    evil = "<b>|`x`|[a](b)*_~#\n- y"
    made = make_frames(strategies={evil: THREE["dynamic"]}, scenario=evil).summary
    report = report_markdown(evil, [evil, "1. x", "- y"], made, ["memory", "latency", "panels", "pareto"])
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

"""Charts show what the frames say: lines, bars and points are read back from the axes."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import kvbench.charts
from kvbench.charts import catalogue
from kvbench.charts.chart import save
from kvbench.charts.latency import LatencyChart
from kvbench.charts.memory import MemoryChart
from kvbench.charts.panels import PanelsChart
from kvbench.charts.recompute import recompute_chart
from kvbench.charts.style import NUM_LOOKS, looks
from kvbench.charts.sweep import SweepChart, positions
from kvbench.charts.tradeoff import ParetoChart
from kvbench.results.front import contested, front_of, highlighted
from kvbench.results.schema import parameter_applies
from kvbench.results.series import band
from tests.support.drawing import check_panels_and_failures, draw, figures, line_of, words
from tests.support.frames import (
    SHORT_CHAT,
    SLOT_BYTES,
    THREE,
    Growth,
    decode_work,
    make_frames,
    multi_work,
    sweep_summary,
    within,
)

pytestmark = pytest.mark.usefixtures("undrawn")
MIB = 2**20
FACTOR = "strategy.dynamic.growth_factor"
MANY = {f"a-rather-long-name-of-growth-{i}_$x_": Growth(100 + 40 * i, 1.1 + 0.1 * i, 8192) for i in range(9)} | THREE
TOO_LONG = THREE | {"static": Growth(400, 1.0, 400)}


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def chat():
    return make_frames()


@pytest.fixture(scope="module")
def decode():
    return make_frames(decode_work(300, 400))


def charts_of(frames):
    return figures(catalogue.run_charts(frames.summary, frames.requests, frames.steps))


def memory_chart(summary, steps):
    return MemoryChart(summary=summary, steps=steps).figure()


def latency_chart(summary, steps):
    return LatencyChart(summary=summary, steps=steps).figure()


def panels_chart(summary):
    return PanelsChart(summary=summary).figure()


def pareto_chart(summary):
    return ParetoChart(summary=summary).figure()


def sweep_charts(summary, parameters):
    return figures(catalogue.sweep_charts(summary, parameters))


def test_memory_lines_are_the_allocated_bytes(chat):
    axes = memory_chart(chat.summary, chat.steps).axes[0]
    line = line_of(axes, looks(THREE)["dynamic"].colour)
    assert line.get_xdata().tolist() == [0, 50, 150, 300, 500, 750, 1050]
    slots = np.array([512, 512, 512, 512, 768, 1152])
    assert line.get_ydata()[1:].tolist() == (slots * SLOT_BYTES / MIB).tolist()
    assert axes.get_ylabel() == "Memory (MiB)"
    assert axes.get_xlabel() == "Appended (tokens)"


def test_memory_marks_resizes_where_they_happen_at_the_bytes_held(chat):
    axes = memory_chart(chat.summary, chat.steps).axes[0]
    colour = looks(THREE)["dynamic"].colour
    marks = [line for line in axes.lines if line.get_linestyle() == "None" and line.get_markeredgecolor() == colour]
    assert [line.get_xdata().tolist() for line in marks] == [[500, 750]]
    held = np.array([768 + 512, 1152 + 768]) * SLOT_BYTES / MIB
    assert marks[0].get_ydata().tolist() == held.tolist()
    assert "dynamic: 2 resizes" in words(axes.figure)


def test_memory_draws_used_once_and_a_closer_panel_without_the_one_far_above(chat):
    figure = memory_chart(chat.summary, chat.steps)
    assert [line.get_text() for line in figure.legends[0].get_texts()].count("used") == 1
    assert len(figure.axes) == 2
    assert figure.axes[0].get_ylim()[1] >= 256
    assert figure.axes[1].get_ylim()[1] == pytest.approx(1.05 * (1152 + 768) * SLOT_BYTES / MIB)


def test_memory_of_several_requests_counts_tokens_of_all():
    frames = make_frames(multi_work(4))
    figure = memory_chart(frames.summary, frames.steps)
    assert figure.axes[0].get_xlabel() == "Appended, all requests (tokens)"
    last = line_of(figure.axes[0], looks(THREE)["dynamic"].colour).get_xdata()[-1]
    assert last == sum(map(sum, multi_work(4)))


def test_warmup_is_left_out(chat):
    spoilt = chat.steps.assign(
        allocated_bytes=chat.steps["allocated_bytes"].where(~chat.steps["warmup"], 1 << 40),
        step_us=chat.steps["step_us"].where(~chat.steps["warmup"], 1e9),
    )
    for chart in (memory_chart, latency_chart):
        clean, dirty = chart(chat.summary, chat.steps), chart(chat.summary, spoilt)
        for one, other in zip(clean.axes, dirty.axes, strict=True):
            for line, twin in zip(one.lines, other.lines, strict=True):
                assert np.array_equal(line.get_ydata(), twin.get_ydata())


def test_latency_is_the_median_over_repetitions(chat):
    over, share = latency_chart(chat.summary, chat.steps).axes
    steps = chat.steps[(chat.steps["strategy"] == "static") & ~chat.steps["warmup"] & (chat.steps["num_tokens"] > 0)]
    medians = np.median(steps["step_us"].to_numpy().reshape(3, 6), axis=0)
    line = line_of(over, looks(THREE)["static"].colour)
    assert line.get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert line.get_ydata() == pytest.approx(medians)
    ecdf = line_of(share, looks(THREE)["static"].colour)
    assert ecdf.get_xdata() == pytest.approx(np.sort(steps["step_us"]))
    assert ecdf.get_ydata() == pytest.approx(np.arange(1, 19) / 18)
    assert over.get_ylabel() == share.get_xlabel() == "Step time (µs)"


def test_latency_says_when_repetitions_differ_and_the_last_is_shown(chat):
    cut = chat.steps.drop(chat.steps.index[(chat.steps["repetition"] == 1) & (chat.steps["num_tokens"] == 300)])
    figure = latency_chart(chat.summary, cut)
    assert figure.axes[0].get_title(loc="left") == "Last repetition"
    last = cut[(cut["repetition"] == 3) & (cut["strategy"] == "static") & (cut["num_tokens"] > 0)]["step_us"]
    assert line_of(figure.axes[0], looks(THREE)["static"].colour).get_ydata() == pytest.approx(last)


def test_a_wide_range_of_times_gets_a_logarithmic_axis(decode):
    slow = decode.steps.assign(step_us=decode.steps["step_us"] * np.where(decode.steps["phase"] == "prefill", 100, 1))
    over, share = latency_chart(decode.summary, slow).axes
    assert (over.get_yscale(), share.get_xscale()) == ("log", "log")
    over, share = latency_chart(decode.summary, decode.steps).axes
    assert (over.get_yscale(), share.get_xscale()) == ("linear", "linear")


def test_panels_bars_are_the_summary(chat):
    panels = panels_chart(chat.summary).axes
    columns = ("peak_bytes", "utilization_mean", "num_resizes", "efficiency", "total_s", "allocation_s")
    for axes, column, scale in zip(panels, columns, (MIB, 1, 1, 1, 1e-6, 1e-6), strict=True):
        widths = [bar.get_width() * scale for bar in axes.patches]
        assert widths == pytest.approx(chat.summary[column].tolist()), column
        assert axes.get_xlabel().endswith(")"), "every axis has a unit"


def test_panels_group_bars_by_scenario():
    lists = {"short_chat": SHORT_CHAT, "streaming": [20, 40, 60]}
    summary = sweep_summary("scenario", list(lists), lambda name: make_frames([lists[name]], scenario=name))
    figure = sweep_charts(summary, ["scenario"])["panels"]
    heights = [bar.get_height() for bar in figure.axes[2].patches]
    expected = [summary[summary["strategy"] == name]["num_resizes"].tolist() for name in THREE]
    assert heights == [count for counts in expected for count in counts]
    assert [tick.get_text() for tick in figure.axes[2].get_xticklabels()] == list(lists)


def test_pareto_points_front_and_intervals(decode):
    figure = pareto_chart(decode.summary)
    assert contested(decode.summary) == ["total_s", "allocation_s", "decode_p90_us"]
    for axes, column in zip(figure.axes, contested(decode.summary), strict=True):
        marks = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() in "osD^vP"]
        peaks = [line.get_ydata()[0] * MIB for line in marks]
        assert peaks == pytest.approx(decode.summary["peak_bytes"].tolist())
        unit = {"(s)": 1, "(ms)": 1e-3, "(µs)": 1 if column.endswith("_us") else 1e-6}[axes.get_xlabel().split()[-1]]
        assert [line.get_xdata()[0] * unit for line in marks] == pytest.approx(decode.summary[column].tolist())
        path = axes.lines[-1].get_xydata()
        for row in decode.summary[front_of(decode.summary, column)].itertuples():
            assert path[:, 1].min() <= row.peak_bytes / MIB
    assert {text.get_text() for text in figure.axes[0].texts} == set(THREE)


def test_references_are_hollow_and_on_no_front(decode):
    rows = decode.summary.assign(reference=[False, False, True], peak_bytes=[300 * MIB, 200 * MIB, MIB])
    figure = pareto_chart(rows)
    for axes in figure.axes:
        marks = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() in "osD^vP"]
        assert [line.get_markerfacecolor() == "white" for line in marks] == [False, False, True]
        assert axes.lines[-1].get_ydata().min() >= 200
    assert "For reference, on no front and never the best: concat." in words(figure)


def test_pareto_of_one_repetition_has_no_front():
    figure = pareto_chart(make_frames(num_repetitions=1).summary)
    assert "one repetition has no interval" in words(figure)
    assert all(not len(axes.lines[-1].get_xdata()) for axes in figure.axes)


@pytest.mark.charts
def test_names_beside_points_cover_nothing():
    frames = make_frames(decode_work(300, 100), MANY)
    figure = pareto_chart(frames.summary)
    renderer = figure._get_renderer()
    figure.draw_without_rendering()
    for axes in figure.axes[:2]:
        boxes = [Text.get_window_extent(name, renderer).shrunk(0.98, 0.9) for name in axes.texts]
        assert len(boxes) >= 5
        for index, box in enumerate(boxes):
            assert box.count_overlaps(boxes[index + 1 :]) == 0


def test_sweep_lines_are_the_rows():
    summary = sweep_summary(FACTOR, [1.2, 1.5, 2.0], lambda factor: THREE | {"dynamic": Growth(64, factor, 8192)})
    figure = sweep_charts(summary, [FACTOR])["sweep"]
    line = line_of(figure.axes[0], looks(THREE)["dynamic"].colour)
    rows = summary[summary["strategy"] == "dynamic"]
    assert line.get_xdata().tolist() == [1.2, 1.5, 2.0]
    assert line.get_ydata() * MIB == pytest.approx(rows["peak_bytes"].tolist())
    assert figure.axes[0].get_xlabel() == "dynamic.growth_factor"
    assert figure.axes[0].get_ylabel() == "Peak (MiB)"
    assert figure.axes[5].get_ylabel() == "Throughput (tokens/s)"
    assert figure.axes[5].containers, "intervals of tokens_per_s"


def test_sweep_of_two_parameters_has_a_line_a_combination():
    first = "strategy.dynamic.initial_capacity"
    parts = [
        sweep_summary(FACTOR, [1.2, 2.0], lambda factor, size=size: THREE | {"dynamic": Growth(size, factor, 8192)})
        for size in (64, 256)
    ]
    summary = pd.concat(
        [part.assign(**{first: size}) for part, size in zip(parts, (64, 256), strict=True)], ignore_index=True
    )
    charts = sweep_charts(summary, [FACTOR, first])
    assert list(charts) == ["sweep_1", "sweep_2", "pareto"]
    texts = [text.get_text() for text in charts["sweep_1"].legends[0].get_texts()]
    assert texts == ["static", "dynamic, initial_capacity 64", "dynamic, initial_capacity 256", "concat"]


def test_sweep_over_words_and_nothing():
    numbers, categories = positions(pd.Series(["float16", None, "float16"], dtype=object))
    assert (numbers.tolist(), categories) == ([0, 1, 0], ["float16", "none"])
    assert positions(pd.Series(["1.5", "2"]))[1] == []
    assert positions(pd.Series([True, False], dtype=object))[1] == ["True", "False"]
    summary = sweep_summary("dtype", ["float32", "float16"], lambda _: THREE)
    axes = SweepChart(summary=summary, parameter="dtype").figure().axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["float32", "float16"]


def test_a_parameter_applies_to_all_but_other_strategies():
    assert parameter_applies(FACTOR, "dynamic", THREE)
    assert not parameter_applies(FACTOR, "static", THREE)
    assert parameter_applies("strategy.other.size", "static", THREE)
    assert parameter_applies("model.num_layers", "static", THREE)


def test_recompute_lines_and_formula():
    n = np.array([100, 1000, 4000])
    frame = pd.DataFrame({"context_tokens": n, "cached_us": 20.0 + n, "recompute_us": 5.0 * n**1.5})
    frame = within(frame, cached_us=2.0, recompute_us=9.0).assign(speedup=frame.recompute_us / frame.cached_us)
    frame["formula"] = n**2 / (n + 100)
    times, speedup = recompute_chart(frame).axes
    assert (times.get_xscale(), times.get_yscale(), speedup.get_yscale()) == ("log", "log", "log")
    assert times.get_ylabel() == "Decode step (ms)"
    assert speedup.lines[0].get_ydata() == pytest.approx(frame["speedup"])
    assert speedup.lines[1].get_ydata() == pytest.approx(frame["formula"])


CASES = {
    "one fails": lambda: make_frames([[100, 300, 700]], TOO_LONG),
    "all fail": lambda: make_frames([[500]], {"static": Growth(400, 1.0, 400)}),
    "one strategy": lambda: make_frames(strategies={"dynamic": THREE["dynamic"]}, num_repetitions=1, num_warmup=0),
    "twelve strategies": lambda: make_frames(decode_work(200, 60), MANY),
    "several requests, one fails": lambda: make_frames(multi_work(3), TOO_LONG),
}
MOST = "twelve strategies"
"""The case that is drawn each time; the others are laid out, which measures all that is drawn."""


@pytest.mark.slow
@pytest.mark.charts
@pytest.mark.parametrize("case", CASES)
def test_every_case_can_be_drawn(case):
    for figure in charts_of(CASES[case]()).values():
        draw(figure)


@pytest.mark.charts
@pytest.mark.parametrize("case", CASES)
def test_every_case_gives_all_charts(case):
    made = CASES[case]()
    charts = charts_of(made)
    assert list(charts)[:4] == ["memory", "latency", "panels", "pareto"]
    check_panels_and_failures(charts, made.summary, drawn=case == MOST)


def test_smaller_steps_are_told_beside_the_others(chat):
    assert "Splits appends" not in words(latency_chart(chat.summary, chat.steps))
    split = chat.summary.assign(num_steps=[6.0, 40.0, 6.0])
    assert "steps are smaller than others': dynamic." in words(latency_chart(split, chat.steps))


def test_strategies_without_rows_are_named(chat):
    empty = chat.steps[chat.steps["strategy"] != "static"]
    assert "Appended nothing: static." in words(memory_chart(chat.summary, empty))
    assert "Appended nothing: static." in words(latency_chart(chat.summary, empty))


def test_beyond_eight_those_on_a_front_are_in_colour_and_the_rest_named_where_they_are():
    made = make_frames(decode_work(200, 60), MANY)
    coloured = highlighted(made.summary)
    assert 0 < len(coloured) <= NUM_LOOKS
    figure = memory_chart(made.summary, made.steps)
    assert len(figure.legends[0].get_texts()) == len(coloured) + 3, "used, resizes, and the others"
    shown = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len(shown) == len(MANY) - len(coloured), "each once, in the panel that shows it"


def test_long_runs_are_bands_of_stretches(decode):
    (line,) = [line for line in latency_chart(decode.summary, decode.steps).axes[0].lines if len(line.get_xdata()) > 6][
        :1
    ]
    assert len(line.get_xdata()) <= 60
    found = band(np.array([1.0, 2, 3, 9, 9]), 2)
    assert found.x.tolist() == [2, 4.5]
    assert found.middle.tolist() == [2, 9]
    assert found.low[0] < 2 < found.high[0]


@pytest.mark.charts
def test_both_files_are_written_and_svg_is_the_same_twice(chat, tmp_path):
    paths = save(panels_chart(chat.summary), tmp_path / "charts", "panels")
    assert [path.name for path in paths] == ["panels.png", "panels.svg"]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    first = paths[1].read_bytes()
    assert b"<svg" in first
    assert b"dc:date" not in first
    save(panels_chart(chat.summary), tmp_path / "charts", "panels")
    assert paths[1].read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "charts").iterdir()) == ["panels.png", "panels.svg"]


@pytest.mark.charts
def test_nothing_is_left_of_a_failed_save(chat, tmp_path):
    figure = panels_chart(chat.summary)
    save(figure, tmp_path, "panels")
    for path in tmp_path.iterdir():
        path.write_bytes(b"an older run's")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    written = figure.savefig

    def fail(path, **options):
        written(path, **options)
        if options["format"] == "svg":
            raise OSError("disk full")

    figure.savefig = fail
    with pytest.raises(OSError, match="disk full"):
        save(figure, tmp_path, "panels")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="plain file name"):
        save(figure, tmp_path, "sub/panels")


def test_pyplot_and_its_global_state_are_not_used():
    for path in Path(kvbench.charts.__file__).parent.glob("*.py"):
        assert "pyplot" not in path.read_text(encoding="utf-8"), path.name


def test_a_strategy_that_never_held_anything_is_no_point(decode):
    made = decode.summary.copy()
    made.loc[0, ["peak_bytes", "outcome"]] = [0, "out_of_memory 1 of 1"]
    for axes in pareto_chart(made).axes:
        marks = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() in "osD^vP"]
        assert all(line.get_ydata()[0] > 0 for line in marks)

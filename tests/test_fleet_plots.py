"""Charts of a fleet show what the frames say: areas, lines and bars are read back from the axes."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from kvbench.charts import catalogue
from kvbench.charts.style import INK, STATES, looks
from kvbench.charts.sweep import FLEET_METRICS
from kvbench.charts.text import span_unit
from kvbench.fleet.frames import fleet_frames
from kvbench.fleet.result import Timeline
from kvbench.results.provenance import NOT_REPLAYED
from kvbench.results.series import stretches_of
from tests.support.drawing import check_panels_and_failures, draw, figures, line_of, words
from tests.support.fleet_columns import GIB, OBJECTIVE, SPLITS, S, columns, three
from tests.support.frames import decode_work, make_frames, multi_work

pytestmark = pytest.mark.usefixtures("undrawn")
NAMES = ["fleet_service", "fleet_memory", "fleet_load", "fleet_times", "workload"]
RATE = "backend.rate_scale"
NOTE = f"Modelled on H100: {NOT_REPLAYED}."
UNVALIDATED = "Modelled on H100: unvalidated."


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def charts_of(made):
    return figures(catalogue.fleet_charts(made.summary, made.requests, made.timeline))


@pytest.fixture(scope="module")
def frames():
    return three()


@pytest.fixture(scope="module")
def charts(frames):
    return charts_of(frames)


def run_charts(*frames):
    return figures(catalogue.run_charts(*frames))


def sweep_charts(*rows):
    return figures(catalogue.sweep_charts(*rows))


def areas(axes):
    """By colour, the highest that an area reaches."""
    found = {}
    for area in axes.collections:
        points = area.get_paths()[0].vertices
        found[to_hex(area.get_facecolor()[0]).upper()] = points[:, 1].max()
    return found


def test_the_charts_and_their_notes(charts):
    assert list(charts) == NAMES
    for name, figure in charts.items():
        assert NOTE in words(figure), name


def test_memory_stacks_the_states_up_to_what_is_held(charts):
    static, dynamic, paged = (axes for axes in charts["fleet_memory"].axes if axes.axison)
    # Half of 64 GiB: 16 % of 32 GiB used, with 10 % reserved, 70 % wasted inside and 4 % outside on top.
    tops = np.cumsum([32 * share for share in SPLITS["static"]])
    assert areas(static) == pytest.approx({state.colour.upper(): top for state, top in zip(STATES, tops, strict=True)})
    assert static.get_ylabel() == "Memory (GiB)"
    assert dynamic.get_ylabel() == ""
    assert {axes.get_title(loc="left") for axes in (static, dynamic, paged)} == set(SPLITS)
    assert {axes.get_ylim() for axes in (static, dynamic, paged)} == {static.get_ylim()}
    line = static.lines[-1]
    assert line.get_ydata()[0] == 64
    assert static.get_xlabel() == "Time (s)"
    assert static.get_xlim()[1] == pytest.approx(10.57, rel=0.01), "the slowest strategy's end, for all"
    assert "available to caches" in words(charts["fleet_memory"])


def test_memory_that_was_not_split_shows_what_is_used_and_the_rest():
    empty = np.full(8, math.nan)
    timeline = columns().result.timeline._replace(reserved=empty, internal_waste=empty, blocked_free=empty)
    made = charts_of(fleet_frames({"a": columns(is_split=False, timeline=timeline)}, "chat", OBJECTIVE))
    assert list(areas(made["fleet_memory"].axes[0]).values()) == pytest.approx([0.4 * 32, 0.9 * 32])
    assert "allocated and not used" in words(made["fleet_memory"])
    assert "not told apart" in words(made["fleet_service"])


def test_the_most_stands_beside_the_means(charts):
    static = charts["fleet_memory"].axes[0]
    most = next(line for line in static.lines if len(line.get_xdata()) > 2)
    assert most.get_ydata() == pytest.approx([1.25 * 0.96 * 32] * 9)
    assert "most allocated" in words(charts["fleet_memory"])
    shades = areas(charts["fleet_load"].axes[0])
    assert shades[looks(SPLITS)["paged"].colour.upper()] == 10


def test_batch_and_queue_are_the_timelines(charts, frames):
    live, waiting = charts["fleet_load"].axes
    colour = looks(SPLITS)["paged"].colour
    own = frames.timeline[frames.timeline["strategy"] == "paged"]
    line = line_of(live, colour)
    assert line.get_xdata()[:-1] == pytest.approx(own["time_s"])
    assert line.get_xdata()[-1] == pytest.approx(5.07)
    assert line.get_ydata().tolist() == [5.0] * 9
    assert line_of(waiting, colour).get_ydata().tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 14]
    assert "paged: mean batch 5" in words(charts["fleet_load"])
    assert waiting.get_yscale() == "linear"


def test_a_queue_far_above_another_bends_the_axis():
    runs = {"static": columns(slowness=50), "paged": columns(slowness=1)}
    _, waiting = charts_of(fleet_frames(runs, "chat", OBJECTIVE))["fleet_load"].axes
    assert waiting.get_yscale() == "symlog"
    assert -1 < waiting.get_ylim()[0] < 0  # marks at 0 are whole


def test_times_are_shares_of_completed_requests_with_the_objective(charts, frames):
    ttft, tpot, latency = charts["fleet_times"].axes
    own = frames.requests[frames.requests["strategy"] == "static"]
    line = line_of(ttft, looks(SPLITS)["static"].colour)
    assert ttft.get_xlabel() == "TTFT (s)"
    assert line.get_xdata() == pytest.approx(np.sort(own["ttft_s"]))
    assert line.get_ydata() == pytest.approx(np.arange(1, 41) / 40)
    assert ttft.get_xscale() == "log", "from 30 ms to 6.27 s"
    marks = [line for axes in (ttft, tpot, latency) for line in axes.lines if line.get_color() == INK]
    places = [line.get_xdata()[0] for line in marks]
    assert places == pytest.approx([1.0, 50.0]), "1 s, 50 ms; latency has none"
    assert tpot.get_xlabel() == "TPOT (ms)"


def test_an_objective_far_above_all_times_is_told_and_presses_no_line(frames):
    far = frames.summary.assign(ttft_objective_s=60.0)  # the slowest first token comes after 6.27 s
    chart = charts_of(replace(frames, summary=far))["fleet_times"]
    assert not [line for line in chart.axes[0].lines if line.get_color() == INK]
    assert chart.axes[0].get_xlim()[1] < 10
    assert "Objective of TTFT: 60 s, above what is shown." in words(chart)


def test_requests_that_did_not_complete_are_in_no_distribution():
    for axes in charts_of(three(failed=3))["fleet_times"].axes:
        assert len(line_of(axes, looks(SPLITS)["static"].colour).get_xdata()) == 37


def test_bars_are_the_summary_and_shares_add_up(charts, frames):
    tokens, goodput, batch, shares = charts["fleet_service"].axes
    for axes, column in ((tokens, "tokens_per_s"), (goodput, "goodput_per_s"), (batch, "mean_batch")):
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(frames.summary[column].tolist()), column
    marks = goodput.lines[0]
    assert marks.get_xdata() == pytest.approx(frames.summary["requests_per_s"])
    widths = np.array([bar.get_width() for bar in shares.patches]).reshape(len(STATES), -1)
    assert widths[:, 0] == pytest.approx([100 * share for share in SPLITS["static"]])
    assert widths.sum(axis=0) == pytest.approx([100] * 3)
    assert "TTFT of at most 1 s and TPOT of at most 50 ms" in words(charts["fleet_service"])
    assert [axes.get_xlabel() for axes in (tokens, goodput, batch, shares)] == [
        "Throughput (tokens/s)",
        "Goodput (requests/s)",
        "Requests live (count)",
        "Share of memory held or unusable (%)",
    ]


LONG = {f"a-rather-long-name-of-growth-{i}_$x_": (0.5, 0.1, 0.2, 0.2) for i in range(8)} | SPLITS
CASES = {
    "one strategy": lambda: fleet_frames({"paged": columns()}, "chat", OBJECTIVE),
    "one request": lambda: three(num_requests=1, num_bins=1),
    "eleven strategies": lambda: fleet_frames({name: columns(own) for name, own in LONG.items()}, "chat", OBJECTIVE),
    "none completed": lambda: three(failed=40),
    "some failed": lambda: three(failed=3),
    "no timeline": lambda: three(num_bins=0),
    "one timeline is missing": lambda: fleet_frames({"a": columns(), "b": columns(num_bins=0)}, "chat", OBJECTIVE),
    "nothing held": lambda: three(sums=np.zeros((4, 6))),
    "many bins": lambda: three(num_requests=3000, num_bins=1024),
}


MOST = "eleven strategies"
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
    assert list(charts) == NAMES if case != "one request" else NAMES[:-1]
    check_panels_and_failures(charts, made.summary, drawn=case == MOST)
    if case == "none completed":
        assert "no completed request has one" in words(charts["fleet_times"])
    if case == "no timeline":
        assert "no timeline was kept" in words(charts["fleet_memory"])
    if case == "one timeline is missing":
        assert "No timeline was kept: b." in words(charts["fleet_load"])


def test_many_stretches_become_means_and_the_end_stays():
    flat = dict.fromkeys(Timeline._fields, np.zeros(1000))
    flat |= dict.fromkeys(("found_below", "loads"), np.zeros((3, 1000)))
    timeline = Timeline(**flat | {"bin_ns": S, "used": np.arange(1000.0), "most_used": np.arange(1000.0)})
    made = fleet_frames({"a": columns(timeline=timeline)}, "chat", OBJECTIVE)
    own = stretches_of(made.timeline, made.summary, 400)["a"]
    assert len(own.values["used_bytes"]) == 334
    assert own.values["used_bytes"][:2].tolist() == [1, 4]
    assert own.values["used_max_bytes"][:2].tolist() == [2, 5], "the most of what is the most"
    assert own.values["used_bytes"][-1] == 999, "the last alone"
    assert (own.edges_s[1], own.edges_s[-1]) == (3, 1000)


def test_long_runs_are_in_minutes_and_hours():
    assert span_unit([599.0]).name == "s"
    assert span_unit([601.0]) == ("min", 60)
    assert span_unit([86_400.0]) == ("h", 3600)


def fleet_sweep(rates=(0.5, 1.0, 2.0)):
    parts = [three(num_requests=int(20 * rate)).summary.assign(**{RATE: rate}) for rate in rates]
    return pd.concat(parts, ignore_index=True)


def test_a_load_sweep_shows_service():
    summary = fleet_sweep()
    charts = sweep_charts(summary, [RATE])
    assert list(charts) == ["sweep"], "no front of step times, which a fleet has not"
    panels = charts["sweep"].axes
    assert len(panels) == len(FLEET_METRICS)
    own = summary[summary["strategy"] == "paged"]
    line = line_of(panels[1], looks(SPLITS)["paged"].colour)
    assert line.get_xdata().tolist() == [0.5, 1, 2]
    assert line.get_ydata() == pytest.approx(own["goodput_per_s"])
    assert panels[3].get_ylabel() == "TTFT, mean (ms)", "of forty requests at most there is no 99th percentile"
    assert panels[6].get_ylabel() == "Mean batch"
    assert NOTE in words(charts["sweep"])


def test_a_sweep_over_machines_and_replicas_has_a_line_a_machine():
    parts = [fleet_sweep((1.0,)).assign(hardware=name, **{"backend.replicas": n}) for name in "ab" for n in (1, 2)]
    charts = sweep_charts(pd.concat(parts, ignore_index=True), ["hardware", "backend.replicas"])
    texts = [text.get_text() for text in charts["sweep_2"].legends[0].get_texts()]
    assert texts[:2] == ["static, hardware a", "static, hardware b"]
    assert f"Modelled on a, b: {NOT_REPLAYED}." in words(charts["sweep_1"])


def test_every_chart_of_a_modelled_run_says_so():
    made = make_frames(multi_work(3))
    summary = made.summary.assign(source="modelled", hardware="H100", lossless=[False, True, True], error_relative=0.1)
    charts = run_charts(summary, made.requests, made.steps)
    assert {"memory", "latency", "panels", "pareto", "quality", "workload"} == set(charts)
    swept = pd.concat([summary.assign(**{"strategy.dynamic.growth_factor": f}) for f in (1.2, 2.0)], ignore_index=True)
    charts |= {
        f"swept {name}": chart for name, chart in sweep_charts(swept, ["strategy.dynamic.growth_factor"]).items()
    }
    for name, figure in charts.items():
        assert UNVALIDATED in words(figure), name
    for name, figure in run_charts(made.summary, made.requests, made.steps).items():
        assert "Modelled" not in words(figure), name


def test_modelled_against_measured_is_drawn_as_it_is():
    measured = make_frames(decode_work(300, 60)).summary.assign(backend="measured")
    times = measured["step_mean_us"] * [1.1, 0.8, 1.0]
    priced = measured.assign(backend="modelled", source="modelled", hardware="H100", step_mean_us=times)
    figure = sweep_charts(pd.concat([measured, priced], ignore_index=True), ["backend"])["model_error"]
    points, bars = figure.axes
    marks = [line for line in points.lines if len(line.get_xdata()) == 1 and line.get_marker() in "osD^vP"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx(measured["step_mean_us"])
    assert [line.get_ydata()[0] for line in marks] == pytest.approx(times)
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([10, 20, 0], abs=1e-9)
    assert points.get_xlim() == points.get_ylim()
    assert UNVALIDATED in words(figure)


def test_available_memory_far_above_what_is_held_is_told():
    made = fleet_frames({"a": columns(facts={"available_bytes": 4096 * GIB})}, "chat", OBJECTIVE)
    axes = charts_of(made)["fleet_memory"].axes[0]
    assert axes.get_ylabel() == "Memory (GiB)"
    assert "Available to caches: 4,096 GiB, above what is shown." in words(axes.figure)

"""Charts of a real model's quality show what the frames say: points, lines and cells are read back."""

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from kvbench.charts.axes import _Spread
from kvbench.charts.memory_quality import _on_front, memory_quality_chart
from kvbench.charts.needles import needle_charts
from kvbench.charts.style import REST, looks
from kvbench.results.front import Cost, pareto_front
from tests.support.drawing import draw, words

pytestmark = pytest.mark.usefixtures("undrawn")
MIB = 2**20
NUM_TOKENS = 1000
IDEAL = 40 * MIB
NAN = float("nan")
COLUMNS = ("strategy", "kind", "lossless", "budget_tokens", "perplexity", "peak_bytes", "agreement", "num_attended")
ROWS = [
    ("dynamic", "kvbench", True, NAN, 20.0, 50 * MIB, 1.0, 1000),
    ("int8", "kvbench", False, NAN, 20.02, 12 * MIB, 0.99, 1000),
    ("int4", "kvbench", False, NAN, 20.6, 8 * MIB, 0.95, 1000),
    ("int2", "kvbench", False, NAN, 31.0, 5 * MIB, 0.8, 1000),
    ("int2_naive", "kvbench", False, NAN, 402.0, 5 * MIB, 0.2, 1000),
    ("sinks", "kvbench", False, 100, 24.0, 4 * MIB, 0.9, 100),
    ("sinks", "kvbench", False, 200, 20.7, 8 * MIB, 0.93, 200),
    ("recent_window", "kvbench", False, 100, 61.0, 4 * MIB, 0.6, 100),
    ("recent_window", "kvbench", False, 200, 32.0, 8 * MIB, 0.7, 200),
    ("snapkv", "kvbench", False, 100, 26.0, 4.5 * MIB, 0.88, 100),
    ("snapkv", "kvbench", False, 200, 20.9, 9 * MIB, 0.92, 200),
    ("hierarchical", "kvbench", True, NAN, NAN, NAN, NAN, 1000),
    ("transformers dynamic", "transformers", True, NAN, 20.0, 41 * MIB, 1.0, 1000),
    ("transformers static", "transformers", True, NAN, 20.0, 80 * MIB, 1.0, 1000),
    ("transformers fp8", "transformers", False, NAN, 20.05, 13 * MIB, 0.99, 1000),
]


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def table():
    frame = pd.DataFrame(ROWS, columns=COLUMNS)
    outcome = np.where(frame["perplexity"].isna(), "out_of_memory", "completed")
    return frame.assign(
        outcome=outcome, perplexity_continued=0.9 * frame["perplexity"], ideal_bytes=IDEAL, held_bytes=4 * MIB
    )


def needles(strategies=(("dynamic", NAN), ("sinks", 200.0)), turns=("first", "later")):
    rows = [
        (name, budget, length, depth, turn, (length + 100 * depth) % 97 / 97, 4)
        for name, budget in strategies
        for turn in turns
        for length in (256, 512)
        for depth in (0.0, 0.5, 1.0)
    ]
    columns = ("strategy", "budget_tokens", "context_tokens", "depth", "turn", "recall", "num_asked")
    return pd.DataFrame(rows, columns=columns)


def points_of(axes, look):
    """The points drawn in a strategy's look."""
    found = [
        line
        for line in axes.lines
        if line.get_linestyle() == "None"
        and line.get_marker() == look.marker
        and to_hex(line.get_color()) == to_hex(look.colour)
    ]
    return np.concatenate([line.get_xydata() for line in found])


def notes(figure):
    return "\n".join(text.get_text() for text in figure.texts)


def test_points_are_the_rows():
    frame = table()
    figure = memory_quality_chart(frame)
    style = {name: look for name, look in looks(frame["strategy"], _on_front(frame)).items() if look is not REST}
    assert len(style) == 4
    costs = (frame["perplexity"], frame["perplexity_continued"], 100 * (1 - frame["agreement"]))
    for axes, cost in zip(figure.axes[:3], costs, strict=True):
        for name in style:
            own = frame["strategy"] == name
            expected = np.column_stack([frame["peak_bytes"] / MIB, cost])[own]
            assert points_of(axes, style[name]) == pytest.approx(expected), name
    assert figure.axes[0].get_xlabel() == "Peak memory of K and V (MiB)"
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == [
        "Perplexity",
        "Perplexity",
        "Other than the full cache's (%)",
    ]


def test_a_panel_shows_its_own_forms_peaks():
    frame = table().assign(peak_bytes_continued=2 * table()["peak_bytes"])
    style = looks(frame["strategy"])
    with_own, without = (memory_quality_chart(rows).axes[1] for rows in (frame, table()))
    assert points_of(with_own, style["int4"])[0, 0] == 16
    assert with_own.get_xlabel() == "Peak memory of K and V (MiB)"
    assert points_of(without, style["int4"])[0, 0] == 8
    assert without.get_xlabel() == "Peak memory of K and V, streaming (MiB)"


def test_front_full_cache_and_rings():
    frame = table()
    axes = memory_quality_chart(frame).axes[0]
    front = pareto_front(Cost.around(frame["peak_bytes"]), Cost.around(frame["perplexity"]))
    assert frame["strategy"][front].tolist() == ["int8", "int4", "sinks", "transformers dynamic"]
    path = axes.lines[-2].get_xydata()
    for row in frame[front].itertuples():
        assert any(np.allclose(corner, (row.peak_bytes / MIB, row.perplexity)) for corner in path)
    assert set(axes.lines[-1].get_ydata()) == {20.0}
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert rings[0].get_xdata().tolist() == [41, 80, 13]


@pytest.mark.charts
def test_axes_beside_the_panel_say_shares():
    figure = memory_quality_chart(table())
    panel = figure.axes[0]
    (top,) = panel.child_axes
    figure.draw_without_rendering()
    assert top.get_xlim() == pytest.approx(np.array(panel.get_xlim()) * MIB / IDEAL * 100)
    right = next(axes for axes in figure.axes[3:] if axes.get_position().bounds == panel.get_position().bounds)
    assert right.get_ylim() == panel.get_ylim()
    ticks = dict(zip([tick.get_text() for tick in right.get_yticklabels()], right.get_yticks(), strict=True))
    assert ticks["×1"] == 20
    assert ticks["×2"] == 40
    own = [tick.get_text() for tick in panel.get_yticklabels()]
    assert {"20", "50", "100", "500"} <= set(own)


def test_a_spread_axis_goes_back_and_forth():
    spread = _Spread(20.0, 0.2)
    values = np.array([15.0, 19.9, 20.0, 20.1, 25.0, 400.0])
    places = spread.places(values)
    assert spread.values(places) == pytest.approx(values)
    assert places[2] == 0
    assert places[3] == -places[1] == pytest.approx(np.log(1.5))


@pytest.mark.charts
def test_every_point_of_the_wide_panel_has_its_name_and_budget():
    figure = memory_quality_chart(table())
    renderer = figure._get_renderer()
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    assert {"sinks 10 %", "sinks 20 %", "dynamic", "transformers static"} <= {text.get_text() for text in texts}
    assert len(texts) == len(ROWS) - 1
    boxes = [Text.get_window_extent(text, renderer).shrunk(0.98, 0.9) for text in texts]
    for index, box in enumerate(boxes):
        assert box.count_overlaps(boxes[index + 1 :]) == 0


def test_notes_tell_what_is_not_drawn():
    frame = table()
    frame.loc[3, "perplexity"] = np.nan
    said = notes(memory_quality_chart(frame, "A model.", "Mine"))
    for part in (
        "Mine",
        "A model.",
        "Not completed (out_of_memory): hierarchical.",
        "No perplexity: int2.",
        "% of the tok",
    ):
        assert part in said


def test_who_did_not_complete_is_hollow_and_on_no_front():
    frame = table()
    frame.loc[2, "outcome"] = "out_of_memory"  # with its needles, say: int4 has a perplexity
    frame = frame[frame["strategy"].isin(["dynamic", "int4", "int2"])]
    figure = memory_quality_chart(frame)
    axes, look = figure.axes[0], looks(frame["strategy"])["int4"]
    marks = [line for line in axes.lines if line.get_marker() == look.marker and line.get_color() == look.colour]
    assert [to_hex(mark.get_markerfacecolor()) for mark in marks] == ["#ffffff"]
    assert [8, 20.6] not in axes.lines[-2].get_xydata().tolist()
    assert "Hollow: not completed, on no front." in notes(figure)


@pytest.mark.charts
@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame[~frame["lossless"]].reset_index(drop=True),
        lambda frame: frame[:1],
        lambda frame: frame.assign(perplexity_continued=np.nan, agreement=np.nan),
        lambda frame: frame.assign(perplexity=np.nan, outcome="out_of_memory"),
        lambda frame: frame.assign(outcome="out_of_memory"),
        lambda frame: frame.assign(ideal_bytes=np.arange(len(frame))),
        lambda frame: frame.assign(perplexity=frame["perplexity"].where(frame["strategy"] != "int8", 19.0)),
        lambda frame: frame.assign(budget_tokens=np.nan, kind="kvbench"),
    ],
    ids=[
        "no full cache",
        "one row",
        "one panel",
        "all fail",
        "all fail late",
        "no one ideal",
        "better than full",
        "no budgets",
    ],
)
def test_every_case_gives_a_chart(change):
    figure = memory_quality_chart(change(table()))
    figure.draw_without_rendering()
    assert all(axes.get_ylabel() for axes in figure.axes[:3])


def test_a_small_panel_without_values_is_left_out():
    frame = table().assign(agreement=np.nan)
    titles = {axes.get_title(loc="left") for axes in memory_quality_chart(frame).axes}
    assert titles == {"Streaming: token by token from the start", "Prefill, then token by token", ""}
    figure = memory_quality_chart(frame.assign(perplexity=np.nan, perplexity_continued=np.nan))
    assert "no strategy has a value here" in words(figure)


def test_without_a_full_cache_budgets_are_tokens():
    frame = table()
    figure = memory_quality_chart(frame[~frame["lossless"]].reset_index(drop=True))
    assert "sinks 200" in {text.get_text() for text in figure.axes[0].texts}
    assert "its budget, in tokens" in notes(figure)


def test_cells_are_the_recalls():
    frame = needles()
    (figure,) = needle_charts(frame).values()
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "dynamic\nfirst turn",
        "\nlater turn",
        "sinks, 200 tokens\nfirst turn",
        "\nlater turn",
    ]
    shown = panels[0].images[0].get_array()
    assert shown.shape == (3, 2)
    assert shown[1, 0] == pytest.approx(100 * ((256 + 50) % 97) / 97)
    assert panels[0].images[0].get_clim() == (0, 100)
    assert [text.get_text() for text in panels[0].texts][:2] == [f"{value:.0f}" for value in shown[0]]
    assert "4 asked for in each" in notes(figure)


def test_what_was_not_asked_is_a_dash():
    frame = needles()
    frame.loc[0, "recall"] = np.nan
    (figure,) = needle_charts(frame).values()
    panel = next(axes for axes in figure.axes if axes.images)
    assert panel.images[0].get_array().mask.sum() == 1
    assert panel.texts[0].get_text() == "–"


@pytest.mark.charts
def test_many_strategies_take_several_figures():
    frame = needles([(f"strategy {number}", NAN) for number in range(13)])
    charts = needle_charts(frame)
    assert [sum(bool(axes.images) for axes in figure.axes) for figure in charts.values()] == [24, 2]
    draw(charts["needles_2"])
    assert list(needle_charts(needles(turns=("first",)))) == ["needles"]
    assert needle_charts(frame.assign(recall=np.nan)) == {}

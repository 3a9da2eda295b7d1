"""The chart of hits: shares by tier by hand, and what is drawn and said of them."""

import numpy as np
import pandas as pd
import pytest

from kvbench.charts.catalogue import fleet_charts
from kvbench.charts.hits import HitsChart
from kvbench.fleet.frames import fleet_frames
from kvbench.results.hits import hits_of
from kvbench.results.results import Results
from tests.support.fleet_columns import OBJECTIVE, columns


def _made(names: tuple[str, ...] = ("paged",), below: bool = True) -> Results:
    """100 tokens are looked for in each of 8 stretches but the third: 40 found on the device, 20 more in the host's
    memory, with half a load on its link."""
    made = fleet_frames({name: columns() for name in names}, "chat", OBJECTIVE)
    assert made.timeline is not None
    turn = np.arange(len(made.timeline)) % 8
    looked = np.where(turn == 2, 0.0, 100.0)
    made.timeline["queried_tokens"], made.timeline["hit_tokens"] = looked, 0.4 * looked
    if below:
        made.timeline["host_tokens"], made.timeline["host_loads"] = 0.2 * looked, 0.5
    return made


def test_shares_by_hand() -> None:
    """Of pairs of stretches each has 40 and 20 %, also the one in half of which nothing is looked for."""
    made = _made()
    own = hits_of(made.timeline, made.summary, 8)["paged"]
    assert list(own.shares) == ["device", "host"]
    assert own.shares["device"][[0, 1, 3]] == pytest.approx(0.4)
    assert np.isnan(own.shares["host"][2])
    assert own.loads["host"].tolist() == [0.5] * 8
    assert own.whole == pytest.approx({"device": 0.4, "host": 0.2})
    assert hits_of(made.timeline, made.summary, 4)["paged"].shares["host"] == pytest.approx([0.2] * 4)


def test_tiers_stand_on_each_other_and_the_links_beside_them() -> None:
    """The uppermost area ends at 60 %; each tier has its colour."""
    made = _made()
    chart = HitsChart(summary=made.summary, timeline=made.timeline)
    shares, queue = chart.figure().axes
    tops = [np.nanmax(area.get_paths()[0].vertices[:, 1]) for area in shares.collections]
    assert tops == pytest.approx([40, 60])
    assert len({tuple(area.get_facecolor()[0]) for area in shares.collections}) == 2
    assert [line.get_ydata().max() for line in queue.lines] == [0.5]
    assert shares.get_title(loc="left") == "paged: 60 % found"
    assert any("Where nothing is drawn, nobody was admitted" in text.get_text() for text in shares.figure.texts)
    assert chart.sentences() == [
        "paged finds 60 % of the prompt tokens that it looks for: 40 % on the device and 20 % loaded from the host."
    ]


def test_small_shares_fill_the_panel() -> None:
    """A twentieth of the 60 % is 3: all panels end a tenth above."""
    made = _made(("a", "b"))
    large = HitsChart(summary=made.summary, timeline=made.timeline).figure().axes[::2]
    assert [axes.get_ylim()[1] for axes in large] == [100, 100]
    made.timeline[["hit_tokens", "host_tokens"]] /= 20
    chart = HitsChart(summary=made.summary, timeline=made.timeline)
    assert [axes.get_ylim()[1] for axes in chart.figure().axes[::2]] == pytest.approx([3.3, 3.3])


def test_without_tiers_there_is_one_panel_a_strategy_and_four_at_most() -> None:
    """And without names there is no chart."""
    made = _made(("a", "b", "c", "d", "e"), below=False)
    chart = HitsChart(summary=made.summary, timeline=made.timeline)
    figure = chart.figure()
    assert len(figure.axes) == 4
    assert any("Not shown beside 4 others: e." in text.get_text() for text in figure.texts)
    assert chart.sentences()[0] == "a finds 40 % of the prompt tokens that it looks for, on the device."
    names = {each.name for each in fleet_charts(made.summary, made.requests, made.timeline)}
    assert "fleet_hits" in names
    bare = fleet_frames({"paged": columns()}, "chat", OBJECTIVE)
    none = fleet_charts(bare.summary, bare.requests, pd.DataFrame(bare.timeline))
    assert "fleet_hits" not in {each.name for each in none}

"""A fleet's replicas by themselves: means over time, figures, and the map."""

from pathlib import Path

import numpy as np
import pytest

from kvbench.api.shown import charts_of
from kvbench.charts.replicas import ReplicasChart
from kvbench.fleet import simulate
from kvbench.fleet.by_replica import ByReplica, by_replica
from kvbench.fleet.frames import fleet_frames
from kvbench.fleet.state import ALLOCATED, BATCH, FOUND, FOUND_BELOW, LOOKED, NUM_COLUMNS, NUM_SUMS, WAITED, WAITING
from kvbench.results.replicas import figures_of_replicas
from kvbench.results.results import Results, load
from kvbench.strategy.exact import Exact
from tests.support.fleet_columns import GIB, OBJECTIVE, S, columns
from tests.support.fleet_models import PRICES, columns_of
from tests.support.machines import GEOMETRY

PS = 1_000


def _sums(num_replicas: int, num_bins: int) -> np.ndarray:
    return np.zeros((num_replicas, num_bins + 1, NUM_COLUMNS))


def test_means_by_hand() -> None:
    """Bins of 10 ns, of the second replica of 20: in the first 20 ns 3 requests for 10 of them, or 1 all the time."""
    sums = _sums(2, 4)
    sums[0, 1, BATCH] = 3 * 10 * PS
    sums[0, 1, NUM_SUMS + ALLOCATED] = 500 * 20 * PS
    sums[1, 0, BATCH] = 20 * PS
    sums[0, :2, LOOKED], sums[0, 1, FOUND], sums[0, 0, FOUND_BELOW] = 100, 30, 20
    sums[0, 2, WAITED], sums[0, 3, WAITING] = 5, 1  # one waits from 25 ns on
    found = by_replica(sums, np.array([10, 20]), 45)
    assert found.stretch_ns == 20
    assert found.batch.tolist() == [[1.5, 0, 0], [1, 0, 0]]
    assert found.allocated.tolist() == [[500, 0, 0], [0, 0, 0]]
    assert found.queue.tolist() == [[0, 0.75, 0], [0, 0, 0]]
    assert found.looked[:, 0].tolist() == [200, 0]
    assert found.found[:, 0].tolist() == [50, 0]


@pytest.mark.parametrize("num_shown", [129, 131])
def test_many_bins_are_joined_and_the_last_stretch_is_as_long_as_it_is(num_shown: int) -> None:
    """129 bins in stretches of 3 are 43 of them; of 131 a 44th has 2."""
    sums = _sums(2, 200)
    sums[:, :num_shown, BATCH] = 10 * PS
    found = by_replica(sums, np.array([10, 10]), 10 * num_shown - 1)
    assert found.stretch_ns == 30
    assert found.batch.tolist() == [[1.0] * -(-num_shown // 3)] * 2


@pytest.mark.parametrize("num_replicas", [1, 1_025])
def test_one_replica_is_not_told_by_itself_nor_are_very_many(num_replicas: int) -> None:
    """The timeline is enough of one."""
    found = by_replica(_sums(num_replicas, 4), np.full(num_replicas, 10), 45)
    assert found.batch.shape == (0, 5 - 1)


def test_replicas_add_up_to_the_timeline() -> None:
    """Of 20 requests on 3 replicas: their means together are the timeline's."""
    result = simulate(
        columns_of([(1000 * i, 40, 30) for i in range(20)]),
        Exact(round_to=1),
        PRICES,
        geometry=GEOMETRY,
        budget_bytes=2**30,
        max_batch=2,
        replicas=3,
    )
    over, own = result.timeline, result.by_replica
    assert own.batch.shape[0] == 3
    joined = own.stretch_ns // over.bin_ns
    for each, whole in ((own.batch, over.batch), (own.queue, over.queue), (own.allocated, over.allocated)):
        firsts = np.arange(0, whole.size, joined)
        means = np.add.reduceat(whole, firsts) / np.diff(np.append(firsts, whole.size))
        assert each.sum(axis=0) == pytest.approx(means, rel=1e-9)
    assert (own.batch.max(axis=1) > 0).all()


def _frames(names: tuple[str, ...] = ("paged",)) -> Results:
    """Of each 3 replicas over 4 stretches of 10 s: n live on replica n, one waits on the last, that holds 8 GiB."""
    batch, queue, held = np.outer(np.arange(3.0), np.ones(4)), np.zeros((3, 4)), np.zeros((3, 4))
    queue[2], held[2] = 1.0, 8 * GIB
    looked, found = np.full((3, 4), 100.0), np.outer([0.0, 20.0, 80.0], np.ones(4))
    looked[:, 3] = 0.0
    own = ByReplica(10 * S, batch, queue, held, looked, found * (looked > 0))
    return fleet_frames({name: columns(by_replica=own) for name in names}, "chat", OBJECTIVE)


def test_figures_by_hand() -> None:
    """Of 64 GiB of all three, 8 GiB are 3 / 8 of one's."""
    made = _frames()
    assert made.replicas is not None
    own = figures_of_replicas(made.replicas, made.summary)["paged"]
    assert own.edges_s.tolist() == [0, 10, 20, 30, 40]
    assert own.load[:, 0].tolist() == [0, 1, 3]
    assert own.held[:, 0].tolist() == [0, 0, 0.375]
    assert own.found[:, 0].tolist() == own.found_shares.tolist() == [0, 0.2, 0.8]
    assert np.isnan(own.found[:, 3]).all()


def test_the_map_has_a_line_a_replica_and_says_how_unlike_they_are() -> None:
    """Three maps and their scales; of five strategies four, and the fifth is named."""
    made = _frames()
    chart = ReplicasChart(summary=made.summary, replicas=made.replicas)
    figure = chart.figure()
    assert [image.get_array().shape for axes in figure.axes for image in axes.images] == [(3, 4)] * 3
    assert chart.sentences() == [
        "paged: of 3 replicas each has 0 to 3 requests live and waiting on average, and what they hold is 0 % to "
        "37.5 % of its memory; of prompts' tokens 0 % to 80 % are found on one, or below it."
    ]
    assert any("Grey: nobody was admitted" in text.get_text() for text in figure.texts)
    many = _frames(("a", "b", "c", "d", "e"))
    drawn = ReplicasChart(summary=many.summary, replicas=many.replicas).figure()
    assert sum(len(axes.images) for axes in drawn.axes) == 12
    assert any("Not shown beside 4 others: e." in text.get_text() for text in drawn.texts)


def test_runs_of_unlike_length_share_a_picture() -> None:
    """The first of two has lost its last stretch; nothing is looked for in the second, which says so."""
    made = _frames(("a", "b"))
    assert made.replicas is not None
    own = made.replicas[(made.replicas["strategy"] != "a") | (made.replicas["time_s"] < 30)].copy()
    own.loc[own["strategy"] == "b", ["queried_tokens", "found_tokens"]] = 0
    drawn = ReplicasChart(summary=made.summary, replicas=own).figure()
    assert [image.get_array().shape[1] for axes in drawn.axes for image in axes.images] == [3, 3, 3, 4, 4]
    assert any(text.get_text() == "nothing is looked for" for axes in drawn.axes for text in axes.texts)


def test_they_are_kept_in_a_folder_and_drawn(tmp_path: Path) -> None:
    """As the frame that they were; of one replica there is none, and no chart."""
    made = _frames()
    made.save(tmp_path / "several")
    again = load(tmp_path / "several")
    assert again.replicas is not None
    assert again.replicas.equals(made.replicas.astype({"strategy": again.replicas["strategy"].dtype}))
    assert "fleet_replicas" in {chart.name for chart in charts_of(again)}
    one = fleet_frames({"paged": columns()}, "chat", OBJECTIVE)
    assert one.replicas is None
    assert "fleet_replicas" not in {chart.name for chart in charts_of(one)}

"""A fleet of models whose layers differ: against the runner, step by step, and by hand."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kvbench.fleet import OUTCOMES, simulate
from kvbench.ledger.costs import workspace_bytes
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.strategy.paged import Paged
from kvbench.timing.prices import UNBOUNDED, Sight, num_pairs, num_seen
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from tests.support.fleet_models import COLUMNS, LATE, PS_PER_NS, by_runner, columns_of, results
from tests.support.machines import WEIGHTS, machine
from tests.test_fleet import BATCH, MAKERS, OPTIONS, ROWS


def group(kind, *layers, **changed):
    sizes = {"num_heads": 2, "num_kv_heads": 1, "key_dim": 8, "value_dim": 8, "dtype": "float16"}
    return LayerGroup(kind=kind, layers=layers, **sizes | changed)


SHARING = {"num_kv_heads": 0, "key_dim": 0, "value_dim": 0, "num_heads": 0}
MODELS = {
    "windows": (group("full", 2), group("window", 0, 1, tokens=8)),
    "windows alone": (group("window", 0, 1, tokens=11),),
    "two windows": (group("window", 0, tokens=3), group("window", 1, 2, tokens=20), group("sharing", 3, **SHARING)),
    "chunks": (group("full", 1), group("chunked", 0, 2, tokens=7)),
    "widths": (group("full", 0, key_dim=16, dtype="fp8_e4m3"), group("window", 1, tokens=5, num_kv_heads=2)),
    "latents": (group("latent", 0, 1, key_dim=12, num_heads=4),),
    "states": (
        group("full", 1),
        LayerGroup(
            kind="state", layers=(0,), state=(StateTensor(name="recurrent", rows=4, columns=9, dtype="float32"),)
        ),
    ),
}
GEOMETRIES = {name: KVGeometry(groups=groups, dtype="float16", name=name) for name, groups in MODELS.items()}


def chosen(name, maker, num_bytes):
    """A model, a strategy for it, and a budget of so many bytes beside what reading needs."""
    geometry = GEOMETRIES[name]
    strategy = MAKERS[maker](num_bytes // geometry.bytes_per_token)
    return geometry, strategy, num_bytes + workspace_bytes(strategy.areas, geometry, 1)


def run(name, maker, rows, num_bytes, max_batch, num_clients=None, **options):
    geometry, strategy, budget_bytes = chosen(name, maker, num_bytes)
    prices = prices_of(machine(), work_of_parameters(geometry, WEIGHTS))
    settings = {"geometry": geometry, "budget_bytes": budget_bytes, "max_batch": max_batch}
    return simulate(columns_of(rows, num_clients), strategy, prices, **settings | options)


BYTES = st.integers(1_200, 9_000)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40, deadline=None)
@given(maker=st.sampled_from(list(MAKERS)), rows=ROWS, num_bytes=BYTES, max_batch=BATCH)
def test_it_equals_the_runner_on_the_modelled_backend(name, maker, rows, num_bytes, max_batch):
    # Beside a pool, a fleet sets aside states of as many as can be live; the runner holds those of who is.
    assume((name, maker) != ("states", "paged"))
    fleet = run(name, maker, rows, num_bytes, max_batch)
    geometry, strategy, budget_bytes = chosen(name, maker, num_bytes)
    requests, totals, sums = by_runner(columns_of(rows), strategy, budget_bytes, max_batch, geometry)
    ours = results(fleet)
    ours["finish_ns"] = np.where(fleet.outcome == OUTCOMES.index("completed"), fleet.finish_ns, -1).tolist()
    assert ours == {column: requests[column].tolist() for column in COLUMNS} | {"held_tokens": totals["held_tokens"]}
    assert fleet.totals.num_prompt_tokens + fleet.totals.num_decoded_tokens == totals["num_tokens"]
    for counted in ("num_recomputed_tokens", "num_resizes", "copied_bytes", "peak_bytes"):
        assert getattr(fleet.totals, counted) == totals[counted], counted
    time_ps, used, allocated, wasted, batch, _ = fleet.sums.sum(axis=0)
    # The runner's rows have whole nanoseconds, each step's cut off.
    assert np.array([time_ps, used, allocated, wasted, batch]) / PS_PER_NS == pytest.approx(sums, rel=0.02, abs=1.0)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40, deadline=None)
@given(
    maker=st.sampled_from(list(MAKERS)),
    rows=ROWS,
    late=st.sampled_from([[], [LATE]]),
    num_bytes=BYTES,
    max_batch=BATCH,
    options=OPTIONS,
)
def test_jumping_gives_what_stepping_gives(name, maker, rows, late, num_bytes, max_batch, options):
    rows = rows + late
    jumped = run(name, maker, rows, num_bytes, max_batch, **options)
    stepped = run(name, maker, rows, num_bytes, max_batch, step_by_step=True, **options)
    assert results(jumped) == results(stepped)
    assert jumped.totals == stepped.totals
    assert jumped.sums == pytest.approx(stepped.sums, rel=1e-9, abs=1e-3)
    for ours, theirs in zip(jumped.timeline, stepped.timeline, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9, nan_ok=True)


def test_blocks_that_windows_would_give_back_are_refused():
    prices = prices_of(machine(), work_of_parameters(GEOMETRIES["windows"], WEIGHTS))
    settings = {"geometry": GEOMETRIES["windows"], "budget_bytes": 1 << 20, "max_batch": 2}
    with pytest.raises(
        ValueError,
        match="window_blocks: keep, or late, in a fleet, where blocks that a window has left",
    ):
        simulate(columns_of([(0, 4, 4)]), Paged(block_size=4, pool_tokens=64, window_blocks="free"), prices, **settings)


@given(st.integers(1, 200), st.integers(1, 40), st.booleans())
def test_what_a_query_sees_and_what_all_see(num_tokens, reach, is_chunk):
    sight = Sight(reach, int(is_chunk), 1, 1, 1)
    seen = [
        sum(1 for key in range(query + 1) if (key // reach == query // reach if is_chunk else query - key < reach))
        for query in range(num_tokens)
    ]
    assert num_seen(num_tokens, sight) == seen[-1]
    assert num_pairs(num_tokens, sight) == sum(seen)
    assert num_pairs(num_tokens, sight._replace(reach=UNBOUNDED, is_chunk=0)) == num_tokens * (num_tokens + 1) // 2

"""Prices, bytes and budgets of one accelerator of several, by hand."""

from dataclasses import replace

import pytest

from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled
from kvbench.backend.rank import rank_in
from kvbench.fleet.fleet import Fleet
from kvbench.model.cost import linear_ps, prices_of
from kvbench.model.geometry import geometry_in
from kvbench.model.groups import LayerGroup
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.parameters import parameters_of
from kvbench.model.weights import WeightPart
from kvbench.plan.area import Area
from tests.support.machines import machine

# Four layers of 4 heads on 2 KV heads of 8, 16 bits: a token's 2 · 4 · 2 · 8 · 2 = 256 bytes.
GROUP = LayerGroup(kind="full", layers=(0, 1, 2, 3), num_heads=4, num_kv_heads=2, key_dim=8, value_dim=8)
BODY = WeightPart(name="body", kind="body", num_parameters=640, layers=(0, 1, 2, 3))
MODEL = Model(name="Small", groups=(GROUP,), weights=(BODY,), num_layers=4, hidden_size=16, vocab_size=64)


def conditions(model=MODEL, hardware=None, **degrees):
    return Conditions(
        geometry=geometry_in(model),
        weights=parameters_of(model),
        model=model,
        hardware=hardware or machine(),
        parallel=Parallel(**degrees),
    )


def test_a_tensor_rank_reads_half_of_all():
    one, half = (Fleet().made(conditions(tensor=tensor)) for tensor in (1, 2))
    assert (one.geometry.bytes_per_token, half.geometry.bytes_per_token) == (256, 128)
    assert (one.memory_bytes, half.memory_bytes) == (900_000 - 5_120, 900_000 - 2_560)
    # At 64 GB/s, 15.625 ps a byte: 5,120 bytes are 80 ns, and half of them 40; so are slots.
    whole, rank = (each.prices(Area()) for each in (one, half))
    assert (whole.weights_ps, rank.weights_ps) == (80_000, 40_000)
    assert (whole.write_ps, rank.write_ps) == (4_000, 2_000)
    assert (whole.unit_bytes, rank.unit_bytes) == (256, 128)
    assert whole.step_ps == rank.step_ps
    assert (one.num_accelerators, half.num_accelerators) == (1, 2)
    assert half.about == ("an accelerator holds 2,560 of 5,120 bytes of weights, and 128 of 256 bytes a token")


def test_a_token_passes_all_stages_and_a_stage_copies_its_own():
    staged = Fleet().made(conditions(pipeline=2))
    assert staged.geometry.bytes_per_token == 128
    assert staged.memory_bytes == 900_000 - 2_560
    prices, whole = staged.prices(Area()), Fleet().made(conditions()).prices(Area())
    assert prices == whole._replace(unit_bytes=128, copy_ps=4_000, swap_ps=20_000, storage_ps=whole.storage_ps // 2)


def test_replicas_of_data_are_replicas_of_a_fleet_and_none_of_a_run():
    fleet = Fleet(replicas=3).made(conditions(data=2, tensor=2))
    assert (fleet.replicas, fleet.num_accelerators) == (6, 12)
    with pytest.raises(ValueError, match=r"it runs one replica, got parallel\.data=2: use backend=fleet"):
        Modelled().made(conditions(data=2))


def test_a_run_steps_through_a_rank():
    backend = Modelled().made(conditions(tensor=2))
    assert (backend.geometry.bytes_per_token, backend.memory_bytes(), backend.num_accelerators) == (128, 897_440, 2)
    assert backend.describe()["device_name"] == "2 × Round"


def test_what_cannot_be_laid_over_accelerators_is_refused():
    with pytest.raises(ValueError, match="decode_context divides tokens over ranks, which no time is modelled for"):
        rank_in(conditions(tensor=4, decode_context=2))
    with pytest.raises(ValueError, match=r"parallel\.tensor divides the 4 heads of Small, got 3"):
        rank_in(conditions(tensor=3))
    with pytest.raises(ValueError, match="this run has a geometry of its own"):
        rank_in(replace(conditions(tensor=2), model=replace(MODEL, groups=(replace(GROUP, key_dim=4),))))


@pytest.mark.parametrize(
    ("dtype", "rates", "weights_ns", "token_ns"),
    # 2,560 parameters, 5,120 operations a token: 40 ns at 128 GFLOP/s. mxfp4 has a scale of 8 bits a group of 32.
    [
        ("bfloat16", {}, 80, 40),
        ("fp8", {}, 40, 40),
        ("fp8", {"flops_8bit_per_s": 256e9}, 40, 20),
        ("int8", {"flops_8bit_per_s": 256e9}, 40, 40),
        ("nvfp4", {"flops_4bit_per_s": 512e9}, 22.5, 10),
        ("mxfp4", {"flops_4bit_per_s": 512e9}, 21.25, 40),
    ],
)
def test_parameters_are_read_as_they_are_held(dtype, rates, weights_ns, token_ns):
    held = replace(MODEL, weights=(replace(BODY, dtype=dtype),))
    prices = prices_of(machine(**rates), geometry_in(held), parameters_of(held))
    assert (prices.weights_ps, prices.token_ps) == (1_000 * weights_ns, 1_000 * token_ns)
    assert linear_ps(1, prices) == max(prices.weights_ps, prices.token_ps)


def test_a_cache_in_eight_bits_is_read_in_half_the_time():
    short = replace(MODEL, groups=(replace(GROUP, dtype="fp8_e4m3"),))
    prices = prices_of(machine(flops_per_s=1e15), geometry_in(short), parameters_of(short))
    assert (prices.write_ps, prices.sights[0].read_ps) == (2_000, 2_000)

"""Prices, bytes and budgets of one accelerator of several, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled
from kvbench.backend.rank import rank_in
from kvbench.fleet.fleet import Fleet
from kvbench.model.geometry import geometry_in
from kvbench.model.groups import LayerGroup
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.parameters import parameters_of
from kvbench.model.weights import Product, WeightPart
from kvbench.plan.area import Area
from kvbench.timing.iteration import iteration_of
from kvbench.timing.prices import DECODE_UNIT, LINEAR, SIZES
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import Exchanged, Gemm, Moved, experts_as_tables, work_of
from tests.support.machines import machine

# Four layers of 4 heads on 2 KV heads of 8, 16 bits: a token's 2 · 4 · 2 · 8 · 2 = 256 bytes.
GROUP = LayerGroup(kind="full", layers=(0, 1, 2, 3), num_heads=4, num_kv_heads=2, key_dim=8, value_dim=8)
PRODUCTS = (Product("mlp.up_proj", 16, 20), Product("mlp.down_proj", 20, 16))
BODY = WeightPart(name="body", kind="body", num_parameters=640, layers=(0, 1, 2, 3), products=PRODUCTS)
MODEL = Model(name="Small", groups=(GROUP,), weights=(BODY,), num_layers=4, hidden_size=16, vocab_size=64)
LINKED = machine(link_s=3e-9, link_bytes_per_s=64e9)


def conditions(model=MODEL, hardware=LINKED, **degrees):
    return Conditions(
        geometry=geometry_in(model),
        weights=parameters_of(model),
        model=model,
        hardware=hardware,
        parallel=Parallel(**degrees),
    )


def test_a_tensor_rank_reads_half_of_all():
    one, half = (Fleet().made(conditions(tensor=tensor)) for tensor in (1, 2))
    assert (one.geometry.bytes_per_token, half.geometry.bytes_per_token) == (256, 128)
    assert (one.memory_bytes, half.memory_bytes) == (900_000 - 5_120, 900_000 - 2_560)
    # At 64 GB/s, 15.625 ps a byte: a slot's 256 bytes are 4 ns, and half of them 2.
    whole, rank = (each.prices(Area()) for each in (one, half))
    assert (whole.write_ps, rank.write_ps) == (4_000, 2_000)
    assert (whole.unit_bytes, rank.unit_bytes) == (256, 128)
    assert whole.step_ps == rank.step_ps
    assert (one.num_accelerators, half.num_accelerators) == (1, 2)
    assert half.about == ("an accelerator holds 2,560 of 5,120 bytes of weights, and 128 of 256 bytes a token")
    ours, theirs = (rank_in(conditions(tensor=tensor)).work.tokens.products for tensor in (1, 2))
    assert ours == (Gemm(4, 16, 20, "bfloat16"), Gemm(4, 20, 16, "bfloat16"))
    assert theirs == (Gemm(4, 16, 10, "bfloat16"), Gemm(4, 10, 16, "bfloat16"))


def test_two_ranks_sum_up_what_they_have_twice_a_layer_and_after_the_embedding():
    work = rank_in(conditions(tensor=2)).work
    assert work.tokens.exchanged == (Exchanged("all_reduce", 2 * 4 + 1, 16 * 2, 2),)
    spent_s = iteration_of(LINKED, work).tokens["exchange"]
    # All of a tensor's 32 bytes a token go over the link, 2 · (2 - 1) ÷ 2: 0.5 ns a token, after 3.
    assert spent_s[:3] == pytest.approx([0, 9 * 3.5e-9, 9 * 4e-9])
    with pytest.raises(ValueError, match=r"Round states no hardware\.link_s, which what accelerators say"):
        Fleet().made(conditions(hardware=machine(), tensor=2)).prices(Area())


def test_a_token_passes_all_stages_and_a_stage_copies_its_own():
    staged = Fleet().made(conditions(pipeline=2))
    assert staged.geometry.bytes_per_token == 128
    assert staged.memory_bytes == 900_000 - 2_560
    prices, whole = staged.prices(Area()), Fleet().made(conditions()).prices(Area())
    own = {"unit_bytes": 128, "copy_ps": 4_000, "swap_ps": 20_000, "disk_ps": 40_000}
    own |= {"storage_ps": whole.storage_ps // 2, "launch_ps": whole.launch_ps // 2, "num_stages": 2}
    own["write_ps"] = 2_000  # both stages write at once
    assert prices._replace(tables=None) == whole._replace(tables=None, **own)
    # From stage to stage 32 bytes a token are sent.
    sent = prices.tables[LINEAR] - whole.tables[LINEAR]
    assert sent[:3].tolist() == pytest.approx([0, 3_500, 4_000], abs=1)


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
    ("dtype", "called"),
    [("bfloat16", "bfloat16"), ("fp8", "fp8"), ("mxfp4", "w4a16_mxfp4"), ("int4_g32", "w4a16_mxfp4"), ("int8", "int8")],
)
def test_products_are_asked_for_as_tables_call_them(dtype, called):
    held = replace(MODEL, weights=(replace(BODY, dtype=dtype),))
    work = work_of(geometry_in(held), held, held)
    assert {each.dtype for each in work.tokens.products} == {called}
    assert (iteration_of(machine(), work).tokens["products"][1:] > 0).all()


def test_what_is_multiplied_in_fp8_is_written_so():
    # Two norms a layer of 16 numbers, each three times two bytes and once two, or one; that before the head has two.
    plain, short = (replace(MODEL, weights=(replace(BODY, dtype=dtype),)) for dtype in ("bfloat16", "fp8"))
    of_plain, of_short = (work_of(geometry_in(each), each, each).tokens.moved for each in (plain, short))
    assert of_plain[:2] == (Moved(9, 128), Moved(1, 64))
    assert of_short[:3] == (Moved(8, 112), Moved(1, 128), Moved(1, 64))
    # What lies between two products, one of 20 numbers: read in two bytes.
    assert (of_plain[-1], of_short[-1]) == (Moved(4, 80), Moved(4, 60))


def test_experts_in_fp8_are_those_of_scales_by_block():
    assert [experts_as_tables(dtype) for dtype in ("bfloat16", "fp8", "mxfp4")] == [
        "bfloat16",
        "fp8_block",
        "w4a16_mxfp4",
    ]


def test_a_cache_in_eight_bits_is_read_in_half_the_time():
    short = replace(MODEL, groups=(replace(GROUP, dtype="fp8_e4m3"),))
    prices = prices_of(machine(flops_per_s=1e15), work_of(geometry_in(short), short, short))
    assert prices.write_ps == 2_000
    assert prices.tables[DECODE_UNIT, 1:] == pytest.approx(np.full(SIZES, 2_000), rel=0.05)

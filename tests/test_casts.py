"""K and V in eight bits: what is held is torch's own cast, whatever the layout, and what attention reads of it."""

from dataclasses import replace

import pytest
import torch

from kvbench.backend.attention import packed
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.reading import decode
from kvbench.backend.storage import Areas, SequenceStore, Shape
from kvbench.configuration.shape import keys_of
from kvbench.fleet import simulate
from kvbench.ledger import Ledger, LedgerError, Limits
from kvbench.ledger.costs import area_cost, workspace_bytes
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area, Blocks, Cast, Chunks, Contiguous, Holes, Native, Ring, held_in
from kvbench.plan.ops import Keep, Move, Reserve, Rule, Truncate
from kvbench.strategy.chain import Chain
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.fp8 import Fp8
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.paged import Paged
from kvbench.strategy.sinks import Sinks
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, TINY
from tests.support.driven import Cache, tokens
from tests.support.fleet_models import COLUMNS, by_runner, columns_of
from tests.support.machines import GEOMETRY, WEIGHTS, machine
from tests.support.numbered import admitted
from tests.test_contract import small

HELD = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2, "int8": torch.int8}
MOST = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0, "int8": 127.0}
SHAPE = Shape(2, 2, 3, 4, torch.bfloat16, torch.device("cpu"))
LAYOUTS = {
    "contiguous": {"layout": Contiguous()},
    "ring": {"layout": Ring()},
    "chunks": {"layout": Chunks(16)},
    "host chunks": {"layout": Chunks(16), "tier": "host"},
    "disk chunks": {"layout": Chunks(1024), "tier": "disk"},
    "blocks": {"layout": Blocks(16, 2048)},
    "holes": {"layout": Holes(), "positions": True},
}


def drawn(count, seed=0, most=50.0):
    """K or V of so many tokens, a layer each; one number is far above the others."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(SHAPE.of(count), generator=generator) * most / 4 for _ in range(SHAPE.num_layers)]
    return [(layer + (layer == layer.max()) * most).to(SHAPE.dtype) for layer in layers]


def scales_of(form, layers):
    """What each layer is divided by, by the first tokens."""
    if isinstance(form.scale, float):
        return [torch.tensor(form.scale)] * len(layers)
    over = (0, 2, 3) if form.scale == "head" else (0, 1, 2, 3)
    return [layer.float().abs().amax(dim=over, keepdim=True) / MOST[form.dtype] for layer in layers]


def cast(form, layers, scales):
    """What is read of them, by torch's own cast."""
    found = []
    for layer, scale in zip(layers, scales, strict=True):
        scaled = layer if form.scale == 1.0 else layer.float() / scale
        scaled = (scaled.round() if form.dtype == "int8" else scaled).clamp(-MOST[form.dtype], MOST[form.dtype])
        back = scaled.to(HELD[form.dtype]).to(SHAPE.dtype)
        found.append(back if form.scale == 1.0 else (back.float() * scale).to(SHAPE.dtype))
    return found


def sequence_in(area):
    store = SequenceStore(Areas((area,), SHAPE))
    store.carry_out(Reserve(0, 2048, area.name), [], [])
    return store


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", HELD)
@pytest.mark.parametrize("scale", [1.0, 0.37, "tensor", "head"])
def test_what_is_read_is_torchs_own_cast(layout, dtype, scale):
    form = Cast(dtype, scale)
    sequence = sequence_in(Area(format=form, **LAYOUTS[layout]))
    keys, values = drawn(1200), drawn(1200, seed=1, most=2000.0)
    first = [[layer[:, :, :30] for layer in each] for each in (keys, values)]
    for start, stop in ((0, 30), (30, 31), (31, 1200)):
        new = [[layer[:, :, start:stop] for layer in each] for each in (keys, values)]
        sequence.append(*new, stop - start)
    expected = [cast(form, each, scales_of(form, own)) for each, own in zip((keys, values), first, strict=True)]
    queries = packed(torch.randn(2, 6, 1, 4).to(SHAPE.dtype), 3)
    for layer in range(SHAPE.num_layers):
        held = sequence.full_context(layer)
        assert torch.equal(held[0], expected[0][layer])
        assert torch.equal(held[1], expected[1][layer])
        read = [torch.cat([piece[part].clone() for _, piece in sequence.pieces(layer)], dim=2) for part in (0, 1)]
        assert torch.equal(read[0], expected[0][layer])
        assert torch.equal(read[1], expected[1][layer])
        exact = torch.softmax(queries.float() @ read[0].float().transpose(2, 3) / 2, dim=3) @ read[1].float()
        assert torch.allclose(decode(sequence, layer, queries).float(), exact, rtol=0.02, atol=exact.abs().max() / 50)


@pytest.mark.parametrize("layout", ["contiguous", "chunks"])
@pytest.mark.parametrize("scale", [1.0, "head"])
def test_a_window_holds_the_cast_of_the_last_tokens(layout, scale):
    form = Cast("fp8_e5m2", scale)
    sequence = SequenceStore(Areas((Area(format=form, **LAYOUTS[layout]),), replace(SHAPE, window=24)))
    sequence.carry_out(Reserve(0, 100), [], [])
    keys, values = drawn(60), drawn(60, seed=1)
    scales = [scales_of(form, [layer[:, :, :20] for layer in each]) for each in (keys, values)]
    expected = [cast(form, each, own) for each, own in zip((keys, values), scales, strict=True)]
    # The second append overwrites what its first tokens look at: the 23 before it are there until the next.
    for start, stop, first in ((0, 20, 0), (20, 50, 0), (50, 51, 27), (51, 60, 28)):
        new = [[layer[:, :, start:stop] for layer in each] for each in (keys, values)]
        sequence.append(*new, stop - start)
        for layer in range(SHAPE.num_layers):
            held = sequence.full_context(layer)
            read = [torch.cat([piece[part].clone() for _, piece in sequence.pieces(layer)], dim=2) for part in (0, 1)]
            assert held[2][0, 0].tolist() == list(range(first, stop))
            for part in (0, 1):
                assert torch.equal(held[part], expected[part][layer][:, :, first:stop])
                assert torch.equal(read[part].sort(dim=2).values, held[part].sort(dim=2).values)


def test_what_is_too_large_becomes_the_largest_number():
    for dtype, most in MOST.items():
        sequence = sequence_in(Area(format=Cast(dtype)))
        large = [torch.full(SHAPE.of(1), -(2.0**20), dtype=SHAPE.dtype)] * 2
        sequence.append(large, large, 1)
        assert (sequence.full_context(0)[0] == torch.tensor(-most).to(SHAPE.dtype)).all()


@pytest.mark.parametrize("layout", ["contiguous", "ring", "chunks", "blocks"])
@pytest.mark.parametrize("scale", [1.0, "head"])
def test_what_moves_is_restored_and_what_stays_is_as_it_was(layout, scale):
    form = Cast("fp8_e4m3", scale)
    areas = Area("old", Chunks(16), format=Cast("int8", "tensor")), Area(format=form, **LAYOUTS[layout])
    sequence = SequenceStore(Areas(areas, SHAPE))
    sequence.carry_out(Reserve(0, 64, "old"), [], [])
    sequence.carry_out(Reserve(0, 64), [], [])
    keys, values = drawn(48), drawn(48, seed=1)
    sequence.append(keys, values, 48)
    sequence.carry_out(Move(0, "main", "old", Rule(recent=16)), [], [])
    once = [cast(form, each, scales_of(form, each)) for each in (keys, values)]
    older = [[layer[:, :, :32] for layer in each] for each in once]
    arrived = 16 if layout == "chunks" else 32  # at once, and first: a chunk after another, or all that lies together
    scales = [scales_of(areas[0].format, [layer[:, :, :arrived] for layer in each]) for each in older]
    twice = [cast(areas[0].format, each, own) for each, own in zip(older, scales, strict=True)]
    for layer in range(SHAPE.num_layers):
        held = sequence.full_context(layer)
        for part in (0, 1):
            assert torch.equal(held[part], torch.cat([twice[part][layer], once[part][layer][:, :, 32:]], dim=2))


def test_rows_are_chosen_and_holes_filled():
    form = Cast("fp8_e5m2")
    area = Area(layout=Holes(), positions=True, format=form)
    sequence = sequence_in(area)
    keys, values = drawn(40), drawn(40, seed=1)
    sequence.append(keys, values, 40)
    sequence.carry_out(Keep(0, Rule(first=4, recent=6)), [], [])
    sequence.select_rows(torch.tensor([1, 1, 0]))
    sequence.carry_out(Keep(0, Rule(first=4, recent=5)), [], [])
    wanted = [*range(4), *range(35, 40)]
    expected = cast(form, keys, [None, None])[1][[1, 1, 0]][:, :, wanted]
    held, _, positions = sequence.full_context(1)
    assert positions[0, 0].tolist() == wanted
    assert torch.equal(held, expected)
    sequence.carry_out(Truncate(0, 1), [], [])
    assert sequence.num_held == 8


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "recompute"])
def test_a_models_cache_dtype_is_every_strategys(name):
    """After every operation books and storages agree; what no strategy changed is held as torch casts it."""
    chosen, generator = small(name), torch.Generator().manual_seed(0)
    cache = Cache(chosen, 2, geometry=TINY.held_in("fp8_e5m2"), attend=bool(chosen.signals))
    cache.admit(Session(0, tuple(Request(count) for count in (40, 1, 1, 70, 1))))
    written = [[], []]
    for count in (40, 1, 1, 70, 1):
        new = tokens(generator, 2, count), tokens(generator, 2, count)
        for kept, added in zip(written, new, strict=True):
            kept.append(added)
        cache.append(*new)
    assert cache.view.num_altered(0) == 113
    is_packed = "packed" in cache.sequence().stores
    for layer in range(TINY.num_layers):
        *held, positions = cache.sequence().full_context(layer)
        index = positions.unsqueeze(-1).expand(-1, -1, -1, TINY.plain.head_dim)
        for live, kept in zip(held, written, strict=True):
            whole = torch.cat([each[layer] for each in kept], dim=2)
            wanted = whole.to(torch.float8_e5m2).float().gather(2, index)
            own = Cast("fp8_e4m3") in [area.format for area in chosen.areas]
            wanted = whole.to(torch.float8_e4m3fn).float().gather(2, index) if own else wanted
            assert is_packed or torch.equal(live, wanted)
    cache.finish()


@pytest.mark.parametrize(
    ("chosen", "geometry"),
    [
        (Paged(block_size=4, pool_tokens=64, format="fp8_e4m3"), TINY),
        (Paged(block_size=4, pool_tokens=64), TINY.held_in("fp8_e4m3")),
    ],
)
def test_what_is_cast_is_shared_and_taken_back_as_it_was(chosen, geometry):
    cache, generator = Cache(chosen, geometry=geometry), torch.Generator().manual_seed(0)
    cache.admit(Session(0, (Request(10),)))
    new = tokens(generator, 1, 10), tokens(generator, 1, 10)
    cache.append(*new)
    cache.fork(1, 0, 10)
    one = tokens(generator, 1, 1)
    cache.append(one, one, seq=1)
    assert (cache.view.num_altered(0), cache.view.num_altered(1)) == (10, 11)
    cache.carry_out((Truncate(1, 1),))
    cache.append(one, one, seq=1)
    assert cache.view.num_altered(1) == 11
    for layer in range(TINY.num_layers):
        shared, own = (cache.sequence(seq).full_context(layer)[0] for seq in (0, 1))
        assert torch.equal(shared, new[0][layer].to(torch.float8_e4m3fn).float())
        assert torch.equal(own, torch.cat([shared, one[layer].to(torch.float8_e4m3fn).float()], dim=2))
    cache.finish(1)
    cache.finish(0)


def test_who_declares_to_be_lossless_casts_nothing():
    class Wrong(Dynamic):
        areas = (Area(format=Cast("int8")),)

    cache = admitted(Wrong(initial_capacity=64), geometry=TINY)
    for count in (4, 1):
        new = [torch.randn(1, 2, count, 8) for _ in range(2)]
        with pytest.raises(LedgerError, match="rounded, and Wrong is declared lossless"):
            cache.step(new, new)


def test_a_models_dtype_is_priced_and_said_as_a_cast():
    held = TINY.held_in("fp8_e4m3")
    native, cast_ = Ledger(held, areas=(Area(),)), Ledger(TINY, areas=(Area(format=Cast("fp8_e4m3")),))
    assert native.costs == cast_.costs
    assert native.workspace_bytes == cast_.workspace_bytes == 1024 * 128
    scaled = Ledger(TINY.held_in("int8"), areas=(Area(),)).workspace_bytes
    assert scaled == 1024 * 128 + 4 * 2 * 4  # a scale a head of K and V in two layers
    assert Dynamic().facts(TINY)["lossless"]
    assert not Dynamic().facts(held)["lossless"]
    assert held.reshaped(num_layers=3).bytes_per_token == 3 * 32
    assert held.plain == TINY.plain
    assert held.about == "model, 2 layers, float32, held in fp8_e4m3, 64 bytes a token"
    assert keys_of(held)["kv_dtype"] == "fp8_e4m3"
    four = TINY.held_in("nvfp4")  # counted, 4.5 bits a number, and nothing more
    assert Ledger(four, areas=(Area(),)).workspace_bytes == 0
    assert area_cost(Area(), four, 1).bytes_of(2) == 72
    with pytest.raises(ValueError, match="held in nvfp4, which is counted and priced, and not carried out"):
        MeasuredBackend(Conditions(geometry=four, device="cpu"))


# Two layers of two KV heads of 8 in float32: 256 bytes a token, of eight bits 64.
@pytest.mark.parametrize(
    ("scale", "num_scales"),
    [(1.0, 0), (0.5, 4), ("tensor", 4), ("head", 8)],  # K and V of two layers, by tensor or by head
)
def test_bytes_by_hand(scale, num_scales):
    area = Area(format=Cast("fp8_e4m3", scale))
    assert area_cost(area, TINY, 3).bytes_of(10) == 3 * 10 * 64
    assert area_cost(area, TINY, 3).largest_bytes(10) == 3 * 10 * 16
    assert workspace_bytes((area,), TINY, 3) == 1024 * 128 * 3 + 4 * num_scales
    tracked = Area(layout=Holes(), positions=True, format=Cast("int8", scale))
    assert area_cost(tracked, TINY, 1).bytes_of(1) == 64 + 2 * 2 * 4


def test_a_float32_models_tensor_of_tracks_is_the_largest():
    narrow = KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=2, dtype="float32")
    area = Area(layout=Holes(), positions=True, format=Cast("int8"))
    assert area_cost(area, narrow, 1).largest_bytes(1) == 4


def test_growing_copies_half_as_much():
    cache = admitted(Fp8(initial_capacity=4, growth_factor=1.5), geometry=TINY)
    keys, values = ([torch.randn(1, 2, 5, 8) for _ in range(2)] for _ in range(2))
    cache.step(keys, values)  # 4 slots become 6, and nothing was in them
    receipt = cache.carry_out((Reserve(0, 9),))
    assert (receipt.copied_bytes, receipt.requested_bytes) == (5 * 64, 9 * 64)
    # Tensor by tensor: K of a layer, 16 bytes a slot, is there twice.
    assert receipt.peak_bytes == 9 * 64 + 6 * 16 + 1024 * 128
    assert cache.view.num_altered(0) == 5


def test_a_chain_holds_all_in_the_dtype_of_what_it_grows_by():
    chain = Chain(parts=[Fp8(scale="head"), Sinks(num_sinks=2, window=30)])
    assert [area.format for area in chain.areas] == [Cast("fp8_e4m3", "head")]
    assert (chain.lossless, chain.attends_all) == (False, False)
    tiers = Chain(parts=[Paged(block_size=8, format="int8", scale="tensor"), Hierarchical(fast_capacity=64)])
    assert {area.format for area in tiers.areas} == {Cast("int8", "tensor")}
    assert (tiers.lossless, tiers.attends_all) == (False, True)
    plain = Chain(parts=[Dynamic(), Sinks(num_sinks=2, window=30)])
    assert plain.areas == Sinks(num_sinks=2, window=30).areas
    assert held_in(plain.areas, Native()) == plain.areas


def test_blocks_of_a_pool_hold_twice_as_many_tokens():
    budget = 1024 * 128 + 64 * 320  # the staging buffer, and as much again
    pools = [
        Ledger(TINY, areas=paged.fitted(limits(budget)).areas).pool_bytes["main"]
        for paged in (Paged(format="fp8_e4m3"), Paged())
    ]
    assert pools == [320 * 64, 80 * 256]


def limits(budget_bytes):
    return Limits(geometry=TINY, budget_bytes=budget_bytes, is_modelled=True)


@pytest.mark.parametrize(
    "chosen",
    [
        Fp8(initial_capacity=8, max_capacity=48, round_to=4),
        Paged(block_size=4, pool_tokens=60, format="fp8_e4m3"),
    ],
)
def test_a_fleet_in_eight_bits_is_the_runner_on_the_modelled_backend(chosen):
    rows = columns_of([(0, 20, 9), (100, 12, 20), (300, 30, 4), (900, 5, 12), (901, 8, 8)])
    budget = 1024 * 32 + 70 * 32  # a staging buffer of a layer, 32 bytes a token, and 70 slots of as many
    prices = prices_of(machine(), work_of_parameters(GEOMETRY.held_in("fp8_e4m3"), WEIGHTS))
    fleet = simulate(rows, chosen, prices, geometry=GEOMETRY, budget_bytes=budget, max_batch=3)
    requests, totals, _ = by_runner(rows, chosen, budget, 3)
    assert {name: getattr(fleet, name).tolist() for name in COLUMNS} == {
        name: requests[name].tolist() for name in COLUMNS
    }
    assert fleet.totals.peak_bytes == totals["peak_bytes"]
    assert 0 < fleet.totals.copied_bytes == totals["copied_bytes"] or chosen.areas[0].layout != Contiguous()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Cast("fp8"), "unknown dtype 'fp8'. Did you mean"),
        (lambda: Cast("fp8_e4m3", 0), "scale is a number above 0"),
        (lambda: Cast("fp8_e4m3", "heads"), "unknown scale .* 'heads'. Did you mean 'head'"),
        (lambda: Cast("fp8_e4m3", True), "scale is a number above 0"),
        (lambda: Fp8(dtype="int8"), "unknown dtype 'int8'"),
        (lambda: Fp8(scale=-1.0), "scale is a number above 0"),
        (lambda: Paged(format="fp8_e4m4"), "unknown .*'fp8_e4m4'. Did you mean 'fp8_e4m3'"),
        (lambda: Paged(scale="head"), "scale is 1 where format is null, got 'head'"),
    ],
)
def test_what_is_no_cast_is_refused(made, said):
    with pytest.raises(ValueError, match=said):
        made()

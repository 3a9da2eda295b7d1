"""Layers of several groups on tensors: each strategy's attention is that of a plain one over the whole sequence."""

from dataclasses import replace

import pytest
import torch

from kvbench.backend.attention import QUERY_CHUNK, packed
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import Measured
from kvbench.backend.modelled import Modelled
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.plan.area import Area, Chunks
from kvbench.plan.ops import Append, Reserve
from kvbench.runner.frames import steps_frame
from kvbench.runner.run import check_signals, run
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Request, Session
from tests.support.catalogue import strategy
from tests.support.driven import Cache
from tests.support.machines import WEIGHTS, machine
from tests.test_contract import small
from tests.test_windows import WITH_WINDOWS

HEADS = {"num_heads": 4, "num_kv_heads": 2, "dtype": "float32"}
WINDOW = LayerGroup(kind="window", layers=(0, 1, 3), key_dim=8, value_dim=8, tokens=13, **HEADS)
FULL = LayerGroup(kind="full", layers=(2, 4), key_dim=8, value_dim=8, **HEADS)
CHUNKED = LayerGroup(kind="chunked", layers=(0, 1, 3), key_dim=8, value_dim=8, tokens=16, **HEADS)
LATENT = LayerGroup(kind="latent", layers=(0, 1), num_heads=4, num_kv_heads=1, key_dim=12, value_dim=8, dtype="float32")
UNEQUAL = LayerGroup(kind="full", layers=(2,), num_heads=6, num_kv_heads=2, key_dim=12, value_dim=8, dtype="float32")
NARROW = LayerGroup(
    kind="window", layers=(5,), num_heads=2, num_kv_heads=1, key_dim=12, value_dim=4, dtype="float32", tokens=7
)
STATES = LayerGroup(
    kind="state",
    layers=(6, 7),
    state=(
        StateTensor(name="convolution", rows=5, columns=3, dtype="bfloat16"),
        StateTensor(name="recurrent", rows=4, columns=6, dtype="float32"),
    ),
)
SHARING = LayerGroup(kind="sharing", layers=(8,), num_heads=4)
MODELS = {
    "windows": (WINDOW, FULL),
    "all_windows": (WINDOW,),
    "chunks": (CHUNKED, FULL),
    "latents": (LATENT,),
    "mixed": (WINDOW, FULL, STATES, SHARING),
    "unequal": (LATENT, UNEQUAL, NARROW),
}
APPENDS = (50, 1, 1, 90, 1, 1, 30, 3, 1, 280, *[1] * 20)
LOSSLESS = [name for name in WITH_WINDOWS if name != "recompute" and strategy(name).lossless]


def geometry_of(name):
    return KVGeometry(groups=MODELS[name], dtype="float32", name=name)


def for_model(name, model):
    """A strategy; one pool's blocks are freed by windows where all layers hold the same of a token.

    On tensors windows lie beside blocks else, which is not priced.
    """
    made = small(name)
    return replace(made, window_blocks="keep") if (name, model) == ("paged", "unequal") else made


class Whole:
    """All tokens that a sequence was given, and attention over them with the masks that its layers have."""

    def __init__(self, geometry, num_rows=1):
        held = [group for group in geometry.groups if group.holds_tokens]
        numbered = sorted((number, at) for at, group in enumerate(held) for number in group.layers)
        self.groups = [held[at] for _, at in numbered]
        self.num_rows, self.generator = num_rows, torch.Generator().manual_seed(1)
        self.keys = [self.random(group.num_kv_heads, 0, group.key_dim) for group in self.groups]
        self.values = [self.random(group.num_kv_heads, 0, group.value_dim) for group in self.groups]

    def random(self, num_heads, num_tokens, width):
        return torch.randn(self.num_rows, num_heads, num_tokens, width, generator=self.generator)

    def new(self, count):
        keys = [self.random(group.num_kv_heads, count, group.key_dim) for group in self.groups]
        values = [
            key[..., : group.value_dim] if group.kind == "latent" else self.random(*key.shape[1:3], group.value_dim)
            for key, group in zip(keys, self.groups, strict=True)
        ]
        self.keys = [torch.cat(pair, 2) for pair in zip(self.keys, keys, strict=True)]
        self.values = [torch.cat(pair, 2) for pair in zip(self.values, values, strict=True)]
        queries = [self.random(group.num_heads, count, group.key_dim) for group in self.groups]
        return keys, values, queries

    def attention(self, layer, queries):
        group, keys, values = self.groups[layer], self.keys[layer], self.values[layer]
        total, count = keys.shape[2], queries.shape[2]
        at, of = torch.arange(total - count, total)[:, None], torch.arange(total)[None]
        seen = of <= at
        if group.kind == "window":
            seen &= of > at - group.tokens
        if group.kind == "chunked":
            seen &= of // group.tokens == at // group.tokens
        keys, values = (each.repeat_interleave(group.heads_per_kv_head, 1) for each in (keys, values))
        weights = (queries @ keys.transpose(2, 3) * group.key_dim**-0.5).masked_fill(~seen, -torch.inf).softmax(3)
        return weights @ values


def stepped(cache, whole, count):
    """One step, attended with queries of its own: the outputs are the plain attention's. Returns what was live."""
    keys, values, queries = whole.new(count)
    plan = cache.strategy.on_append(0, count, cache.view)
    cache.carry_out(plan, keys, values)
    first = cache.view.num_seen(0) - count
    chunks = [
        [
            (first + start, packed(own[:, :, start : start + QUERY_CHUNK], group.num_kv_heads))
            for start in range(0, count, QUERY_CHUNK)
        ]
        for own, group in zip(queries, whole.groups, strict=True)
    ]
    cache.storages.peak_bytes = cache.storages.live_bytes
    with cache.storages:
        outputs = cache.backend.attend_with(0, chunks)
    peak_bytes = cache.storages.peak_bytes
    for layer, group in enumerate(whole.groups):
        wanted = whole.attention(layer, queries[layer])
        found = torch.cat(outputs[layer], dim=2)
        assert found.shape[3] == group.value_dim
        size = group.heads_per_kv_head
        found = found.view(whole.num_rows, group.num_kv_heads, count, size, -1).transpose(2, 3).flatten(1, 2)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    del outputs
    cache.backend.sequence(0).land()
    cache.carry_out(cache.strategy.on_attended(0, count, cache.view))
    return peak_bytes


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", LOSSLESS)
def test_attention_is_that_over_the_whole_sequence(name, model):
    geometry = geometry_of(model)
    cache, whole = Cache(small(name), 2, geometry, attend=True), Whole(geometry, 2)
    cache.admit(Session(0, (Request(sum(APPENDS)),)))
    for count in APPENDS:
        stepped(cache, whole, count)
    cache.finish()


def test_a_layer_at_a_time_passes_through_its_window():
    """What was booked beside all that is held is one layer's old and new tokens, and attention makes them."""
    geometry = geometry_of("windows")
    cache, whole = Cache(strategy("static"), 1, geometry, attend=True), Whole(geometry)
    cache.admit(Session(0, (Request(600),)))
    for count, passing in ((50, 50), (1, 0), (90, 12 + 90)):
        booked = cache.ledger.allocated_bytes
        live = stepped(cache, whole, count) - booked
        assert live >= passing * WINDOW.layer_token_bytes
        assert cache.ledger.allocated_bytes == booked
        assert cache.peak_bytes - booked == max(passing, 50) * WINDOW.layer_token_bytes
    cache.finish()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            (LayerGroup(kind="full", layers=(0,), key_dim=8, value_dim=8, **HEADS | {"dtype": "nvfp4"}),),
            "in nvfp4, which",
        ),
        ((FULL, LayerGroup(**{**vars(WINDOW), "dtype": "int8"})), "in float32 and int8, which"),
        ((LayerGroup(**{**vars(LATENT), "index_bytes": 4}),), "latent layers in float32 with an indexer's keys"),
        ((STATES,), "measures layers that hold tokens; odd has 2 state layers"),
    ],
)
def test_what_is_not_held_on_tensors_is_refused(groups, words):
    geometry = KVGeometry(groups=groups, dtype="float32", name="odd")
    with pytest.raises(ValueError, match=words):
        Measured().made(Conditions(geometry=geometry, device="cpu"))


@pytest.mark.parametrize("model", ["mixed", "chunks", "unequal", "mixed in fp8_e5m2"])
def test_a_measured_run_and_a_modelled_one_hold_the_same(model):
    name, _, dtype = model.partition(" in ")
    geometry = geometry_of(name).held_in(dtype or "float32")
    conditions = Conditions(geometry=geometry, device="cpu", hardware=machine(), cache_only=True)
    found = []
    for choice in (Measured(), Modelled()):
        recorder = run(
            {name: for_model(name, model) for name in ("static", "chunked", "paged")},
            [Session(0, (Request(30, 5), Request(40, 3)))] * 2,
            choice.made(conditions),
            num_repetitions=1,
            num_warmup=0,
            max_concurrency=2,
            budget_bytes=None,
        )
        found.append(steps_frame(recorder)[["strategy", "used_bytes", "allocated_bytes", "transient_bytes"]])
    assert found[0].equals(found[1])
    assert (found[0]["transient_bytes"] > 0).any()


class Apart(Strategy):
    """Full layers live contiguously, those with a window in chunks: an area each."""

    areas = (Area(layers=("full",)), Area("near", Chunks(8), layers=("window",)))
    lossless = True

    def on_admit(self, seq, request, view):
        return (Reserve(seq, 400), Reserve(seq, 400, "near"))

    def on_append(self, seq, num_tokens, view):
        return (Append(seq, num_tokens), Append(seq, num_tokens, "near"))


class Together(Strategy):
    """All layers live contiguously."""

    areas = (Area(),)
    lossless = True

    def on_admit(self, seq, request, view):
        return (Reserve(seq, 400),)

    def on_append(self, seq, num_tokens, view):
        return (Append(seq, num_tokens),)


def test_groups_may_live_in_areas_of_their_own():
    geometry = geometry_of("windows")
    cache, whole = Cache(Apart(), 1, geometry, attend=True), Whole(geometry)
    cache.admit(Session(0, (Request(400),)))
    for count in (50, 1, 1, 90, 1):
        stepped(cache, whole, count)
    found = cache.view.by_group(0)
    assert found == {("main", "full"): 400 * FULL.token_bytes, ("near", "window"): 13 * WINDOW.token_bytes}
    cache.finish()


def test_areas_of_some_layers_cost_what_an_area_of_all_does():
    """Contiguous for all layers, or some here and others there: the same slots are written and read."""
    geometry, found = geometry_of("windows"), []
    for made in (Apart(), Together()):
        conditions = Conditions(geometry=geometry, device="cpu", hardware=machine(), weights=WEIGHTS)
        backend = Modelled(memory_fraction=0.9).made(conditions)
        check_signals({"it": made}, backend)
        recorder = run(
            {"it": made},
            [Session(0, (Request(90, 9),))],
            backend,
            num_repetitions=1,
            num_warmup=0,
            max_concurrency=1,
            budget_bytes=None,
        )
        steps = steps_frame(recorder)
        found.append(steps[steps["num_tokens"] > 0])
    apart, together = found
    for times in ("append_us", "attend_us", "model_us"):
        assert apart[times].to_numpy() == pytest.approx(together[times].to_numpy(), rel=1e-3, abs=0.003), times
    assert (apart["attend_us"] > 0).all()


def test_areas_of_some_layers_are_not_priced_by_a_calibrated_machine():
    conditions = Conditions(geometry=geometry_of("windows"), device="cpu", hardware=machine(), cache_only=True)
    backend = Modelled().made(conditions)
    backend._has_curves = True  # as of a machine whose curves are of such layers
    with pytest.raises(ValueError, match="apart: area main is of full layers, and a calibrated machine prices areas"):
        check_signals({"apart": Apart()}, backend)

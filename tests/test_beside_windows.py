"""Windows beside strategies that pack, rank, move or evict: these decide over the layers that see all tokens."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvbench.backend.attention import QUERY_CHUNK, packed
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import Measured
from kvbench.backend.modelled import Modelled
from kvbench.backend.storage.window import WindowStore
from kvbench.ledger import Ledger, LedgerError, completed
from kvbench.ledger.costs import WINDOWS, as_held
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area, Chunks
from kvbench.plan.ops import Append, Reserve, Truncate
from kvbench.runner.frames import steps_frame
from kvbench.runner.run import check_signals, run
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.driven import Cache
from tests.support.machines import WEIGHTS, machine
from tests.test_contract import small
from tests.test_grouped import FULL, MODELS, Whole, geometry_of
from tests.test_windows import WITH_WINDOWS

BESIDE = [name for name in STRATEGIES if name not in WITH_WINDOWS]
APPENDS = (50, 1, 70, 1, 1, 30, 3, *[1] * 20)
ALONE = KVGeometry(groups=(replace(FULL, layers=(0, 1)),), dtype="float32", name="alone")
"""The layers of a model that see all tokens, without the others."""


def packed_queries(queries, groups, first, count):
    return [
        [
            (first + start, packed(own[:, :, start : start + QUERY_CHUNK], group.num_kv_heads))
            for start in range(0, count, QUERY_CHUNK)
        ]
        for own, group in zip(queries, groups, strict=True)
    ]


def step(cache, keys, values, queries, groups):
    """One step of a cache; returns its outputs, a layer each."""
    count = keys[0].shape[2]
    cache.carry_out(cache.strategy.on_append(0, count, cache.view), keys, values)
    first = cache.view.num_seen(0) - count
    outputs = cache.backend.attend_with(0, packed_queries(queries, groups, first, count))
    cache.backend.sequence(0).land()
    cache.carry_out(cache.strategy.on_attended(0, count, cache.view))
    return [torch.cat(chunks, dim=2) for chunks in outputs]


def rows_of(output, group, count):
    size = group.heads_per_kv_head
    return output.view(*output.shape[:2], count, size, -1).transpose(2, 3).flatten(1, 2)


def begun(chosen, geometry):
    cache = Cache(chosen, 2, geometry, attend=True)
    cache.admit(Session(0, (Request(sum(APPENDS)),)))
    return cache


@pytest.mark.parametrize("model", ["windows", "chunks", "mixed", "all_windows"])
@pytest.mark.parametrize("name", BESIDE)
def test_windows_are_exact_and_the_other_layers_as_without_them(name, model):
    """Windows against attention over all tokens; the others against a model that has no more layers than those."""
    geometry, whole = geometry_of(model), Whole(geometry_of(model), 2)
    full = [at for at, group in enumerate(whole.groups) if group.kind == "full"]
    cache, alone = begun(small(name), geometry), begun(small(name), ALONE)
    for total in APPENDS:
        keys, values, queries = whole.new(total)
        done, taken = 0, whole.keys[0].shape[2] - total
        while done < total:
            count = cache.strategy.at_once(0, total - done, cache.view) if total - done > 1 else 1
            new, old, asked = ([each[:, :, done : done + count] for each in part] for part in (keys, values, queries))
            outputs = step(cache, new, old, asked, whole.groups)
            done += count
            for at, group in enumerate(whole.groups):
                if group.kind != "full":
                    found = rows_of(outputs[at], group, count)
                    wanted = seen_by(whole, at, asked[at], taken + done)
                    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
            if full:
                own = step(alone, *([part[at] for at in full] for part in (new, old, asked)), [FULL, FULL])
                for at, wanted in zip(full, own, strict=True):
                    torch.testing.assert_close(outputs[at], wanted, atol=2e-5, rtol=1e-4)
            no_more_than_windows(cache)
    if full:
        assert cache.view.num_altered(0) == alone.view.num_altered(0)
        assert cache.view.num_attended(0) == alone.view.num_attended(0)
        assert cache.view.device_slots(0)[:2] == alone.view.device_slots(0)[:2]
    cache.finish()
    alone.finish()


def seen_by(whole, layer, queries, end):
    """Attention over the first tokens that there are, up to an end."""
    every = whole.keys[layer], whole.values[layer]
    whole.keys[layer], whole.values[layer] = (each[:, :, :end] for each in every)
    found = whole.attention(layer, queries)
    whole.keys[layer], whole.values[layer] = every
    return found


def no_more_than_windows(cache):
    """Layers that see the last tokens only hold those, in storages that are no larger."""
    seen = cache.view.num_seen(0)
    stores = [
        (group, store)
        for group, part in zip(cache.sequence().grouped.groups, cache.sequence().parts, strict=True)
        for store in part.stores.values()
        if group.tokens is not None
    ]
    assert {len(store.parts) for _, store in stores} == {group.num_layers for group, _ in stores}
    for group, store in stores:
        assert isinstance(store, WindowStore)
        for parts in store.parts:
            assert sum(keys.shape[2] for keys, _ in parts) == group.tokens
    held = cache.view.by_group(0)
    names = {area for area, group in held if group in ("window", "chunked")}
    assert names == {WINDOWS}
    assert seen == cache.view.num_seen(0)


def test_of_a_model_without_windows_areas_stay_as_they_are():
    areas = small("int4").areas
    assert as_held(areas, ALONE) is areas


def test_a_plan_says_what_follows_it():
    cache = begun(small("sinks"), geometry_of("windows"))
    assert cache.ledger.follower == WINDOWS
    later = cache.view.after((Reserve(0, 60), Append(0, 50)))
    assert later.by_group(0)[WINDOWS, "window"] == 2 * 13 * MODELS["windows"][0].token_bytes
    with pytest.raises(LedgerError, match="a plan appends each token to every chain of areas, got"):
        cache.ledger.book((Reserve(0, 60), Append(0, 50)))


def test_tokens_are_taken_back_from_windows_too():
    chosen = small("hierarchical")
    cache, whole = begun(chosen, geometry_of("windows")), Whole(geometry_of("windows"), 2)
    keys, values, queries = whole.new(8)
    step(cache, keys, values, queries, whole.groups)
    cache.ledger.crop(Truncate(0, 3))
    assert (cache.view.num_seen(0), cache.view.num_used(0, WINDOWS)) == (5, 5)
    cache.ledger.accounts[0].holdings[WINDOWS].num_used = 30
    with pytest.raises(LedgerError, match="hold the last 13 of 30 tokens"):
        cache.ledger.crop(Truncate(0, 3))


@pytest.mark.parametrize("name", ["hierarchical", "int4", "sinks"])
def test_what_is_cast_beside_windows_is_altered_once(name):
    geometry = geometry_of("windows").held_in("fp8_e4m3")
    cache = begun(small(name), geometry)
    for count in (9, 1, 1):
        new = [torch.ones(2, 2, count, 8) for _ in range(geometry.num_layers)]
        cache.carry_out(cache.strategy.on_append(0, count, cache.view), new, new)
        cache.carry_out(cache.strategy.on_attended(0, count, cache.view))
    assert cache.view.num_altered(0) == cache.view.num_seen(0) == 11
    if name == "hierarchical":
        cache.ledger.crop(Truncate(0, 1))
        assert cache.view.num_altered(0) == cache.view.num_seen(0) == 10


@given(counts=st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_a_common_case_is_booked_as_any_other(counts):
    """In a few integers, or on copies of the accounts: a plan with a reserve that changes nothing is no common case."""
    chosen, ledgers = small("sinks"), [small("sinks").ledger(geometry_of("mixed")) for _ in range(2)]
    for ledger in ledgers:
        ledger.open(0)
        ledger.book(chosen.on_admit(0, Session(0, (Request(9),)), ledger.view))
    for count in counts:
        for number, ledger in enumerate(ledgers):
            plan = completed(chosen.on_append(0, count, ledger.view), ledger)
            same = (Reserve(0, ledger.view.allocated(0, WINDOWS), WINDOWS),) if number else ()
            ledger.book((*same, *plan))
            after = chosen.on_attended(0, count, ledger.view)
            ledger.book(after)
        assert ledgers[0].accounts == ledgers[1].accounts
        assert ledgers[0].used_bytes == ledgers[1].used_bytes
        assert ledgers[0].tier_bytes == ledgers[1].tier_bytes


@pytest.mark.parametrize("name", BESIDE)
def test_a_measured_run_completes(name):
    conditions = Conditions(geometry=geometry_of("mixed"), device="cpu")
    recorder = run(
        {name: small(name)},
        [Session(0, (Request(90, 5), Request(40, 3)))] * 3,
        Measured().made(conditions),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=None,
    )
    assert {row.outcome for row in recorder.requests} == {"completed"}


@pytest.mark.parametrize("cache_only", [True, False])
@pytest.mark.parametrize("model", ["windows", "all_windows", "mixed"])
@pytest.mark.parametrize("name", [name for name in BESIDE if not strategy(name).signals])
def test_the_modelled_backend_prices_both(name, model, cache_only):
    geometry = geometry_of(model)
    conditions = Conditions(geometry=geometry, hardware=machine(), weights=WEIGHTS, cache_only=cache_only)
    backend, chosen = Modelled(memory_fraction=0.9).made(conditions), {name: small(name)}
    check_signals(chosen, backend)
    requests = [Session(0, (Request(90, 5),))]
    settings = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
    recorder = run(chosen, requests, backend, **settings)
    assert [row.outcome for row in recorder.requests] == ["completed"]
    steps = steps_frame(recorder)
    steps = steps[steps["num_tokens"] > 0]
    assert (steps["append_us"] > 0).all()
    assert (steps["attend_us"] > 0).all()


@pytest.mark.parametrize(
    "area", [lambda: Area("near", follows=True), lambda: Area("near", layers=("window",), follows=True)]
)
def test_what_follows_is_of_some_layers_and_in_chunks(area):
    with pytest.raises(ValueError, match="slots that follow others are of layers of their own, in chunks"):
        area()


def test_one_area_follows_alone():
    far = Area("far", Chunks(8), layers=("full",), follows=True)
    near = Area("near", Chunks(8), layers=("window",), follows=True)
    for areas in ((near, far), (replace(near, follows=False), far, replace(far, name="more", follows=False))):
        with pytest.raises(ValueError, match="one area follows the others, alone of its layers"):
            Ledger(geometry_of("windows"), areas=areas)

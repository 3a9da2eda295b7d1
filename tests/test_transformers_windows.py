"""Layers with a window or in chunks hold no more than that, and give the tokens that transformers' own cache gives."""

from functools import cache as once

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

from transformers import DynamicCache

from kvbench.backend.storage.window import WindowStore
from kvbench.integrations.transformers import ATTENTION, KVBenchCache, use_attention
from kvbench.ledger import LedgerError
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.paged import Paged
from tests.support.catalogue import STRATEGIES
from tests.support.families import EAGER, NUM_OUTPUT, WAYS, WINDOWED, from_config, model_of, prompt
from tests.support.storages import LiveStorages
from tests.test_contract import small

WINDOW = 12
HOLDING = ["async", "chunked", "concat", "dynamic", "predictive", "static"]
"""Strategies under which a window is held as one in their only area."""
BESIDE = ["paged", "hierarchical", "hierarchical_disk", "paged_hierarchical"]
"""Lossless ones under which it is held beside theirs."""
TRIED = [way for way in WAYS if way not in ("assisted", "cropped", "sampled")]
ATTENTIONS = {name: ("eager",) if name.startswith(EAGER) else ("eager", "sdpa", ATTENTION) for name in WINDOWED}


def attending(model, attention):
    use_attention(model) if attention == ATTENTION else model.set_attn_implementation(attention)
    return model


@once
def chosen_model(name, attention):
    return attending(model_of(name), attention)


@once
def expected(name, attention, way):
    model = chosen_model(name, "sdpa" if attention == ATTENTION else attention)
    return WAYS[way](model, DynamicCache(config=model.config))


def windows(cache):
    return [store for each in cache.batch.sequences for store in each.stores.values() if isinstance(store, WindowStore)]


def cases():
    """Every model with every way, under one strategy and attention in turn; the others are slow."""
    for row, name in enumerate(WINDOWED):
        for column, way in enumerate(TRIED):
            for strategies in (HOLDING, BESIDE):
                for number, (chosen, attention) in enumerate((s, a) for a in ATTENTIONS[name] for s in strategies):
                    in_turn = number == (5 * row + 7 * column) % (len(strategies) * len(ATTENTIONS[name]))
                    yield pytest.param(name, way, chosen, attention, marks=() if in_turn else pytest.mark.slow)


@pytest.mark.parametrize(("name", "way", "chosen", "attention"), list(cases()))
def test_the_same_tokens_with_no_more_than_a_window(name, way, chosen, attention):
    model = chosen_model(name, attention)
    cache = KVBenchCache(small(chosen), model.config, num_output_tokens=NUM_OUTPUT)
    assert torch.equal(WAYS[way](model, cache), expected(name, attention, way))
    found = windows(cache)
    assert len(found) == sum(cache.is_sliding) == (2 if name.startswith("mistral") else 1)
    for store in found:
        assert store.num_used > WINDOW == sum(keys.shape[2] for keys, _ in store.parts[0])
    cache.close()


LOSSY = [name for name in STRATEGIES if name != "recompute" and not small(name).lossless]


@pytest.mark.parametrize("chosen", LOSSY)
@pytest.mark.parametrize("name", [name for name in WINDOWED if not name.startswith(EAGER)])
def test_who_evicts_or_packs_holds_a_window_as_it_comes(chosen, name):
    """With all layers windowed nothing is lost: the tokens are transformers' own."""
    model = chosen_model(name, ATTENTION)
    cache = KVBenchCache(small(chosen), model.config, num_output_tokens=NUM_OUTPUT)
    tokens = WAYS["left_padded"](model, cache)
    found = windows(cache)
    assert len(found) == sum(cache.is_sliding) == (2 if name.startswith("mistral") else 1)
    for store in found:
        assert store.num_used > WINDOW == sum(keys.shape[2] for keys, _ in store.parts[0])
        assert chosen == "fp8" or store.parts[0][0][0].dtype == torch.float32
    if name.startswith("mistral") and chosen != "fp8":
        assert torch.equal(tokens, expected(name, "sdpa", "left_padded"))
    cache.close()


def test_blocks_that_are_told_to_stay_are_all_layers():
    model = chosen_model("mistral, window of 12", ATTENTION)
    cache = KVBenchCache(Paged(window_blocks="keep"), model.config)
    assert torch.equal(WAYS["greedy"](model, cache), expected("mistral, window of 12", "sdpa", "greedy"))
    assert not windows(cache)
    assert not any(cache.is_sliding)
    cache.close()


@pytest.mark.parametrize("family", [name for name in WINDOWED if name.startswith(EAGER)])
@pytest.mark.parametrize("chosen", ["int2", "int4", "int8", "int2_naive"])
def test_few_bits_are_read_by_a_models_own_attention(family, chosen):
    """The layer that sees all tokens is rounded; the other layer is before it, and as it was."""
    model = chosen_model(family, "eager")
    cache, plain = KVBenchCache(small(chosen), model.config), DynamicCache(config=model.config)
    with torch.no_grad():
        for count in (30, 1, 9, 1):
            for each in (cache, plain):
                model(input_ids=prompt(1, count, seed=count), past_key_values=each)
    (store,) = windows(cache)
    assert sum(keys.shape[2] for keys, _ in store.parts[0]) == WINDOW
    (last,) = [layer for layer in plain.layers if getattr(layer, "is_sliding", False)]
    kept = torch.cat([piece.keys for piece in store.pieces(0)], dim=2)
    assert torch.equal(kept[:, :, -WINDOW + 1 :], last.keys[:, :, -WINDOW + 1 :])
    cache.close()


@pytest.mark.parametrize("attention", ["eager", ATTENTION])
@pytest.mark.parametrize("chosen", HOLDING)
def test_bytes_are_those_that_are_booked_after_every_step(chosen, attention):
    """Of two rows, by hand: a token of a layer has K and V of 2 heads of 16 in float32, 256 bytes a row."""
    model = attending(model_of("gemma3, one layer of two with a window of 12"), attention)
    cache = KVBenchCache(small(chosen), model.config, num_output_tokens=NUM_OUTPUT)
    for count in (5, 20, 1, 3, 1, 1, 17, 1):
        with torch.no_grad():
            model(input_ids=prompt(2, count, seed=count), past_key_values=cache)
        for sequence in cache.batch.sequences:
            sequence._shared.background.wait()
        stores = [store for each in cache.batch.sequences for store in each.stores.values()]
        storages = [tensor.untyped_storage() for store in stores for tensor in all_of(store)]
        held_bytes = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        (held,) = cache.ledger.accounts[cache.batch.seq].holdings.values()
        assert held_bytes == cache.ledger.held_bytes
        if not held.busy:
            assert held_bytes == 2 * 256 * (held.capacity + min(held.capacity, WINDOW))
    cache.close()


@pytest.mark.parametrize(
    "name", ["gemma3, one layer of two with a window of 12", "llama4, one layer of two in chunks of 12"]
)
def test_what_passes_through_a_window_is_booked(name):
    """Of a step beyond the window one layer's old and new tokens are held, and then the window."""
    config, generator = WINDOWED[name](), torch.Generator().manual_seed(0)
    cache, storages = KVBenchCache(small("static"), config), LiveStorages()
    for count in (20, 1, 30, 1, 7):
        given = [[torch.randn(1, 2, count, 16, generator=generator) for _ in range(2)] for _ in range(2)]
        for layer, new in enumerate(given):
            with storages:
                cache.update(*new, layer)
        assert storages.live_bytes == cache.ledger.held_bytes
    # The largest step: 11 old tokens and 30 new ones, of K and V of one layer.
    assert storages.peak_bytes == cache.figures().peak_bytes == cache.ledger.held_bytes + 41 * 256


def all_of(store):
    """The tensors of a store, whichever kind it is."""
    if isinstance(store, WindowStore):
        coming = [] if store._ahead is None else store._ahead[2]
        return [tensor for parts in (*store.parts, coming) for part in parts for tensor in part]
    if hasattr(store, "chunks"):
        return [tensor for chunks in store.chunks for chunk in chunks for tensor in chunk]
    coming = [] if store._coming is None else store._coming[2]
    return [*store.keys, *store.values, *(tensor for tensors in coming for tensor in tensors)]


def test_tokens_are_taken_back_as_long_as_the_window_has_what_is_left():
    for window, fails in ((64, False), (12, True)):
        config = WINDOWED["mistral, window of 12"]()
        config.sliding_window = window
        model = from_config(config)
        cache = KVBenchCache(Dynamic(initial_capacity=8), config)
        if fails:
            with pytest.raises(LedgerError, match="hold the last 12 of 40 tokens; what was before cannot be restored"):
                WAYS["cropped"](model, cache)
        else:
            assert torch.equal(WAYS["cropped"](model, cache), WAYS["cropped"](model, DynamicCache()))
        assert not cache.layers[0].is_croppable


def test_a_step_in_parts_and_a_window_that_moves_between_them_is_refused():
    class InParts(Dynamic):
        def at_once(self, seq, num_tokens, view):
            return min(num_tokens, 4)

    model = chosen_model("mistral, window of 12", "eager")
    cache, told = KVBenchCache(InParts(), model.config), "InParts takes 8 parts of a step, which a window passes; call"
    with torch.no_grad(), pytest.raises(RuntimeError, match=told):
        model(input_ids=prompt(1, 30), past_key_values=cache)
    own = attending(model_of("mistral, window of 12"), ATTENTION)
    cache = KVBenchCache(InParts(), own.config)
    tokens = WAYS["greedy"](own, cache)
    assert torch.equal(tokens, expected("mistral, window of 12", "sdpa", "greedy"))

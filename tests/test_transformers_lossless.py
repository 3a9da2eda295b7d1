"""Lossless strategies inside models of the transformers library give the very tokens that its own cache gives."""

from functools import cache as once
from itertools import product

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

from transformers import DynamicCache

from kvbench.integrations.transformers import ATTENTION, KVBenchCache, use_attention
from tests.support.catalogue import STRATEGIES
from tests.support.families import CONFIGS, NUM_OUTPUT, WAYS, model_of
from tests.test_contract import small

LOSSLESS = [name for name in STRATEGIES if name != "recompute" and small(name).lossless]
ATTENTIONS = ("eager", "sdpa", ATTENTION)
FAMILIES = ("paged", "hierarchical")
"""Strategies that are read in ways of their own, gathered and in several pieces; `dynamic`'s is every model's."""


@once
def chosen_model(name, attention):
    model = model_of(name)
    if attention == ATTENTION:
        use_attention(model)
    else:
        model.set_attn_implementation(attention)
    return model


@once
def expected(name, attention, way):
    """Tokens with transformers' own cache; under its own scaled-dot-product attention where kvbench's is tried."""
    model = chosen_model(name, "sdpa" if attention == ATTENTION else attention)
    return WAYS[way](model, DynamicCache(config=model.config))


def cache_of(strategy, model):
    return KVBenchCache(strategy, model.config, num_output_tokens=NUM_OUTPUT)


def square(rows, columns, attentions):
    """Every row with every column, each pair under one attention in turn, so that all meet; the others are slow."""
    for row, column, number in product(rows, columns, range(len(attentions))):
        in_turn = (rows.index(row) + columns.index(column)) % len(attentions) == number
        yield pytest.param(row, column, attentions[number], marks=() if in_turn else pytest.mark.slow)


@pytest.mark.parametrize(("name", "way", "attention"), list(square(LOSSLESS, [*WAYS], ("sdpa", ATTENTION))))
def test_every_lossless_strategy_gives_the_same_tokens(name, way, attention):
    chosen = small(name)
    model = chosen_model("llama", ATTENTION if chosen.signals else attention)
    cache = cache_of(chosen, model)
    assert torch.equal(WAYS[way](model, cache), expected("llama", attention, way))
    assert cache.figures().num_attended == cache.figures().num_seen
    cache.close()


PLAIN_WAYS = [way for way in WAYS if way not in ("assisted", "cropped")]


@pytest.mark.parametrize(("family", "way", "attention"), list(square([*CONFIGS], PLAIN_WAYS, ATTENTIONS)))
def test_every_family_of_models_gives_the_same_tokens(family, way, attention):
    for name in FAMILIES:
        model = chosen_model(family, attention)
        cache = cache_of(small(name), model)
        assert torch.equal(WAYS[way](model, cache), expected(family, attention, way)), name
        cache.close()


def test_prompts_and_what_follows_really_differ():
    """The tests above would pass with a model that repeats one token."""
    for way in WAYS:
        assert len(expected("llama", "sdpa", way).unique()) > 1, way

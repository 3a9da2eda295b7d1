"""Lossless strategies in a real model, SmolLM2: the very tokens that transformers' own cache gives."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

from transformers import DynamicCache

from kvbench.integrations.transformers import KVBenchCache, use_attention
from tests.support.catalogue import strategy

TEXTS = ("Once upon a time, there was a small robot who", "The capital of France is")
OWN = {
    "dynamic": {"initial_capacity": 16},
    "async": {"initial_capacity": 16},
    "paged": {"block_size": 4},
    "hierarchical": {"fast_capacity": 12},
    "hierarchical_access": {"fast_capacity": 12},
}
"""Parameters by which they act on few tokens."""


@pytest.mark.slow
@pytest.mark.parametrize("is_own", [False, True], ids=["sdpa", "kvbench's attention"])
def test_tokens_are_those_of_the_full_cache(smollm2, is_own):
    """A left-padded batch of two, greedily."""
    model, tokenizer = smollm2.model, smollm2.tokenizer
    before = model.config._attn_implementation
    given = tokenizer(list(TEXTS), return_tensors="pt", padding=True, padding_side="left")
    how = {**given, "max_new_tokens": 16, "do_sample": False}
    expected = model.generate(**how, past_key_values=DynamicCache(config=model.config))
    print(tokenizer.batch_decode(expected, skip_special_tokens=True))
    try:
        if is_own:
            use_attention(model)
        for name, changed in OWN.items():
            chosen = strategy(name, **changed)
            if chosen.signals and not is_own:
                continue
            cache = KVBenchCache(chosen, model.config)
            assert torch.equal(model.generate(**how, past_key_values=cache), expected), name
            cache.close()
    finally:
        model.set_attn_implementation(before)

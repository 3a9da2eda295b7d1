"""Of models with latent attention the latent and its rotary part are held, and the tokens are transformers' own."""

from functools import cache as once

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

import transformers
from transformers import DynamicCache

from kvbench.integrations.latents import latents_of
from kvbench.integrations.transformers import ATTENTION, KVBenchCache, use_attention
from tests.support.catalogue import STRATEGIES
from tests.support.families import NUM_OUTPUT, SIZES, WAYS, from_config, prompt
from tests.support.storages import LiveStorages
from tests.test_contract import small

RANK, ROTARY = 24, 8
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": RANK,
    "q_lora_rank": None,
    "qk_rope_head_dim": ROTARY,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
KINDS = ("DeepseekV2", "DeepseekV3", "Glm4MoeLite", "MiniCPM3", "Youtu")
CHOSEN = {name: small(name) for name in STRATEGIES if name != "recompute"}
STORING = [name for name, chosen in CHOSEN.items() if chosen.lossless and not chosen.signals]
DOING_MORE = [name for name in CHOSEN if name not in (*STORING, "fp8")]
TRIED = [way for way in WAYS if way not in ("assisted", "sampled")]
ATTENTIONS = ("eager", "sdpa", ATTENTION)


def config_of(kind, **given):
    return getattr(transformers, f"{kind}Config")(**SIZES | LATENT | given)


@once
def chosen_model(kind, attention):
    model = from_config(config_of(kind))
    use_attention(model) if attention == ATTENTION else model.set_attn_implementation(attention)
    return model


@once
def expected(kind, attention, way):
    model = chosen_model(kind, "sdpa" if attention == ATTENTION else attention)
    return WAYS[way](model, DynamicCache(config=model.config))


@once
def hands_latents_over():
    cache = DynamicCache()
    with torch.no_grad():
        chosen_model("DeepseekV3", "sdpa")(input_ids=prompt(1, 1), past_key_values=cache)
    return cache.layers[0].keys.shape[1] == 1


def cases():
    """Every kind with every way, under one strategy and attention in turn; the others are slow."""
    pairs = [(chosen, attention) for attention in ATTENTIONS for chosen in STORING]
    for row, kind in enumerate(KINDS):
        for column, way in enumerate(TRIED):
            for number, (chosen, attention) in enumerate(pairs):
                in_turn = number == (len(TRIED) * row + column) * 4 % len(pairs)
                yield pytest.param(kind, way, chosen, attention, marks=() if in_turn else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "way", "chosen", "attention"), list(cases()))
def test_the_same_tokens_out_of_latents(kind, way, chosen, attention):
    if not hands_latents_over():
        pytest.skip("this transformers hands K and V over that are made of latents")
    model = chosen_model(kind, attention)
    cache = KVBenchCache(CHOSEN[chosen], model.config, num_output_tokens=NUM_OUTPUT)
    assert torch.equal(WAYS[way](model, cache), expected(kind, attention, way))
    assert len(expected(kind, attention, way).unique()) > 1
    cache.close()


@pytest.mark.parametrize("chosen", STORING)
def test_bytes_are_those_of_latents(chosen):
    """A token of 2 layers has a latent of 24 and a rotary part of 8 in float32: 256 bytes a row."""
    cache, storages = KVBenchCache(CHOSEN[chosen], config_of("DeepseekV3"), num_output_tokens=60), LiveStorages()
    generator = torch.Generator().manual_seed(0)
    given = [[], []]
    for count in (5, 20, 1, 3, 1, 17, 1):
        for layer, tokens in enumerate(given):
            new = [torch.randn(2, 1, count, width, generator=generator) for width in (RANK, ROTARY)]
            tokens.append(new)
            with storages:
                held = cache.update(*new, layer)
            for own, came in zip(held, zip(*tokens, strict=True), strict=True):
                assert torch.equal(own, torch.cat(came, dim=2))
            del held, own
        for sequence in cache.batch.sequences:
            sequence._shared.background.wait()
        assert storages.live_bytes == cache.ledger.held_bytes
    (holding, *others) = cache.ledger.accounts[cache.batch.seq].holdings.values()
    if not others and chosen != "paged":
        assert cache.ledger.held_bytes == 2 * 256 * holding.capacity
    cache.close()


@pytest.mark.parametrize("chosen", ["concat", "dynamic", "static"])
def test_peaks_are_booked_to_the_byte(chosen):
    """Of a latent and a rotary part the smaller is replaced first, so that the larger alone is held twice."""
    cache, storages = KVBenchCache(CHOSEN[chosen], config_of("DeepseekV3")), LiveStorages()
    for count in (40, 1, 30, 1):
        for layer in range(2):
            new = [torch.zeros(2, 1, count, width) for width in (RANK, ROTARY)]
            with storages:
                cache.update(*new, layer)
        assert storages.peak_bytes == cache.figures().peak_bytes
    with storages:
        cache.batch_repeat_interleave(3)
    assert storages.peak_bytes == cache.figures().peak_bytes + 6 * 8  # the numbers of six rows


def test_a_real_model_holds_512_and_64():
    """Of 61 layers in 16 bits, 70,272 bytes a token."""
    geometry = latents_of(transformers.DeepseekV3Config(), "bfloat16")
    assert geometry.bytes_per_token == 61 * (512 + 64) * 2 == 70_272
    assert latents_of(transformers.LlamaConfig(), "bfloat16") is None
    if hasattr(transformers, "Kimi_K25Config"):
        assert latents_of(transformers.Kimi_K25Config(), "bfloat16").groups == geometry.groups


@pytest.mark.parametrize("chosen", DOING_MORE)
def test_who_does_more_than_store_is_refused(chosen):
    message = "of deepseek_v3 latents are held, which K and V are made of behind the cache: expected is a strategy that"
    with pytest.raises(ValueError, match=rf"(evicts tokens|packs K|is told of attention \(\w+\)).*; {message}"):
        KVBenchCache(CHOSEN[chosen], config_of("DeepseekV3"))


def test_keys_of_eight_bits_have_two_widths_too():
    cache = KVBenchCache(small("dynamic"), config_of("DeepseekV3"), kv_dtype="fp8_e4m3")
    given = [torch.randn(1, 1, 9, width, generator=torch.Generator().manual_seed(width)) for width in (RANK, ROTARY)]
    for held, came in zip(cache.update(*given, 0), given, strict=True):
        assert torch.equal(held, came.to(torch.float8_e4m3fn).float())


def test_keys_that_are_made_of_latents_are_refused():
    cache = KVBenchCache(small("dynamic"), config_of("DeepseekV3"))
    with pytest.raises(
        ValueError, match="a latent of 24 and a rotary part of 8 a token, got K of 4 heads of 16 and V of"
    ):
        cache.update(torch.zeros(1, 4, 3, 16), torch.zeros(1, 4, 3, 12), 0)
    cache.update(torch.zeros(1, 1, 3, RANK), torch.zeros(1, 1, 3, ROTARY), 0)
    with pytest.raises(ValueError, match="the cache holds 1 rows, 1 KV heads of 8, float32 on cpu; got"):
        cache.update(torch.zeros(1, 1, 3, RANK), torch.zeros(1, 1, 3, RANK), 1)


def test_what_is_not_understood_is_refused():
    with pytest.raises(ValueError, match=r"keys of an index beside K and V \(index_n_heads=4\)"):
        KVBenchCache(small("dynamic"), config_of("DeepseekV3", index_n_heads=4))
    with pytest.raises(
        ValueError, match="positions='compacted' is for K and V as attention reads them, not for latents"
    ):
        KVBenchCache(small("dynamic"), config_of("DeepseekV3"), positions="compacted")

"""Layers with a state hold it, booked from the first step on, and the tokens are those of transformers' own cache."""

from functools import cache as once

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

import transformers
from transformers import DynamicCache

from kvbench.integrations.hybrids import KINDS, computed_in, hybrid_of
from kvbench.integrations.layerwise import StepFailed
from kvbench.integrations.transformers import ATTENTION, KVBenchCache, use_attention
from kvbench.ledger import LedgerError, OutOfMemory
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.families import NUM_OUTPUT, SIZES, WAYS, from_config, prompt
from tests.support.storages import LiveStorages
from tests.test_contract import small

DELTA = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16}
FEW = SIZES | {"num_hidden_layers": 4}
GIVEN = {
    "bamba": FEW | MAMBA2 | {"attn_layer_indices": [1]},
    "granitemoehybrid": FEW
    | MAMBA2
    | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 48,
        "layer_types": ["full_attention", "linear_attention", "linear_attention", "full_attention"],
    },
    "jamba": FEW | {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 4, "attn_layer_offset": 2},
    "nemotron_h": {key: value for key, value in SIZES.items() if key != "num_hidden_layers"}
    | {
        "layers_block_type": ["moe", "linear_attention", "full_attention", "mlp"],
        "head_dim": 16,
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "ssm_state_size": 16,
        "n_routed_experts": 4,
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 48,
    },
    "qwen3_5_moe_text": FEW | DELTA | EXPERTS | {"shared_expert_intermediate_size": 48},
    "qwen3_5_text": FEW | DELTA,
    "qwen3_next": FEW | DELTA | EXPERTS | {"shared_expert_intermediate_size": 48},
}
CHANNELS, KERNEL, HEADS = 2 * 2 * 8 + 4 * 8, 4, (4, 8, 8)
STATE_BYTES = 3 * (CHANNELS * KERNEL + 4 * 8 * 8) * 4
"""Of a row of the Qwen3-Next: three of its four layers."""
CHOSEN = {name: small(name) for name in STRATEGIES if name != "recompute"}
LOSSLESS = [name for name, chosen in CHOSEN.items() if chosen.lossless and not chosen.signals]
ATTENTIONS = ("eager", "sdpa", ATTENTION)
TRIED = [way for way in WAYS if way not in ("assisted", "cropped", "repeated")]


def config_of(kind="qwen3_next"):
    return transformers.AutoConfig.for_model(kind, **GIVEN[kind])


@once
def chosen_model(kind, attention="sdpa", dtype=torch.float32):
    model = from_config(config_of(kind)).to(dtype)
    use_attention(model) if attention == ATTENTION else model.set_attn_implementation(attention)
    return model


@once
def expected(kind, attention, way):
    model = chosen_model(kind, "sdpa" if attention == ATTENTION else attention)
    return WAYS[way](model, DynamicCache(config=model.config))


@once
def say_how_many_come():
    model = chosen_model("qwen3_next")
    try:
        fed(model, KVBenchCache(small("dynamic"), model.config), 1, 1)
    except ValueError as error:
        if "does not say how many new tokens" not in str(error):
            raise
        return False
    return True


needs_counts = pytest.mark.skipif(
    "not say_how_many_come()", reason="this transformers does not say how many tokens come"
)


@torch.no_grad()
def fed(model, cache, num_rows, num_tokens, seed=1):
    return model(input_ids=prompt(num_rows, num_tokens, seed), past_key_values=cache).logits


def states(cache):
    """The tensors of layers with states, wherever they are."""
    return [
        slot[0]
        for layer in cache.layers
        for slot in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {}))
        if slot.get(0) is not None
    ]


def state_bytes(cache):
    return sum(tensor.untyped_storage().nbytes() for tensor in states(cache))


def cases():
    """Every kind with every other way, under one strategy and attention in turn; the others are slow."""
    pairs = [(chosen, attention) for attention in ATTENTIONS for chosen in LOSSLESS]
    for row, kind in enumerate(GIVEN):
        for column, way in enumerate(TRIED):
            for number, (chosen, attention) in enumerate(pairs):
                in_turn = (row + column) % 2 == 0 and number == (len(TRIED) * row + column) * 4 % len(pairs)
                yield pytest.param(kind, way, chosen, attention, marks=() if in_turn else pytest.mark.slow)


def test_every_kind_is_tried():
    assert set(GIVEN) == KINDS


@needs_counts
@pytest.mark.parametrize(("kind", "way", "chosen", "attention"), list(cases()))
def test_the_same_tokens(kind, way, chosen, attention):
    model = chosen_model(kind, attention)
    cache = KVBenchCache(CHOSEN[chosen], model.config, num_output_tokens=NUM_OUTPUT)
    assert torch.equal(WAYS[way](model, cache), expected(kind, attention, way))
    assert len(expected(kind, attention, way).unique()) > 1
    cache.close()


@needs_counts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", GIVEN)
def test_states_are_those_that_transformers_holds(kind, dtype):
    """In number, bytes and values; booked as its own groups of layers say, recurrent ones in float32."""
    model, theirs = chosen_model(kind, dtype=dtype), DynamicCache()
    cache = KVBenchCache(small("dynamic"), model.config)
    theirs = DynamicCache(config=model.config)
    for count in (9, 1, 1, 6):
        fed(model, cache, 2, count, seed=count)
        fed(model, theirs, 2, count, seed=count)
        for own, their in zip(states(cache), states(theirs), strict=True):
            assert torch.equal(own, their)
        account = cache.ledger.accounts[cache.batch.seq]
        assert account.state_bytes == state_bytes(cache) == state_bytes(theirs) > 0
    geometry = computed_in(hybrid_of(model.config, "float32"), str(dtype).removeprefix("torch."))
    assert account.by_group["", "state"] == account.state_bytes == 2 * geometry.state_bytes
    cache.close()


def test_a_published_model_holds_what_was_worked_out_by_hand():
    """Of 48 layers 36 hold 32 heads of 128 x 128 in float32 and 4 inputs of 8,192 channels in 16 bits."""
    geometry = hybrid_of(transformers.Qwen3NextConfig(), "bfloat16")
    assert geometry.state_bytes == 36 * (32 * 128 * 128 * 4 + 8_192 * 4 * 2) == 77_856_768
    assert geometry.bytes_per_token == 12 * 2 * 2 * 256 * 2
    assert hybrid_of(transformers.LlamaConfig(), "bfloat16") is None


class Driven:
    """A Qwen3-Next's layers on random tensors; torch's own storages count what is held."""

    def __init__(self, chosen, num_rows=2, **options):
        self.cache = KVBenchCache(chosen, config_of(), num_output_tokens=100, **options)
        self.num_rows, self.storages = num_rows, LiveStorages()

    def step(self, num_tokens):
        rows = self.num_rows
        new, state = torch.randn(rows, CHANNELS, num_tokens), torch.randn(rows, *HEADS)
        given = torch.randn(2, rows, 2, num_tokens, 16)
        with self.storages:
            for layer in range(3):
                if num_tokens > 1 or not self.cache.has_previous_state(layer):
                    self.cache.update_conv_state(new, layer, conv_kernel_size=KERNEL)
                self.cache.update_recurrent_state(state, layer)
            self.cache.update(*given, 3)
        self.check()

    def check(self):
        for sequence in self.cache.batch.sequences:
            sequence._shared.background.wait()
        assert self.storages.live_bytes == self.cache.ledger.held_bytes


@pytest.mark.parametrize("chosen", LOSSLESS)
def test_bytes_are_booked_and_let_go_of(chosen):
    driven = Driven(CHOSEN[chosen])
    cache, storages = driven.cache, driven.storages
    for again in range(2):
        for count in (5, 20, 1, 3, 1, 17, 1):
            driven.step(count)
            assert cache.ledger.accounts[cache.batch.seq].state_bytes == state_bytes(cache) == 2 * STATE_BYTES
        with storages:
            cache.reset() if not again else cache.close()
        assert storages.live_bytes == (cache.ledger.fixed_bytes if not again else 0)
        assert not states(cache)


def test_states_keep_their_dtype_where_the_others_are_cast():
    """A token of the layer with K and V has 2 heads of 16 in eight bits, 64 bytes a row."""
    driven = Driven(strategy("static", max_seq_len=40), kv_dtype="fp8_e4m3")
    driven.step(9)
    driven.step(1)
    account = driven.cache.ledger.accounts[driven.cache.batch.seq]
    assert account.by_group == {("", "state"): 2 * STATE_BYTES, ("main", "full"): 2 * 40 * 64}


@pytest.mark.parametrize("chosen", LOSSLESS)
def test_chosen_rows_have_their_states(chosen):
    driven = Driven(CHOSEN[chosen])
    cache = driven.cache
    driven.step(3)
    for choose, index in (
        (lambda: cache.batch_repeat_interleave(3), [0, 0, 0, 1, 1, 1]),
        (lambda: cache.reorder_cache(torch.tensor([5, 0, 1, 1, 4, 2])), [5, 0, 1, 1, 4, 2]),
        (lambda: cache.batch_select_indices(torch.tensor([3])), [3]),
    ):
        before = [tensor.clone() for tensor in states(cache)]
        driven.storages.peak_bytes = driven.storages.live_bytes
        with driven.storages:
            choose()
        for own, was in zip(states(cache), before, strict=True):
            assert torch.equal(own, was[index])
        del own, was
        driven.num_rows = len(index)
        driven.check()
        if chosen in ("concat", "dynamic", "static"):
            assert driven.storages.peak_bytes <= cache.figures().peak_bytes + 8 * len(index)  # and the rows' numbers
        driven.step(1)
    cache.close()


@needs_counts
def test_a_prompt_that_is_read_once_is_gone_on_with_three_times():
    model = chosen_model("qwen3_next")
    once_read, apart = (KVBenchCache(small("dynamic"), model.config) for _ in range(2))
    fed(model, once_read, 2, 30)
    once_read.batch_repeat_interleave(3)
    with torch.no_grad():
        model(input_ids=prompt(2, 30).repeat_interleave(3, 0), past_key_values=apart)
    assert torch.allclose(fed(model, once_read, 6, 4), fed(model, apart, 6, 4), atol=1e-4)


@needs_counts
@pytest.mark.parametrize("attention", ["sdpa", ATTENTION])
@pytest.mark.parametrize("kind", ["qwen3_next", "granitemoehybrid"])
@pytest.mark.parametrize("chosen", [strategy("static", max_seq_len=40), strategy("concat")], ids=["static", "concat"])
def test_a_budget_holds_states_too(kind, attention, chosen):
    """The first layer has a state, or K and V: in both, nothing is held where the first step does not fit."""
    model = chosen_model(kind, attention)
    cache = KVBenchCache(chosen, model.config)
    fed(model, cache, 2, 9)
    needed = cache.figures().held_bytes
    assert needed > state_bytes(cache) > 0
    tight = KVBenchCache(chosen, model.config, budget_bytes=needed - 1)
    for _ in range(2):
        with pytest.raises(OutOfMemory):
            fed(model, tight, 2, 9)
        assert (tight.get_seq_length(), tight.figures().held_bytes, states(tight)) == (0, 0, [])
    assert fed(model, tight, 1, 9).shape[0] == 1
    fed(model, KVBenchCache(chosen, model.config, budget_bytes=needed), 2, 9)


@needs_counts
def test_a_pool_leaves_room_for_states():
    model = chosen_model("qwen3_next")
    cache = KVBenchCache(strategy("paged", block_size=4), model.config, budget_bytes=2 * STATE_BYTES + 600_000)
    fed(model, cache, 2, 9)
    assert 590_000 < cache.ledger.held_bytes - 2 * STATE_BYTES <= 600_000


@needs_counts
def test_a_refused_step_has_moved_states_so_that_the_cache_is_reset():
    model = chosen_model("qwen3_next")
    cache = KVBenchCache(strategy("concat"), model.config, budget_bytes=STATE_BYTES + 12 * 256)
    expected = fed(model, cache, 1, 6)
    with pytest.raises(OutOfMemory):
        fed(model, cache, 1, 9)
    with pytest.raises(StepFailed, match="reset the cache first"):
        fed(model, cache, 1, 1)
    cache.reset()
    assert torch.equal(fed(model, cache, 1, 6), expected)


def test_a_first_step_that_was_cut_short_is_told():
    driven = Driven(small("dynamic"))
    for _ in range(2):
        driven.cache.update_conv_state(torch.zeros(2, CHANNELS, 5), 0, conv_kernel_size=KERNEL)
        with pytest.raises(StepFailed, match="was not carried out in every layer; reset the cache first"):
            driven.cache.update_conv_state(torch.zeros(2, CHANNELS, 5), 0, conv_kernel_size=KERNEL)
        driven.cache.reset()
    driven.cache.update_conv_state(torch.zeros(2, CHANNELS, 5), 0, conv_kernel_size=KERNEL)
    with pytest.raises(StepFailed, match="was not carried out in every layer"):
        driven.cache.update(torch.zeros(2, 2, 4, 16), torch.zeros(2, 2, 4, 16), 3)


@needs_counts
def test_tokens_are_not_taken_back():
    model, told = (
        chosen_model("qwen3_next"),
        "crop removes no tokens of a model with states: what went into a state cannot",
    )
    cache = KVBenchCache(small("dynamic"), model.config)
    expected = fed(model, cache, 1, 9)
    with pytest.raises(LedgerError, match=told):
        cache.crop(-1)
    cache.crop(0)
    assert not cache.is_croppable
    cache.reset()
    assert torch.equal(fed(model, cache, 1, 9), expected)
    with pytest.raises(ValueError, match=told):
        cache.activate_past_recording()


@needs_counts
@pytest.mark.parametrize("chosen", [name for name in CHOSEN if name not in LOSSLESS])
def test_who_evicts_does_so_in_layers_that_attend(chosen):
    """Before the first of them, states are transformers' own, whatever is evicted behind."""
    model, theirs = chosen_model("qwen3_next", ATTENTION), DynamicCache(config=config_of())
    cache = KVBenchCache(CHOSEN[chosen], model.config, num_output_tokens=NUM_OUTPUT)
    for count in (60, 1, 1, 9, 1):
        fed(model, cache, 2, count, seed=count)
        fed(model, theirs, 2, count, seed=count)
        for own, their in zip(states(cache), states(theirs), strict=True):
            assert torch.equal(own, their)
        assert state_bytes(cache) == cache.ledger.accounts[cache.batch.seq].state_bytes == 2 * STATE_BYTES
    cache.close()


@needs_counts
def test_padding_and_evictions_go_together():
    model = chosen_model("jamba", ATTENTION)
    cache = KVBenchCache(small("sinks"), model.config)
    assert WAYS["left_padded"](model, cache).shape == (3, 30 + NUM_OUTPUT)
    assert cache.figures().num_attended < cache.get_seq_length()
    places = cache._shared.arrangement.places
    assert places[:, :2].tolist() == [[0, 1], [11, 12], [25, 26]]  # a row's first tokens, held before its padding


def test_a_wrong_batch_or_state_is_refused():
    driven = Driven(small("dynamic"))
    with pytest.raises(ValueError, match=r"does not say how many new tokens come to a layer with a state; 5\.17 and"):
        driven.cache.update_conv_state(torch.zeros(2, CHANNELS, 5), 0)
    with pytest.raises(ValueError, match="no gradients go through it"):
        driven.cache.update_conv_state(torch.zeros(2, CHANNELS, 5, requires_grad=True), 0, conv_kernel_size=KERNEL)
    driven.step(5)
    with pytest.raises(ValueError, match=r"states of 2 rows, float32 on cpu; got 3, torch\.float32 on cpu; reset\(\)"):
        driven.cache.update_conv_state(torch.zeros(3, CHANNELS, 5), 0, conv_kernel_size=KERNEL)
    driven = Driven(small("dynamic"))
    message = r"layer 0: a convolution of \(2, 64, 4\), torch.float32 on cpu is booked; the model has \(2, 64, 3\)"
    with pytest.raises(ValueError, match=message):
        driven.cache.update_conv_state(torch.zeros(2, CHANNELS, 5), 0, conv_kernel_size=KERNEL - 1)
    driven.cache.reset()
    driven.cache.update_conv_state(torch.zeros(2, CHANNELS, 5), 0, conv_kernel_size=KERNEL)
    with pytest.raises(ValueError, match=r"layer 0: a recurrent state of .* is booked; the model has .*float64"):
        driven.cache.update_recurrent_state(torch.zeros(2, *HEADS, dtype=torch.float64), 0)


@needs_counts
def test_what_needs_an_attention_says_so_before_anything_is_held():
    model = chosen_model("qwen3_next")
    cache = KVBenchCache(small("sinks"), model.config)
    with pytest.raises(RuntimeError, match=r"Sinks evicts tokens, .* call kvbench"):
        fed(model, cache, 1, 9)
    assert not states(cache)


def test_what_is_not_understood_is_refused():
    config = config_of()
    config.linear_value_dims_of_mine = 4
    with pytest.raises(ValueError, match="linear_value_dims_of_mine may change its cache, and is not understood"):
        KVBenchCache(small("dynamic"), config)
    alike = {"layer_types": ["linear_attention"] * 4}
    config = transformers.GraniteMoeHybridConfig(**GIVEN["granitemoehybrid"] | alike)
    with pytest.raises(ValueError, match="has no layer that holds K and V; expected is a decoder"):
        KVBenchCache(small("dynamic"), config)
    with pytest.raises(ValueError, match="linear_attention"):
        KVBenchCache(small("dynamic"), transformers.MambaConfig())

"""Transformers' own caches are counted: what they hold is what torch holds, and models run with them as before."""

import copy

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen2Config, StaticCache

from kvbench.integrations import peers
from kvbench.integrations.peers import BACKENDS, PEERS, peer_of, why_not
from kvbench.strategy.base import CapacityExceeded
from tests.support.storages import LiveStorages

SMALL = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
FULL = LlamaConfig(**SMALL)
SLIDING = Qwen2Config(
    **SMALL, use_sliding_window=True, sliding_window=12, layer_types=["full_attention", "sliding_attention"]
)
K_BYTES = 2 * 16 * 4  # a token's K (or V) in a layer: 2 heads of 16 numbers in float32
SCALARS = 2 * 2 * 8  # numbers that a layer keeps as tensors, which torch makes out of Python's: not seen as made
APPENDS = (10, 1, 1, 7, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(FULL).eval()


def peer(name, config=FULL, max_tokens=40):
    reason = why_not(name, config)
    if reason is not None:
        pytest.skip(reason)
    return peer_of(name, config, max_tokens)


def states(count, num_rows=1):
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(num_rows, 2, count, 16, generator=generator) for _ in range(2)]


def append(cache, count, num_rows=1):
    for layer in range(2):
        cache.update(*states(count, num_rows), layer)


def test_dynamic_by_hand():
    it = peer("dynamic")
    assert it.figures() == (0, 0, 0, 0, 0)
    for count in (10, 1, 1):
        append(it.cache, count)
    # At the last layer's last update: 12 tokens of both layers, and V of the last as it was, 11 tokens.
    assert it.figures() == (12 * 4 * K_BYTES, (12 * 4 + 11) * K_BYTES, 2, 12, 12)


def test_static_by_hand():
    it = peer("static", max_tokens=40)
    for count in (10, 1, 1):
        append(it.cache, count)
    counters = 2 * 8  # each layer's length is a tensor of its own
    assert it.figures() == (40 * 4 * K_BYTES + counters, 40 * 4 * K_BYTES + counters, 0, 12, 12)


def test_a_sliding_layer_holds_the_tensor_behind_its_view():
    it = peer("dynamic", SLIDING)
    append(it.cache, 30)
    window = 8  # the sliding layer keeps its window's length as a tensor
    assert it.figures() == (30 * 4 * K_BYTES + window, 30 * 4 * K_BYTES + window, 0, 30, 30)
    append(it.cache, 1)
    # The sliding layer: 11 tokens of the window and the new one. The peak is at the layer before it: 31 tokens, V of
    # the 30 before, and the sliding layer as it was.
    passing = 31 * 2 + 30 + 30 * 2
    assert it.figures() == ((31 + 12) * 2 * K_BYTES + window, passing * K_BYTES + window, 1, 31, 31)


def test_fp8_by_hand():
    it = peer("fp8")
    for count in (10, 1):
        append(it.cache, count)
    scales = 2 * 2 * 4
    held = 11 * 2 * 2 * 32 + scales
    # Each step makes K and V whole in float32, V twice in passing (as it was rounded, and scaled), and holds the 10
    # tokens of before and the new one beside their concatenation.
    assert it.figures()[:2] == (held, held + (11 * 2 + 11) * K_BYTES + (10 + 1) * 2 * 32)
    assert it.figures().num_resizes == 1


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize(
    ("name", "config"),
    [*((name, FULL) for name in PEERS), ("dynamic", SLIDING), ("static", SLIDING)],
    ids=[*PEERS, "dynamic sliding", "static sliding"],
)
def test_what_is_counted_is_what_torch_holds(name, config, num_rows):
    """But for the places that a static cache writes to, twice 8 bytes a new token, which are not counted."""
    given = [states(count, num_rows) for count in APPENDS]
    peer(name, config)  # tries its backend out
    with LiveStorages() as live:
        it = peer(name, config)
        for keys, values in given:
            for layer in range(2):
                it.cache.update(keys, values, layer)
            assert abs(it.figures().held_bytes - live.live_bytes) <= SCALARS
            assert abs(it.figures().peak_bytes - live.peak_bytes) <= SCALARS + 2 * 8 * max(APPENDS)
    seen = sum(APPENDS)
    assert it.figures()[3:] == (seen, seen)
    # Those of few bits only begin a window of exact tokens with the second step.
    first = {"static": len(APPENDS), "dynamic": 1, "fp8": 1}.get(name, 2)
    assert it.figures().num_resizes == len(APPENDS) - first


@pytest.mark.parametrize("name", PEERS)
def test_a_model_generates_with_it(model, name):
    prompt = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(1))
    it = peer(name)
    options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 20, "min_new_tokens": 20, "pad_token_id": 0}
    got = model.generate(prompt, past_key_values=it.cache, do_sample=False, **options)
    assert got.shape == (2, 29)
    assert it.figures().num_seen == 28
    if name not in BACKENDS:
        assert torch.equal(got, model.generate(prompt, do_sample=False, **options))


def test_instances_of_transformers_classes():
    assert isinstance(peer("dynamic").cache, DynamicCache)
    assert isinstance(peer("static").cache, StaticCache)


def test_beams_are_counted(model):
    prompt = torch.randint(0, 64, (1, 9), generator=torch.Generator().manual_seed(1))
    it = peer("dynamic")
    options = {
        "attention_mask": torch.ones_like(prompt),
        "num_beams": 3,
        "max_new_tokens": 8,
        "min_new_tokens": 8,
        "do_sample": False,
    }
    got = model.generate(prompt, past_key_values=it.cache, **options)
    assert torch.equal(got, model.generate(prompt, **options))
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in it.cache.layers)
    assert it.figures().held_bytes == held
    assert it.figures().peak_bytes > held


def test_cut_and_chosen_rows_are_counted():
    it = peer("dynamic")
    append(it.cache, 20, num_rows=2)
    it.cache.crop(-5)
    assert it.figures()[2:4] == (0, 15)
    assert it.figures().held_bytes == 2 * 20 * 4 * K_BYTES, "a cut is a view of the same storage"
    it.cache.batch_select_indices(torch.tensor([1]))
    assert it.figures().held_bytes == 15 * 4 * K_BYTES
    it.cache.batch_repeat_interleave(3)
    assert it.figures().held_bytes == 3 * 15 * 4 * K_BYTES


@pytest.mark.parametrize("name", [name for name in PEERS if not name.startswith("quanto")])  # tensors without copies
def test_a_copy_and_a_reset_one_count_on(name):
    it = peer(name)
    append(it.cache, 10)
    twin = copy.deepcopy(it.cache)
    append(it.cache, 1)
    append(twin, 1)
    assert twin.figures() == it.figures()
    it.cache.reset()
    assert it.figures()[2:] == (0, 0, 0)
    append(it.cache, 10)
    append(it.cache, 1)
    assert it.figures() == twin.figures()


def test_a_full_static_cache_says_so():
    it = peer("static", max_tokens=12)
    append(it.cache, 12)
    with pytest.raises(CapacityExceeded, match="comes to 13 tokens; the strategy holds at most 12"):
        append(it.cache, 1)


def test_bad_input():
    with pytest.raises(ValueError, match=r"unknown peer 'dynamix'. Did you mean 'dynamic'"):
        why_not("dynamix")
    with pytest.raises(ValueError, match="max_tokens must be > 0, got 0"):
        peer_of("static", FULL, 0)
    with pytest.raises(ValueError, match=r"transformers fp8: .*sliding_attention"):
        peer_of("fp8", SLIDING, 10)


def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr("transformers.cache_utils.is_optimum_quanto_available", lambda: False)
    peers._backend_fault.cache_clear()
    try:
        reason = why_not("quanto_4bit", FULL)
    finally:
        peers._backend_fault.cache_clear()
    assert reason.startswith("transformers quanto_4bit needs optimum-quanto")
    assert reason.endswith("python -m pip install optimum-quanto")

"""Bytes and operations of a model: latent attention, sliding windows and parameters, by hand."""

from dataclasses import replace

import pytest

from kvbench.configuration.model import geometry_of, keys_of
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.model.parameters import ModelParameters
from tests.support.catalogue import TINY, preset

LATENT = KVGeometry.uniform(num_layers=3, num_heads=8, num_kv_heads=1, head_dim=16, latent_dim=20, dtype="bfloat16")
SMALL = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "dtype": "float32"}
WINDOWED = KVGeometry.uniform(**SMALL | {"num_layers": 6, "num_window_layers": 4, "window_tokens": 10})

# Vocabulary, width of the feed-forward part, whether the output shares the embedding, and each layer's further
# parameters of attention, as published in each model's configuration.
SHAPES = {
    "llama2_7b": (32_000, 11_008, False, 0),
    "llama3_8b": (128_256, 14_336, False, 0),
    "llama3_70b": (128_256, 28_672, False, 0),
    "mistral_7b": (32_768, 14_336, False, 0),
    "qwen2_5_7b": (152_064, 18_944, False, 3_584 + 2 * 512),  # biases
    "qwen3_0_6b": (151_936, 3_072, True, 2 * 128),  # norms of queries and keys
    "qwen3_8b": (151_936, 12_288, False, 2 * 128),
    "smollm2": (49_152, 1_536, True, 0),
    "gemma3_12b": (262_208, 15_360, True, 2 * 256 + 2 * 3_840),  # and two more norms of the hidden state
    "gemma3_27b": (262_208, 21_504, True, 2 * 128 + 2 * 5_376),
}


def test_a_latent_is_one_tensor_a_layer():
    # 20 numbers of 2 bytes in each of 3 layers; a product over 20 and a sum over 16, for 8 heads.
    assert (LATENT.num_tensors, LATENT.tensor_bytes_per_token, LATENT.bytes_per_token) == (3, 40, 120)
    assert LATENT.held_bytes(7) == 840
    assert LATENT.pair_flops == 3 * 8 * (2 * 20 + 2 * 16)
    assert not LATENT.is_plain


def test_layers_with_a_window_hold_its_tokens_only():
    # 256 bytes a token in 2 layers, so 768 in 6, of them 512 in the 4 with a window.
    assert [WINDOWED.bytes_per_token, *(group.token_bytes for group in WINDOWED.groups)] == [768, 256, 512]
    assert [group.layers for group in WINDOWED.groups] == [(2, 5), (0, 1, 3, 4)]
    assert [WINDOWED.held_bytes(count) for count in (0, 9, 10, 11, 25)] == [
        0,
        9 * 768,
        10 * 768,
        10 * 768 + 256,
        10 * 768 + 15 * 256,
    ]
    assert not WINDOWED.is_plain
    assert WINDOWED.pair_flops == 4 * 4 * 8 * 6


def test_a_plain_models_figures_are_as_they_were():
    assert TINY.is_plain
    assert (len(TINY.groups), TINY.held_bytes(100)) == (1, 100 * TINY.bytes_per_token)
    assert TINY.pair_flops == 4 * 4 * 8 * 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"latent_dim": 7, "num_kv_heads": 1},
            r"model\.latent_dim \(head_dim or more\) is an integer .* 8, got 7",
        ),
        ({"latent_dim": "x", "num_kv_heads": 1}, "latent_dim .* is an integer.*'x'"),
        ({"latent_dim": 12}, "num_kv_heads is 1 where latent_dim is given, got 2"),
        (
            {"num_window_layers": 2, "window_tokens": 4},
            r"num_window_layers \(fewer than num_layers\) .* at most 1, got 2",
        ),
        ({"num_window_layers": -1}, "num_window_layers .* is an integer of at least 0.*got -1"),
        ({"num_window_layers": 1}, "window_tokens, where num_window_layers is not 0, is a positive integer, got None"),
        ({"num_window_layers": 1, "window_tokens": 0}, "window_tokens.* is a positive integer, got 0"),
        ({"window_tokens": 5}, "window_tokens is null where num_window_layers is 0, got 5"),
    ],
)
def test_bad_geometry_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        KVGeometry.uniform(**SMALL | changed)


@pytest.mark.parametrize("geometry", [LATENT, WINDOWED])
def test_few_bits_need_keys_and_values_of_all_tokens(geometry):
    with pytest.raises(ValueError, match="layers hold K and V of all tokens"):
        geometry.groups[-1].packed_bytes(16, 4, 16, "channel")


def test_weights_by_hand():
    weights = ModelParameters(num_parameters=10, num_active_parameters=4, hidden_size=3, bytes_per_parameter=2)
    assert (weights.num_bytes, weights.active_bytes) == (20, 8)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_parameters": 0}, "num_parameters is a positive integer, got 0"),
        ({"hidden_size": None}, "hidden_size is a positive integer, got None"),
        ({"num_active_parameters": 2.5}, "num_active_parameters is a positive integer, got 2.5"),
        ({"num_active_parameters": 11}, r"num_active_parameters is at most num_parameters \(10\), got 11"),
        ({"bytes_per_parameter": True}, "bytes_per_parameter is a number above 0, got True"),
    ],
)
def test_bad_weights_are_refused(changed, words):
    figures = {"num_parameters": 10, "num_active_parameters": 10, "hidden_size": 3, "bytes_per_parameter": 2}
    with pytest.raises(ValueError, match=words):
        ModelParameters(**figures | changed)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_published_shapes(name):
    """Projections of attention, three matrices of the feed-forward part, two norms a layer, one at the end."""
    model, (num_words, width, is_tied, further) = preset(name), SHAPES[name]
    hidden, group = model.hidden_size, model.groups[0]
    attention = 2 * hidden * (group.num_heads + group.num_kv_heads) * group.head_dim + further
    layer = attention + 3 * hidden * width + 2 * hidden
    embeddings = num_words * hidden * (1 if is_tied else 2)
    assert model.num_parameters == model.num_layers * layer + embeddings + hidden


def test_parameters_of_opt_13b():
    """Biases everywhere, two matrices of the feed-forward part, two norms of two vectors; positions are learnt."""
    model, width = preset("opt_13b"), 20_480
    hidden = model.hidden_size
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * width + width + hidden + 4 * hidden
    assert model.num_parameters == model.num_layers * layer + (50_272 + 2_050) * hidden + 2 * hidden


MIXED = KVGeometry(
    groups=(
        LayerGroup(kind="full", layers=(0, 3), num_heads=4, num_kv_heads=1, key_dim=12, value_dim=8),
        LayerGroup(kind="window", layers=(1,), num_heads=4, num_kv_heads=2, key_dim=8, value_dim=8, tokens=5),
        LayerGroup(
            kind="state", layers=(2,), state=(StateTensor(name="recurrent", rows=3, columns=4, dtype="float32"),)
        ),
        LayerGroup(kind="sharing", layers=(4,), num_heads=4),
    ),
    dtype="bfloat16",
    name="Mixed",
)


def test_groups_hold_each_its_own():
    # 2 layers of 20 numbers, 1 of 32 for 5 tokens at most, 48 bytes of state whatever the length.
    assert [MIXED.held_bytes(count) for count in (0, 5, 7)] == [48, 5 * (80 + 64) + 48, 7 * 80 + 5 * 64 + 48]
    assert (MIXED.num_layers, MIXED.num_tensors, MIXED.tensor_bytes_per_token) == (5, 7, 32)
    assert MIXED.pair_flops == 2 * (20 * 4 * 2 + 16 * 4)
    assert MIXED.group_names == ("full", "window", "state", "sharing")
    with pytest.raises(ValueError, match="Mixed has 2 full layers, 1 window layer, 1 state layer, 1 sharing layer"):
        _ = MIXED.plain
    with pytest.raises(ValueError, match=r"Mixed: a layer is in one group, got \[1\] in several"):
        KVGeometry(groups=(*MIXED.groups, MIXED.groups[1]), dtype="bfloat16", name="Mixed")


def test_a_geometry_goes_through_a_configuration():
    for geometry in (MIXED, *(replace(each, name="Named") for each in (TINY, LATENT, WINDOWED))):
        assert geometry_of({"model": keys_of(geometry), "dtype": None}) == geometry

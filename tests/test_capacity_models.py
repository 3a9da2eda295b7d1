"""What fits of published models, by hand from their configurations: parameters, bytes of tokens, weights and blocks."""

import pytest

import kvbench as kv
from tests.support.measurements import measurement

TABLES = 131_072 * 128 * 2
"""Sines and cosines of Llama-3.1's positions."""


def fit_of(name, hardware="h100", tensor=1, **settings):
    config = measurement(f"configs/{name}")
    keys = {f"model.{key}": value for key, value in settings.items()}
    return kv.capacity(config, hardware=hardware, parallel={"tensor": tensor}, strategies=(), settings=keys)


def told(fit, *keys):
    found = fit.as_dict()
    return tuple(found[key] for key in keys)


def test_llama_70b_in_sixteen_bits_on_four():
    fit = fit_of("meta-llama--Llama-3.1-70B", tensor=4)
    assert told(fit, "parameters", "active_parameters", "bytes_per_token") == (70_553_706_496, 70_553_706_496, 327_680)
    assert fit.as_dict()["sequence_bytes"]["8192"] == 2_684_354_560
    norms = 161 * 8_192  # on every rank; the rest divides
    assert told(fit, "weights_bytes") == (2 * ((70_553_706_496 - norms) // 4 + norms) + TABLES,)
    available, num_blocks = told(fit, "available_bytes", "num_blocks")
    assert num_blocks == available // (80 * 16 * 2 * 256 * 2)
    assert available == pytest.approx(36 * 2**30, rel=0.03)


def test_llama_70b_in_eight_bits_on_two():
    wide, narrow = (
        fit_of("meta-llama--Llama-3.1-70B", tensor=2, weights_dtype="fp8", kv_dtype=kv_dtype)
        for kv_dtype in ("bf16", "fp8")
    )
    tables, norms = 2 * 128_256 * 8_192, 161 * 8_192  # which stay in 16 bits
    body = 70_553_706_496 - tables - norms
    assert told(wide, "weights_bytes") == (body // 2 + tables + 2 * norms + TABLES,)
    assert told(narrow, "bytes_per_token") == (163_840,)
    assert narrow.capacity.fits
    assert wide.capacity.fits
    assert narrow.capacity.num_blocks == pytest.approx(2 * wide.capacity.num_blocks, rel=1e-3)


def test_deepseek_v3_in_eight_bits_on_eight():
    fit = fit_of("deepseek-ai--DeepSeek-V3", "h200", 8, weights_dtype="fp8")
    assert told(fit, "parameters", "bytes_per_token") == (671_026_419_200, 61 * 576 * 2)
    available, num_blocks, tokens = told(fit, "available_bytes", "num_blocks", "block_tokens")
    assert tokens == 64
    assert num_blocks == available // (61 * 64 * 576 * 2)
    assert fit.capacity.fits
    assert told(fit, "weights_bytes")[0] == pytest.approx(671e9 / 8, rel=0.03)


def test_gpt_oss_20b_has_two_groups_of_twelve():
    fit = fit_of("openai--gpt-oss-20b")
    assert told(fit, "parameters", "bytes_per_token") == (20_914_757_184, 24 * 2_048)
    assert fit.as_dict()["sequence_bytes"]["8192"] == 12 * 2_048 * (8_192 + 128)
    available, num_blocks = told(fit, "available_bytes", "num_blocks")
    assert num_blocks == available // (12 * 16 * 2_048)
    assert fit.requests[131_072] < fit.requests[8_192] < fit.requests[1_024]


def test_states_make_blocks_long_and_bind_first():
    fit = fit_of("Qwen--Qwen3-Next-80B-A3B-Instruct", "h200", 2)
    state = (8_192 * 3 + 32 * 128 * 128) * 2  # of a layer: channels of a convolution, heads of 128 by 128
    assert told(fit, "bytes_per_token") == (12 * 2 * 256 * 2 * 2,)
    assert fit.as_dict()["sequence_bytes"]["8192"] == 8_192 * 24_576 + 36 * state
    tokens = 16 * -(-(state // 2) // (16 * 1_024))  # a rank's state, in tokens of one of its layers
    available, num_blocks, block_tokens = told(fit, "available_bytes", "num_blocks", "block_tokens")
    assert (tokens, block_tokens) == (544, 544)
    assert num_blocks == available // (12 * 544 * 1_024)
    assert fit.requests[1_024] == (num_blocks - 1) // (2 + 3 * 2)  # two blocks of tokens; three groups of two states


def test_tokens_divided_over_ranks_are_divided_for_strategies_too():
    config = measurement("configs/deepseek-ai--DeepSeek-V3")
    one, eight = (
        kv.capacity(
            config,
            hardware="h200",
            parallel={"tensor": 8, "decode_context": ranks},
            strategies="paged",
            settings={"model.weights_dtype": "fp8"},
        )
        for ranks in (1, 8)
    )
    assert eight.by_strategy["paged"][131_072] == one.by_strategy["paged"][16_384]
    assert eight.requests[131_072] == one.requests[16_384]

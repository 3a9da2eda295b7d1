"""What a quantization_config says of weights and of the cache."""

import pytest

from kvbench.model.dtypes import WEIGHT_BITS
from kvbench.model.published import read_model
from tests.test_published import LLAMA

PRODUCTS = 4 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96)
KEPT = 2 * 1000 * 64 + 9 * 64
ATTENTION = 4 * (64 * 64 + 2 * 64 * 32 + 64 * 64)
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
    "ignore": ["lm_head"],
}


def by_dtype(quantization, **changed):
    model = read_model({**LLAMA, **changed, "quantization_config": quantization})
    found = {}
    for part in model.weights:
        found[part.dtype] = found.get(part.dtype, 0) + part.total
    assert sum(found.values()) == PRODUCTS + KEPT
    return found


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "int4_g64"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32}, "int4_g32"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        (COMPRESSED, "int4_g32"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, "nvfp4"),
        ({"producer": {}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}, "fp8"),
    ],
)
def test_products_are_quantised_and_nothing_else(quantization, dtype):
    assert by_dtype(quantization) == {dtype: PRODUCTS, "bfloat16": KEPT}
    model = read_model({**LLAMA, "quantization_config": quantization})
    assert model.weights_bytes == PRODUCTS * WEIGHT_BITS[dtype] / 8 + 2 * KEPT


@pytest.mark.parametrize(
    ("ignored", "num_kept"),
    [
        (["self_attn"], ATTENTION),
        (["model.layers.*.self_attn", "lm_head"], ATTENTION),
        (["re:.*self_attn.*"], ATTENTION),
        (["re:model.layers.0.self_attn.*"], ATTENTION // 4),
        (["model.layers.0.self_attn*", "language_model.model.layers.3.self_attn.q_proj"], ATTENTION // 4 + 64 * 64),
        (["model.layers.1*"], PRODUCTS // 4),
        (["gate", "mlp.gate"], 0),
        (["mlp.gate_proj"], 4 * 64 * 96),
    ],
)
def test_modules_that_are_named_stay_as_they_are(ignored, num_kept):
    found = by_dtype({"quant_method": "fp8", "modules_to_not_convert": ignored})
    assert found == {"fp8": PRODUCTS - num_kept, "bfloat16": KEPT + num_kept}


def test_experts_alone_are_of_four_bits_where_the_method_says_so():
    config = {**LLAMA, "model_type": "gpt_oss", "sliding_window": 8, "num_local_experts": 8, "head_dim": 16}
    model = read_model(config | {"quantization_config": {"quant_method": "mxfp4"}})
    assert {part.name for part in model.weights if part.dtype == "mxfp4"} == {"experts"}


def test_layers_may_have_precisions_of_their_own():
    own = {"model.layers.0.mlp.down_proj": {"quant_algo": "FP8"}, "lm_head": {"quant_algo": "NVFP4"}}
    found = by_dtype({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": own})
    assert (found["fp8"], found["nvfp4"]) == (64 * 96, 64_000)


def test_a_cache_with_calibrated_scales_is_of_eight_bits_unless_another_is_asked_for():
    quantization = COMPRESSED | {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    config = {**LLAMA, "quantization_config": quantization}
    assert {group.dtype for group in read_model(config).groups} == {"fp8_e4m3"}
    assert {group.dtype for group in read_model(config, kv_dtype="bf16").groups} == {"bfloat16"}
    assert {part.dtype for part in read_model(config, weights_dtype="bf16").weights} == {"bfloat16"}


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "quark"}, "unknown quant_method 'quark'"),
        ({"quant_method": "gptq", "bits": 3}, "8 or 4 bits, got 3"),
        ({"quant_method": "fp8", "modules_to_not_convert": ["re:(a+)+"]}, "repeats no group"),
        ({"quant_method": "fp8", "modules_to_not_convert": [3]}, "names modules by text, got 3"),
        ({"quant_method": "fp8", "modules_to_not_convert": ["re:("]}, "is no regular expression"),
        ({"quant_method": "modelopt", "quant_algo": "FP7"}, "unknown quant_algo 'FP7'. Did you mean 'FP8'"),
        ({**COMPRESSED, "kv_cache_scheme": {"num_bits": 3}}, "unknown kv_cache_scheme"),
        ([3], "quantization_config is a mapping"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(quantization, message):
    with pytest.raises(ValueError, match=message):
        read_model({**LLAMA, "quantization_config": quantization})
    assert read_model({**LLAMA, "quantization_config": quantization}, weights_dtype="fp8")

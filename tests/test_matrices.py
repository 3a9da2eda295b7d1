"""Matrix products of models and of their ranks, by hand."""

import pytest

from kvbench.configuration.catalogue import names
from kvbench.configuration.composed import composed
from kvbench.configuration.model import model_of
from kvbench.configuration.shape import model_of_keys
from kvbench.model.parallel import Parallel
from kvbench.model.precision import in_precision
from kvbench.model.published import read_model
from kvbench.model.ranks import rank_of
from tests.test_published_totals import CONFIGURATIONS

PRODUCTS = {
    "llama3_8b": {
        "self_attn.qkv_proj": (4096, 6144, 32, "outputs"),
        "self_attn.o_proj": (4096, 4096, 32, "inputs"),
        "mlp.gate_up_proj": (4096, 28672, 32, "outputs"),
        "mlp.down_proj": (14336, 4096, 32, "inputs"),
        "lm_head": (4096, 128256, 1, "outputs"),
    },
    "qwen3_30b_a3b": {
        "self_attn.qkv_proj": (2048, (32 + 2 * 4) * 128, 48, "outputs"),
        "self_attn.o_proj": (4096, 2048, 48, "inputs"),
        "mlp.gate": (2048, 128, 48, "whole"),
        "mlp.experts.gate_up_proj": (2048, 1536, 48, "outputs"),
        "mlp.experts.down_proj": (768, 2048, 48, "inputs"),
        "lm_head": (2048, 151936, 1, "outputs"),
    },
    "gpt_oss_20b": {
        "self_attn.qkv_proj": (2880, (64 + 2 * 8) * 64, 24, "outputs"),
        "self_attn.o_proj": (4096, 2880, 24, "inputs"),
        "mlp.gate": (2880, 32, 24, "whole"),
        "mlp.experts.gate_up_proj": (2880, 5760, 24, "outputs"),
        "mlp.experts.down_proj": (2880, 2880, 24, "inputs"),
        "lm_head": (2880, 201088, 1, "outputs"),
    },
    "deepseek_v3": {
        "self_attn.fused_qkv_a_proj": (7168, 1536 + 512 + 64, 61, "whole"),
        "self_attn.q_b_proj": (1536, 128 * 192, 61, "outputs"),
        "self_attn.kv_b_proj": (512, 128 * 256, 61, "outputs"),
        "self_attn.o_proj": (128 * 128, 7168, 61, "inputs"),
        "mlp.gate_up_proj": (7168, 2 * 18432, 3, "outputs"),
        "mlp.down_proj": (18432, 7168, 3, "inputs"),
        "mlp.gate": (7168, 256, 58, "whole"),
        "mlp.experts.gate_up_proj": (7168, 2 * 2048, 58, "outputs"),
        "mlp.experts.down_proj": (2048, 7168, 58, "inputs"),
        "mlp.shared_experts.gate_up_proj": (7168, 2 * 2048, 58, "outputs"),
        "mlp.shared_experts.down_proj": (2048, 7168, 58, "inputs"),
        "lm_head": (7168, 129280, 1, "outputs"),
    },
    "qwen3_5_27b": {
        "self_attn.qkv_proj": (5120, (2 * 24 + 2 * 4) * 256, 16, "outputs"),
        "self_attn.o_proj": (24 * 256, 5120, 16, "inputs"),
        "linear_attn.in_proj_qkvz": (5120, 2 * 16 * 128 + 2 * 48 * 128, 48, "outputs"),
        "linear_attn.in_proj_ba": (5120, 2 * 48, 48, "outputs"),
        "linear_attn.out_proj": (48 * 128, 5120, 48, "inputs"),
        "mlp.gate_up_proj": (5120, 2 * 17408, 64, "outputs"),
        "mlp.down_proj": (17408, 5120, 64, "inputs"),
        "lm_head": (5120, 248320, 1, "outputs"),
    },
}
EXPERTS = {"qwen3_30b_a3b": (128, 8), "gpt_oss_20b": (32, 4), "deepseek_v3": (256, 8)}


def preset(name):
    return model_of(composed({"model": name}, ()))


def by_name(model):
    return {each.name: (each.inputs, each.outputs, each.times, each.cut) for each in model.matrices}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_those_that_engines_run(name):
    model = preset(name)
    assert by_name(model) == PRODUCTS[name]
    assert {each.kind for each in model.matrices} <= {"body", "experts", "head"}
    experts = {(each.num_experts, each.num_active) for each in model.matrices if each.kind == "experts"}
    assert experts == ({EXPERTS[name]} if name in EXPERTS else set())
    assert {each.num_experts for each in model.matrices if each.kind != "experts"} == {1}


@pytest.mark.parametrize("name", [*names("model"), *CONFIGURATIONS])
def test_products_vectors_and_tables_are_all_parameters(name):
    model = read_model(CONFIGURATIONS[name]) if name in CONFIGURATIONS else preset(name)
    multiplied = sum(each.num_parameters for each in model.matrices)
    has_head = any(part.kind == "head" and part.products for part in model.weights)
    tables = [part for part in model.weights if part.kind == "embedding" and (has_head or not part.products)]
    vectors = model.num_parameters - multiplied - sum(part.total for part in tables)
    # Norms, biases, convolutions, sinks: few.
    assert 0 <= vectors <= model.num_parameters // 200
    assert sum(each.kind == "head" for each in model.matrices) == (1 if model.weights else 0)


def test_a_tied_embedding_is_the_head_and_is_counted_once():
    (head,) = (each for each in preset("llama3_2_3b").matrices if each.kind == "head")
    assert (head.name, head.inputs, head.outputs) == ("embed_tokens", 3072, 128256)


def test_each_product_is_in_the_precision_of_its_module():
    dtypes = {each.name: each.dtype for each in preset("gpt_oss_20b").matrices}
    assert {name for name, dtype in dtypes.items() if dtype == "mxfp4"} == {
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    }
    eight = {each.name: each.dtype for each in in_precision(preset("qwen3_30b_a3b"), "fp8").matrices}
    assert {name for name, dtype in eight.items() if dtype != "fp8"} == {"mlp.gate", "lm_head"}


def test_modules_in_two_precisions_are_not_one_product():
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "quantization_config": {"quant_method": "fp8", "ignored_layers": ["model.layers.1.self_attn.v_proj"]},
    }
    found = [each for each in read_model(config).matrices if each.name.startswith("self_attn") and each.inputs == 64]
    shapes = {(each.name, each.outputs, each.dtype, each.times) for each in found if "o_proj" not in each.name}
    assert shapes == {
        ("self_attn.qkv_proj", 96, "fp8", 2),
        ("self_attn.v_proj", 32, "fp8", 1),
        ("self_attn.v_proj", 32, "bfloat16", 1),
    }


def test_two_ranks_halve_outputs_or_inputs():
    assert by_name(rank_of(preset("llama3_8b"), Parallel(tensor=2))) == {
        "self_attn.qkv_proj": (4096, 3072, 32, "outputs"),
        "self_attn.o_proj": (2048, 4096, 32, "inputs"),
        "mlp.gate_up_proj": (4096, 14336, 32, "outputs"),
        "mlp.down_proj": (7168, 4096, 32, "inputs"),
        "lm_head": (4096, 64128, 1, "outputs"),
    }
    latents = by_name(rank_of(preset("deepseek_v3"), Parallel(tensor=2)))
    assert latents["self_attn.fused_qkv_a_proj"] == (7168, 2112, 61, "whole")
    assert latents["self_attn.q_b_proj"] == (1536, 12288, 61, "outputs")
    assert latents["mlp.gate"] == (7168, 256, 58, "whole")


def test_kv_heads_that_are_fewer_than_ranks_are_repeated():
    found = by_name(rank_of(preset("qwen3_30b_a3b"), Parallel(tensor=8)))
    assert found["self_attn.qkv_proj"] == (2048, (4 + 2) * 128, 48, "outputs")
    assert found["mlp.experts.gate_up_proj"] == (2048, 192, 48, "outputs")


def test_experts_lie_whole_on_ranks_or_are_divided():
    def experts(**parallel):
        found = rank_of(preset("qwen3_30b_a3b"), Parallel(**parallel)).matrices
        return [(each.inputs, each.outputs, each.num_experts) for each in found if each.kind == "experts"]

    assert experts(tensor=4, expert=4) == [(2048, 1536, 32), (768, 2048, 32)]
    assert experts(tensor=4, expert=2) == [(2048, 768, 64), (384, 2048, 64)]


@pytest.mark.parametrize("name", [name for name in names("model") if name not in ("article", "smollm2")])
def test_products_of_a_rank_are_its_parameters(name):
    whole = preset(name)
    rank = rank_of(whole, Parallel(tensor=2), "ideal")
    for before, after in zip(whole.weights, rank.weights, strict=True):
        if multiplied(before) == before.num_parameters:
            assert multiplied(after) == after.num_parameters


def multiplied(part):
    return sum(each.inputs * each.outputs for each in part.products)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize(("num_layers", "kept", "heads"), [(5, 3, 0), (4, 2, 1)])
def test_a_stage_multiplies_by_the_head_only_if_it_is_the_last(num_layers, kept, heads, is_tied):
    # Of five layers the first stage has three and holds most; of four the last, which has the norm.
    config = {**CONFIGURATIONS["SmolLM3-3B"], "num_hidden_layers": num_layers, "tie_word_embeddings": is_tied}
    rank = rank_of(read_model({**config, "layer_types": None, "no_rope_layers": None}), Parallel(pipeline=2))
    assert rank.num_layers == kept
    assert sum(each.kind == "head" for each in rank.matrices) == heads
    assert rank.matrices[0].times == kept


def shaped(**keys):
    own = {"num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "hidden_size": 64}
    return model_of_keys({**own, **keys}, "bfloat16")


def test_parameters_of_a_shape_are_taken_for_attention_and_a_gated_part():
    attention, feed_forward = 64 * 128 + 64 * 64, 3 * 64 * 200
    model = shaped(num_parameters=4 * (attention + feed_forward + 5) + 3)
    assert by_name(model) == {
        "self_attn.qkv_proj": (64, 128, 4, "outputs"),
        "self_attn.o_proj": (64, 64, 4, "inputs"),
        "mlp.gate_up_proj": (64, 400, 4, "outputs"),
        "mlp.down_proj": (200, 64, 4, "inputs"),
    }
    assert model.num_parameters == 4 * (attention + feed_forward + 5) + 3
    assert "gated feed-forward" in model.assumed[0]


def test_sizes_that_are_said_are_taken():
    attention, feed_forward = 64 * 128 + 64 * 64, 3 * 64 * 128
    # The table twice: it is the head once, and its other copy multiplies nothing.
    model = shaped(num_parameters=4 * (attention + feed_forward) + 2 * 100 * 64, vocab_size=100, intermediate_size=128)
    assert by_name(model)["mlp.down_proj"] == (128, 64, 4, "inputs")
    assert by_name(model)["embed_tokens"] == (64, 100, 1, "outputs")
    assert model.assumed == ()


def test_parameters_that_a_token_does_not_need_are_experts():
    attention = 64 * 128 + 64 * 64
    model = shaped(num_parameters=4 * (attention + 8 * 19_200) + 7, num_active_parameters=4 * (attention + 19_200))
    (up, down) = (each for each in model.matrices if each.kind == "experts")
    assert (up.outputs, down.inputs, up.num_experts, up.num_active, up.times) == (200, 100, 8, 1, 4)
    assert model.num_parameters == 4 * (attention + 8 * 19_200) + 7
    assert model.num_active_parameters == 4 * (attention + 19_200)


def test_a_shape_with_fewer_parameters_than_its_heads_need_has_no_more_than_it_says():
    model = shaped(num_parameters=1_000)
    assert model.num_parameters == 1_000
    assert sum(each.num_parameters for each in model.matrices) <= 1_000

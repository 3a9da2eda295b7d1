"""Each family against transformers on the meta device: parameters to the unit, and what each layer holds."""

import warnings

import pytest

from kvbench.model.groups import CHUNKED, FULL, LATENT, SHARING, STATE, WINDOW
from kvbench.model.published import read_model
from kvbench.model.published.families import FAMILIES

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

BASE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
OF_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL = {"num_local_experts": 8, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
LATENTS = {
    **ROUTED,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    "n_group": 1,
    "topk_group": 1,
}
KIMI = {key: value for key, value in LATENTS.items() if not key.startswith("n_")}
KIMI |= {"num_experts": 8, "num_shared_experts": 1, "num_experts_per_token": 2, "q_lora_rank": None}
INDEXED = {**LATENTS, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 4}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16}
DELTA = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
SWA = {"sliding_window": 16, "head_dim": 16}
PER_LAYER = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 128, "num_kv_shared_layers": 2}
MIXED = ["sliding_attention", "full_attention"] * 2
NEMOTRON_H = {
    "layers_block_type": ["mamba", "attention", "mlp", "moe"],
    "head_dim": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 16,
    "n_routed_experts": 8,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 48,
}

CASES = [
    ("arcee", {"head_dim": 16}),
    ("bamba", {**MAMBA2, "attn_layer_indices": [1]}),
    ("cohere", {"use_qk_norm": True}),
    ("cohere2", SWA),
    ("deepseek_v2", LATENTS),
    ("deepseek_v2", {**LATENTS, "q_lora_rank": None}),
    ("deepseek_v3", LATENTS),
    ("deepseek_v32", {**INDEXED, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}),
    ("dots1", {**ROUTED, "head_dim": 16}),
    ("ernie4_5", {"head_dim": 16}),
    (
        "ernie4_5_moe",
        {"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2},
    ),
    ("exaone4", {"sliding_window": 16}),
    ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 4}),
    ("falcon", {"multi_query": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("falcon", {"multi_query": False, "parallel_attn": False, "bias": True}),
    ("gemma", {"head_dim": 16}),
    ("gemma2", SWA),
    ("gemma3_text", SWA),
    (
        "gemma3n_text",
        {**SWA, **PER_LAYER, "layer_types": MIXED, "laurel_rank": 4, "intermediate_size": [96, 64, 96, 96]},
    ),
    ("gemma4_text", {**SWA, **PER_LAYER, "layer_types": MIXED, "use_double_wide_mlp": True, "global_head_dim": 32}),
    (
        "gemma4_text",
        {
            **SWA,
            "layer_types": MIXED,
            "enable_moe_block": True,
            "num_experts": 8,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "hidden_size_per_layer_input": 0,
        },
    ),
    ("exaone_moe", {**OF_EXPERTS, "head_dim": 16, "sliding_window": 16, "num_shared_experts": 1}),
    ("glm", {"head_dim": 16}),
    ("glm4", {"head_dim": 16}),
    ("glm4_moe", {**ROUTED, "use_qk_norm": True, "attention_bias": True, "head_dim": 16}),
    ("glm4_moe_lite", LATENTS),
    ("glm_moe_dsa", {**INDEXED, "index_topk_freq": 2, "index_skip_topk_offset": 1}),
    ("gpt2", {"n_positions": 32}),
    ("gpt_neox", {}),
    ("gpt_oss", {**LOCAL, **SWA}),
    ("granite", {"attention_bias": True, "mlp_bias": True}),
    ("granitemoe", LOCAL),
    ("granitemoeshared", {**LOCAL, "shared_intermediate_size": 48}),
    (
        "granitemoehybrid",
        {**LOCAL, **MAMBA2, "shared_intermediate_size": 48, "layer_types": ["mamba", "mamba", "attention", "mamba"]},
    ),
    (
        "granitemoehybrid",
        {
            **MAMBA2,
            "num_local_experts": 0,
            "shared_intermediate_size": 48,
            "layer_types": ["mamba"] * 3 + ["attention"],
        },
    ),
    ("hunyuan_v1_dense", {"head_dim": 16}),
    ("hy_v3", {**OF_EXPERTS, "head_dim": 16, "num_shared_experts": 2, "first_k_dense_replace": 1}),
    ("internlm3", {"head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    ("jamba", {**LOCAL, "num_experts": 8, "attn_layer_period": 4, "attn_layer_offset": 2}),
    (
        "kimi_linear",
        {**KIMI, "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"]},
    ),
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 24}),
    ("llama4_text", {**LOCAL, "head_dim": 16, "attention_chunk_size": 8, "interleave_moe_layer_step": 2}),
    ("mimo_v2_flash", {**ROUTED, **SWA, "v_head_dim": 8, "swa_num_key_value_heads": 4, "n_shared_experts": None}),
    ("minimax", {**LOCAL, "head_dim": 16}),
    ("minimax_m2", {**LOCAL, "head_dim": 16}),
    ("ministral", SWA),
    ("ministral3", {"head_dim": 16}),
    ("mistral", SWA),
    ("mixtral", LOCAL),
    ("nemotron", {"attention_bias": True, "mlp_bias": True}),
    ("nemotron_h", NEMOTRON_H),
    ("nemotron_h", {**NEMOTRON_H, "moe_latent_size": 32, "mlp_bias": True}),
    ("olmo2", {}),
    ("olmo3", {"sliding_window": 16}),
    ("olmoe", {"num_experts": 8, "num_experts_per_tok": 2}),
    ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64, "max_position_embeddings": 32}),
    ("phi", {"qk_layernorm": True}),
    ("phi3", {"sliding_window": 16}),
    ("phimoe", LOCAL),
    ("phimoe", {**LOCAL, "attention_bias": True, "lm_head_bias": True}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3}),
    ("qwen2_moe", {**OF_EXPERTS, "shared_expert_intermediate_size": 48, "mlp_only_layers": [1]}),
    ("qwen3", {"head_dim": 16}),
    ("qwen3_moe", {**OF_EXPERTS, "head_dim": 16, "decoder_sparse_step": 2}),
    ("qwen3_next", {**OF_EXPERTS, **DELTA, "shared_expert_intermediate_size": 48}),
    ("qwen3_5_text", DELTA),
    ("qwen3_5_moe_text", {**OF_EXPERTS, **DELTA, "shared_expert_intermediate_size": 48}),
    ("seed_oss", {"head_dim": 16}),
    ("smollm3", {}),
    ("solar_open", {**ROUTED, "head_dim": 16, "first_k_dense_replace": None}),
    ("stablelm", {"use_qkv_bias": True}),
    ("starcoder2", {"sliding_window": 16}),
]
KINDS = {
    "full_attention": (FULL, LATENT),
    "indexed_attention": (LATENT,),
    "sliding_attention": (WINDOW,),
    "chunked_attention": (CHUNKED,),
    "linear_attention": (STATE,),
}
SILENT = {
    "falcon": ("num_key_value_heads",),
    "gpt_neox": ("num_key_value_heads",),
    "gpt2": ("num_key_value_heads", "intermediate_size"),
    "nemotron_h": ("num_hidden_layers",),
    "opt": ("num_key_value_heads",),
    "qwen3_5_moe_text": ("intermediate_size",),
}
NO_CLASS = {"chatglm", "deepseek", "kimi_k2", "mimo", "nemotron-nas"}
"""Families whose classes are not in transformers."""


@pytest.mark.parametrize(("model_type", "changed"), CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_a_family_is_as_transformers_builds_it(model_type, changed):
    given = {key: value for key, value in (BASE | changed).items() if key not in SILENT.get(model_type, ())}
    config = transformers.AutoConfig.for_model(model_type, **given)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge = transformers.AutoModelForCausalLM.from_config(config)
    corrections = [buffer for name, buffer in judge.named_buffers() if name.endswith("e_score_correction_bias")]
    model = read_model({"model_type": model_type, **given})
    assert model.num_parameters == sum(each.numel() for each in [*judge.parameters(), *corrections])
    of_layer = {layer: group.kind for group in model.groups for layer in group.layers}
    for layer, kind in enumerate(getattr(config, "layer_types", None) or ()):
        if kind in KINDS and of_layer[layer] != SHARING:
            assert of_layer[layer] in KINDS[kind]


def test_every_family_is_judged():
    assert {model_type for model_type, _ in CASES} | NO_CLASS == set(FAMILIES)


def test_defaults_are_those_of_the_classes():
    for model_type, family in FAMILIES.items():
        if model_type in NO_CLASS:
            continue
        config = transformers.AutoConfig.for_model(model_type).to_dict()
        for key, value in family.defaults.items():
            theirs = getattr(config, key, value)
            if not isinstance(value, list | str) and theirs is not None:
                assert value == (theirs[0] if isinstance(theirs, list) else theirs), (model_type, key)

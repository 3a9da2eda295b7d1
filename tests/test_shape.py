"""From configurations of many kinds of models to the geometry of a cache around them, and what is refused."""

from dataclasses import replace

import pytest
import transformers
from transformers import AutoModelForCausalLM

from kvbench.integrations.shape import check_layers, geometry_of
from kvbench.model.geometry import KVGeometry
from tests.support.model_files import llama

PLAIN = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "vocab_size": 64}
WIDE = PLAIN | {"intermediate_size": 64, "num_key_value_heads": 2}
WINDOW = WIDE | {"sliding_window": 8, "head_dim": 16}
OLD = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 64}
FALCON = PLAIN | {"ffn_hidden_size": 64}

# Kind, its arguments, KV heads and size of a head.
TAKEN = [
    ("Llama", WIDE, 2, 8),
    ("Qwen2", WIDE, 2, 8),
    ("Qwen3", WIDE | {"head_dim": 16}, 2, 16),
    ("Mistral", WINDOW, 2, 16),
    ("Gemma2", WINDOW, 2, 16),
    ("Gemma3Text", WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}, 2, 16),
    ("GPT2", OLD, 4, 8),
    ("OPT", PLAIN | {"ffn_dim": 64, "word_embed_proj_dim": 32}, 4, 8),
    ("GPTBigCode", OLD | {"multi_query": True}, 1, 8),
    ("Falcon", FALCON | {"multi_query": True, "new_decoder_architecture": False}, 1, 8),
    ("Falcon", FALCON | {"multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 2}, 4, 8),
]
OTHER = r"layers of another kind than attention over K and V \({}\)"
REFUSED = [
    ("DeepseekV3", {}, r"latent attention \(MLA\) \(kv_lora_rank=512\)"),
    ("T5", {}, "an encoder and a decoder"),
    ("Qwen3Next", {}, OTHER.format("linear_attention")),
    (
        "Lfm2",
        {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
        OTHER.format("conv"),
    ),
    ("Mamba", {}, OTHER.format("linear_attention")),
    ("Gemma3nText", {}, "layers that share K and V"),
    ("PreTrained", {}, "no figures of heads and layers"),
    ("GPT2", OLD | {"n_embd": 33}, "no figures of heads and layers"),
    # V of another size than K, and other numbers of KV heads behind the window: 39 of 48 layers hold twice as much.
    ("MiMoV2Flash", {}, r"twice the KV heads in layers with a window \(layer_types"),
    (
        "MiMoV2Flash",
        {"layer_types": ["full_attention"] * 48},
        r"heads of several sizes \(v_head_dim=128, and head_dim is 192\)",
    ),
    ("Mllama", {}, r"cross_attention_layers="),
    ("CpmAnt", {}, r"prompt_length=32"),
    ("PreTrained", WIDE | {"head_dim": [8, 4]}, r"no figures of heads and layers \(.*head_dim=\[8, 4\]"),
    ("PreTrained", WIDE | {"num_key_value_heads": [2, 1]}, r"KV heads \(num_key_value_heads=\[2, 1\]"),
]
ODD = {
    "v_head_dim": 4,
    "value_head_dim": 16,
    "swa_head_dim": 16,
    "swa_v_head_dim": 4,
    "global_head_dim": 16,
    "attention_head_size": 16,
    "kv_channels": 4,
    "v_dim": 16,
    "head_dim_per_layer": [8, 4],
    "swa_num_key_value_heads": 1,
    "sliding_window_num_kv_heads": 4,
    "num_global_key_value_heads": 1,
    "num_key_value_heads_per_layer": [2, 1],
    "num_key_value_heads_by_kind": {"full": 2, "window": 1},
    "multi_query_group_num": 1,
    "kv_lora_rank": 16,
    "use_mla": True,
    "num_kv_shared_layers": 1,
    "kv_sharing_layers": [1],
    "cla_share_factor": 2,
    "attention_k_eq_v": True,
    "add_cross_attention": True,
    "index_n_heads": 4,
    "compress_ratios": [4, 4],
    "ssm_state_size": 16,
    "linear_num_value_heads": 2,
    "conv_kernel_size": 4,
    "hybrid_override_pattern": "M*",
    "full_attention_interval": 2,
    "total_ut_steps": 4,
    "num_meta_tokens": 8,
    "per_layer_config": {1: {"num_key_value_heads": 1}},
}
"""Fields that a Llama has not, and what they say of its cache: 2 KV heads of 8 in each of two layers."""
ALIKE = [
    *({field: 8} for field in ("v_head_dim", "swa_head_dim", "global_head_dim", "kv_channels")),
    *({field: 2} for field in ("swa_num_key_value_heads", "num_global_key_value_heads", "multi_query_group_num")),
    {"num_key_value_heads_per_layer": [2, 2]},
    *({field: unset} for field, unset in (("kv_lora_rank", None), ("use_mla", False), ("num_kv_shared_layers", 0))),
    {"attention_k_eq_v": False, "index_n_heads": None, "compress_ratios": [], "swa_head_dim": None},
    {"sliding_window": 4, "rope_theta": 1e6, "attention_value_scale": 0.7, "num_shared_experts": 2},
    {"num_nextn_predict_layers": 1, "max_window_layers": 2, "query_pre_attn_scalar": 256, "key_of_mine": "value"},
]
"""Fields that say the same as those that are understood, or nothing of the cache."""


@pytest.mark.parametrize(("kind", "arguments", "num_kv_heads", "head_dim"), TAKEN)
def test_the_geometry_is_that_of_the_layers(kind, arguments, num_kv_heads, head_dim):
    config = getattr(transformers, f"{kind}Config")(**arguments)
    geometry = geometry_of(config, "bfloat16")
    assert geometry == KVGeometry.uniform(
        num_layers=2,
        num_heads=4,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        dtype="bfloat16",
        name=config.model_type,
    )
    check_layers(AutoModelForCausalLM.from_config(config), geometry)


@pytest.mark.parametrize(("kind", "arguments", "message"), REFUSED)
def test_layers_that_hold_something_else_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        geometry_of(getattr(transformers, f"{kind}Config")(**arguments), "float32")


@pytest.mark.parametrize("field", ODD)
def test_a_field_that_changes_the_cache_and_is_not_understood_is_refused_by_its_name(field):
    with pytest.raises(ValueError, match=rf"a llama model has .*\({field}[=:]"):
        geometry_of(transformers.LlamaConfig(**WIDE, **{field: ODD[field]}), "float32")


def test_a_layer_that_is_left_out_is_refused():
    config = transformers.LlamaConfig(**WIDE, per_layer_config={1: {"skip": ["attention"]}})
    with pytest.raises(ValueError, match="per_layer_config"):
        geometry_of(config, "float32")


@pytest.mark.parametrize("fields", ALIKE)
def test_a_field_that_changes_nothing_is_let_be(fields):
    plain = geometry_of(transformers.LlamaConfig(**WIDE), "float32")
    assert geometry_of(transformers.LlamaConfig(**WIDE, **fields), "float32") == plain


def test_of_a_multimodal_model_the_text_counts():
    text = transformers.Gemma3TextConfig(**WINDOW)
    assert geometry_of(transformers.Gemma3Config(text_config=text), "float32") == replace(
        geometry_of(text, "float32"), name="gemma3"
    )


@pytest.mark.parametrize("wrong", [{"num_kv_heads": 4}, {"head_dim": 16}, {"num_layers": 3}])
def test_layers_that_are_not_as_told_are_refused(wrong):
    model = llama()
    alike = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "dtype": "float32", "name": "llama"}
    assert geometry_of(model.config, "float32") == KVGeometry.uniform(**alike)
    check_layers(model, KVGeometry.uniform(**alike))
    with pytest.raises(ValueError, match=r"layers whose K and V are not .* but \(\(1, 2, 1, 8\), \(1, 2, 1, 8\)\)"):
        check_layers(model, KVGeometry.uniform(**alike | wrong))

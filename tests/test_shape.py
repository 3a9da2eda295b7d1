"""From configurations of many kinds of models to the geometry of a cache around them, and what is refused."""

from dataclasses import replace

import pytest
import transformers
from transformers import AutoModelForCausalLM

from kvbench.geometry import KVGeometry
from kvbench.integrations.shape import check_layers, geometry_of
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
]


@pytest.mark.parametrize(("kind", "arguments", "num_kv_heads", "head_dim"), TAKEN)
def test_the_geometry_is_that_of_the_layers(kind, arguments, num_kv_heads, head_dim):
    config = getattr(transformers, f"{kind}Config")(**arguments)
    geometry = geometry_of(config, "bfloat16")
    assert geometry == KVGeometry(
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


def test_of_a_multimodal_model_the_text_counts():
    text = transformers.Gemma3TextConfig(**WINDOW)
    assert geometry_of(transformers.Gemma3Config(text_config=text), "float32") == replace(
        geometry_of(text, "float32"), name="gemma3"
    )


@pytest.mark.parametrize("wrong", [{"num_kv_heads": 4}, {"head_dim": 16}, {"num_layers": 3}])
def test_layers_that_are_not_as_told_are_refused(wrong):
    model = llama()
    geometry = geometry_of(model.config, "float32")
    check_layers(model, geometry)
    with pytest.raises(ValueError, match=r"layers whose K and V are not .* but \(\(1, 2, 1, 8\), \(1, 2, 1, 8\)\)"):
        check_layers(model, replace(geometry, **wrong))

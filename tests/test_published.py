"""Published configurations, read to the byte and to the parameter."""

import csv
import json

import pytest

from kvbench.model.published import read_model
from tests.support.measurements import measurement

FIGURES = {
    "kv_bytes_per_token_bf16": lambda model: model.bytes_per_token,
    "held_bytes_8192": lambda model: model.held_bytes(8192),
    "held_bytes_131072": lambda model: model.held_bytes(131_072),
    "recurrent_state_bytes": lambda model: model.state_bytes,
    "parameters_total": lambda model: model.num_parameters,
    "parameters_active": lambda model: model.num_active_parameters,
}
STATE_OF = {"qwen3_next": "mamba_ssm_dtype", "nemotron_h": "mamba_ssm_cache_dtype"}


def expected():
    path = measurement("configs/expected.csv")
    with path.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            yield row, json.loads((path.parent / row["config"]).read_text(encoding="utf-8"))


def test_sixteen_configurations_are_read_to_the_unit():
    num_rows = 0
    for row, config in expected():
        model = read_model(config)
        assert {name: figure(model) for name, figure in FIGURES.items()} == {name: int(row[name]) for name in FIGURES}
        num_rows += 1
    assert num_rows == 16


def test_states_are_of_the_type_that_the_configuration_names():
    for row, config in expected():
        named = {STATE_OF[config["model_type"]]: "float32"} if config["model_type"] in STATE_OF else {}
        assert read_model(config | named).state_bytes == int(row["recurrent_state_bytes_fp32"])


LLAMA = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_hidden_layers": None}, "lacks num_hidden_layers"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers is an integer of at least 1 and at most 2,000, got '32'"),
        ({"num_hidden_layers": -1}, "got -1"),
        ({"hidden_size": 2**40}, "hidden_size is an integer of at least 1 and at most 2,147,483,647"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads, got 4 and 3"),
        ({"num_attention_heads": 6}, "without head_dim hidden_size is a multiple of num_attention_heads, got 64 and 6"),
        ({"layer_types": ["full_attention"]}, "layer_types is a list of 4, an item a layer, got 1 items"),
        ({"layer_types": ["ful_attention"] * 4}, "Did you mean 'full_attention'"),
        ({"sliding_window": 128}, "sliding_window may change its cache, and is not understood, got 128"),
        ({"kv_compression": True}, "kv_compression may change its cache"),
        ({"attention_bias": "no"}, "attention_bias is true or false, got 'no'"),
        ({"model_type": None}, "has a model_type"),
        ({"torch_dtype": "int3"}, "computes in one of float32, float16, bfloat16"),
    ],
)
def test_what_is_wrong_is_one_message(changed, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as error:
        read_model({**LLAMA, **changed})
    assert len(str(error.value)) < 400


def test_an_unknown_type_of_plain_shape_is_taken_and_said():
    model = read_model({**LLAMA, "model_type": "lama"})
    assert model.groups == read_model(LLAMA).groups
    assert "model_type lama is not known (the nearest known: llama)" in model.assumed[0]
    with pytest.raises(ValueError, match="qk_lora_size may change its cache"):
        read_model({**LLAMA, "model_type": "lama", "qk_lora_size": 3})


def test_the_language_model_of_several_is_read():
    model = read_model({"model_type": "llava", "text_config": LLAMA, "vision_config": {"hidden_size": 3}})
    assert model.num_parameters == read_model(LLAMA).num_parameters
    assert "only the language model" in model.assumed[0]

"""Models in conf/model: parameters as published, and the same as their whole configurations."""

import json

import pytest

from kvbench.configuration.catalogue import names, own_node
from kvbench.configuration.composed import composed
from kvbench.configuration.model import model_of
from kvbench.model.published import read_model
from tests.support.measurements import measurement

# Of the weights in each model's repository (safetensors' total, of models that only read text).
PUBLISHED = {
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3_405b": 405_853_388_800,
    "llama3_2_3b": 3_212_749_824,
    "mistral_7b": 7_248_023_552,
    "mixtral_8x7b": 46_702_792_704,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen3_0_6b": 596_049_920,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
    "qwen3_30b_a3b": 30_532_122_624,
    "qwen3_235b_a22b": 235_093_634_560,
    "gemma3_1b": 999_885_952,
    "phi_4": 14_659_507_200,
}
# gpt-oss: arXiv:2508.10925, table 1; DeepSeek-V3: arXiv:2412.19437, section 1.
IN_BILLIONS = {"gpt_oss_20b": 20.91, "gpt_oss_120b": 116.83, "deepseek_v3": 671.0}
CONFIGURATIONS = {
    "deepseek_v3": "deepseek-ai--DeepSeek-V3",
    "gemma3_27b": "google--gemma-3-27b-it",
    "gpt_oss_20b": "openai--gpt-oss-20b",
    "llama3_8b": "meta-llama--Llama-3.1-8B",
    "llama4_scout": "meta-llama--Llama-4-Scout-17B-16E-Instruct",
    "mixtral_8x7b": "mistralai--Mixtral-8x7B-v0.1",
    "nemotron_h_56b": "nvidia--Nemotron-H-56B-Base-8K",
    "qwen3_next_80b_a3b": "Qwen--Qwen3-Next-80B-A3B-Instruct",
}
OWN_KEYS = {"article", "smollm2"}
"""Presets by kvbench's own keys: a shape that no model has, and one that is run."""


def preset(name):
    return model_of(composed({"model": name}, ()))


@pytest.mark.parametrize(("name", "num_parameters"), PUBLISHED.items())
def test_parameters_are_those_published(name, num_parameters):
    assert preset(name).num_parameters == num_parameters


@pytest.mark.parametrize(("name", "billions"), IN_BILLIONS.items())
def test_parameters_in_billions_are_those_published(name, billions):
    assert preset(name).num_parameters / 1e9 == pytest.approx(billions, abs=0.03)


@pytest.mark.parametrize(("name", "folder"), CONFIGURATIONS.items())
def test_a_preset_is_its_configuration_without_the_rest(name, folder):
    config = json.loads(measurement(f"configs/{folder}/config.json").read_text(encoding="utf-8"))
    whole, own = read_model(config), preset(name)
    assert (own.groups, own.weights, own.max_tokens) == (whole.groups, whole.weights, own.max_tokens)


def test_a_preset_is_a_published_configuration_with_its_source_and_assumes_nothing():
    for name in set(names("model")) - OWN_KEYS:
        assert set(own_node("model", name)) == {"name", "config"}
        assert preset(name).assumed == ()


def test_what_weights_take_is_what_is_published():
    # The sizes of the files in their repositories, in GB.
    published = {"gpt_oss_20b": 13.76, "gpt_oss_120b": 65.25, "llama3_8b": 16.06, "mixtral_8x7b": 93.4}
    for name, size in published.items():
        assert preset(name).weights_bytes / 1e9 == pytest.approx(size, rel=0.003)

"""Any JSON is a model or one refusal, and nothing else."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kvbench.configuration.catalogue import names, own_node
from kvbench.model.model import Model
from kvbench.model.published import read_model
from kvbench.model.published.families import FAMILIES, SAME_AS
from tests.test_published import LLAMA
from tests.test_published_families import CASES

NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 64, 2**31, 2**63, 10**40, 0.5, float("nan"), float("inf"), -1e308])
LEAVES = (
    st.none() | st.booleans() | NUMBERS | st.text(max_size=4) | st.sampled_from(["full_attention", "M", "re:(a", "*"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
WHOLE = [{**LLAMA, "model_type": model_type, **changed} for model_type, changed in CASES]
WHOLE += [own_node("model", name)["config"] for name in names("model") if "config" in own_node("model", name)]
KEYS = sorted(
    {key for config in WHOLE for key in config} | {"layer_types", "quantization_config", "text_config", "dtype"}
)


def is_answered(config):
    refusal, model = "", None
    try:
        model = read_model(config)
    except ValueError as error:
        refusal = str(error)
    if model is None:
        assert 0 < len(refusal) < 2_000
        return
    assert isinstance(model, Model)
    assert model.bytes_per_token >= 0
    assert model.num_parameters > 0


@given(VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8))
@example({"model_type": "llama", "dtype": []})
@example({"model_type": [], "text_config": 3})
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_a_model_or_a_refusal(config):
    is_answered(config)


@given(st.sampled_from(WHOLE), st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_configuration_with_other_values_is_a_model_or_a_refusal(config, changed):
    is_answered(config | changed)


@given(st.sampled_from(WHOLE), st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_configuration_without_some_of_its_keys_is_a_model_or_a_refusal(config, data):
    gone = data.draw(st.lists(st.sampled_from(sorted(config)), max_size=3))
    is_answered({key: value for key, value in config.items() if key not in gone})


QUANTIZATIONS = st.dictionaries(
    st.sampled_from(["quant_method", "bits", "config_groups", "ignore", "quant_algo", "kv_cache_scheme", "group_size"]),
    VALUES | st.sampled_from(["fp8", "compressed-tensors", "modelopt", "FP8", ["re:.*"], {"g": {"weights": {}}}]),
)


@given(QUANTIZATIONS)
@settings(deadline=None)
def test_any_quantization_is_understood_or_refused(quantization):
    is_answered({**LLAMA, "quantization_config": quantization})


@pytest.mark.parametrize("model_type", [*FAMILIES, *SAME_AS, "another"])
def test_a_configuration_that_says_nothing_is_refused_by_the_key_that_it_lacks(model_type):
    with pytest.raises(ValueError, match="lacks "):
        read_model(json.loads(json.dumps({"model_type": model_type})))

"""From a composed configuration to a model: kvbench's own keys, groups, and published ones, in any precision."""

import json

import pytest

from kvbench.configuration.composed import composed
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import geometry_of, model_of, name_or_path_of, weights_of
from kvbench.configuration.published import called
from kvbench.configuration.vet import vet_file
from kvbench.model.published import read_model
from tests.test_published import LLAMA


def model(chosen, **settings):
    return model_of(composed({"model": chosen}, (), {key.replace("__", "."): value for key, value in settings.items()}))


def written(folder, config, name="config.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return folder


def test_a_file_its_folder_and_its_keys_are_one_model(tmp_path):
    folder = written(tmp_path / "Tiny-1.5B", LLAMA)
    from_file = model(str(folder / "config.json"))
    assert from_file == model(str(folder)) == model(folder)
    assert from_file.name == "Tiny-1.5B"
    assert from_file.groups == model(LLAMA).groups == read_model(LLAMA).groups
    assert called(folder / "other.json") == "other"


def test_a_yaml_file_and_a_name_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: Mine\nnum_layers: 2\nnum_heads: 4\nnum_kv_heads: 2\nhead_dim: 8\ndtype: float16\n")
    assert model(str(path)).bytes_per_token == 2 * 2 * 2 * 8 * 2
    assert model("llama3_8b").num_parameters == 8_030_261_248
    path.write_text(f"config: {json.dumps(LLAMA)}\nkv_dtype: fp8\n")
    assert model(str(path)).bytes_per_token * 2 == read_model(LLAMA).bytes_per_token


def test_precisions_are_apart_from_each_other():
    plain = model("llama3_8b")
    assert model("llama3_8b", model__kv_dtype="fp8_e5m2").bytes_per_token * 2 == plain.bytes_per_token
    assert model("llama3_8b", model__kv_dtype="fp8").weights_bytes == plain.weights_bytes
    kept = 2 * 128_256 * 4096 + 65 * 4096  # embedding, head and norms
    assert model("llama3_8b", model__weights_dtype="fp8").weights_bytes == plain.num_parameters + kept
    assert model("llama3_8b", dtype="float32").weights_bytes == 2 * plain.weights_bytes
    assert model("llama3_8b", dtype="float32", model__kv_dtype="bf16").bytes_per_token == plain.bytes_per_token
    with pytest.raises(UsageError, match="unknown kv_dtype 'fp6'"):
        model("llama3_8b", model__kv_dtype="fp6")


def test_quantised_weights_leave_embeddings_head_and_norms_as_they_are():
    config = composed({"model": LLAMA}, (), {"model.weights_dtype": "fp8"})
    kept = 2 * 1000 * 64 + 9 * 64
    found = model_of(config)
    assert found.weights_bytes == found.num_parameters + kept
    assert weights_of(config).num_bytes == found.weights_bytes


def test_groups_are_said_one_by_one():
    groups = [
        {"kind": "full", "layers": [1], "num_heads": 4, "num_kv_heads": 2, "key_dim": 8, "value_dim": 4},
        {"kind": "state", "layers": [0], "state": [{"name": "recurrent", "rows": 4, "columns": 8, "dtype": "float32"}]},
    ]
    found = model({"groups": groups, "dtype": "float16", "num_layers": 3})
    assert (found.bytes_per_token, found.state_bytes, found.num_layers) == (2 * 12 * 2, 128, 3)
    with pytest.raises(UsageError, match=r"model\.groups is a list of mappings"):
        model({"groups": [3], "dtype": "float16"})


def test_a_published_model_shrinks_by_the_same_keys_as_others():
    assert model("llama3_8b", model__num_layers=1).bytes_per_token == 4096
    small = model("gpt_oss_20b", model__num_layers=3)
    assert [group.num_layers for group in small.groups] == [2, 1]
    assert model("nemotron_h_56b", model__num_layers=8).num_layers == 8
    assert model({"config": {"text_config": LLAMA}}, model__num_kv_heads=4, model__head_dim=8).bytes_per_token == 512
    with pytest.raises(UsageError, match="num_hidden_layers is an integer of at least 1"):
        model("llama3_8b", model__num_layers=0)


def test_where_the_model_is_comes_from_its_own_key():
    config = composed({"model": {"config": LLAMA, "name_or_path": "folder"}})
    assert name_or_path_of(config) == "folder"
    assert geometry_of(config).bytes_per_token == read_model(LLAMA).bytes_per_token
    with pytest.raises(UsageError, match="unknown parameter 'vocab_size'"):
        model({"config": LLAMA, "vocab_size": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "no configuration in JSON: Expecting"),
        ("[1]", "is a mapping of keys to values, got a list"),
        ('{"a": 1, "a": 2}', "key 'a' stands twice"),
        ('{"a":' + "[" * 200_000 + "]" * 200_000 + "}", "too deep"),
        (" " * (2**22 + 1), "at most 4,194,304 bytes"),
        ('{"_target_": "os.system"}', "_target_"),
    ],
)
def test_a_broken_file_is_one_message(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        vet_file(path, "model", ())
    assert len(str(error.value)) < 700


def test_a_folder_without_a_configuration_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"a model's folder has a config\.json"):
        model(str(tmp_path) + "/")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        model(str(tmp_path / "none.json"))


def test_a_byte_order_mark_and_infinity_are_read(tmp_path):
    text = "\ufeff" + json.dumps({**LLAMA, "time_step_limit": [0.0, float("inf")]})
    assert model(str(written(tmp_path / "a", text))).groups == read_model(LLAMA).groups

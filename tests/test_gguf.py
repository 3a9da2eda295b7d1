"""A GGUF file is converted once, whole or not at all, and is then what it was."""

import os
import sys
import threading

import pytest
import torch

from kvbench.integrations import converted as conversion
from kvbench.integrations.converted import converted
from kvbench.integrations.models import load_model
from kvbench.integrations.required import TransformersMissing
from tests.support.model_files import gguf_file, llama

IDS = torch.arange(12).unsqueeze(0)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where converted models go."""
    monkeypatch.setenv("KVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def tiny(tmp_path):
    """A GGUF file, and the model that it was made of."""
    model = llama()
    gguf_file(tmp_path / "tiny.gguf", model)
    return tmp_path / "tiny.gguf", model


@pytest.fixture
def made(monkeypatch):
    """The files that are converted, one entry each time."""
    files, make = [], conversion._make

    def noted(gguf, *more):
        files.append(gguf.name)
        make(gguf, *more)

    monkeypatch.setattr(conversion, "_make", noted)
    return files


def folders(kept):
    return sorted(path.name for path in kept.iterdir() if path.is_dir())


def test_it_is_the_same_model_and_converted_once(kept, tiny, made):
    path, model = tiny
    for _ in range(2):
        loaded = load_model(str(path))
        assert torch.equal(loaded.model(IDS).logits, model(IDS).logits)
        assert (loaded.name, loaded.about) == ("tiny", f"tiny, from the file {path}; float32, cpu")
    assert made == ["tiny.gguf"]
    assert not hasattr(loaded.model.config, "quantization_config")
    assert loaded.tokenizer.decode(loaded.tokenizer("two words").input_ids) == "two words"


def test_the_folder_that_holds_it_may_be_named(kept, tiny):
    path, model = tiny
    assert torch.equal(load_model(str(path.parent)).model(IDS).logits, model(IDS).logits)
    gguf_file(path.with_name("other.gguf"), model)
    with pytest.raises(ValueError, match=r"several \.gguf files; give one: .*other\.gguf, .*tiny\.gguf"):
        load_model(str(path.parent))


def test_no_file_beside_it_has_a_say(kept, tiny):
    path, model = tiny
    for name in ("config.json", "tokenizer_config.json", "adapter_config.json", "generation_config.json"):
        path.with_name(name).write_text("no JSON")
    assert torch.equal(load_model(str(path)).model(IDS).logits, model(IDS).logits)


def test_no_file_of_its_name_in_the_working_folder_has_a_say(kept, tiny, tmp_path, monkeypatch):
    path, model = tiny
    (tmp_path / "elsewhere").mkdir()
    gguf_file(tmp_path / "elsewhere" / "tiny.gguf", llama(seed=1))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(load_model(str(path)).model(IDS).logits, model(IDS).logits)


def test_another_content_or_dtype_is_another_folder(kept, tiny, made):
    path, _ = tiny
    first = converted(path, "float32")
    assert converted(path, "float16") != first
    stat = path.stat()
    other = llama(seed=1)
    gguf_file(path, other)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert torch.equal(load_model(str(path)).model(IDS).logits, other(IDS).logits)
    assert len(made) == len(folders(kept)) == 3


@pytest.mark.parametrize("saver", ["transformers.PreTrainedModel", "transformers.PreTrainedTokenizerBase"])
def test_a_failure_in_the_middle_leaves_nothing(kept, tiny, monkeypatch, saver):
    path, model = tiny
    with monkeypatch.context() as patch:

        def half(self, folder, **settings):
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")

        patch.setattr(f"{saver}.save_pretrained", half)
        with pytest.raises(ValueError, match=r"(?s)cannot be written there: .*No space left.*KVBENCH_CACHE"):
            load_model(str(path))
        assert folders(kept) == []
    assert torch.equal(load_model(str(path)).model(IDS).logits, model(IDS).logits)


def test_what_a_killed_process_left_is_not_used(kept, tiny):
    path, model = tiny
    final = converted(path, "float32")
    partial = final.rename(final.with_name(f".{final.name}.partial"))
    (partial / "model.safetensors").write_bytes(b"half")
    assert torch.equal(load_model(str(path)).model(IDS).logits, model(IDS).logits)
    assert folders(kept) == [final.name]


def test_who_comes_at_the_same_time_waits(kept, tiny, made):
    path, _ = tiny
    start, found = threading.Barrier(3), []

    def come():
        start.wait()
        found.append(converted(path, "float32"))

    threads = [threading.Thread(target=come) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert made == ["tiny.gguf"]


def test_a_folder_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KVBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"(?s)cannot be written there.*KVBENCH_CACHE names another folder"):
        load_model(str(tiny[0]))


@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file(kept, tiny, part):
    path, _ = tiny
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match="it cannot be loaded as a GGUF model: "):
        load_model(str(path))
    assert folders(kept) == []


def test_a_file_of_another_kind(kept, tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"no GGUF at all, but some other file" * 10)
    with pytest.raises(ValueError, match=r"tiny\.gguf: it cannot be loaded as a GGUF model: "):
        load_model(str(path))
    assert folders(kept) == []


def test_without_gguf_it_says_what_to_install(kept, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(TransformersMissing, match=r"(?s)a GGUF file needs gguf.*pip install .* gguf accelerate"):
        load_model(str(tiny[0]))

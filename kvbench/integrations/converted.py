"""A GGUF file as a folder of safetensors: converted once, kept, and read in a fraction of the time."""

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kvbench.integrations.folders import VARIABLE, cache_folder
from kvbench.integrations.required import loading, required
from kvbench.integrations.shape import geometry_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HASH_CHARACTERS = 12
AS = "a GGUF model"


def converted(gguf: Path, dtype: str) -> Path:
    """The folder of a GGUF file's model and tokenizer, made where it does not exist yet.

    It is named after the file, its content and the dtype, so that another file is another folder. It is made under
    another name and renamed when it is whole; whoever comes while it is made waits for it.

    Args:
        gguf: the file.
        dtype: float32, float16 or bfloat16, of the weights that are kept.
    Raises:
        ValueError: the file cannot be read, or the folder cannot be written.
    """
    required("a GGUF file", "gguf", "accelerate")
    # A dependency of torch; imported here as few need it.
    from filelock import FileLock

    folder = cache_folder() / "models" / f"{gguf.stem}-{_hash(gguf)}-{dtype}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _make(gguf, dtype, folder)
    except OSError as error:
        raise ValueError(
            f"{folder}: the converted model cannot be written there: {error}\n"
            f"  the environment variable {VARIABLE} names another folder"
        ) from error
    return folder


def _hash(gguf: Path) -> str:
    try:
        with gguf.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_CHARACTERS]
    except OSError as error:
        raise ValueError(f"{gguf}: it cannot be read: {error.strerror or error}") from error


def _make(gguf: Path, dtype: str, folder: Path) -> None:
    """Convert under another name, then rename. What a process that was killed left behind is removed."""
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        # Read out of the new and empty folder, so that no file beside the GGUF has a say.
        model, tokenizer = _read(gguf, dtype, partial)
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
        partial.rename(folder)
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def _read(gguf: Path, dtype: str, empty: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model and its tokenizer, plain: no trace is left of where they came from."""
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": str(gguf.absolute()), "local_files_only": True, "trust_remote_code": False}
    with loading(gguf, AS):
        config = AutoConfig.from_pretrained(empty, **given)
    geometry_of(config, dtype)
    # Where transformers can leave weights packed, it may fetch a compiled kernel for them.
    unpacks = hasattr(transformers, "GgufConfig")
    plain = {"quantization_config": transformers.GgufConfig(dequantize=True)} if unpacks else {}
    with loading(gguf, AS):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            empty, config=config, dtype=getattr(torch, dtype), output_loading_info=True, **plain, **given
        )
        tokenizer = AutoTokenizer.from_pretrained(empty, **given)
    model, info = loaded
    if info["missing_keys"]:
        raise ValueError(f"{gguf}: it lacks weights of the model: {', '.join(sorted(info['missing_keys'])[:3])}")
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer

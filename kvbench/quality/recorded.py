"""Recorded K, V and queries: numbers and text in a safetensors file, and every check that it is one of ours.

The file's tensors, float32, float16 or bfloat16:

- `keys` and `values`: [num_layers, num_kv_heads, tokens, head_dim], keys as attention reads them (rotated);
- `queries`, where they were recorded: [num_layers, num_heads, tokens, head_dim], neighbouring heads sharing a KV head.

Layers may be any of the model's, one or more; each is probed. The metadata entry `kvbench_kv` is a JSON object with
`version` and, for people, `model` and `text`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kvbench.files import write_whole
from kvbench.model.geometry import KVGeometry
from kvbench.quality.sample import Sample

VERSION = 1
KEY = "kvbench_kv"
SUFFIX = ".safetensors"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LEAST_TOKENS = 2
EXPECTED = (
    f"expected is a {SUFFIX} file with keys and values [num_layers, num_kv_heads, tokens, head_dim], perhaps queries "
    f"[num_layers, num_heads, tokens, head_dim], and metadata {KEY} of version {VERSION}"
)


class RecordingError(ValueError):
    """A file that holds no K and V for the model: says which, what is wrong and what is expected."""


def write(
    path: Path, keys: Tensor, values: Tensor, queries: Tensor | None = None, about: Mapping[str, object] | None = None
) -> None:
    """Write a file, whole or not at all.

    Args:
        path: ends in .safetensors; its folder is made.
        keys: [num_layers, num_kv_heads, tokens, head_dim].
        values: as keys.
        queries: [num_layers, num_heads, tokens, head_dim]; None where they were not recorded.
        about: text for people, such as model and text.
    Raises:
        ValueError: the path's ending is another, or the shapes do not fit each other.
        OSError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"recorded K and V go to a {SUFFIX} file, got {path}")
    tensors = {"keys": keys, "values": values} | ({} if queries is None else {"queries": queries})
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problem = _misfit(shapes, dict.fromkeys(tensors, ""))
    if problem:
        raise ValueError(f"{path}: {problem}")
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(dict(about or {}) | {"version": VERSION}, sort_keys=True)
    try:
        write_whole(path, lambda partial: save_file(ready, partial, {KEY: text}))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read(path: Path, geometry: KVGeometry, max_tokens: int, seed: int) -> Sample:
    """Read a file's first tokens, in the geometry's dtype. Nothing in it can run.

    Args:
        path: the file.
        geometry: the model that it is to fit: heads, head_dim, and at most so many layers.
        max_tokens: tokens to read at most.
        seed: of the queries that are made up where the file has none: normal, independent of the keys.
    Raises:
        RecordingError: it is missing, broken, not of this kind, or of another model.
    """
    if not path.is_file():
        raise RecordingError(f"{path}: there is no such file; {EXPECTED}")
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, file.metadata() or {})
            names = [name for name in ("keys", "values", "queries") if name in file.keys()]  # noqa: SIM118, no mapping
            slices = {name: file.get_slice(name) for name in names}
            _check(path, slices, geometry)
            tensors = {name: part[:, :, :max_tokens] for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise RecordingError(f"{path}: {error}; {EXPECTED}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise RecordingError(f"{path}: {name} is finite throughout, got NaN or infinity; {EXPECTED}")
    words = f"K and V recorded in {path.name}"
    words += "".join(f", {key} {about[key]}" for key in ("model", "text") if about.get(key))
    if "queries" not in tensors:
        num_layers, _, num_tokens, head_dim = tensors["keys"].shape
        generator = torch.Generator().manual_seed(seed)
        tensors["queries"] = torch.randn(
            num_layers, geometry.plain.num_heads, num_tokens, head_dim, generator=generator
        )
        words += "; it has no queries, so that they are random"
    dtype = getattr(torch, geometry.dtype)
    return Sample(**{name: tensor.to(dtype) for name, tensor in tensors.items()}, needles=(), about=words)


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, object]:
    try:
        about = json.loads(metadata.get(KEY, "null"))
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: its metadata {KEY} is no JSON; {EXPECTED}") from error
    if not isinstance(about, dict) or about.get("version") != VERSION:
        got = about.get("version") if isinstance(about, dict) else None
        what = f"is of version {got!r}" if isinstance(about, dict) else f"is no JSON object but {about!r}"
        raise RecordingError(f"{path}: its metadata {KEY} {what}; {EXPECTED}")
    return about


def _check(path: Path, slices: Mapping[str, Any], geometry: KVGeometry) -> None:
    """Check names, dtypes and shapes, before any tensor is read."""
    for name in ("keys", "values"):
        if name not in slices:
            raise RecordingError(f"{path}: it has no tensor {name}; {EXPECTED}")
    shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    problem = _misfit(shapes, {name: part.get_dtype() for name, part in slices.items()})
    if not problem:
        num_layers, num_kv_heads, _, head_dim = shapes["keys"]
        num_heads = shapes.get("queries", (0, geometry.plain.num_heads))[1]
        got = (num_kv_heads, head_dim, num_heads)
        wanted = (geometry.plain.num_kv_heads, geometry.plain.head_dim, geometry.plain.num_heads)
        if got != wanted or num_layers > geometry.num_layers:
            problem = (
                f"it has {num_layers} layers, {got[0]} KV heads of {got[1]} and {got[2]} query heads; the model "
                f"{geometry.name} has {geometry.num_layers}, {wanted[0]} of {wanted[1]} and {wanted[2]}"
            )
    if problem:
        raise RecordingError(f"{path}: {problem}; {EXPECTED}")


def _misfit(shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]) -> str:
    """What is wrong with the tensors' shapes beside each other, and with their dtypes; "" where nothing is."""
    for name, dtype in dtypes.items():
        if dtype and dtype not in DTYPES:
            return f"{name} is of dtype {', '.join(DTYPES)}, got {dtype}"
    keys = shapes["keys"]
    if len(keys) != 4 or min(keys) < 1 or keys[2] < LEAST_TOKENS:  # noqa: PLR2004
        return f"keys have four dimensions and at least {LEAST_TOKENS} tokens, got shape {keys}"
    if shapes["values"] != keys:
        return f"values are shaped as keys, {keys}, got {shapes['values']}"
    queries = shapes.get("queries")
    if queries is not None and (len(queries) != 4 or queries[::2] != keys[::2] or queries[3] != keys[3]):  # noqa: PLR2004
        return f"queries are shaped as keys, {keys}, but for the heads, got {queries}"
    return ""

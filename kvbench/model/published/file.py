"""A published configuration's file, read as what it is: a stranger's text."""

import json
from pathlib import Path
from typing import Any

from kvbench.files import check_regular
from kvbench.messages import cut

MOST_BYTES = 2**22
CONFIG, QUANTIZATION = "config.json", "hf_quant_config.json"
"""A folder's two: some keep what they say of quantisation in a file of its own."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json, or the one in a folder.

    Args:
        path: of the file or the folder.
    Returns:
        Its keys. Infinity and NaN are read, as Python's own writer writes them.
    Raises:
        ValueError: there is no such file, it is too large, or no JSON object, or a key stands twice in it.
    """
    if not path.is_dir():
        return _read(path)
    if not (path / CONFIG).exists():
        raise ValueError(f"{path}: a model's folder has a {CONFIG}, and there is none in it")
    config, beside = _read(path / CONFIG), path / QUANTIZATION
    if "quantization_config" not in config and beside.exists():
        quantization = _read(beside).get("quantization")
        if quantization is not None:
            config["quantization_config"] = {"quant_method": "modelopt", "quantization": quantization}
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        check_regular(path)
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"a configuration has at most {MOST_BYTES:,} bytes, and this one has more")
        found = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: its values lie too deep in each other") from error
    except ValueError as error:
        raise ValueError(f"{path}: no configuration in JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: a model's configuration is a mapping of keys to values, got a {type(found).__name__}"
        )
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {cut(repr(key))} stands twice")
        found[key] = value
    return found

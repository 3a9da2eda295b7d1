"""A published configuration where a model's name or YAML file may stand: its file, its folder, or its keys."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvbench.configuration.errors import refusing
from kvbench.model.published.file import CONFIG, read_config
from kvbench.model.published.harmless import is_harmless

YAML, JSON = (".yaml", ".yml"), ".json"
MODEL_TYPE = "model_type"
_BESIDE = re.compile(
    r"(?!text_|llm_|language_|quantization_|compression_)\w+_config|id2label|label2id|auto_map|task_specific_params"
)


def is_file(group: str, text: str) -> bool:
    """Whether what stands for a group's choice is a path, and no name: YAML's ending, of a model also JSON's or a /."""
    ends = (*YAML, JSON) if group == "model" else YAML
    return text.lower().endswith(ends) or (group == "model" and (text in (".", "..") or "/" in text))


def is_published(path: Path) -> bool:
    """Whether a path leads to a published configuration: a JSON file, or a folder."""
    return path.suffix.lower() == JSON or path.is_dir()


def called(path: Path) -> str:
    """What a configuration's file is called: most have one name, and their folders tell them apart."""
    whole = path.expanduser().absolute()
    if whole.is_dir():
        return whole.name
    return whole.parent.name if whole.name == CONFIG else whole.stem


def published_node(path: Path) -> dict[str, Any]:
    """A model's keys, from a published configuration's file or folder.

    Raises:
        UsageError: there is none, or it is not one.
    """
    with refusing():
        config = read_config(path)
    return {"name": called(path) or "model", "config": essential(config)}


def essential(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what a model that sees or hears says of its other parts, and without names of labels."""
    return {
        key: essential(value) if isinstance(value, Mapping) and key.endswith("text_config") else value
        for key, value in config.items()
        if not _BESIDE.fullmatch(key)
    }


OWN_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}
"""Keys of kvbench's that change a published configuration, and what it calls them."""


def changed(config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with other sizes; of fewer layers, lists with an item a layer lose their last ones.

    Args:
        config: a published one.
        own: sizes by kvbench's names.
    """
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        return {**config, "text_config": changed(inner, own)}
    sizes = {OWN_NAMES[key]: value for key, value in own.items()}
    before, after = config.get("num_hidden_layers"), own.get("num_layers")
    if type(after) is not int or type(before) is not int or not 0 < after < before:
        return {**config, **sizes}
    shorter = {
        key: value[:after]
        for key, value in config.items()
        if isinstance(value, list | str) and len(value) == before and not is_harmless(key)
    }
    return {**config, **shorter, **sizes}

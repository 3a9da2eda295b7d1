"""A published configuration where a model's name or YAML file may stand: its file, its folder, or its keys."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvbench.configuration.errors import refusing
from kvbench.model.published.file import CONFIG, read_config

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

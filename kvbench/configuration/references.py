"""What of a configuration refers to other keys, as what stands there."""

import re
from collections.abc import Mapping
from typing import Any

from kvbench.configuration.catalogue import own_settings
from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown

REFERENCE = re.compile(r"\$\{(\.*)(\w+(?:\.\w+|\[\w+\])*)\}")
"""A reference to another key, from the top or, behind dots, from where it stands."""
MOST_DEEP = 8
"""References that lead to each other; more of them go in a circle."""


def filled_in(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what refers to other keys filled in, in a copy.

    Args:
        config: with `repetitions`, `attend` and `quality_data` as conf/config.yaml has them where nothing set them.
    Raises:
        UsageError: a reference leads nowhere.
    """
    own = own_settings()
    source = config.get("experiment") or config.get("scenario")
    given = source if isinstance(source, Mapping) else vars(source) if hasattr(source, "__dict__") else {}
    defaults = {
        "repetitions": given.get("repetitions", own["scenario"]["repetitions"]),
        "attend": given.get("attend", True) if "experiment" in config else True,
    }
    config = config | {key: value for key, value in defaults.items() if config.get(key, own[key]) == own[key]}
    return {key: _resolved(value, config, (key,), 0) for key, value in config.items()}


def is_plain(text: str) -> bool:
    """Whether all that a text refers to is other keys: nothing is to be called for it."""
    return "${" not in REFERENCE.sub("", text)


def _resolved(value: object, config: Mapping[str, Any], where: tuple[str, ...], deep: int) -> Any:
    """A value with its references followed.

    Args:
        value: as it is said.
        config: the whole.
        where: the keys that lead to it.
        deep: references that led to it.
    """
    if isinstance(value, dict):
        return {key: _resolved(each, config, (*where, str(key)), deep) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each, config, (*where, str(number)), deep) for number, each in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    if deep > MOST_DEEP:
        raise UsageError(f"{'.'.join(where)}: {value} leads back to itself")
    if found := REFERENCE.fullmatch(value):
        return _referred(found, config, where, deep)
    return REFERENCE.sub(lambda each: str(_referred(each, config, where, deep)), value)


def _referred(found: "re.Match[str]", config: Mapping[str, Any], where: tuple[str, ...], deep: int) -> Any:
    dots, path = found.groups()
    start = where[: len(where) - len(dots)] if dots else ()
    keys = (*start, *re.findall(r"\w+", path))
    node: object = config
    for key in keys:
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, Mapping) and key in node:
            node = node[key]
        else:
            there = list(node) if isinstance(node, Mapping) else ()
            raise UsageError(f"{found[0]}: {unknown('key', key, there)}")
    return _resolved(node, config, keys, deep + 1)

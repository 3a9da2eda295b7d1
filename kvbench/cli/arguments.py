"""The arguments of verbs: key=value."""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kvbench.configuration.errors import UsageError
from kvbench.messages import listed, unknown


def key_values(
    arguments: Sequence[str], keys: Sequence[str], needed: Sequence[str], usage: str, defaults: Mapping[str, str]
) -> dict[str, str]:
    """Read key=value arguments.

    Args:
        arguments: as given.
        keys: those that exist.
        needed: those that must be given.
        usage: an example, for messages.
        defaults: values of those that are not given.
    Raises:
        UsageError: an argument is no such pair, a key is unknown, or one that is needed is missing.
    """
    given = dict(defaults)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UsageError(f"expected key=value, got {argument!r}; for example: {usage}")
        if key not in keys:
            raise UsageError(unknown("key", key, keys))
        given[key] = value
    needing(given, needed, usage)
    return given


def settings_of(arguments: Sequence[str], lists: Container[str], texts: Container[str], usage: str) -> dict[str, Any]:
    """Read key=value or +key=value arguments, values as YAML is read; each key once.

    Args:
        arguments: as given.
        lists: keys whose values are names with commas between them, in brackets or not; one in braces is YAML.
        texts: keys whose values are taken as they stand.
        usage: an example, for messages.
    Raises:
        UsageError: an argument is no such pair, stands twice, or cannot be read.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        key = key.removeprefix("+")
        if not equals or not key:
            raise UsageError(f"expected key=value, got {argument!r}; for example: {usage}")
        if key in given:
            raise UsageError(f"{key}=… stands twice: {argument!r}")
        if key in lists and not text.startswith("{"):
            given[key] = listed_names(text)
        else:
            given[key] = text if key in texts else _value(key, text)
    return given


def _value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{key}: cannot read {text!r}: {' '.join(str(error).split())}") from error


def listed_names(text: str) -> list[str]:
    """Names with commas between them, in brackets or not."""
    return [name for each in unbracketed(text).split(",") if (name := each.strip().strip("\"'"))]


def needing(given: Mapping[str, Any], keys: Iterable[str], usage: str) -> None:
    """Refuse what lacks a key.

    Raises:
        UsageError: one of the keys is missing.
    """
    for key in keys:
        if not given.get(key):
            raise UsageError(f"{key}=… is missing; for example: {usage}")


def folder_and(
    arguments: Sequence[str], usage: str, keys: Sequence[str] = ("workers", "trusted")
) -> tuple[Path, Any, tuple[str, ...]]:
    """Read a sweep's folder and, behind it, key=value arguments.

    Args:
        arguments: as given.
        usage: an example, for messages.
        keys: those that exist.
    Returns:
        The folder, `workers` and the packages that are `trusted`.
    Raises:
        UsageError: there is no folder, or an argument is wrong.
    """
    paths = [argument for argument in arguments if "=" not in argument]
    if len(paths) != 1:
        raise UsageError(f"give the folder of one sweep, got {listed(paths) or 'none'}; for example: {usage}")
    given = key_values([a for a in arguments if "=" in a], keys, (), usage, {"workers": "1", "trusted": ""})
    packages = unbracketed(given["trusted"]).replace(",", " ").split()
    return Path(paths[0]).expanduser(), whole_number(given["workers"]), tuple(packages)


def or_none(text: str) -> str | None:
    """A value; None of `null`, as YAML has it."""
    return None if text == "null" else text


def whole_number(text: str) -> Any:
    """A whole number; what is none is left for a call to refuse."""
    return int(text) if text.isascii() and text.isdecimal() else text


def unbracketed(value: str) -> str:
    """Names with commas between them, without the brackets around them."""
    inside = value.strip().removeprefix("[").removesuffix("]")
    return value if "[" in inside or "]" in inside else inside

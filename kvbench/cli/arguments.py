"""The arguments of verbs: key=value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    for key in needed:
        if not given.get(key):
            raise UsageError(f"{key}=… is missing; for example: {usage}")
    return given


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

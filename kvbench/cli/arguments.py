"""The arguments of verbs: key=value."""

from collections.abc import Mapping, Sequence
from typing import Any

from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown


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

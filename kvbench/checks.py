"""Refuse what a plain value cannot be, where it is built: one form for each kind of message."""

import math
import sys
from collections.abc import Iterable

from kvbench.messages import unknown

MOST_SEED = 2**63 - 1


def check_int(what: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is no integer of the range.

    Raises:
        ValueError: it is another type (a bool, a float), or out of the range.
    """
    if type(value) is int and value >= least and (most is None or value <= most):
        return
    allowed = "a positive integer" if least == 1 else f"an integer of at least {least}"
    limit = "" if most is None else f" and at most {most:,}"
    raise ValueError(f"{what} is {allowed}{limit}, got {value!r}")


def size_of(what: str, value: object, least: int = 0, most: int | None = None) -> int:
    """A size in bytes; a float that is whole, as 1e9 is, is taken as that integer.

    Raises:
        ValueError: it is no integer of the range.
    """
    size = int(value) if type(value) is float and value.is_integer() else value
    check_int(what, size, least, most)
    assert isinstance(size, int)
    return size


def check_bound(what: str, value: object) -> None:
    """Refuse a bound that is neither a positive integer nor None, for none or for the run to decide.

    Raises:
        ValueError: it is not.
    """
    if value is not None:
        check_int(what, value, 1)


def check_number(
    what: str, value: object, low: float, high: float = math.inf, *, above: bool = False, below: bool = False
) -> None:
    """Refuse what is no finite number of the range.

    Args:
        what: the parameter's name, for the message.
        value: what was given.
        low: the least that is allowed.
        high: the most that is allowed.
        above: `low` itself is not allowed.
        below: `high` itself is not allowed.
    Raises:
        ValueError: it is another type (a bool, a text), not finite, or out of the range.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_end = (above and value == low) or (below and value == high)
        if low <= value <= min(high, sys.float_info.max) and not is_end:
            return
    allowed = f"a number {'above' if above else 'of at least'} {low}"
    allowed += "" if math.isinf(high) else f" and {'below' if below else 'at most'} {high}"
    raise ValueError(f"{what} is {allowed}, got {value!r}")


def check_share(what: str, value: object) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: it is not a number above 0 and at most 1.
    """
    check_number(what, value, 0, 1, above=True)


def check_flag(what: str, value: object) -> None:
    """Refuse what is neither true nor false.

    Raises:
        ValueError: it is neither.
    """
    if type(value) is not bool:
        raise ValueError(f"{what} is True or False, got {value!r}")


def check_name(what: str, value: object) -> None:
    """Refuse what names nothing.

    Raises:
        ValueError: it is no text, or an empty one.
    """
    if type(value) is not str or not value:
        raise ValueError(f"{what} is a name, got {value!r}")


def check_one_of(what: str, value: object, allowed: Iterable[str | int]) -> None:
    """Refuse what is none of a few values.

    Raises:
        ValueError: it is none of them, or of another type.
    """
    allowed = tuple(allowed)
    if type(value) not in map(type, allowed) or value not in allowed:
        raise ValueError(unknown(what, value, map(str, allowed)))


def check_kind(what: str, value: object, kinds: Iterable[type]) -> None:
    """Refuse what is no instance of a few classes; a subclass is none of them, since nobody would know what it does.

    Raises:
        ValueError: it is not.
    """
    if type(value) in tuple(kinds):
        return
    got = value if isinstance(value, str) else repr(value)
    raise ValueError(unknown(f"{what} (made by its class)", got, (kind.__name__ for kind in kinds)))


def check_has(what: str, value: object, method: str, kinds: str) -> None:
    """Refuse what cannot do something, whatever its class.

    Args:
        what: the parameter's name, for the message.
        value: what was given.
        method: the method that it must have.
        kinds: what is allowed, in words.
    Raises:
        ValueError: it has no such method.
    """
    if not callable(getattr(value, method, None)):
        raise ValueError(f"{what} is {kinds}, got {value!r}")

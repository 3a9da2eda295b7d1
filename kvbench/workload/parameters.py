"""Check a generator's parameters: one form for every message about a number."""

import math
import sys
from numbers import Integral, Real


def check_number(name: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Refuse what is not a finite number of the range.

    Args:
        name: the parameter's name, for the message.
        value: what was given.
        low: the least that is allowed.
        high: the most that is allowed.
        above: `low` itself is not allowed.
    Raises:
        ValueError: it is not a number, not finite, or out of the range.
    """
    allowed = f"a finite number {'above' if above else 'from'} {low}"
    allowed += "" if math.isinf(high) else f" to {high}" if not above else f" and at most {high}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} is {allowed}, got {value!r}")
    if value < low or not value <= min(high, sys.float_info.max) or (above and value == low):
        raise ValueError(f"{name} is {allowed}, got {value!r}")


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not an integer of the range.

    Args:
        name: the parameter's name, for the message.
        value: what was given.
        low: the least that is allowed.
        high: the most that is allowed.
    Raises:
        ValueError: it is not an integer, or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low or not value <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}, got {value!r}")


def check_has(name: str, value: object, method: str, kinds: str) -> None:
    """Refuse what is not a generator of the wanted kind.

    Args:
        name: the parameter's name, for the message.
        value: what was given.
        method: the method that such a generator has.
        kinds: what is allowed, in words.
    Raises:
        ValueError: it has no such method.
    """
    if not callable(getattr(value, method, None)):
        raise ValueError(f"{name} is {kinds}, got {value!r}")

"""Refuse what a plain value cannot be, where it is built: one form for each kind of message."""

from collections.abc import Iterable

from kvbench.naming import unknown


def check_int(what: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is no integer of the range.

    Raises:
        ValueError: it is another type (a bool, a float), or out of the range.
    """
    if type(value) is int and value >= least and (most is None or value <= most):
        return
    limit = "" if most is None else f" and at most {most}"
    raise ValueError(f"{what} is an integer of at least {least}{limit}, got {value!r}")


def check_share(what: str, value: object) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: it is not a number above 0 and at most 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{what} is a number above 0 and at most 1, got {value!r}")


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

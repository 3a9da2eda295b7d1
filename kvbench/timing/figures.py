"""A fit's figures from a hardware file, checked."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kvbench.checks import check_number
from kvbench.messages import unknown
from kvbench.timing.corrections import Corrections

MOST = 1e12
MOST_HUNDREDTHS = 500
CORRECTIONS = "corrections"
TOLD = ("engine", "version", "source", "residuals", "errors")
WORK = ("products", "experts", "traffic", "all_reduce", "attention")


def check_kinds(kernels: Mapping[str, Any]) -> None:
    """Refuse a hardware file's `kernels` that has what nobody reads.

    Raises:
        ValueError: a key is unknown.
    """
    for key in kernels:
        if key not in (*TOLD, *WORK):
            raise ValueError(f"hardware.kernels: {unknown('key', str(key), (*TOLD, *WORK))}")


def mapping_from(where: str, given: object) -> dict[str, Any]:
    """A mapping with text for keys.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is a mapping, got {given!r}")
    return {str(key): value for key, value in given.items()}


def figures_from(
    where: str, given: object, names: Sequence[str], may_be_none: Collection[str] = ()
) -> dict[str, float]:
    """Figures of a fit, all of them.

    Args:
        where: their key, for messages.
        given: a mapping; `corrections` are left to `grid_from`.
        names: theirs.
        may_be_none: those that may be 0, such as a switch's.
    Raises:
        ValueError: one is missing, unknown, or no number above 0.
    """
    figures = {name: value for name, value in mapping_from(where, given).items() if name != CORRECTIONS}
    for name, value in figures.items():
        if name not in names:
            raise ValueError(f"{where}: {unknown('figure', name, names)}")
        check_number(f"{where}.{name}", value, 0, MOST, above=name not in may_be_none)
    missing = [name for name in names if name not in figures]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}; it takes {', '.join(names)}")
    return figures


def grid_from(where: str, given: object, knots: Sequence[Sequence[float]]) -> Corrections | None:
    """Corrections of a fit, which are text: whole hundredths of a logarithm, with blanks between them.

    Args:
        where: the fit's key, for messages.
        given: a mapping, with `corrections` or without.
        knots: at which they are.
    Raises:
        ValueError: they are something else, or not as many as there are knots.
    """
    text = mapping_from(where, given).get(CORRECTIONS)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{where}.{CORRECTIONS} is a text of whole numbers, got {text!r}")
    values = []
    for word in text.split():
        if not word.removeprefix("-").isdecimal() or abs(int(word)) > MOST_HUNDREDTHS:
            raise ValueError(f"{where}.{CORRECTIONS}: whole numbers of at most {MOST_HUNDREDTHS}, got {word!r}")
        values.append(int(word))
    try:
        return Corrections(knots, values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None

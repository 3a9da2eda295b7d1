"""Strategies from outside kvbench: what they say of themselves, and what experiments do with them."""

import inspect
from collections.abc import Mapping, Sequence

import yaml

from kvbench.cli.docstring import Docstring, parse
from kvbench.cli.entry import Entry
from kvbench.configuration.errors import UsageError
from kvbench.configuration.targets import class_of
from kvbench.naming import unknown
from kvbench.strategy.base import Strategy

NEEDED = "(to be given)"


def outside_entry(target: str, given: Sequence[str], trusted: Sequence[str]) -> Entry:
    """What a class of a trusted package says of itself.

    Args:
        target: its dotted name.
        given: parameters, as name=value.
        trusted: packages that the user named.
    Raises:
        UsageError: it cannot be imported, is no strategy, or does not take that.
    """
    root = target.partition(".")[0]
    if root not in trusted:
        raise UsageError(f"{target}: to admit a package of yours, name it: trusted=[{root}]")
    made = class_of(target, target, trusted)
    if not issubclass(made, Strategy):
        raise UsageError(f"{target} is no strategy: it does not derive from kvbench.strategy.base.Strategy")
    signature = inspect.signature(made).parameters.values()
    parameters = {p.name: NEEDED if p.default is p.empty else p.default for p in signature}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or name not in parameters:
            raise UsageError(f"{target}: {unknown('parameter', name, parameters)}")
        parameters[name] = yaml.safe_load(value)
    shown = made if NEEDED in parameters.values() else _made(made, parameters, target)
    doc = _docstring(made)
    signals = shown.signals if isinstance(shown, Strategy) else ()
    reference = shown.reference is True
    return Entry(target, False, doc.summary, shown.lossless is True, reference, signals, target, doc, parameters)


def _made(made: type, parameters: Mapping[str, object], target: str) -> Strategy:
    try:
        return made(**parameters)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{target}: {error}") from error


def _docstring(made: type) -> Docstring:
    """As kvbench writes them, or else the first line alone; a class's own, not what it inherits."""
    text = inspect.cleandoc(made.__doc__ or "It says nothing of itself (no docstring).")
    try:
        return parse(text)
    except ValueError:
        return Docstring(text.splitlines()[0], (), {}, {})

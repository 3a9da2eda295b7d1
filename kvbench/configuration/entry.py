"""What the catalogue knows of each strategy: its YAML, its class's docstring and what an instance of it declares."""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from kvbench.configuration.catalogue import default_strategies, names, own_file, own_node, summary_line
from kvbench.configuration.docstring import Docstring, parse
from kvbench.configuration.errors import UsageError
from kvbench.configuration.targets import build, class_of
from kvbench.messages import unknown
from kvbench.strategy.base import Strategy


@dataclass(frozen=True)
class Entry:
    """One strategy of the catalogue.

    Args:
        name: its YAML's.
        is_default: whether it is compared where none is named.
        what: what it does, in a sentence.
        is_lossless: whether attention reads every token, unchanged.
        is_reference: whether it is there to compare with, and never chosen.
        signals: what the backend must supply.
        target: its class's dotted name.
        doc: the class's docstring.
        parameters: the YAML's, each with its default.
    """

    name: str
    is_default: bool
    what: str
    is_lossless: bool
    is_reference: bool
    signals: tuple[str, ...]
    target: str
    doc: Docstring
    parameters: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Its name, marked where it is a default, and where it is a reference."""
        marks = [mark for mark, has in (("default", self.is_default), ("reference", self.is_reference)) if has]
        return f"{self.name} ({', '.join(marks)})" if marks else self.name

    @property
    def loss(self) -> str:
        """Lossless or lossy."""
        return "lossless" if self.is_lossless else "lossy"


def entries() -> list[Entry]:
    """The strategies that kvbench ships, by name; those compared by default first, in their order."""
    defaults = default_strategies()
    chosen = [*defaults, *(name for name in names("strategy") if name not in defaults)]
    nodes = {name: own_node("strategy", name) for name in chosen}
    users = Counter(node["_target_"] for node in nodes.values())
    return [_entry(name, node, name in defaults, users[node["_target_"]] > 1) for name, node in nodes.items()]


def _entry(name: str, node: Mapping[str, Any], is_default: bool, shares_class: bool) -> Entry:
    """Where several YAMLs share a class, its docstring cannot tell them apart: the YAML's own comment does."""
    made = build(node, "strategy", f"strategy.{name}")
    assert isinstance(made, Strategy)
    doc = parse(inspect.getdoc(type(made)) or "")
    what = summary_line(own_file("strategy", name)) if shares_class else doc.summary
    parameters = {key: value for key, value in node.items() if key != "_target_"}
    target = str(node["_target_"])
    return Entry(name, is_default, what, made.lossless, made.reference, made.signals, target, doc, parameters)


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


def _made(made: type[Strategy], parameters: Mapping[str, Any], target: str) -> Strategy:
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

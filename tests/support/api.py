"""The public names as a page: their signatures and docstrings."""

import inspect
import textwrap
from collections.abc import Iterator

import kvbench as kv
from kvbench.configuration.docstring import Docstring, parse
from kvbench.model.groups import LayerGroups

PARTS = {
    "Calls": ("api.",),
    "Results": ("results.",),
    "Workloads": ("workload.",),
    "Models and machines": ("model.",),
    "Engines": ("engine.",),
    "Strategies": ("strategy.",),
    "Backends": ("backend.", "fleet."),
    "In a program of your own": ("runner.", "integrations."),
}
"""Headings, and where the names below each live."""
FIRST = ("run", "sweep", "study", "show", "load", "Strategy", "Scenario", "Results")
WIDTH = 120


def api_text() -> str:
    """All public names, by what they are for."""
    found = {name: getattr(kv, name) for name in sorted(kv.__all__, key=_rank)}
    own = {name: value for name, value in found.items() if not inspect.ismodule(value)}
    parts, told = [], set()
    for heading, homes in PARTS.items():
        starts = tuple(f"kvbench.{home}" for home in homes)
        names = [name for name, value in own.items() if value.__module__.startswith(starts)]
        told.update(names)
        parts += [f"## {heading}", *(_entry(name, own[name]) for name in names)]
    if left := own.keys() - told:
        raise ValueError(f"no heading for {', '.join(sorted(left))}")
    return "\n\n".join(parts)


def _rank(name: str) -> tuple[int, str]:
    return FIRST.index(name) if name in FIRST else len(FIRST), name


def _entry(name: str, value: object) -> str:
    lines = [f"### kv.{name}", f"```python\nkv.{name}{_signature(value)}\n```", *_told(value)]
    if inspect.isclass(value):
        lines += [
            f"**`{method}{_signature(each)}`** {' '.join(_told(each, short=True))}" for method, each in _methods(value)
        ]
    return "\n\n".join(lines)


def _methods(value: type) -> Iterator[tuple[str, object]]:
    """A class's own methods, without those that a base of kvbench's has: what a hook is stands with the base."""
    bases = [base for base in value.__mro__[1:] if base.__module__.startswith("kvbench") and base is not LayerGroups]
    inherited = vars(LayerGroups) if issubclass(value, LayerGroups) else {}  # which has no page of its own
    for name, each in {**inherited, **vars(value)}.items():
        if name.startswith("_") or any(hasattr(base, name) for base in bases):
            continue
        each = getattr(each, "__func__", each)
        if inspect.isfunction(each) and each.__doc__:
            yield name, each


def _signature(value: object) -> str:
    """Names and defaults; what each is, the docstring says."""
    given = inspect.signature(value).parameters.values()
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in given if each.name not in ("self", "cls")]
    shown = str(inspect.Signature(bare))
    if len(shown) <= WIDTH - 40:
        return shown
    inner = textwrap.wrap(shown[1:-1], WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    if "*, " not in shown:  # it reads as a call, which has a line an argument where it has several
        inner = [f"{each}," for each in shown[1:-1].split(", ")]
    return "(\n" + "\n".join(f"    {line}" for line in inner) + "\n)"


def _told(value: object, short: bool = False) -> list[str]:
    doc = parse(inspect.getdoc(value) or "")
    lines = [" ".join([doc.summary, *doc.description]) if short else "\n\n".join([doc.summary, *doc.description])]
    if short:
        return [*lines, *(f"{kind}: {text}" for kind, text in _rest(doc))]
    for section, entries in doc.entries.items():
        if section == "Args":
            lines.append("\n".join(f"- `{name}`: {text}" for name, text in entries.items()))
    return [*lines, *(f"{kind}: {text}" for kind, text in _rest(doc))]


def _rest(doc: Docstring) -> Iterator[tuple[str, str]]:
    yield from ((name, text) for name, text in doc.prose.items())
    if raised := doc.entries.get("Raises"):
        yield "Raises", " ".join(f"`{name}`: {text}" for name, text in raised.items())

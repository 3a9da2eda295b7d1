"""From a configuration node to an object: only kvbench's own classes, and packages that the user named.

A target is checked as text, against the source of the module that it names, before anything is imported or called.
"""

import ast
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown

PACKAGE = Path(__file__).resolve().parent.parent
ROLES = {
    "strategy": (("strategy",), ("Strategy",)),
    "scenario": (("workload",), ("Scenario",)),
    "backend": (("backend", "fleet"), ("BackendChoice",)),
    "engine": (("engine",), ("Engine",)),
    "experiment": (("studies",), ("Experiment",)),
}
"""Of each group of configuration: where its classes live, and what the class of the group's own node derives from."""

PARTS = {"scenario": (("workload",), ("Arrivals", "Lengths", "Prefixes")), "strategy": (("strategy",), ("Strategy",))}
"""The same for nodes inside a group's node; a group without parts has none."""

MOVED = {
    "kvbench.strategy.ahead.Ahead": "kvbench.strategy.async_growth.Ahead",
    "kvbench.workload.arrivals.Constant": "kvbench.workload.arrivals.ConstantRate",
    "kvbench.workload.lengths.Constant": "kvbench.workload.lengths.ConstantLength",
}
"""Targets that files of yours may still name, and what they are called now."""


def target_of(chosen: object) -> str:
    """The dotted name of the class of a node, or of an object that stands in its place."""
    if isinstance(chosen, Mapping):
        return str(chosen.get("_target_"))
    return f"{type(chosen).__module__}.{type(chosen).__qualname__}"


def check_target(target: object, group: str, where: str, trusted: Sequence[str] = (), *, is_part: bool = False) -> None:
    """Refuse a target that is neither one of kvbench's own classes for that place nor of a trusted package.

    Args:
        target: the text after `_target_:`.
        group: strategy, scenario, backend, engine or experiment; another group has no targets at all.
        where: for the message, such as a file's name or a key.
        trusted: packages that the user named.
        is_part: whether it stands inside the group's node, such as a scenario's arrivals.
    Raises:
        UsageError: it is refused. Nothing was imported.
    """
    allowed = own_classes(group, is_part)
    if not allowed:
        raise UsageError(f"{where}: no _target_ may stand here, got {target!r}")
    parts = target.split(".") if isinstance(target, str) else []
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:  # noqa: PLR2004
        raise UsageError(f"{where}: _target_ is a dotted name such as {allowed[0]}, got {target!r}")
    if parts[0] in trusted and parts[0] != "kvbench":
        return
    if MOVED.get(str(target), target) not in allowed:
        raise UsageError(
            f"{where}: {unknown('target', target, allowed)}\n"
            f"  To admit a package of yours, name it on the command line: trusted=[{parts[0]}]"
        )


@cache
def own_classes(group: str, is_part: bool) -> list[str]:
    """Dotted names of the classes that may stand there, read from their modules' source."""
    homes, roots = (PARTS if is_part else ROLES).get(group, ((), ()))
    bases: dict[str, tuple[str, set[str]]] = {}
    for path in sorted(path for home in homes for path in (PACKAGE / home).rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                named = {base.id for base in node.bases if isinstance(base, ast.Name)}
                bases[f"kvbench.{module}.{node.name}"] = (node.name, named)
    family = set(roots)
    found: set[str] = set()
    while grown := {dotted for dotted, (_, named) in bases.items() if named & family} - found:
        found |= grown
        family |= {bases[dotted][0] for dotted in grown}
    return sorted(found)


def build(
    node: Mapping[str, Any],
    group: str,
    where: str,
    trusted: Sequence[str] = (),
    *,
    is_part: bool = False,
    **given: object,
) -> object:
    """Make the object that a configuration node describes, and those nested in it.

    Args:
        node: `_target_` and the constructor's keyword arguments.
        group: strategy, scenario, backend, engine or experiment.
        where: the node's key, for messages.
        trusted: packages that the user named.
        is_part: whether the node stands inside the group's own.
        given: arguments that do not come from configuration; a class gets those that it takes.
    Returns:
        The object.
    Raises:
        UsageError: the target is refused, a parameter is unknown or missing, or the constructor refuses a value.
    """
    if "_target_" not in node:
        example = own_classes(group, is_part)[0]
        raise UsageError(f"{where}: it has no _target_; name a class, such as _target_: {example}")
    check_target(node["_target_"], group, where, trusted, is_part=is_part)
    arguments = {
        str(key): _value(value, group, f"{where}.{key}", trusted) for key, value in node.items() if key != "_target_"
    }
    target = str(node["_target_"])
    made = class_of(MOVED.get(target, target), where, trusted)
    taken = _parameters(made)
    given = {name: value for name, value in given.items() if name in taken}
    _check_arguments(made, arguments, set(given), where)
    try:
        return made(**arguments, **given)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from error


@cache
def _parameters(made: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(made).parameters


def _check_arguments(made: type, arguments: Mapping[str, Any], given: set[str], where: str) -> None:
    parameters = {
        name: parameter
        for name, parameter in _parameters(made).items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and name not in given
    }
    for name in arguments:
        if name not in parameters:
            raise UsageError(f"{where}: {unknown('parameter', name, parameters)}")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in arguments]
    if missing:
        raise UsageError(f"{where}: missing parameter {', '.join(missing)}; it takes {', '.join(parameters)}")


def _value(value: object, group: str, where: str, trusted: Sequence[str]) -> object:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, group, where, trusted, is_part=True)
        return {key: _value(item, group, f"{where}.{key}", trusted) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_value(item, group, f"{where}[{index}]", trusted) for index, item in enumerate(value))
    return value


def class_of(target: str, where: str, trusted: Sequence[str]) -> type:
    """The class of a dotted name that was checked.

    Raises:
        UsageError: it cannot be imported, or is no class.
    """
    module_name, _, class_name = target.rpartition(".")
    if trusted and "" not in sys.path and str(Path.cwd()) not in sys.path:
        # The `kvbench` script, unlike `python -m kvbench`, does not look in the working directory.
        sys.path.append(str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # a package of the user's may do anything when it is imported
        is_told = isinstance(error, ImportError | AttributeError)
        why = str(error) if is_told else f"{type(error).__name__}: {error}"
        raise UsageError(f"{where}: _target_ {target!r} cannot be imported: {why}") from error
    if not isinstance(made, type):
        raise UsageError(f"{where}: _target_ {target!r} is no class")
    return made

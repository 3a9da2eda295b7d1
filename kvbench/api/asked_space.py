"""From what a search is asked to what it is over: lists and ranges of keys, and parameters' own ranges."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from kvbench.api.basis import PARALLEL, STRATEGY, Basis
from kvbench.configuration.catalogue import own_settings
from kvbench.configuration.composed import named_strategies
from kvbench.configuration.engine import DEGREES
from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.targets import MOVED, class_of, target_of
from kvbench.decide.space import Dimension, Space
from kvbench.messages import unknown
from kvbench.tried import Tried, Value, tried_of

MACHINE, ENGINE = "hardware", "engine"
LISTED = (MACHINE, "model", ENGINE)
"""Groups of which several may be named."""
RANGE = {"low", "high", "log"}
WORKLOAD = ("scenario", "seed", "backend.repeats", "backend.rate_scale", "backend.keep", "backend.replays")
"""What is served, and how it is looked at: the same for all that is searched."""
SIZES = (PARALLEL, "backend.replicas")
"""How many accelerators there are."""


def asked_of(
    name: str,
    groups: Mapping[str, Any],
    strategies: object,
    settings: Mapping[str, Any],
    search: Iterable[str],
    trusted: tuple[str, ...],
) -> tuple[Basis, Space]:
    """What is the same for all deployments, and what is searched.

    Args:
        name: of the scenario.
        groups: by group what is chosen; of hardware, model and engine a list where several are tried; and by "parallel"
            degrees, a list where several are.
        strategies: as in `run`, one tried after another.
        settings: further keys: a value, a list of choices, or a range: {"low": 1, "high": 2, "log": False}.
        search: nodes or keys whose own ranges are searched.
        trusted: packages that names may come from.
    Raises:
        UsageError: something of it cannot be searched, or there is nothing to search.
    """
    own = own_settings()
    choices = {"strategy": named_strategies(own["fleet_strategies"] if strategies is None else strategies)}
    fixed = {group: chosen for group, chosen in groups.items() if chosen is not None}
    if fixed.get(MACHINE) is None:
        raise UsageError("a search serves on machines: name one or more, such as hardware=[h100,l40s]")
    for group in LISTED:
        if isinstance(fixed.get(group), list | tuple) or group == MACHINE:
            given = fixed.pop(group)
            choices[group] = _labelled(group, given if isinstance(given, list | tuple) else [given])
    degrees = _degrees(fixed.pop("parallel", None))
    keys = {f"{PARALLEL}{degree}": value for degree, value in degrees.items()} | dict(settings)
    several = {key: tried for key, value in keys.items() if (tried := _tried(key, value)) is not None}
    alone = {key: value for key, value in keys.items() if key not in several}
    fixed["parallel"] = {key.removeprefix(PARALLEL): alone.pop(key) for key in list(alone) if key.startswith(PARALLEL)}
    basis = Basis(name=name, groups=fixed, choices=choices, settings=alone, trusted=trusted)
    for key in alone:
        _check_strategy(key, choices["strategy"])
    dimensions = [_choice(group, choices[group]) for group in (*LISTED, "strategy") if group in choices]
    classes = _classes(basis, dimensions)
    declared = {key: tried for key, tried in _searched(classes, search) if key not in keys}
    dimensions += [_dimension(key, tried, dimensions, classes) for key, tried in (several | declared).items()]
    with refusing():
        space = Space(tuple(dimensions))
    if space.size == 1:
        raise UsageError(
            "there is one deployment, and nothing to search: name several, such as hardware=[h100,l40s] or "
            "parallel.tensor=[1,2], or whose ranges are searched, such as search=[strategy,engine]"
        )
    return basis, space


def _labelled(group: str, given: Sequence[Any]) -> dict[str, Any]:
    """What is chosen, by what it is called."""
    found: dict[str, Any] = {}
    for each in given:
        label = each if isinstance(each, str) else str(each) if isinstance(each, Path) else getattr(each, "name", "")
        if not label or not isinstance(label, str):
            raise UsageError(f"{group}: several are names, files or objects that have a name; got {each!r}")
        if label in found:
            raise UsageError(f"{group}: {label!r} stands twice")
        found[label] = each
    if not found:
        raise UsageError(f"{group} is a list without a name in it")
    return found


def _choice(group: str, choices: Mapping[str, Any]) -> Dimension:
    if not choices:
        raise UsageError(f"{group} is a list without a name in it")
    return Dimension(key=group, tried=Tried(choices=tuple(choices)))


def _degrees(given: object) -> Mapping[str, Any]:
    found = given if isinstance(given, Mapping) else {} if given is None else vars(given)
    for degree in found:
        if degree not in DEGREES:
            raise UsageError(f"parallel: {unknown('degree', degree, DEGREES)}")
    return found


def _tried(key: str, value: Any) -> Tried | None:
    """What is tried of a key; None where it has one value."""
    if isinstance(value, list | tuple):
        if not value:
            raise UsageError(f"{key} is a list without a value in it")
        if not all(isinstance(each, Value | None) for each in value):
            raise UsageError(f"{key} is a list of numbers, words, true, false or null; got {list(value)!r}")
        found = Tried(choices=tuple(value))
    elif isinstance(value, Mapping) and {"low", "high"} <= set(value) <= RANGE:
        with refusing(f"{key}: "):
            found = Tried(**value)
    else:
        return None
    for each in WORKLOAD:
        if key == each or key.startswith(f"{each}."):
            raise UsageError(f"{key} is of what is served, not of a deployment: a search takes one value")
    return found


def _classes(basis: Basis, dimensions: Sequence[Dimension]) -> dict[str, dict[str, type]]:
    """The class of each strategy and engine that may be chosen, by node and by what it is chosen as.

    Raises:
        UsageError: one cannot be composed.
    """
    first = {each.key: each.tried.choices[0] for each in dimensions}
    found: dict[str, dict[str, type]] = {}
    for label in map(str, basis.choices["strategy"]):
        node = basis.composed({**first, "strategy": label})["strategy"][label]
        found[f"{STRATEGY}{label}"] = {label: _class_of(node, f"{STRATEGY}{label}", basis.trusted)}
    for label in map(str, basis.choices.get(ENGINE, {"": None})):
        node = basis.composed({**first, ENGINE: label} if label else first)[ENGINE]
        if node is not None:
            found.setdefault(ENGINE, {})[label] = _class_of(node, ENGINE, basis.trusted)
    return found


def _class_of(node: Any, where: str, trusted: tuple[str, ...]) -> type:
    if not isinstance(node, Mapping):
        return type(node)
    target = target_of(node)
    return class_of(MOVED.get(target, target), where, trusted)


def _searched(classes: Mapping[str, Mapping[str, type]], search: Iterable[str]) -> Iterator[tuple[str, Tried]]:
    """Keys whose own ranges are searched.

    Raises:
        UsageError: a name is none of a node, or of a parameter that has a range.
    """
    declared = {
        f"{node}.{name}": _with_default(made, name, tried)
        for node, chosen in classes.items()
        for made in chosen.values()
        for name, tried in tried_of(made).items()
    }
    nodes = {"strategy", ENGINE, *classes}
    for name in search:
        if name not in nodes and name not in declared:
            raise UsageError(f"search: {unknown('key with a range', name, {*nodes, *declared})}")
        if name == ENGINE and ENGINE not in classes:
            raise UsageError("search=[engine]: no engine is chosen; name one, such as engine=vllm")
        yield from ((key, tried) for key, tried in declared.items() if key == name or key.startswith(f"{name}."))


def _with_default(made: type, name: str, tried: Tried) -> Tried:
    """Choices with what it is where nobody says."""
    default = signature(made).parameters[name].default
    return tried if not tried.choices or default in tried else Tried(choices=(default, *tried.choices))


def _dimension(
    key: str, tried: Tried, groups: Sequence[Dimension], classes: Mapping[str, Mapping[str, type]]
) -> Dimension:
    """A key with what it depends on: the strategy whose it is, or the engines that have it.

    Raises:
        UsageError: it is of a strategy that is not chosen.
    """
    chosen = {each.key: each.tried.choices for each in groups}
    with refusing():
        if key.startswith(STRATEGY):
            _check_strategy(key, map(str, chosen["strategy"]))
            return Dimension(key=key, tried=tried, of="strategy", at=(key.split(".")[1],))
        if key.startswith(f"{ENGINE}.") and ENGINE in chosen:
            name = key.removeprefix(f"{ENGINE}.")
            at = tuple(label for label, made in classes.get(ENGINE, {}).items() if hasattr(made, name))
            return Dimension(key=key, tried=tried, of=ENGINE, at=at)
        return Dimension(key=key, tried=tried)


def _check_strategy(key: str, chosen: Iterable[str]) -> None:
    """Refuse a key of a strategy that is not chosen.

    Raises:
        UsageError: so it is.
    """
    names = list(chosen)
    if key.startswith(STRATEGY) and key.split(".")[1] not in names:
        raise UsageError(f"{key}: {unknown('strategy', key.split('.')[1], names)}")


def size_keys(space: Space) -> list[Dimension]:
    """Dimensions that say how many accelerators there are."""
    return [each for each in space.dimensions if each.key.startswith(SIZES)]

"""A configuration from names, objects and settings, as the command line composes it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from kvbench.backend.choice import BackendChoice
from kvbench.configuration.catalogue import GROUPS, implied, names, own_node, own_settings
from kvbench.configuration.chosen import compared
from kvbench.configuration.engine import degrees
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import keys_of
from kvbench.configuration.published import MODEL_TYPE, is_file
from kvbench.configuration.references import filled_in
from kvbench.configuration.rules import NAME_OR_PATH, PROBE, QUALITY, check_beside_experiment, check_name_or_path
from kvbench.configuration.vet import vet_file
from kvbench.engine.base import Engine
from kvbench.messages import unknown, unknown_key
from kvbench.model.geometry import KVGeometry
from kvbench.model.model import Model
from kvbench.strategy.base import Strategy

NULLABLE = ("hardware", "engine")
"""Groups that are there, as null, where nothing of them is chosen."""
DEFAULTS = {"scenario": None, "experiment": None, "model": "article", "backend": "measured", **dict.fromkeys(NULLABLE)}
OF_HYDRA = ("defaults", "hydra")
OF_CALLS = (*GROUPS, "parallel", "trusted")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def composed(
    chosen: Mapping[str, Any],
    strategies: object = None,
    settings: Mapping[str, Any] | None = None,
    trusted: Sequence[str] = (),
) -> dict[str, Any]:
    """The configuration of a run or an experiment.

    Args:
        chosen: by group (scenario or experiment, model, backend, hardware, engine) a name, the path of a YAML file, a
            mapping of such a file's keys, or an object; and by "parallel" degrees. None is the default.
        strategies: names and strategies, or a mapping that names them; None: those compared by default.
        settings: further keys, as the command line sets them, such as `backend.memory_fraction`.
        trusted: packages that names may come from.
    Raises:
        UsageError: a name is unknown, a file is broken, or a key does not exist.
    """
    config = own_settings()
    config = {key: value for key, value in config.items() if key not in OF_HYDRA} | {"trusted": list(trusted)}
    common, of_model = config.pop("scenario"), config.pop("model")
    config["parallel"] |= degrees(chosen.get("parallel"))
    wanted = {group: name for group, name in chosen.items() if name is not None and group != "parallel"}
    for group, name in (DEFAULTS | wanted | implied(wanted)).items():
        if name is not None or group in NULLABLE:
            config[group] = None if name is None else _node(group, name, trusted)
    if isinstance(config.get("scenario"), dict):
        config["scenario"] = common | config["scenario"]
    if isinstance(config["model"], dict):
        config["model"] = of_model | config["model"]
    elif not isinstance(config["model"], Model):
        raise UsageError(
            f"model is a name, a config.json, its folder, a YAML file, a shape or its keys, got {config['model']!r}"
        )
    if not isinstance(config.get("experiment", {}), dict):
        raise UsageError(f"experiment is a name, a YAML file or its keys, got {config['experiment']!r}")
    if not isinstance(config["backend"], Mapping | BackendChoice):
        raise UsageError(f"backend is measured, modelled or fleet, or the keys of one, got {config['backend']!r}")
    if not isinstance(config["engine"], Mapping | Engine | None):
        raise UsageError(f"engine is vllm, sglang, trtllm or ideal, or the keys of one, got {config['engine']!r}")
    settings = _checked(settings or {}, config)
    config["strategy"] = _strategies(strategies, config | settings, trusted)
    for key, value in settings.items():
        _set(config, key, value)
    return filled_in(config)


def _checked(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The further keys, those with a path as the command line has it: in words.

    Raises:
        UsageError: one is an argument of its own, or does not go with what was chosen.
    """
    for key in settings:
        if key in OF_CALLS:
            raise UsageError(f"{key} is no setting: it is chosen by an argument of its own")
    settings = {PROBE if key == QUALITY else key: value for key, value in settings.items()}
    if "experiment" in config:
        check_beside_experiment(settings)
    found = {key: str(value) if isinstance(value, PathLike) else value for key, value in settings.items()}
    check_name_or_path(found.get(NAME_OR_PATH), config)
    return found


def _node(group: str, chosen: object, trusted: Sequence[str]) -> Any:
    """What a name, a path or keys stand for; an object stands for itself."""
    if isinstance(chosen, Path) or (isinstance(chosen, str) and is_file(group, chosen)):
        node, bases = vet_file(Path(chosen).expanduser(), group, tuple(trusted))
        under: dict[str, Any] = {}
        for base in bases:
            under |= _node(group, base, trusted)
        return under | {key: value for key, value in node.items() if key != "defaults"}
    if isinstance(chosen, str):
        if chosen not in names(group):
            raise UsageError(unknown(group, chosen, names(group)))
        return own_node(group, chosen)
    if isinstance(chosen, KVGeometry):
        return keys_of(chosen)
    if group == "model" and isinstance(chosen, Mapping) and MODEL_TYPE in chosen:
        return {"config": dict(chosen)}
    return dict(chosen) if isinstance(chosen, Mapping) else chosen


def _strategies(given: Any, config: Mapping[str, Any], trusted: Sequence[str]) -> dict[str, Any]:
    """Nodes and strategies by name."""
    if "experiment" in config:
        if given is not None:
            raise UsageError("an experiment has strategies of its own: set experiment.strategies.NAME.…")
        return {}
    named = named_strategies(compared(config) if given is None else given)
    return {name: _node("strategy", each, trusted) for name, each in named.items()}


def named_strategies(given: Any) -> dict[str, Any]:
    """Strategies, or what stands for them, by name.

    Args:
        given: names and strategies, one of either, or a mapping that names them.
    Raises:
        UsageError: it is something else, or two have one name.
    """
    if isinstance(given, str | Strategy):
        given = [given]
    if isinstance(given, Mapping):
        return {str(name): each for name, each in given.items()}
    if not isinstance(given, Iterable):
        raise UsageError(f"strategies are names and strategies, or a mapping that names them, got {given!r}")
    found: dict[str, Any] = {}
    for each in given:
        name = Path(each).stem if isinstance(each, str) else _WORDS.sub("_", type(each).__name__).lower()
        if name in found:
            raise UsageError(f"two strategies are called {name}: name them, as {{'first': …, 'second': …}}")
        found[name] = each
    return found


def _set(config: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key that exists."""
    *path, last = key.split(".")
    node: object = config
    for number, part in enumerate([*path, last]):
        if not isinstance(node, dict):
            raise UsageError(f"{key}: {'.'.join(path[:number])} is an object; give it what it needs where it is made")
        if part not in node and not number:
            raise UsageError(f"{key}: {unknown_key(part, config)}")
        if part not in node:
            kind = f"parameter of {'.'.join(path[:number])}"
            raise UsageError(f"{key}: {unknown(kind, part, [name for name in node if name != '_target_'])}")
        if number < len(path):
            node = node[part]
    node[last] = value  # type: ignore[index]

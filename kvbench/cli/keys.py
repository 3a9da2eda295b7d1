"""Every key that the command line sets is one that the configuration has, or the nearest one is named."""

import re
from itertools import product
from typing import Any, cast

from hydra import compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kvbench.cli.command_line import CommandLine, line_of
from kvbench.cli.source import initialized
from kvbench.configuration.catalogue import GROUPS, names
from kvbench.configuration.errors import UsageError, cause
from kvbench.configuration.rules import NAME_OR_PATH, check_name_or_path
from kvbench.messages import unknown, unknown_key

OPEN_PATH = re.compile(r"experiment\.\w*strategies\.")
OPEN_NODES = ("strategy", "scenario")
"""Nodes to which `+` may add: an instance, or a parameter that its class then accepts or refuses."""


def check_keys(command: CommandLine) -> None:
    """Check keys against the configuration of the run; in a sweep, against that of every choice that they depend on.

    Raises:
        UsageError: a key does not exist.
    """
    groups = [override for override in command.overrides if override.key_or_group in GROUPS]
    others = [override for override in command.overrides if override not in groups and not is_of_hydra(override)]
    alternatives = [_alternatives(group, others, command) for group in groups]
    for combination in product(*alternatives):
        config = compose_config(list(combination))
        _check_targets(config)
        for override in others:
            _check_key(override, config)


def _alternatives(group: Override, others: list[Override], command: CommandLine) -> list[str]:
    """A group's override, one a choice of a sweep; the first alone where no key depends on it."""
    if not group.is_sweep_override():
        return [line_of(group)]
    items = getattr(group._value, "list", None) or command.choices(group.key_or_group)
    head = line_of(group).partition("=")[0]
    lines = [f"{head}=[{','.join(map(str, item))}]" if isinstance(item, list) else f"{head}={item}" for item in items]
    if not lines:
        raise UsageError(
            f"{group.input_line} matches nothing; there are: {', '.join(command.files.names(group.key_or_group))}"
        )
    depends = any(other.key_or_group.startswith(f"{group.key_or_group}.") for other in others)
    return lines if depends else lines[:1]


def _check_key(override: Override, config: DictConfig) -> None:
    key = override.key_or_group
    root = key.split(".")[0]
    if root not in config and root not in GROUPS:
        raise UsageError(unknown_key(key, plain(config, resolve=False), GROUPS))
    if root not in config:
        raise UsageError(f"{key}: no {root} is chosen; there are: {', '.join(names(root))}")
    adds = override.is_add() or override.is_force_add()
    if not (adds and (root in OPEN_NODES or OPEN_PATH.match(key))):
        _check_path(config, key)
    if key == NAME_OR_PATH:
        swept = override.is_sweep_override()
        check_name_or_path(line_of(override).partition("=")[2] if swept else override.value(), config)


def is_of_hydra(override: Override) -> bool:
    """Whether an override is of Hydra's own settings."""
    return re.split("[./]", override.key_or_group)[0] == "hydra"


def compose_config(overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    """The configuration of one job.

    Args:
        overrides: as on the command line, canonical.
        with_hydra: whether Hydra's own settings are in it.
    Raises:
        UsageError: it cannot be composed.
    """
    try:
        with initialized():
            return compose("config", overrides, return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(f"the configuration cannot be composed: {cause(error)}") from error


def composed(command: CommandLine) -> dict[str, Any]:
    """The configuration of one job, plain and resolved, for a verb that needs no run.

    Raises:
        UsageError: it cannot be composed.
    """
    overrides = [line_of(o) for o in command.overrides if not o.key_or_group.startswith("hydra.")]
    return plain(compose_config(overrides))


def plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """A configuration as plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=resolve))


def _keys(config: DictConfig) -> list[str]:
    return [str(key) for key in config]


def _check_targets(config: DictConfig) -> None:
    """Refuse targets outside the groups, where nothing would look at whose they are."""
    for key, value in plain(config, resolve=False).items():
        if key not in GROUPS and _holds_target(value):
            raise UsageError(f"{key}: no _target_ may stand here")


def _holds_target(value: object) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(map(_holds_target, value.values()))
    return isinstance(value, list) and any(map(_holds_target, value))


def _check_path(config: DictConfig, key: str) -> None:
    """Walk a dotted key down the configuration; name the nearest where it ends."""
    node: Node | None = config
    walked: list[str] = []
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return
        if part not in node:
            where = ".".join(walked)
            kind = f"parameter of {where}" if walked else "key"
            raise UsageError(f"{key}: {unknown(kind, part, [k for k in _keys(node) if k != '_target_'])}")
        walked.append(part)
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)

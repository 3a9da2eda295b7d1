"""Every key that the command line sets is one that the configuration has, or the nearest one is named."""

from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kvbench.cli.catalogue import GROUPS
from kvbench.cli.command_line import CommandLine
from kvbench.cli.errors import UsageError
from kvbench.naming import unknown

CONFIG_MODULE = "kvbench.conf"
VERSION_BASE = "1.3"
OPEN_NODES = ("strategy", "scenario")
"""Nodes to which `+` may add: an instance, or a parameter that its class then accepts or refuses."""


def check_keys(command: CommandLine) -> None:
    """Check keys against the configuration of the run (of a sweep's first choices).

    Raises:
        UsageError: a key does not exist.
    """
    groups = [o for o in command.overrides if o.key_or_group in GROUPS]
    config = _composed([_first(override, command) for override in groups], command.folders)
    for override in command.overrides:
        key = override.key_or_group
        if override in groups or key.partition(".")[0].partition("/")[0] == "hydra":
            continue
        root = key.split(".")[0]
        if root not in config and root not in GROUPS:
            raise UsageError(unknown("key", key, [*(str(k) for k in config), *GROUPS]))
        if override.is_add() or override.is_force_add():
            if root not in OPEN_NODES:
                raise UsageError(unknown("key", key, _keys(config)))
        else:
            _check_path(config, key)


def _first(override: Override, command: CommandLine) -> str:
    """A group's override, with the first of a sweep's choices."""
    if not override.is_sweep_override():
        return override.input_line
    chosen = override._value.list[0] if hasattr(override._value, "list") else None
    name = chosen if chosen is not None else command.choices(override.key_or_group)[0]
    value = f"[{','.join(map(str, name))}]" if isinstance(name, list) else name
    return f"{override.input_line.partition('=')[0]}={value}"


def _composed(overrides: list[str], folders: tuple[Path, ...]) -> DictConfig:
    search = [f"hydra.searchpath=[{','.join(f'file://{folder.resolve()}' for folder in folders)}]"] if folders else []
    try:
        with initialize_config_module(CONFIG_MODULE, version_base=VERSION_BASE):
            return compose("config", [*overrides, *search])
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(f"the configuration cannot be composed: {' '.join(str(error).split())}") from error


def composed(command: CommandLine) -> dict[str, object]:
    """The configuration of one job, plain and resolved, for a verb that needs no run.

    Raises:
        UsageError: it cannot be composed.
    """
    overrides = [o.input_line for o in command.overrides if not o.key_or_group.startswith("hydra.")]
    return OmegaConf.to_container(_composed(overrides, command.folders), resolve=True)


def _keys(config: DictConfig) -> list[str]:
    return [str(key) for key in config]


def _check_path(config: DictConfig, key: str) -> None:
    """Walk a dotted key down the configuration; name the nearest where it ends."""
    node, walked = config, []
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return
        if part not in node:
            where = ".".join(walked)
            kind = f"parameter of {where}" if walked else "key"
            raise UsageError(f"{key}: {unknown(kind, part, [k for k in _keys(node) if k != '_target_'])}")
        walked.append(part)
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)

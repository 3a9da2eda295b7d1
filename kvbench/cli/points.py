"""From a command line that sweeps to the manifest of its points: composed once a choice of a group, not a point."""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kvbench.cli.asked import Asked, again
from kvbench.cli.command_line import ADDED, CommandLine, line_of
from kvbench.cli.folder import RUN, SWEEP
from kvbench.cli.keys import compose_config, is_of_hydra, plain
from kvbench.configuration.catalogue import GROUPS, own_settings
from kvbench.configuration.errors import UsageError, cause
from kvbench.configuration.references import is_plain
from kvbench.configuration.targets import target_of
from kvbench.decide.manifest import MOST_POINTS, Axis, Manifest, this_machine

MEASURED = "kvbench.backend.measured.Measured"
LAUNCHED = "hydra/launcher=basic runs each point of such a sweep as a job of its own"


def has_manifest(command: CommandLine) -> bool:
    """Whether a sweep's points go into a manifest: nothing asks for Hydra's own launchers, sweepers or folders."""
    asked = {override.key_or_group for override in command.overrides if is_of_hydra(override)}
    return command.is_multirun and asked <= {SWEEP, RUN}


def manifest_of(command: CommandLine, asked: Asked) -> Manifest:
    """The manifest of a sweep, checked as its command line was.

    Raises:
        UsageError: its configuration cannot be composed, or it has too many points.
    """
    own = [override for override in command.overrides if not is_of_hydra(override)]
    swept = [override for override in own if override.is_sweep_override()]
    fixed = [line_of(override) for override in own if not override.is_sweep_override()]
    lines = [_lines(override, command) for override in swept]
    base = [each[0] for override, each in zip(swept, lines, strict=True) if override.key_or_group in GROUPS]
    configuration = _composed([*fixed, *base])
    axes = [_axis(override, each, fixed, base, configuration) for override, each in zip(swept, lines, strict=True)]
    configuration["trusted"] = list(command.trusted)
    named = [command.choices(group) for group in ADDED]
    record = asked.record([])
    made = Manifest(
        name=next((names[0] for names in named if len(names) == 1), ""),
        axes=tuple(axes),
        configuration=configuration,
        overrides=tuple(fixed),
        given=tuple(map(line_of, own)),
        are_default=not any(override.key_or_group == "strategy" and not override.package for override in own),
        asked={key: value for key, value in record.items() if key not in ("overrides", "again")}
        | {"again": again(record["working_directory"], record["arguments"])},
        machine=this_machine() if _measures(configuration, axes) else None,
    )
    if len(made) > MOST_POINTS:
        raise UsageError(f"the sweep has {len(made):,} points; at most {MOST_POINTS:,}")
    return made


def _lines(override: Override, command: CommandLine) -> tuple[str, ...]:
    """The overrides of a sweep over one key, a line a value.

    Raises:
        UsageError: it is none that can be counted.
    """
    key, value = override.get_key_element(), override._value
    try:
        if isinstance(value, Glob):
            texts: Iterator[str] = iter(value.filter(command.files.names(override.key_or_group)))
        else:
            texts = override.sweep_string_iterator()
        lines = tuple(f"{key}={text}" for text in texts)
    except HydraException as error:
        raise UsageError(f"{override.input_line}: {cause(error)}") from error
    if not lines:
        raise UsageError(f"{override.input_line} names no value")
    return lines


def _axis(
    override: Override, lines: tuple[str, ...], fixed: Sequence[str], base: Sequence[str], common: dict[str, Any]
) -> Axis:
    """What a sweep over one key sets: values; or of a group what stands there in the composition of each choice."""
    key = override.key_or_group
    if key not in GROUPS:
        parsed = OverridesParser.create().parse_overrides(list(lines))
        return Axis(key=key, lines=lines, values=tuple(_value(each.value()) for each in parsed))
    others = [line for line in base if line != lines[0]]
    if len([line for line in base if _group(line) == key]) > 1:
        raise UsageError(f"{override.input_line}: a sweep is over one choice of {key}; {LAUNCHED}")
    nodes = [common[key], *(_composed([*fixed, *others, line])[key] for line in lines[1:])]
    return Axis(key=key, lines=lines, values=tuple(nodes), is_group=True)


def _group(line: str) -> str:
    return line.lstrip("+").partition("=")[0].partition("@")[0]


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with what refers to other keys as it is said; what refers to anything else, as it is now."""
    config = compose_config(list(overrides))
    own = own_settings()
    found = plain(config, resolve=False)
    return {key: value if value == own.get(key) else _called(value, config, key) for key, value in found.items()}


def _called(value: Any, config: DictConfig, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _called(each, config, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, list):
        return [_called(each, config, f"{where}[{number}]") for number, each in enumerate(value)]
    if not isinstance(value, str) or is_plain(value):
        return value
    try:
        return OmegaConf.select(config, where)
    except OmegaConfBaseException as error:
        raise UsageError(f"{where}: {cause(error)}") from error


def _value(value: Any) -> Any:
    """A swept value; what it calls is called now."""
    config = OmegaConf.create({"value": value})
    return _called(plain(config, resolve=False)["value"], config, "value")


def _measures(configuration: dict[str, Any], axes: Sequence[Axis]) -> bool:
    """Whether times of this machine are among what the sweep finds."""
    backends = [configuration["backend"], *(value for axis in axes if axis.key == "backend" for value in axis.values)]
    return any(target_of(backend) == MEASURED for backend in backends)

"""The arguments of a run: read, made canonical, and checked before Hydra starts."""

import contextlib
import os
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import OverrideParseException

from kvbench.cli.arguments import unbracketed
from kvbench.cli.files import Files, checked_folders, vet_choice
from kvbench.cli.help import unknown_verb
from kvbench.configuration.catalogue import GROUPS, default_strategies, implied
from kvbench.configuration.errors import UsageError
from kvbench.configuration.published import is_file
from kvbench.configuration.rules import PROBE, QUALITY, check_beside_experiment

REFUSED = {
    "experimental_rerun": "it unpickles a file",
    "config_path": "kvbench has one primary configuration; --config-dir adds groups to it",
    "config_name": "kvbench has one primary configuration; --config-dir adds groups to it",
    "shell_completion": "kvbench has none",
    "help": "an abbreviation may mean another flag; write --help in full",
}
SWITCHES = ("run", "multirun", "resolve", "hydra_help")
VALUES = ("cfg", "package", "info")


def parsed_arguments(arguments: list[str]) -> Namespace:
    """Flags and overrides, in any order.

    Raises:
        UsageError: a flag is unknown, wants a value, or is refused.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]  # what it says is said as other refusals are
    parsed = parser.parse_intermixed_args(arguments)
    for flag, why in REFUSED.items():
        if getattr(parsed, flag) not in (None, False):
            raise UsageError(f"--{flag.replace('_', '-')} is refused: {why}")
    modes = [name for name in ("run", "multirun", "cfg", "info") if getattr(parsed, name) not in (None, False)]
    if len(modes) > 1:
        raise UsageError(f"--{' and --'.join(modes)} do not go together")
    for name in ("resolve", "package"):
        if getattr(parsed, name) not in (None, False) and parsed.cfg is None:
            raise UsageError(f"--{name} is said of what --cfg prints: give --cfg=job beside it")
    return parsed


def flags_of(parsed: Namespace) -> Iterator[str]:
    """The flags that Hydra gets."""
    for name in SWITCHES:
        if getattr(parsed, name):
            yield f"--{name.replace('_', '-')}"
    for name in VALUES:
        if getattr(parsed, name) is not None:
            yield f"--{name}={getattr(parsed, name)}"


def _refuse(message: str) -> NoReturn:
    raise UsageError(f"{message}\n  python -m kvbench --help tells what can be given")


ADDED = ("scenario", "experiment")
"""Groups that the defaults lack, so that Hydra wants a plus before them."""

FROM_FILES = ("scenario", "hardware", "model")
"""Groups of which a file of the user's may be given."""

WORKERS = "workers="
SEARCH_PATH = "hydra.searchpath"
HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra/launcher", "hydra/sweeper")
HYDRA_NODES = ("hydra.launcher.", "hydra.sweeper.")


@dataclass(frozen=True)
class CommandLine:
    """A run's arguments, parsed.

    Args:
        flags: what is no override.
        overrides: parsed overrides, canonical.
        files: the configuration files that they may choose.
        is_multirun: whether a sweep was asked for.
        workers: processes that run a sweep's points; 0: none, so that others may; None where it was not said.
    """

    flags: tuple[str, ...]
    overrides: tuple[Override, ...]
    files: Files
    is_multirun: bool
    workers: int | None = None

    @property
    def trusted(self) -> tuple[str, ...]:
        """Packages that the user admits."""
        return trusted_packages(self.overrides)

    def choices(self, group: str) -> list[str]:
        """Every name that the command line chooses of a group, over all jobs of a sweep."""
        chosen: list[str] = []
        for override in self.overrides:
            if override.key_or_group == group and not override.is_delete():
                chosen.extend(_chosen(override, self.files.names(group)))
        return chosen

    def argv(self) -> list[str]:
        """The arguments for Hydra."""
        return [*self.flags, *map(line_of, self.overrides)]


def line_of(override: Override) -> str:
    """An override as it was given."""
    return override.input_line or ""


def trusted_packages(overrides: Iterable[Override]) -> tuple[str, ...]:
    """Packages that `trusted=[…]` names; only the command line can.

    Raises:
        UsageError: it is no list of names.
    """
    for override in overrides:
        if override.key_or_group == "trusted":
            value = None if override.is_delete() or override.is_sweep_override() else override.value()
            if not isinstance(value, list):
                raise UsageError(
                    f"trusted is a list of packages, such as trusted=[mypackage]; got {override.input_line!r}"
                )
            return tuple(_text(item) for item in value)
    return ()


def _chosen(override: Override, existing: list[str]) -> Iterator[str]:
    value = override._value
    for item in value.list if isinstance(value, ChoiceSweep) else [value]:
        if isinstance(item, Glob):
            yield from (name for name in existing if _matches(name, item))
        elif isinstance(item, list):
            yield from (_text(name) for name in item)
        else:
            yield _text(item)


def _text(item: object) -> str:
    """A value's text, without quotes."""
    return item.text if isinstance(item, QuotedString) else str(item)


def _matches(name: str, glob: Glob) -> bool:
    return any(fnmatch(name, p) for p in glob.include) and not any(fnmatch(name, p) for p in glob.exclude)


@contextlib.contextmanager
def read(arguments: list[str]) -> Iterator[CommandLine]:
    """Parse the arguments of a run; files that are admitted by `check` can be found by Hydra while the context lasts.

    Raises:
        UsageError: what is wrong with them.
    """
    parsed = parsed_arguments(arguments)
    single: dict[tuple[str, str], Path] = {}
    parsed.overrides, workers = _without_workers(parsed.overrides, parsed.multirun)
    overrides = _parse([_canonical(line, Files(single=single)) for line in parsed.overrides])
    folders = [Path(parsed.config_dir)] if parsed.config_dir else []
    files = Files(checked_folders([*folders, *_search_folders(overrides)]), single)
    kept = tuple(override for override in overrides if override.key_or_group != SEARCH_PATH)
    command = CommandLine(tuple(flags_of(parsed)), kept, files, parsed.multirun, workers)
    try:
        yield replace(command, overrides=(*kept, *_parse(_implied(command))))
    finally:
        files.withdraw()


def _without_workers(lines: list[str], is_multirun: bool) -> tuple[list[str], int | None]:
    """The overrides without `workers=N`, which is no part of any point's configuration; and N, where it is said."""
    said = [line.removeprefix(WORKERS) for line in lines if line.startswith(WORKERS)]
    if said and not is_multirun:
        raise UsageError(f"{WORKERS}{said[-1]} is of a sweep: add -m")
    if said and not (said[-1].isascii() and said[-1].isdecimal()):
        raise UsageError(f"workers is a whole number of processes (0: none here), got {said[-1]!r}")
    return [line for line in lines if not line.startswith(WORKERS)], int(said[-1]) if said else None


def _implied(command: CommandLine) -> list[str]:
    """The choices that are meant and not said."""
    names = {group: command.choices(group) for group in GROUPS}
    chosen = [group for group, given in names.items() if given and str(None) not in given]
    return [f"{group}={name}" for group, name in implied(chosen).items()]


def _parse(lines: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    overrides = []
    for line in lines:
        if line[:1].isalpha() and "=" not in line:
            raise UsageError(unknown_verb([line]))
        try:
            overrides.extend(parser.parse_overrides([line]))
        except (OverrideParseException, ValueError, RecursionError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"cannot read {line!r}: {why}\n  expected key=value; quote what has special characters"
            ) from error
    return overrides


def _canonical(line: str, files: Files) -> str:
    """`scenario=x` as `+scenario=x`, `+hardware=[x,y]` as `hardware=x,y`, a user's file as a name for Hydra."""
    key, equals, value = line.partition("=")
    if equals and key == QUALITY:
        return f"{PROBE}={value}"
    group = key.lstrip("+")
    if not equals or group not in (*ADDED, *FROM_FILES):
        return line
    if group == "hardware":
        value = unbracketed(value)
    if group in FROM_FILES:
        value = ",".join(_with_names(group, value.split(","), files))
    return f"{'+' if group in ADDED else ''}{group}={value}"


def _with_names(group: str, parts: list[str], files: Files) -> Iterator[str]:
    """What commas separate, with a name for each file; a file's name may have commas in it."""
    while parts:
        for number in [number for number, part in enumerate(parts, start=1) if is_file(group, _unquoted(part))]:
            path = Path(_unquoted(",".join(parts[:number])))
            if number == 1 or os.path.exists(path.expanduser()):
                yield files.name_for(group, path)
                del parts[:number]
                break
        else:
            yield parts.pop(0)


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'")


def _search_folders(overrides: list[Override]) -> list[Path]:
    found = []
    for override in overrides:
        if override.key_or_group == SEARCH_PATH:
            is_plain = not override.is_delete() and not override.is_sweep_override()
            entries = override.value() if is_plain else override.input_line
            for entry in entries if isinstance(entries, list) else [entries]:
                if not isinstance(entries, list) or not _text(entry).startswith("file://"):
                    raise UsageError(f"hydra.searchpath is a list of file://FOLDER entries, got {_text(entry)!r}")
                found.append(Path(_text(entry).removeprefix("file://")))
    return found


def check(command: CommandLine) -> None:
    """Check groups, choices and their files.

    Raises:
        UsageError: what is wrong.
    """
    for override in command.overrides:
        _check_package(override)
        _check_hydra(override)
        _check_single(override)
        if override.is_delete() and "." not in override.key_or_group:
            raise UsageError(f"{override.input_line}: a whole {override.key_or_group} cannot be taken away")
    for group in GROUPS:
        for name in [*command.choices(group), *(default_strategies() if group == "strategy" else [])]:
            vet_choice(group, name, command.files, command.trusted)
    if command.choices("experiment") and (command.choices("scenario") or command.choices("strategy")):
        raise UsageError("an experiment brings its own requests and strategies: leave +scenario and strategy out")
    if command.choices("experiment"):
        check_beside_experiment(o.key_or_group for o in command.overrides if not o.is_add())
    if not {"scenario", "experiment"} & {override.key_or_group for override in command.overrides}:
        raise UsageError(
            "what to run? Give +scenario=NAME or +experiment=NAME\n"
            f"  scenarios that exist: {', '.join(command.files.names('scenario'))}\n"
            f"  experiments that exist: {', '.join(command.files.names('experiment'))}"
        )
    if not command.is_multirun:
        for override in command.overrides:
            if override.is_sweep_override():
                raise UsageError(f"{override.input_line} gives several values: add -m to sweep over them")


def _check_single(override: Override) -> None:
    """Hydra would merge several files of a group into one; only strategies stand beside each other."""
    group, value = override.key_or_group, override._value
    if group not in GROUPS or group == "strategy":
        return
    if any(isinstance(item, list) for item in (value.list if isinstance(value, ChoiceSweep) else [value])):
        raise UsageError(
            f"{override.input_line}: one {group} is chosen, and a list names several; "
            f"-m {'+' if group in ADDED else ''}{group}=A,B sweeps over them"
        )


def _check_package(override: Override) -> None:
    if override.package is None:
        return
    prefix, _, instance = override.package.partition(".")
    if override.key_or_group != "strategy" or prefix != "strategy" or not instance.isidentifier():
        raise UsageError(
            f"{override.input_line}: only a strategy takes a package, and it is strategy.NAME, got {override.package!r}"
        )


def _check_hydra(override: Override) -> None:
    """Of Hydra's own settings a run needs few, and the others can make it run code, or write elsewhere."""
    key = override.key_or_group
    if re.split("[./]", key)[0] != "hydra":
        return
    if "_target_" in line_of(override) or not (key in HYDRA_KEYS or key.startswith(HYDRA_NODES)):
        raise UsageError(
            f"{override.input_line}: callbacks and targets of Hydra's are refused, and of its settings all but "
            f"{', '.join(HYDRA_KEYS)} and the launcher's and sweeper's parameters"
        )


def results_folder(command: CommandLine) -> Path:
    """Where a run's or a sweep's results go, unless `hydra.run.dir` or `hydra.sweep.dir` says otherwise."""
    chosen = command.choices("scenario") or command.choices("experiment")
    label = chosen[0] if len(chosen) == 1 else "sweep"
    return Path("results") / label / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")

"""The arguments of a run: read, made canonical, and checked before Hydra starts."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import OverrideParseException

from kvbench.cli.catalogue import GROUPS, default_strategies, names
from kvbench.cli.errors import UsageError
from kvbench.cli.vet import vet_choice

REFUSED_FLAGS = {
    "experimental_rerun": "it unpickles a file",
    "config_path": "kvbench has one primary configuration; --config-dir adds groups to it",
    "config_name": "kvbench has one primary configuration; --config-dir adds groups to it",
}
WORDS_OF_YAML = {"null", "true", "false", "yes", "no", "on", "off", "nan", "inf"}
ADDED = ("scenario", "experiment")
"""Groups that the defaults lack, so that Hydra wants a plus before them."""

FROM_FILES = ("scenario", "hardware")
"""Groups of which a file of the user's may be given."""

PROBING = ("data", "quality", "quality_tokens", "quality_data")
"""Settings of runs of a scenario alone."""


@dataclass(frozen=True)
class CommandLine:
    """A run's arguments, parsed.

    Args:
        flags: what is no override, as given.
        overrides: parsed overrides, canonical.
        folders: further configuration folders.
        is_multirun: whether a sweep was asked for.
        shown_as: what messages call a file, where that is not its own path.
    """

    flags: tuple[str, ...]
    overrides: tuple[Override, ...]
    folders: tuple[Path, ...]
    is_multirun: bool
    shown_as: dict[Path, Path]

    @property
    def trusted(self) -> tuple[str, ...]:
        """Packages that the user admits."""
        return trusted_packages(self.overrides)

    def choices(self, group: str) -> list[str]:
        """Every name that the command line chooses of a group, over all jobs of a sweep."""
        chosen: list[str] = []
        for override in self.overrides:
            if override.key_or_group == group and not override.is_delete():
                chosen.extend(_chosen(override, names(group, self.folders)))
        return chosen

    def argv(self) -> list[str]:
        """The arguments for Hydra."""
        return [*self.flags, *(override.input_line for override in self.overrides)]


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
    """Parse the arguments of a run; a scenario file of the user's can be found by Hydra while the context lasts.

    Raises:
        UsageError: what is wrong with them.
    """
    parsed = get_args_parser().parse_args(arguments)
    for flag, why in REFUSED_FLAGS.items():
        if getattr(parsed, flag) is not None:
            raise UsageError(f"--{flag.replace('_', '-')} is refused: {why}")
    given = set(parsed.overrides)
    flags = tuple(argument for argument in arguments if argument not in given)
    with tempfile.TemporaryDirectory(prefix="kvbench-") as scratch:
        shown_as: dict[Path, Path] = {}
        overrides = _parse([_canonical(line, Path(scratch), shown_as) for line in parsed.overrides])
        folders = [Path(parsed.config_dir)] if parsed.config_dir else []
        folders.extend(_search_folders(overrides))
        if shown_as:
            others = [o for o in overrides if o.key_or_group != "hydra.searchpath"]
            overrides = [*others, *_parse(searching([*_search_folders(overrides), Path(scratch)]))]
            folders.append(Path(scratch))
        yield CommandLine(flags, tuple(overrides), tuple(folders), bool(parsed.multirun), shown_as)


def _parse(lines: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    overrides = []
    for line in lines:
        try:
            overrides.extend(parser.parse_overrides([line]))
        except OverrideParseException as error:
            why = str(error).splitlines()[0]
            raise UsageError(
                f"cannot read {line!r}: {why}\n  expected key=value; quote what has special characters"
            ) from error
    return overrides


def _canonical(line: str, scratch: Path, shown_as: dict[Path, Path]) -> str:
    """`scenario=x` as `+scenario=x`, `+hardware=x` as `hardware=x`, and a file of the user's as a name for Hydra."""
    key, equals, value = line.partition("=")
    group = key.lstrip("+")
    if not equals or group not in (*ADDED, *FROM_FILES):
        return line
    if group in FROM_FILES:
        items = [item.strip().strip("\"'") for item in value.split(",")]
        if all(item.endswith((".yaml", ".yml")) for item in items):
            value = ",".join(_take_in(group, Path(item).expanduser(), scratch, shown_as) for item in items)
    return f"{'+' if group in ADDED else ''}{group}={value}"


def _take_in(group: str, path: Path, scratch: Path, shown_as: dict[Path, Path]) -> str:
    if not path.is_file():
        raise UsageError(f"no {group} file {str(path)!r} in {Path.cwd()}")
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in path.stem)
    if not name[0].isalpha() or name.lower() in WORDS_OF_YAML:
        name = f"file_{name}"
    folder = scratch / group
    folder.mkdir(exist_ok=True)
    while name in names(group) or (folder / f"{name}.yaml").exists():
        name = f"{name}_file"  # Hydra takes kvbench's own of two files with one name.
    target = folder / f"{name}.yaml"
    shutil.copyfile(path, target)
    shown_as[target] = path
    return name


def searching(folders: Sequence[Path]) -> list[str]:
    """The override that adds configuration folders, where there are any."""
    entries = ",".join('"file://{}"'.format(str(folder).replace('"', '\\"')) for folder in folders)
    return [f"hydra.searchpath=[{entries}]"] if folders else []


def _search_folders(overrides: list[Override]) -> list[Path]:
    found = []
    for override in overrides:
        if override.key_or_group == "hydra.searchpath":
            entries = None if override.is_delete() else override.value()
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
        _check_hydra(override, command.folders)
        if override.is_delete() and "." not in override.key_or_group:
            raise UsageError(f"{override.input_line}: a whole {override.key_or_group} cannot be taken away")
    for group in GROUPS:
        for name in [*command.choices(group), *(default_strategies() if group == "strategy" else [])]:
            vet_choice(group, name, command.folders, command.trusted, command.shown_as)
    if command.choices("experiment") and (command.choices("scenario") or command.choices("strategy")):
        raise UsageError("an experiment brings its own requests and strategies: leave +scenario and strategy out")
    probing = [o.key_or_group for o in command.overrides if o.key_or_group in PROBING]
    if command.choices("experiment") and probing:
        raise UsageError(f"an experiment decides itself what it appends and probes: leave {', '.join(probing)} out")
    if not {"scenario", "experiment"} & {override.key_or_group for override in command.overrides}:
        raise UsageError(
            "what to run? Give +scenario=NAME or +experiment=NAME\n"
            f"  scenarios that exist: {', '.join(names('scenario', command.folders))}\n"
            f"  experiments that exist: {', '.join(names('experiment', command.folders))}"
        )
    if not command.is_multirun:
        for override in command.overrides:
            if override.is_sweep_override():
                raise UsageError(f"{override.input_line} gives several values: add -m to sweep over them")


def _check_package(override: Override) -> None:
    if override.package is None or override.key_or_group not in GROUPS:
        return
    prefix, _, instance = override.package.partition(".")
    if override.key_or_group != "strategy" or prefix != "strategy" or not instance.isidentifier():
        raise UsageError(
            f"{override.input_line}: only a strategy takes a package, and it is strategy.NAME, got {override.package!r}"
        )


def _check_hydra(override: Override, folders: tuple[Path, ...]) -> None:
    """Hydra's own settings may not make it run code that came with a configuration folder."""
    key = override.key_or_group
    if key.startswith(("hydra.callbacks", "hydra/callbacks")) or (
        key.startswith("hydra.") and "_target_" in override.input_line
    ):
        raise UsageError(f"{override.input_line}: callbacks and targets of Hydra's are refused")
    if key.startswith("hydra/") and not override.is_delete():
        for name in _chosen(override, []):
            if any((folder / key / f"{name}{ending}").exists() for folder in folders for ending in ("", ".yaml")):
                raise UsageError(f"{override.input_line}: {key} is taken from Hydra and its plugins only")


def results_folder(command: CommandLine) -> Path:
    """Where a run's or a sweep's results go, unless `hydra.run.dir` or `hydra.sweep.dir` says otherwise."""
    chosen = command.choices("scenario") or command.choices("experiment")
    label = chosen[0] if len(chosen) == 1 else "sweep"
    return Path("results") / label / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")

"""The arguments of a run: read, made canonical, and checked before Hydra starts."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import OverrideParseException

from kvbench.cli.catalogue import GROUPS, default_strategies, names
from kvbench.cli.errors import UsageError
from kvbench.cli.vet import vet_choice

REFUSED_FLAGS = {"--experimental-rerun": "it unpickles a file", "--config-path": "", "--config-name": ""}


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
        for override in self.overrides:
            if override.key_or_group == "trusted" and isinstance(override.value(), list):
                return tuple(str(item) for item in override.value())
        return ()

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


def _chosen(override: Override, existing: list[str]) -> Iterator[str]:
    value = override._value
    items = value.list if isinstance(value, ChoiceSweep) else [value]
    for item in items:
        if isinstance(item, Glob):
            yield from (name for name in existing if _matches(name, item))
        elif isinstance(item, list):
            yield from (str(name) for name in item)
        else:
            yield str(override.value() if item is value else item)


def _matches(name: str, glob: Glob) -> bool:
    return any(fnmatch(name, p) for p in glob.include) and not any(fnmatch(name, p) for p in glob.exclude)


@contextlib.contextmanager
def read(arguments: list[str]) -> Iterator[CommandLine]:
    """Parse the arguments of a run; a scenario file of the user's can be found by Hydra while the context lasts.

    Raises:
        UsageError: what is wrong with them.
    """
    _refuse_flags(arguments)
    parsed = get_args_parser().parse_args(arguments)
    given = set(parsed.overrides)
    flags = tuple(argument for argument in arguments if argument not in given)
    with tempfile.TemporaryDirectory(prefix="kvbench-") as scratch:
        shown_as: dict[Path, Path] = {}
        overrides = _parse([_canonical(line, Path(scratch), shown_as) for line in parsed.overrides])
        folders = [Path(parsed.config_dir)] if parsed.config_dir else []
        folders.extend(_search_folders(overrides))
        if shown_as:
            others = [o for o in overrides if o.key_or_group != "hydra.searchpath"]
            entries = ",".join(f"file://{folder}" for folder in [*_search_folders(overrides), scratch])
            overrides = [*others, *_parse([f"hydra.searchpath=[{entries}]"])]
            folders.append(Path(scratch))
        yield CommandLine(flags, tuple(overrides), tuple(folders), bool(parsed.multirun), shown_as)


def _refuse_flags(arguments: list[str]) -> None:
    for flag, why in REFUSED_FLAGS.items():
        short = {"--config-path": "-cp", "--config-name": "-cn"}.get(flag, flag)
        if any(argument.split("=")[0] in (flag, short) for argument in arguments):
            raise UsageError(
                f"{flag} is refused: {why or 'kvbench has one primary configuration; --config-dir adds groups to it'}"
            )


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
    """`scenario=x` as `+scenario=x`, and a file of the user's as a name that Hydra finds."""
    key, equals, value = line.partition("=")
    bare = key.lstrip("+")
    if not equals or bare not in ("scenario", "experiment"):
        return line
    if bare == "scenario" and value.endswith((".yaml", ".yml")) and "," not in value:
        value = _take_in(Path(value).expanduser(), scratch, shown_as)
    return f"+{bare}={value}"


def _take_in(path: Path, scratch: Path, shown_as: dict[Path, Path]) -> str:
    if not path.is_file():
        raise UsageError(f"no scenario file {str(path)!r} in {Path.cwd()}")
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in path.stem)
    if name in names("scenario"):
        name = f"{name}_file"  # Hydra takes kvbench's own of two files with one name.
    target = scratch / "scenario" / f"{name}.yaml"
    target.parent.mkdir(exist_ok=True)
    shutil.copy(path, target)
    shown_as[target] = path
    return name


def _search_folders(overrides: list[Override]) -> list[Path]:
    found = []
    for override in overrides:
        if override.key_or_group == "hydra.searchpath":
            for entry in override.value():
                if not str(entry).startswith("file://"):
                    raise UsageError(f"hydra.searchpath takes file://FOLDER entries, got {str(entry)!r}")
                found.append(Path(str(entry).removeprefix("file://")))
    return found


def check(command: CommandLine) -> None:
    """Check groups, choices and their files.

    Raises:
        UsageError: what is wrong.
    """
    for override in command.overrides:
        _check_package(override)
    for group in GROUPS:
        for name in [*command.choices(group), *(default_strategies() if group == "strategy" else [])]:
            vet_choice(group, name, command.folders, command.trusted, command.shown_as)
    if not command.choices("scenario") and not command.choices("experiment"):
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


def results_folder(command: CommandLine) -> Path:
    """Where a run's or a sweep's results go, unless `hydra.run.dir` or `hydra.sweep.dir` says otherwise."""
    chosen = command.choices("scenario") or command.choices("experiment")
    label = chosen[0] if len(chosen) == 1 else "sweep"
    return Path("results") / label / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")

"""Configuration files are input: what Hydra would do with them before a run starts is checked here, first."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from kvbench.cli.catalogue import file_of, names
from kvbench.cli.errors import UsageError
from kvbench.cli.targets import check_target
from kvbench.naming import unknown

_DIRECTIVE = re.compile(r"\s*#+\s*@\s*package\b(.*)")
_NAME = re.compile(r"\w[\w-]*(/\w[\w-]*)*")


def vet_choice(
    group: str,
    name: str,
    folders: tuple[Path, ...],
    trusted: tuple[str, ...],
    shown_as: Mapping[Path, Path],
    above: tuple[str, ...] = (),
) -> None:
    """Check the file of a group's choice, and those that it builds on.

    Args:
        group: scenario, strategy, model, backend, hardware or experiment.
        name: the choice.
        folders: further configuration folders, after kvbench's own.
        trusted: packages that the user named.
        shown_as: what messages call a file, where that is not its own path.
        above: choices that build on this one.
    Raises:
        UsageError: there is no such file, it is malformed, or it reaches beyond its own group.
    """
    path = file_of(group, name, folders) if _NAME.fullmatch(name) else None
    if path is None:
        raise UsageError(unknown(group, name, names(group, folders)))
    if name in above:
        raise UsageError(
            f"{shown_as.get(path, path)}: its defaults list comes back to itself: {' → '.join((*above, name))}"
        )
    for base in vet_file(path, group, trusted, shown_as.get(path, path)):
        vet_choice(group, base, folders, trusted, shown_as, (*above, name))


def vet_file(path: Path, group: str, trusted: tuple[str, ...], shown: Path) -> list[str]:
    """Check one configuration file.

    Args:
        path: the file.
        group: the group that it is in.
        trusted: packages that the user named.
        shown: what messages call it.
    Returns:
        Other files of the same group that it builds on.
    Raises:
        UsageError: what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{shown}: malformed YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, dict):
        raise UsageError(f"{shown}: a {group} file is a mapping of keys to values, got {type(node).__name__}")
    _vet_package(shown, text, group)
    if "hydra" in node:
        raise UsageError(f"{shown}: a {group} file may not set hydra.*; give such settings on the command line")
    _vet_targets(node, shown, group, trusted)
    return _bases(node.get("defaults", []), shown, group)


def _vet_package(path: Path, text: str, group: str) -> None:
    own = f"strategy.{path.stem}" if group == "strategy" else group
    directives = [found.group(1).strip() for line in text.splitlines() if (found := _DIRECTIVE.match(line))]
    for package in directives:
        if package != own:
            raise UsageError(f"{path}: a {group} file's package is {own}, got '# @package {package}'")
    if group == "strategy" and not directives:
        raise UsageError(f"{path}: a strategy file begins with '# @package {own}'")


def _vet_targets(node: object, path: Path, group: str, trusted: tuple[str, ...], key: str = "") -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "_target_":
                check_target(value, group, f"{path}{key}", trusted, is_part=bool(key))
            _vet_targets(value, path, group, trusted, f"{key}: {name}")
    elif isinstance(node, list):
        for item in node:
            _vet_targets(item, path, group, trusted, key)


def _bases(defaults: object, path: Path, group: str) -> list[str]:
    """Names in a defaults list; only plain ones, of the same group."""
    bases = []
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if entry == "_self_":
            continue
        if group == "strategy" or not isinstance(entry, str) or not entry.isidentifier():
            raise UsageError(
                f"{path}: the defaults list of a {group} file may name files of the same group only "
                f"(a strategy file none), got {entry!r}"
            )
        bases.append(entry)
    return bases

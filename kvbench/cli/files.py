"""Which configuration files a command may choose, and the few of them that Hydra gets to see.

Hydra searches kvbench's own configuration only. A file of the user's, or of a folder's, comes to it as checked plain
values, by name, so that nothing else that lies in a folder is ever read by it.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from kvbench.configuration import catalogue
from kvbench.configuration.catalogue import GROUPS
from kvbench.configuration.errors import UsageError
from kvbench.configuration.published import YAML, called
from kvbench.configuration.vet import vet_file
from kvbench.messages import unknown

MOST_FILES = 10_000
_NAME = re.compile(r"\w[\w-]*")
WORDS_OF_YAML = {"null", "true", "false", "yes", "no", "on", "off", "nan", "inf"}


@dataclass(frozen=True)
class Files:
    """Configuration files by group and name: kvbench's own first, then single files of the user's, then folders'.

    Args:
        folders: each with folders named as kvbench's groups.
        single: paths given instead of names, by group and the names that stand for them.
        admitted: those that Hydra sees, by group and name.
    """

    folders: tuple[Path, ...] = ()
    single: dict[tuple[str, str], Path] = field(default_factory=dict)
    admitted: set[tuple[str, str]] = field(default_factory=set)

    def names(self, group: str) -> list[str]:
        """The names of a group's files."""
        return sorted({*catalogue.names(group, self.folders), *(name for own, name in self.single if own == group)})

    def file_of(self, group: str, name: str) -> Path | None:
        """The file of that name."""
        own = catalogue.file_of(group, name)
        return own or self.single.get((group, name)) or catalogue.file_of(group, name, self.folders)

    def name_for(self, group: str, path: Path) -> str:
        """A name for a single file, or a published configuration's folder, which stands for it from now on.

        Raises:
            UsageError: there is no such file.
        """
        try:
            is_there = path.expanduser().exists()
        except (OSError, RuntimeError):  # a name that is too long, or no such user
            is_there = False
        if not is_there:
            raise UsageError(f"no {group} file {str(path)!r} in {Path.cwd()}")
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in called(path))
        if not name[:1].isalpha() or name.lower() in WORDS_OF_YAML:
            name = f"file_{name}"
        while name in catalogue.names(group) or (group, name) in self.single:
            name = f"{name}_file"
        self.single[group, name] = path.expanduser()
        return name

    def admit(self, group: str, name: str, node: dict[str, Any]) -> None:
        """Let Hydra see a file that was checked, as the values that it holds; kvbench's own it sees anyway."""
        if (group, name) in self.admitted or catalogue.file_of(group, name) is not None:
            return
        package = f"strategy.{name}" if group == "strategy" else group
        ConfigStore.instance().store(group=group, name=name, node=node, package=package, provider="kvbench")
        self.admitted.add((group, name))

    def withdraw(self) -> None:
        """Take all that was admitted away again."""
        for group, name in self.admitted:
            del ConfigStore.instance().repo[group][f"{name}.yaml"]
        self.admitted.clear()


def checked_folders(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Configuration folders, each with files of kvbench's own groups and no other configuration.

    Raises:
        UsageError: there is no such folder, it holds settings of Hydra's, or YAML outside the groups.
    """
    checked = tuple(folder.expanduser() for folder in folders)
    for folder in checked:
        if not folder.is_dir():
            raise UsageError(f"no configuration folder {str(folder)!r} in {Path.cwd()}")
        _check_folder(folder)
    return checked


def _check_folder(folder: Path) -> None:
    num_files = 0
    for parent, below, names in os.walk(folder):
        num_files += len(names) + len(below)
        if num_files > MOST_FILES:
            raise UsageError(f"{folder}: it holds more than {MOST_FILES:,} files; name a folder of configuration alone")
        group = os.path.relpath(parent, folder)
        if group == "." and "hydra" in map(str.lower, below):
            raise UsageError(f"{folder}: it has a folder hydra, and hydra/… is taken from Hydra and its plugins only")
        others = [name for name in names if name.lower().endswith(YAML)]
        if others and group not in GROUPS:
            path = Path(parent, min(others))
            raise UsageError(
                f"{path}: it is in none of the groups {', '.join(GROUPS)}; a configuration folder holds no other YAML"
            )


def vet_choice(group: str, name: str, files: Files, trusted: tuple[str, ...], above: tuple[str, ...] = ()) -> None:
    """Check the file of a group's choice, and those that it builds on, and let Hydra see them.

    Args:
        group: scenario, strategy, model, backend, hardware, engine or experiment.
        name: the choice.
        files: those that there are.
        trusted: packages that the user named.
        above: choices that build on this one.
    Raises:
        UsageError: there is no such file, it is malformed, or it reaches beyond its own group.
    """
    path = files.file_of(group, name) if _NAME.fullmatch(name) else None
    if path is None:
        raise UsageError(unknown(group, name, files.names(group)))
    if name in above:
        raise UsageError(f"{path}: its defaults list comes back to itself: {' → '.join((*above, name))}")
    node, bases = vet_file(path, group, trusted)
    for base in bases:
        vet_choice(group, base, files, trusted, (*above, name))
    files.admit(group, name, node)

"""What was asked for, so that a results folder says how to run it again by hand."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvbench.cli.command_line import SEARCH_PATH, CommandLine
from kvbench.workload.trace import FOLDER_VARIABLE


@dataclass(frozen=True)
class Asked:
    """A command as it was given; it travels with its jobs, to whatever process they run in.

    Args:
        arguments: as typed.
        directory: where; relative paths are below it.
        folders: further configuration folders of the user's.
        files: the user's own files, by the override that chooses them, such as `scenario=mine`.
    """

    arguments: tuple[str, ...]
    directory: Path
    folders: tuple[Path, ...]
    files: dict[str, Path]

    def record(self, overrides: Sequence[str]) -> dict[str, Any]:
        """A job's part of environment.json.

        Args:
            overrides: the job's, as Hydra lists them.
        """
        traces = os.environ.get(FOLDER_VARIABLE)
        return {
            "overrides": list(overrides),
            "arguments": list(self.arguments),
            "working_directory": str(self.directory),
            FOLDER_VARIABLE: None if traces is None else str(self.directory / traces),
            "again": again(self.directory, [*_searching(self.folders), *map(self._by_path, overrides)]),
        }

    def _by_path(self, override: str) -> str:
        chosen = self.files.get(override.lstrip("+"))
        return override if chosen is None else f"{override.partition('=')[0]}={chosen}"


def asked_for(arguments: Sequence[str], command: CommandLine) -> Asked:
    """A run's command, with the absolute paths of what it names."""
    here = Path.cwd()
    files = {f"{group}={name}": here / path for (group, name), path in command.files.single.items()}
    folders = tuple(here / folder for folder in command.files.folders)
    return Asked(tuple(arguments), here, folders, files)


def again(directory: str | Path, arguments: Sequence[str]) -> str:
    """A line for the shell that runs these arguments in that folder, into a new results folder."""
    arguments = [line for line in arguments if not line.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
    return f"cd {shlex.quote(str(directory))} && {shlex.join(['python', '-m', 'kvbench', *arguments])}"


def _searching(folders: Sequence[Path]) -> list[str]:
    """The override that adds configuration folders, where there are any."""
    entries = ",".join('"file://{}"'.format(str(folder).replace('"', '\\"')) for folder in folders)
    return [f"{SEARCH_PATH}=[{entries}]"] if folders else []

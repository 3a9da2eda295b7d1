"""What a run leaves, whatever ran it: its frames, and what they come from; written as a folder and read back as one."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from kvbench.files import write_text, write_whole
from kvbench.results.replays import with_draws
from kvbench.results.summary import sessions_frame

SCHEMA_VERSION = 3
"""Of the frames' columns and the folder's files; a change that makes a reader of the old ones err raises it."""
BEFORE = 2
"""The one before, which is read as well: there `engine` was what is `simulated_by` now."""

ENVIRONMENT, CONFIGURATION, SUMMARY = "environment.json", "config.yaml", "summary.csv"
_VERSION = "schema_version"


def _no_rows() -> pd.DataFrame:
    """Requests or steps where none are stepped through."""
    return pd.DataFrame({"strategy": pd.Series(dtype=str)})


@dataclass(frozen=True, kw_only=True)
class Results:
    """The frames of a run, a simulation, a study or a sweep, and what they come from.

    Columns are as in `schema.FRAMES`; a study's summary has a form of its own.

    Args:
        summary: a row a strategy (in a sweep, a strategy and job), with what the strategy is: lossless, reference,
            pool_bytes, hardware, step_error.
        requests: a row a request and repetition.
        steps: a row a step.
        timeline: a row a strategy and stretch of time; None where it was not simulated as a fleet.
        replicas: a row a strategy, replica and stretch of time; None where not several replicas were simulated.
        replays: figures of the summary in replays with other times of work, a row a strategy and replay; None: none.
        quality: needles found by depth, a row a strategy and depth; None where none were planted.
        tables: a study's further tables, by name.
        files: its tables that are too long to be shown, by name; a folder keeps no difference between the two.
        environment: versions, machine and what was asked for.
        configuration: what was run, as YAML; "" where it was put together in Python.
        schema_version: of the columns.
        folder: where it was read from; None where it was not.
    Raises:
        ValueError: two tables have one name, or one has that of another file.
    """

    summary: pd.DataFrame
    requests: pd.DataFrame = field(default_factory=_no_rows)
    steps: pd.DataFrame = field(default_factory=_no_rows)
    timeline: pd.DataFrame | None = None
    replicas: pd.DataFrame | None = None
    replays: pd.DataFrame | None = None
    quality: pd.DataFrame | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    files: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    configuration: str = ""
    schema_version: int = SCHEMA_VERSION
    folder: Path | None = None

    def __post_init__(self) -> None:
        taken = {"summary", "quality"} & {**self.tables, **self.files}.keys()
        if taken:
            raise ValueError(f"{min(taken)}.csv is another table's file; give a further table another name")
        if self.tables.keys() & self.files.keys():
            raise ValueError(f"two tables of one name: {', '.join(self.tables.keys() & self.files.keys())}")

    @property
    def sessions(self) -> pd.DataFrame:
        """A row a session and repetition: its requests summed up; sessions.parquet holds the same."""
        return sessions_frame(self.requests)

    @property
    def judged(self) -> pd.DataFrame:
        """The summary with each figure's values in the replays, by which rows are told apart."""
        return with_draws(self.summary, self.replays)

    def save(
        self,
        folder: str | Path,
        writers: Mapping[str, Callable[[Path], object]] | None = None,
        *,
        replaces: bool = False,
    ) -> None:
        """Write the folder: summary.csv, requests, sessions and steps, and timeline, replicas and replays where there
        are any, as Parquet, a CSV file of each further table, config.yaml, and last environment.json, which says that
        it is whole.

        Args:
            folder: is made.
            writers: of frames that are longer than memory, by name: each writes its Parquet file to the path that it is
                given.
            replaces: whether results that are there are replaced.
        Raises:
            FileExistsError: results are there already.
            OSError: a file could not be written.
        """
        folder = Path(folder)
        there = [name for name in (SUMMARY, ENVIRONMENT) if (folder / name).exists()]
        if there and not replaces:
            raise FileExistsError(f"{folder} has results in it ({there[0]}); name a new folder")
        (folder / ENVIRONMENT).unlink(missing_ok=True)
        for name, write in (writers or {}).items():
            write_whole(folder / f"{name}.parquet", write)
        rows = {
            "timeline": self.timeline,
            "replicas": self.replicas,
            "replays": self.replays,
            "steps": self.steps,
            "requests": self.requests,
            "sessions": self.sessions,
        }
        for name, frame in rows.items():
            if name not in (writers or {}):
                _write(folder / f"{name}.parquet", frame)
        for name, frame in {**self.tables, **self.files, "quality": self.quality, "summary": self.summary}.items():
            _write(folder / f"{name}.csv", frame)
        if self.configuration:
            write_text(folder / CONFIGURATION, self.configuration)
        environment = {_VERSION: self.schema_version, **self.environment}
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=2, default=str) + "\n")


def _write(path: Path, frame: pd.DataFrame | None) -> None:
    if frame is not None:
        write = frame.to_parquet if path.suffix == ".parquet" else frame.to_csv
        write_whole(path, partial(write, index=False))


def load(folder: str | Path) -> Results:
    """Read a results folder of a run or a sweep.

    Raises:
        FileNotFoundError: it is no results folder, or an unfinished one; says which file is missing.
        ValueError: it was written with another schema.
    """
    folder = Path(folder)
    needed = [SUMMARY, "steps.parquet", "requests.parquet", ENVIRONMENT]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is no finished results folder: {', '.join(missing)} missing")
    version, environment = _checked(folder, json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8")))
    text = folder / CONFIGURATION
    # Each in one piece of memory: pandas reads a column at a time.
    tables = {path.stem: pd.read_csv(path).copy() for path in sorted(folder.glob("*.csv"))}
    if version == BEFORE:
        tables["summary"] = tables["summary"].rename(columns={"engine": "simulated_by"})
    return Results(
        summary=tables.pop("summary"),
        requests=pd.read_parquet(folder / "requests.parquet"),
        steps=pd.read_parquet(folder / "steps.parquet"),
        timeline=_maybe(folder, "timeline"),
        replicas=_maybe(folder, "replicas"),
        replays=_maybe(folder, "replays"),
        quality=tables.pop("quality", None),
        tables=tables,
        environment=environment,
        configuration=text.read_text(encoding="utf-8") if text.is_file() else "",
        folder=folder,
    )


def _maybe(folder: Path, name: str) -> pd.DataFrame | None:
    """A frame that not every run has."""
    path = folder / f"{name}.parquet"
    return pd.read_parquet(path) if path.is_file() else None


def _checked(folder: Path, environment: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A folder's schema, where it can be read, and what else the folder says of itself."""
    if not isinstance(environment, dict):
        raise ValueError(f"{folder / ENVIRONMENT} is a mapping, got {type(environment).__name__}")
    found = environment.pop(_VERSION, 1)  # the first had no mark, and x_ci for intervals, at 95 %
    if found not in (SCHEMA_VERSION, BEFORE):
        again = f"; {environment['again']} makes it anew" if "again" in environment else ""
        raise ValueError(f"{folder} was written with schema {found!r}; this kvbench reads {SCHEMA_VERSION}{again}")
    return found, environment

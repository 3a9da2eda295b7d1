"""A results folder: written file by file, each whole under its final name; read back as frames."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kvbench.partial import clear, partial_of
from kvbench.results.summary import sessions_frame

FRAMES = ("steps", "requests")


@dataclass(frozen=True)
class Results:
    """A results folder's contents.

    Args:
        folder: where it is.
        summary: a row a strategy (in a sweep, a strategy and job).
        requests: a row a request and repetition.
        steps: a row a step.
        environment: versions, device and what was run.
        quality: needles found by depth, a row a strategy and depth; None where none were planted.
        timeline: a row a strategy and stretch of time; None where it was not simulated as a fleet.
    """

    folder: Path
    summary: pd.DataFrame
    requests: pd.DataFrame
    steps: pd.DataFrame
    environment: dict[str, object]
    quality: pd.DataFrame | None = None
    timeline: pd.DataFrame | None = None

    @property
    def sessions(self) -> pd.DataFrame:
        """A row a session and repetition: its requests summed up; sessions.parquet holds the same."""
        return sessions_frame(self.requests)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name beside it, then give it its own; nothing is left of a failure.

    What killed processes left in the folder is removed.

    Args:
        path: the final name; its folder is made.
        write: writes to the path that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent)
    partial = partial_of(path)
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_frames(
    folder: Path,
    summary: pd.DataFrame,
    requests: pd.DataFrame,
    steps: pd.DataFrame,
    quality: pd.DataFrame | None = None,
    timeline: pd.DataFrame | None = None,
) -> None:
    """Write summary.csv, requests.parquet, sessions.parquet, steps.parquet and, where there is any, quality.csv and
    timeline.parquet.
    """
    if timeline is not None:
        write_whole(folder / "timeline.parquet", lambda partial: timeline.to_parquet(partial, index=False))
    if quality is not None:
        write_whole(folder / "quality.csv", lambda partial: quality.to_csv(partial, index=False))
    write_whole(folder / "steps.parquet", lambda partial: steps.to_parquet(partial, index=False))
    write_whole(folder / "requests.parquet", lambda partial: requests.to_parquet(partial, index=False))
    sessions = sessions_frame(requests)
    write_whole(folder / "sessions.parquet", lambda partial: sessions.to_parquet(partial, index=False))
    write_whole(folder / "summary.csv", lambda partial: summary.to_csv(partial, index=False))


def write_environment(folder: Path, environment: Mapping[str, object]) -> None:
    """Write environment.json."""
    write_text(folder / "environment.json", json.dumps(environment, indent=2, default=str) + "\n")


def load(folder: str | Path) -> Results:
    """Read a results folder of a run or a sweep.

    Raises:
        FileNotFoundError: it is no results folder, or an unfinished one; says which file is missing.
    """
    folder = Path(folder)
    needed = ["summary.csv", *(f"{name}.parquet" for name in FRAMES), "environment.json"]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is no finished results folder: {', '.join(missing)} missing")
    steps, requests = (pd.read_parquet(folder / f"{name}.parquet") for name in FRAMES)
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    quality = pd.read_csv(folder / "quality.csv") if (folder / "quality.csv").is_file() else None
    timeline = folder / "timeline.parquet"
    over_time = pd.read_parquet(timeline) if timeline.is_file() else None
    summary = pd.read_csv(folder / "summary.csv").copy()  # in one piece: pandas reads a column at a time
    return Results(folder, summary, requests, steps, environment, quality, over_time)

"""What a sweep with a manifest has so far, as one: the frame of all points, charts and a report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from kvbench.api.points import name_of
from kvbench.api.sweep import described
from kvbench.configuration.errors import UsageError
from kvbench.decide.gathered import Gathered
from kvbench.decide.manifest import Manifest, NoManifest, read_manifest
from kvbench.decide.shards import DONE, REFUSED, SKIPPED, STOPPED, PointTold, Shards, Unreadable
from kvbench.decide.sweep import swept_values
from kvbench.decide.work import Places
from kvbench.results.environment import environment
from kvbench.results.results import Results, load

LONGEST = 300
"""Letters of an error that a row holds; the shard has all."""
MOST_TOLD = 20
"""Errors that a header tells."""


class Collected(NamedTuple):
    """A sweep's rows.

    Args:
        header: what was run, on what.
        results: the finished ones'; of steps only what each strategy held at most.
        rows: of the summary, those of points that failed among them.
        writers: of frames that are longer than memory; see `Results.save`.
        num_finished: points.
        num_missing: points that were never run, or stopped.
        num_broken: points that failed.
        num_refused: points whose input was bad.
    """

    header: list[str]
    results: Results
    rows: pd.DataFrame
    writers: dict[str, Callable[[Path], object]]
    num_finished: int
    num_missing: int
    num_broken: int
    num_refused: int

    @property
    def status(self) -> int:
        """A program's: 1 where a point failed or none is finished, 2 where one was refused, else 0."""
        if self.num_broken:
            return 1
        return 2 if self.num_refused else 0 if self.num_finished else 1


def collect(folder: str | Path) -> Results:
    """Write the frames of what a sweep has so far, finished or not, into its folder, and read them.

    `python -m kvbench collect` draws charts and writes a report, too.

    Args:
        folder: the sweep's, with its manifest.
    Returns:
        The rows of all points that have any, with a column a key.
    Raises:
        ValueError: there is no manifest, or a shard cannot be read.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    found = collected(folder)
    replace(found.results, summary=found.rows).save(folder, found.writers, replaces=True)
    return load(folder)


def collected(folder: Path) -> Collected:
    """Join what a sweep has, finished or not.

    Raises:
        UsageError: there is no manifest.
    """
    try:
        manifest = read_manifest(folder)
    except NoManifest as error:
        raise UsageError(str(error)) from error
    try:
        return _joined(folder, manifest)
    except FileNotFoundError:  # a worker put several shards into one meanwhile
        return _joined(folder, manifest)
    except Unreadable as error:
        raise UsageError(str(error)) from error


def _joined(folder: Path, manifest: Manifest) -> Collected:
    shards = Shards(Places(folder).shards)
    shards.look()
    gathered = Gathered(manifest, shards)
    failed = [told for told in gathered.told if told.state not in (DONE, STOPPED, SKIPPED)]
    num_done = sum(told.state == DONE for told in gathered.told)
    num_missing = len(manifest) - len(gathered.told) + sum(told.state == STOPPED for told in gathered.told)
    results = gathered.results()
    made: dict[str, Any] = {} if gathered.with_rows else environment()
    made |= dict(manifest.asked) | {"overrides": list(manifest.given)}
    made["points"] = {"all": len(manifest), "finished": num_done, "missing": num_missing}
    made["failed"] = [told.point for told in failed]
    about = described([told.environment for told in gathered.with_rows], manifest.swept, made)
    lines = [f"failed: job {' '.join(gathered.combination(told).lines)}: {told.error}" for told in failed[:MOST_TOLD]]
    lines += [f"and {len(failed) - MOST_TOLD:,} more that failed"] if len(failed) > MOST_TOLD else []
    lines += [f"interrupted: {num_missing:,} of {len(manifest):,} points are missing"] if num_missing else []
    results = replace(
        results,
        environment={**about, "header": [*about["header"], *lines]},
        configuration=yaml.safe_dump({"overrides": list(manifest.given)}, allow_unicode=True, width=10_000),
    )
    rows = pd.DataFrame([_row(gathered, told) for told in failed])
    return Collected(
        header=about["header"],
        results=results,
        rows=pd.concat([results.summary.astype(object), rows], ignore_index=True) if failed else results.summary,
        writers=gathered.writers(),
        num_finished=len(gathered.with_rows),
        num_missing=num_missing,
        num_broken=sum(told.state != REFUSED for told in failed),
        num_refused=sum(told.state == REFUSED for told in failed),
    )


def _row(gathered: Gathered, told: PointTold) -> dict[str, object]:
    point = gathered.combination(told)
    strategies = dict(gathered.manifest.configuration.get("strategy") or {}) | dict(
        dict(point.values).get("strategy") or {}
    )
    error = told.error if len(told.error) <= LONGEST else f"{told.error[: LONGEST - 1]}…"
    own = {"scenario": name_of(gathered.manifest, point), "strategy": ", ".join(map(str, strategies))}
    return own | {"outcome": f"failed: {error}"} | swept_values(point.lines, gathered.manifest.swept)

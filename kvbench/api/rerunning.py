"""A finished run again: its folder's configuration as it stands, and what differs from what it found."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from kvbench.api.engines import job_of
from kvbench.api.job import Job
from kvbench.configuration.errors import UsageError
from kvbench.decide.manifest import MANIFEST
from kvbench.results.environment import environment
from kvbench.results.provenance import is_modelled
from kvbench.results.results import CONFIGURATION, ENVIRONMENT, Results, load
from kvbench.results.schema import SUMMARY

COUNTED = ("bytes", "tokens")
"""Units of figures that a run gives again whatever the machine; so are numbers, which have none."""
OF_MACHINE = ("available_bytes", "busy_bytes", "allocator_")
"""What of those is the machine's, or its allocator's."""
ASKED = ("overrides", "arguments", "working_directory", "again")
TOLERANCE = 1e-9
"""Between figures that are the same: summary.csv has them in decimals."""


class Again(NamedTuple):
    """A run that was run again.

    Args:
        results: what it found now.
        made: what differs of versions and machine, a line each.
        found: what differs of bytes and counts, and of times where they are modelled, a line each.
    """

    results: Results
    made: list[str]
    found: list[str]


def rerun(folder: str | Path, *, trusted: Iterable[str] = ()) -> Again:
    """Run a finished run's `config.yaml` as it stands, and say what differs.

    Args:
        folder: of the run.
        trusted: packages of yours that it may name.
    Returns:
        Its rows, what differs of versions and machine, and what of its bytes and counts.
    Raises:
        ValueError: there is no finished run, it is a sweep, or its configuration is refused.
        FileNotFoundError: a trace is missing.
    """
    before, job = job_again(folder, tuple(trusted))
    return compared(before, job.run())


def job_again(folder: str | Path, trusted: tuple[str, ...] = ()) -> tuple[Results, Job]:
    """A finished run, and the job that is the same.

    Raises:
        UsageError: as in `rerun`.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise UsageError(f"{folder} is a sweep's, and its points are not run twice; its command does: {_again(folder)}")
    try:
        before = load(folder)
        config = yaml.safe_load(before.configuration)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(str(error)) from error
    if not isinstance(config, dict) or {"backend", "model"} - set(config):
        raise UsageError(f"{folder / CONFIGURATION} is no configuration of a run; {ENVIRONMENT} has its command: again")
    if strangers := sorted(set(config.get("trusted") or ()) - set(trusted)):
        named = ",".join(strangers)
        raise UsageError(f"{folder} names classes of {', '.join(strangers)}; to let it, say so: trusted=[{named}]")
    made = before.environment
    asked = {key: made[key] for key in ASKED if key in made}
    name = str(made.get("experiment") or made.get("scenario") or "results")
    return before, job_of(name, config, before.configuration, {"overrides": [], **asked})


def compared(before: Results, now: Results) -> Again:
    """What differs between a run and the same again."""
    made = [
        f"{name}: {old} there, {new} here"
        for name, old, new in _pairs(before.environment, {**environment(), **now.environment})
    ]
    return Again(now, made, _differences(before.summary, now.summary))


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = ("python", "platform", "cpu", "commit", "device", "device_name")
    found = [(name, old.get(name), new.get(name)) for name in names]
    packages = old.get("packages") or {}
    found += [(name, packages[name], new["packages"].get(name)) for name in packages]
    return [each for each in found if each[1] != each[2]]


def _differences(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """Of bytes and counts, and of times where they are modelled."""
    if len(old) != len(new):
        return [f"rows: {len(old):,} there, {len(new):,} here"]
    whole = bool(len(new)) and bool(is_modelled(new).all())
    names = [str(name) for name in old if name in new]
    labels = old["strategy"] if "strategy" in old else pd.Series(range(len(old)))
    found = []
    for name in names:
        for label, there, here in zip(labels, old[name], new[name], strict=True):
            if (whole or _is_counted(name)) and not _is_same(there, here):
                found.append(f"{label}: {name} {_shown(there)} there, {_shown(here)} here")
    return found


def _is_counted(name: str) -> bool:
    if name.startswith(OF_MACHINE):
        return False
    column = SUMMARY.get(name)
    return name == "outcome" or name.startswith("num_") or (column is not None and column.unit in COUNTED)


def _is_same(there: Any, here: Any) -> bool:
    if pd.isna(there) and pd.isna(here):
        return True
    if isinstance(there, int | float | np.number) and isinstance(here, int | float | np.number):
        return bool(np.isclose(float(there), float(here), rtol=TOLERANCE, atol=0.0))
    return str(there) == str(here)


def _shown(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, int | float | np.number) else str(value)


def _again(folder: Path) -> str:
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["asked"]["again"])
    except (OSError, ValueError, KeyError, TypeError):
        return "python -m kvbench -m …"

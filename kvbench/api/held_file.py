"""A file of measured times held against ours: on which machine, of which model and engine, and what came of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.calibration.tables import read_kernels
from kvbench.calibration.validation.kernels import Judged, judged_kernels
from kvbench.calibration.validation.mixed import judged_mixed, read_mixed
from kvbench.calibration.validation.recognised import KERNELS, MIXED_CALLS, read_table
from kvbench.configuration.catalogue import names
from kvbench.configuration.composed import composed
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import hardware_of
from kvbench.configuration.yaml_file import read_yaml
from kvbench.messages import cut, listed, unknown
from kvbench.timing.kernels import Kernels, kernels_of

if TYPE_CHECKING:
    import pandas as pd

    from kvbench.model.hardware import Hardware

KEYS = ("hardware",)
"""What a FILE.yaml beside a file may say; the command line says it too."""


@dataclass(frozen=True, kw_only=True)
class HeldFile:
    """Measured times of one file beside ours.

    Args:
        name: the file's.
        about: what was measured, on what, and what ours rest on.
        rows: see `calibration.validation.rows.COLUMNS`.
        not_told: what is not, and why.
    """

    name: str
    about: str
    rows: "pd.DataFrame"
    not_told: tuple[str, ...] = ()


def held_file(path: Path, form: str, asked: Mapping[str, Any]) -> HeldFile:
    """Hold a file's times against ours.

    Args:
        path: the file.
        form: what it is, of `recognised.FORMS`.
        asked: by KEYS, what it is of, before what stands beside it; None where it is not said.
    Raises:
        ValueError: it is broken, or it is not said of which machine it is.
    """
    said = beside(path) | {key: value for key, value in asked.items() if value is not None}
    machine, engine = _machine(path, said)
    kernels = kernels_of(machine)
    judged, what = _judged(path, form, kernels)
    rests = "ours from kernels that were fitted" if kernels.is_fitted else "ours from its data sheet alone"
    about = f"{len(judged.rows):,} {what} of {machine.name}{f', {engine}' if engine else ''}; {rests}"
    return HeldFile(name=path.name, about=about, rows=judged.rows.assign(file=path.name), not_told=judged.not_told)


def _judged(path: Path, form: str, kernels: Kernels) -> tuple[Judged, str]:
    if form == MIXED_CALLS:
        return judged_mixed(read_mixed(path, read_table(path)), kernels), "calls of mixed attention"
    assert form == KERNELS, form
    return judged_kernels(read_kernels(path), kernels), "kernels"


def beside(path: Path) -> dict[str, Any]:
    """What a FILE.yaml beside a file says of it: plain values by KEYS; {} where there is none.

    Raises:
        UsageError: it cannot be read, or has another key or value.
    """
    file = path.with_suffix(".yaml")
    if not file.is_file():
        return {}
    found, _ = read_yaml(file, file)
    if not isinstance(found, dict):
        raise UsageError(f"{file}: it says {', '.join(KEYS)}, each a key with a value")
    for key, value in found.items():
        if key not in KEYS:
            raise UsageError(f"{file}: {unknown('key', key, KEYS)}")
        if not isinstance(value, str | int | float):
            raise UsageError(f"{file}: {key} is a name or a number, got {cut(repr(value))}")
    return found


def _machine(path: Path, said: Mapping[str, Any]) -> tuple["Hardware", str]:
    """The machine that times are of, and what a file's name says of the engine."""
    named, engine = _named(path)
    chosen = said.get("hardware", named)
    if chosen is None:
        raise UsageError(
            f"{path}: of which hardware it is, is not said: give hardware=NAME, or write it in {path.stem}.yaml beside "
            f"it, or call it NAME_ENGINE{path.suffix}\n  there are: {listed(names('hardware'))}"
        )
    machine = hardware_of(composed({"hardware": chosen}, ()))
    assert machine is not None
    return machine, engine


def _named(path: Path) -> tuple[str | None, str]:
    """The hardware that a file's name has, of those that are known, and what follows on it."""
    for name in sorted(names("hardware"), key=len, reverse=True):
        found = re.fullmatch(rf"(?:.*[_-])?{re.escape(name)}(?:[_-](\w+))?", path.stem)
        if found:
            return name, found[1] or ""
    return None, ""

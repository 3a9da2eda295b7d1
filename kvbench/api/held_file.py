"""A file of measured times held against ours: on which machine, of which model and engine, and what came of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kvbench.api.printed_lines import CONFIGS
from kvbench.calibration.tables import read_kernels
from kvbench.calibration.validation.exports.export import engine_of
from kvbench.calibration.validation.exports.runs import EXPORTS, runs_of
from kvbench.calibration.validation.iterations import judged_iterations
from kvbench.calibration.validation.kernels import Judged, judged_kernels
from kvbench.calibration.validation.mixed import judged_mixed, read_mixed
from kvbench.calibration.validation.points import ServingPoint
from kvbench.calibration.validation.recognised import (
    KERNELS,
    LOG,
    MIXED_CALLS,
    RECORDING,
    SERVING,
    read_documents,
    read_table,
)
from kvbench.calibration.validation.recordings import recording_of
from kvbench.calibration.validation.replayed import judged_recording
from kvbench.calibration.validation.request_log import read_log
from kvbench.calibration.validation.serving_table import read_serving
from kvbench.checks import check_int
from kvbench.configuration.catalogue import names
from kvbench.configuration.composed import composed
from kvbench.configuration.engine import parallel_of
from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.model import hardware_of, model_of
from kvbench.configuration.yaml_file import read_yaml
from kvbench.messages import cut, listed, unknown
from kvbench.model.ranks import rank_of
from kvbench.timing.doubt import MOST_DRAWS, REPLAYS, doubt_of
from kvbench.timing.kernels import kernels_of

if TYPE_CHECKING:
    from kvbench.model.hardware import Hardware
    from kvbench.model.model import Model

KEYS = ("hardware", "model", "engine", "inputs", "concurrency", "rate", "replays")
OPEN_KEYS = ("engine.", "parallel.", "model.")
"""What a FILE.yaml beside a file may say, and beginnings of further keys; the command line says them too."""
INPUTS = "_inputs"
OF_MACHINE = "memory_bytes_per_s"
"""A key that a machine's own file has."""


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
    rows: pd.DataFrame
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
    if form == RECORDING:
        judged, about = _judged_recording(path)
    elif form in (SERVING, LOG, *EXPORTS):
        judged, about = _judged_served(path, form, said)
    else:
        judged, about = _judged_kernels(path, form, said)
    return HeldFile(name=path.name, about=about, rows=judged.rows.assign(file=path.name), not_told=judged.not_told)


def _judged_recording(path: Path) -> tuple[Judged, str]:
    (document,) = read_documents(path)
    try:
        return judged_recording(recording_of(document))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _judged_kernels(path: Path, form: str, said: Mapping[str, Any]) -> tuple[Judged, str]:
    machine, engine = _machine(path, said)
    kernels, doubt = kernels_of(machine), doubt_of(machine)
    if form == MIXED_CALLS:
        judged, what = judged_mixed(read_mixed(path, read_table(path)), kernels, doubt), "calls of mixed attention"
    else:
        assert form == KERNELS, form
        table, what = read_kernels(path), "kernels"
        judged = judged_kernels(table, kernels, doubt)
        if "model" in said:
            iterations = judged_iterations(table, kernels, _rank(said), doubt)
            rows = pd.concat([judged.rows, iterations.rows], ignore_index=True)
            judged, what = Judged(rows, (*judged.not_told, *iterations.not_told)), "kernels and iterations"
    rests = "ours from kernels that were fitted" if kernels.is_fitted else "ours from its data sheet alone"
    return judged, f"{len(judged.rows):,} {what} of {machine.name}{f', {engine}' if engine else ''}; {rests}"


def _rank(said: Mapping[str, Any]) -> "Model":
    degrees = {key: value for key, value in said.items() if key.startswith("parallel.")}
    settings = {key: value for key, value in said.items() if key.startswith("model.")}
    config = composed({"model": said["model"]}, (), settings | degrees)
    return rank_of(model_of(config), parallel_of(config))


def _judged_served(path: Path, form: str, said: Mapping[str, Any]) -> tuple[Judged, str]:
    try:  # here, since kernels are held without the fleet's extra
        from kvbench.api.held_served import Servers
        from kvbench.calibration.validation.simulated import judged_points
    except ImportError as error:
        raise UsageError(f"{path} is simulated: {error}") from None
    of_system = {key: value for key, value in said.items() if key not in ("inputs", "concurrency", "rate", "replays")}
    hardware, engine = named(path)
    servers = Servers(of_system, path.parent / CONFIGS, hardware or "", engine_of(engine))
    not_told: list[str] = []
    if form == SERVING:
        points, not_told = read_serving(path, read_table(path))
        about = f"{len(points):,} end-to-end measurements, simulated"
    elif form == LOG:
        points, about = _logged(path, said)
    else:
        points, not_told = _exported(path, form, said)
        about = f"{len(points):,} {'run' if len(points) == 1 else 'runs'} of a benchmark, simulated"
    if len(points) == 1:
        with refusing(f"{path}: "):  # nothing of such a file could be told
            servers.of(points[0])
    replays = said.get("replays", REPLAYS)
    check_int("replays", replays, 0, MOST_DRAWS)
    judged = judged_points(points, servers.of, replays)
    return Judged(judged.rows, (*not_told, *judged.not_told)), about


def _logged(path: Path, said: Mapping[str, Any]) -> tuple[list[ServingPoint], str]:
    inputs = Path(said["inputs"]).expanduser() if "inputs" in said else path.with_name(f"{path.stem}{INPUTS}.csv")
    is_there = "inputs" in said or inputs.is_file()
    point = read_log(path, read_table(path), read_table(inputs) if is_there else None, inputs)
    return [point], f"{point.what}{f', all of {inputs.name}' if is_there else ''}, replayed at their arrivals"


def _exported(path: Path, form: str, said: Mapping[str, Any]) -> tuple[list[ServingPoint], list[str]]:
    points, not_told = [], []
    runs = runs_of(path, form)
    for run in runs:
        try:
            points.append(run.said(said.get("concurrency"), said.get("rate")).point)
        except ValueError as error:
            if len(runs) == 1:
                raise ValueError(f"{path}: {error}") from error
            not_told.append(f"{run.what} is not told: {error}")
            continue
        not_told += [f"{run.what}: {why}" for why in run.left_out]
    return points, not_told


def beside(path: Path) -> dict[str, Any]:
    """What a FILE.yaml beside a file says of it: plain values by KEYS; {} where there is none. A machine's file says
    that it is that machine's.

    Raises:
        UsageError: it cannot be read, or has another key or value.
    """
    file = path.with_suffix(".yaml")
    if not file.is_file():
        return {}
    found, _ = read_yaml(file, file)
    if not isinstance(found, dict):
        raise UsageError(f"{file}: it says {', '.join(KEYS)}, each a key with a value")
    if OF_MACHINE in found:  # one that was measured here, with its table beside it
        return {"hardware": str(file.absolute())}
    for key, value in found.items():
        check_key(f"{file}: ", key)
        if not isinstance(value, str | int | float):
            raise UsageError(f"{file}: {key} is a name or a number, got {cut(repr(value))}")
    return found


def check_key(where: str, key: str) -> None:
    """Refuse what nothing is said by.

    Raises:
        UsageError: there is no such key.
    """
    if key not in KEYS and not key.startswith(OPEN_KEYS):
        raise UsageError(f"{where}{unknown('key', key, (*KEYS, *(f'{each}…' for each in OPEN_KEYS)))}")


def _machine(path: Path, said: Mapping[str, Any]) -> tuple["Hardware", str]:
    """The machine that times are of, and what a file's name says of the engine."""
    chosen, engine = chosen_hardware(path, said)
    machine = hardware_of(composed({"hardware": chosen}, ()))
    assert machine is not None
    return machine, engine


def chosen_hardware(path: Path, said: Mapping[str, Any]) -> tuple[str, str]:
    """The machine that a file's times are of, by name or a YAML file, and the engine that the file's name says, or "".

    Raises:
        UsageError: neither is there.
    """
    by_name, engine = named(path)
    chosen = said.get("hardware", by_name)
    if chosen is None:
        raise UsageError(
            f"{path}: of which hardware it is, is not said: give hardware=NAME, or write it in {path.stem}.yaml beside "
            f"it, or call it NAME_ENGINE{path.suffix}\n  there are: {listed(names('hardware'))}"
        )
    return str(chosen), engine


def named(path: Path) -> tuple[str | None, str]:
    """The hardware that a file's name has, of those that are known, and what follows on it."""
    for name in sorted(names("hardware"), key=len, reverse=True):
        found = re.fullmatch(rf"(?:.*[_-])?{re.escape(name)}(?:[_-](\w+))?", path.stem)
        if found:
            return name, found[1] or ""
    return None, ""

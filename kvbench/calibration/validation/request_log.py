"""A log of requests with their times: all of the run are replayed at their arrivals, those with times judged."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.calibration.validation.columns import checked_columns
from kvbench.calibration.validation.points import LAST_FINISH, ServingPoint, System, at_times

LENGTHS = ("input_tokens", "output_tokens")
TIMES = ("ttft_s", "tpot_s", "latency_s")
COLUMNS = ("request_id", "arrival_s", *LENGTHS, *TIMES)
P50 = 50
REGION = "replayed"


def read_log(
    path: Path, frame: pd.DataFrame, inputs: pd.DataFrame | None = None, inputs_path: Path | None = None
) -> ServingPoint:
    """The run of a log.

    Args:
        path: of the log, for messages.
        frame: as read: a row a request that ended, with its times.
        inputs: the arrivals and lengths of all requests of the run, as read; None: those of the log are all.
        inputs_path: of those.
    Raises:
        ValueError: a column is missing, a value is not allowed, or a request of the log is not among the inputs.
    """
    source = path if inputs is None or inputs_path is None else inputs_path
    if {"tpot_s", "output_tokens"} <= set(frame):  # of one token there is no time a token after it
        frame = frame.assign(tpot_s=frame["tpot_s"].where(frame["output_tokens"] != 1))
    log = checked_columns(
        path,
        frame,
        "requests with their times",
        whole=LENGTHS,
        positive=TIMES,
        texts=("request_id",),
        optional=("tpot_s", "latency_s"),
    )
    given = (
        log
        if inputs is None
        else checked_columns(inputs_path or path, inputs, "requests", whole=LENGTHS, texts=("request_id",))
    )
    every = given.assign(arrival_s=_moments(inputs_path or path, given)).sort_values("arrival_s", kind="stable")
    for name in LENGTHS:
        if (every[name] < 1).any():
            raise ValueError(f"{inputs_path or path}: {name} is at least 1, got 0")
    if every["request_id"].duplicated().any() or log["request_id"].duplicated().any():
        raise ValueError(f"{path}: a request_id stands twice")
    times = log.set_index("request_id")
    missing = times.index.difference(pd.Index(every["request_id"]))
    if len(missing):
        raise ValueError(f"{source}: it lacks requests of {path.name}, such as {missing[0]!r}")
    judged = every["request_id"].isin(times.index).to_numpy()
    times = times.loc[every.loc[judged, "request_id"]]
    arrival = every["arrival_s"].to_numpy() - every["arrival_s"].min()
    latency = _latency(times)
    by_request = {"ttft": times["ttft_s"].to_numpy(), "tpot": _tpot(times), "latency": latency}
    reported = {
        LAST_FINISH: float(np.max(arrival[judged] + latency)),
        **{f"{name}_p{P50}": _middle(values) for name, values in by_request.items()},
    }
    return ServingPoint(
        what=f"{len(every):,} requests",
        region=REGION,
        system=System(),
        columns=at_times(arrival, every["input_tokens"], every["output_tokens"]),
        reported={kind: value for kind, value in reported.items() if np.isfinite(value)},
        judged=judged,
        by_request=by_request,
    )


def _moments(path: Path, frame: pd.DataFrame) -> NDArray[np.float64]:
    found = pd.to_numeric(frame["arrival_s"], errors="coerce").to_numpy(np.float64) if "arrival_s" in frame else None
    if found is None or not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(f"{path}: arrival_s is a number of at least 0 in each row")
    return found


def _latency(times: pd.DataFrame) -> NDArray[np.float64]:
    told = (times["ttft_s"] + times["tpot_s"].fillna(0) * (times["output_tokens"] - 1)).to_numpy(np.float64)
    return times["latency_s"].fillna(pd.Series(told, times.index)).to_numpy(np.float64)


def _tpot(times: pd.DataFrame) -> NDArray[np.float64]:
    gaps = (times["output_tokens"] - 1).to_numpy(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        told = np.where(gaps > 0, (times["latency_s"] - times["ttft_s"]).to_numpy(np.float64) / gaps, np.nan)
    found = times["tpot_s"].to_numpy(np.float64)
    return np.where(np.isfinite(found), found, told)


def _middle(values: NDArray[np.float64]) -> float:
    return float(np.nanpercentile(values, P50)) if np.isfinite(values).any() else float("nan")

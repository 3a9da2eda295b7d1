"""Scenarios from published traces: requests with the arrivals and lengths that were recorded."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kvbench.checks import check_int
from kvbench.messages import unknown
from kvbench.workload.arrivals import Arrivals, check_arrivals, clients_of
from kvbench.workload.request import Request, Session
from kvbench.workload.scenario import Scenario, Workload
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import TraceError, TraceMissing
from kvbench.workload.trace_formats import READERS, WITH_BLOCKS, WITHOUT_TIMES, read_trace
from kvbench.workload.trace_mooncake import UNITS

__all__ = ["Trace", "TraceColumns", "TraceError", "TraceMissing", "read_trace"]

FOLDER_VARIABLE = "KVBENCH_TRACES"
DEFAULT_FOLDER = "traces"


@dataclass(frozen=True, kw_only=True)
class Trace(Scenario):
    """Replay a trace: one request of one turn for each of its rows.

    Without a path it looks for `file`, then for `file`.gz, in the folder that the environment variable
    KVBENCH_TRACES names, or else in `traces`.

    Args:
        path: the file, or None to look for it.
        file: the published file's name, without folders.
        format: azure, mooncake, plain or sharegpt.
        source: where the published file is to be had, in words.
        arrivals: an arrival process for a format without times; None for those that have them.
        block_tokens: tokens a block, of the format mooncake; None: as published, where the file's rows show it.
        time_unit: ms or s, of the format mooncake; None: ms, where the file's rate allows it.
    Raises:
        ValueError: there is no such format, `file` is not a bare name, or arrivals, block_tokens or time_unit are
            wanting or not wanted.
    """

    path: str | None = None
    file: str
    format: str
    source: str
    arrivals: Arrivals | None = None
    block_tokens: int | None = None
    time_unit: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("path", "file", "source"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "path" and value is None):
                raise ValueError(f"{name} is text, got {value!r}")
        if self.format not in READERS:
            raise ValueError(unknown("trace format", self.format, READERS))
        if not self.file or self.file != Path(self.file).name:
            raise ValueError(f"file is a name without folders, got {self.file!r}; give a whole path as path")
        if self.format in WITHOUT_TIMES:
            check_arrivals(f"arrivals of the format {self.format}, which has no times,", self.arrivals)
        elif self.arrivals is not None:
            raise ValueError(f"arrivals is null for the format {self.format}, which has times; got {self.arrivals!r}")
        if self._told and self.format not in WITH_BLOCKS:
            raise ValueError(
                f"{', '.join(self._told)}: null for the format {self.format}, whose files leave nothing open"
            )
        if self.block_tokens is not None:
            check_int("block_tokens", self.block_tokens, 1, 2**20)
        if self.time_unit is not None and self.time_unit not in UNITS:
            raise ValueError(unknown("time_unit", self.time_unit, UNITS))

    @property
    def _told(self) -> dict[str, object]:
        """What the file leaves open and the scenario says."""
        told = {"block_tokens": self.block_tokens, "time_unit": self.time_unit}
        return {name: value for name, value in told.items() if value is not None}

    def workload(self, rng: np.random.Generator) -> Workload:
        """Read the trace and make requests of its first rows by arrival.

        Raises:
            TraceMissing: there is no such file.
            TraceError: the file is not of the format.
        """
        columns = self.columns(rng)
        num = min(columns.num_requests, self.max_requests or columns.num_requests)
        rows = zip(
            columns.arrivals_ns[:num].tolist(),
            columns.num_prompt_tokens[:num].tolist(),
            columns.num_output_tokens[:num].tolist(),
            strict=True,
        )
        sessions = tuple(Session(arrival, (Request(prompt, output),)) for arrival, prompt, output in rows)
        return Workload(sessions, columns.num_requests, columns.num_clients)

    def columns(self, rng: np.random.Generator) -> TraceColumns:
        """Read the whole trace, with arrivals drawn where it has none.

        Raises:
            TraceMissing: there is no such file.
            TraceError: the file is not of the format.
        """
        columns = read_trace(self.locate(), self.format, **self._told)
        if self.arrivals is None:
            return columns
        times_ns = self.arrivals.times_ns(columns.num_requests, rng.spawn(1)[0])
        return replace(columns, arrival_ns=times_ns, num_clients=clients_of(self.arrivals))

    def locate(self) -> Path:
        """Find the file.

        Raises:
            TraceMissing: it is nowhere; says where it was looked for and where it is to be had.
        """
        folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
        places = [Path(self.path)] if self.path else [folder / self.file, folder / f"{self.file}.gz"]
        places = [Path(os.path.expanduser(place)) for place in places]
        for place in places:
            if os.path.exists(place):
                return place
        raise TraceMissing(
            f"trace file {self.path or self.file} is missing.\n"
            f"  looked for: {', '.join(str(place.absolute()) for place in places)}\n"
            f"  published: {self.source}\n"
            f"  give its path with scenario.path=…, or its folder in the environment variable {FOLDER_VARIABLE}"
        )

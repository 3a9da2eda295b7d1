"""Scenarios from published traces: requests with the arrivals and lengths that were recorded."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kvbench.checks import check_int
from kvbench.messages import unknown
from kvbench.workload.arrivals import Arrivals, check_arrivals, clients_of
from kvbench.workload.columns import sessions_of
from kvbench.workload.scenario import Scenario, Workload
from kvbench.workload.trace_aiperf import HISTORIES
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import TraceError, TraceMissing
from kvbench.workload.trace_formats import FORMATS, check_told, read_trace
from kvbench.workload.trace_mooncake import UNITS
from kvbench.workload.trace_recognised import recognised

__all__ = ["Trace", "TraceColumns", "TraceError", "TraceMissing", "read_trace"]

FOLDER_VARIABLE = "KVBENCH_TRACES"
DEFAULT_FOLDER = "traces"


@dataclass(frozen=True, kw_only=True)
class Trace(Scenario):
    """Replay a trace: a request for each of its rows, turns of sessions after one another.

    Without a path it looks for `file`, then for `file`.gz, in the folder that the environment variable
    KVBENCH_TRACES names, or else in `traces`.

    Args:
        path: the file, or a folder of files where the format has such; None to look for it.
        file: the published file's name, without folders; None where there is none to look for.
        format: one of `kvbench.workload.trace_formats.FORMATS`; None: as the file's columns or keys say.
        source: where the published file is to be had, in words.
        arrivals: an arrival process of the sessions, or requests, of a format without times; None for those that have
            them. Where no file is looked for, one that has times keeps them.
        block_tokens: tokens a block, of the formats mooncake and aiperf; None: as published, where the file's rows show
            it.
        time_unit: ms or s, of the format mooncake; None: ms, where the file's rate allows it.
        history: whole or new, of the format aiperf: what is in the prompt of a later turn; None: as its rows say.
        tokenizer: of the format conversations, a tokenizer.json or a folder that has one; None: a token for four
            characters.
    Raises:
        ValueError: there is no such format, `file` is not a bare name, or arrivals or what a format's files leave open
            are wanting or not wanted.
    """

    path: str | None = None
    file: str | None = None
    format: str | None = None
    source: str = "a file of your own"
    arrivals: Arrivals | None = None
    block_tokens: int | None = None
    time_unit: str | None = None
    history: str | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("path", "file", "source", "format", "tokenizer"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name != "source" and value is None):
                raise ValueError(f"{name} is text, got {value!r}")
        if self.file is not None and (not self.file or self.file != Path(self.file).name):
            raise ValueError(f"file is a name without folders, got {self.file!r}; give a whole path as path")
        if self.format is not None:
            self._check_format(self.format)
        elif self.arrivals is not None:
            check_arrivals("arrivals", self.arrivals)
        if self.block_tokens is not None:
            check_int("block_tokens", self.block_tokens, 1, 2**20)
        for name, allowed in (("time_unit", UNITS), ("history", HISTORIES)):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(unknown(name, value, allowed))

    def _check_format(self, name: str) -> None:
        if name not in FORMATS:
            raise ValueError(unknown("trace format", name, FORMATS))
        if not FORMATS[name].has_times:
            check_arrivals(f"arrivals of the format {name}, which has no times,", self.arrivals)
        elif self.arrivals is not None and self.file is not None and name != "aiperf":  # whose files may have none
            raise ValueError(f"arrivals is null for the format {name}, which has times; got {self.arrivals!r}")
        check_told(name, self._told)

    @property
    def _told(self) -> dict[str, object]:
        """What the file leaves open and the scenario says."""
        told = {name: getattr(self, name) for name in ("block_tokens", "time_unit", "history", "tokenizer")}
        return {name: value for name, value in told.items() if value is not None}

    def named(self, name: str) -> str:
        """What results call it: the file's own name where the scenario names no file."""
        return name if self.path is None or self.file is not None else Path(self.path).name

    def workload(self, rng: np.random.Generator) -> Workload:
        """Read the trace and make sessions of its first rows by arrival.

        Raises:
            TraceMissing: there is no such file.
            TraceError: the file is not of the format.
            ValueError: its sessions are more than turns after turns.
        """
        columns = self.columns(rng)
        most = self.max_requests or columns.num_requests
        if columns.sessions is None:
            return Workload(
                sessions_of(columns.first(most)), columns.num_requests, columns.num_clients, notes=columns.notes
            )
        sessions = sessions_of(columns)
        return Workload(sessions[:most], len(sessions), columns.num_clients, notes=columns.notes)

    def columns(self, rng: np.random.Generator) -> TraceColumns:
        """Read the whole trace, with arrivals drawn where it has none.

        Raises:
            TraceMissing: there is no such file.
            TraceError: the file is not of the format, or of none.
            ValueError: it has no times, and there are no arrivals.
        """
        path = self.locate()
        format_name = self.format or recognised(path)
        columns = read_trace(path, format_name, **self._told)
        if columns.arrival_ns is not None:
            return columns
        if self.arrivals is None:
            raise ValueError(f"{path}, of the format {format_name}, has no times: give its sessions arrivals")
        own = np.arange(columns.num_requests) if columns.sessions is None else columns.sessions
        times_ns = self.arrivals.times_ns(int(own.max()) + 1, rng.spawn(1)[0])
        return replace(columns, arrival_ns=times_ns[own], num_clients=clients_of(self.arrivals))

    def locate(self) -> Path:
        """Find the file.

        Raises:
            TraceMissing: it is nowhere; says where it was looked for and where it is to be had.
        """
        if self.path is None and self.file is None:
            raise TraceMissing(f"no trace is named: give its file, or folder, with scenario.path=…\n  {_formats()}")
        folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
        places = [Path(self.path)] if self.path else [folder / f"{self.file}{ending}" for ending in ("", ".gz")]
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


def _formats() -> str:
    return f"formats: {', '.join(FORMATS)}; a file's is recognised by its columns or keys"

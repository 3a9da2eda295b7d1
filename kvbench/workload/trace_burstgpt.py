"""Read BurstGPT's traces: CSV of requests, of which some are turns of a session."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import NONE
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import Chunk, Converter, csv_header, read_csv
from kvbench.workload.trace_rows import FileRows
from kvbench.workload.trace_values import SECONDS, whole_numbers

TIME, PROMPT, OUTPUT = "Timestamp", "Request tokens", "Response tokens"
SESSION, TOOK = "Session ID", "Elapsed time"
UNKNOWN = -1


def _seconds_or_none(cells: Sequence[str]) -> NDArray[np.int64]:
    known = [at for at, cell in enumerate(cells) if cell]
    values = np.full(len(cells), UNKNOWN)
    values[known] = SECONDS.apply([cells[at] for at in known])
    return values


def read_burstgpt(path: Path) -> TraceColumns:
    """Read CSV with Timestamp (s), Request tokens, Response tokens, and maybe Session ID and Elapsed time (s).

    Requests of one session follow one another. Where it is known how long the one before took, what is between its end
    and the next is think time; else the next begins at its time. A prompt that is longer than the prompt and the answer
    before it begins with both, and any other shares nothing.

    Args:
        path: the file, plain or gzip.
    Raises:
        TraceMissing: there is no such file.
        TraceError: the file is not of the format.
    Source: HPMLL/BurstGPT.
    Departs: Model, Total tokens and Log Type are not read; a request without a session is one by itself.
    """
    optional = [name for name in (SESSION, TOOK) if name in csv_header(path)]
    chunks = list(map(_arrays, read_csv(path, [TIME, PROMPT, OUTPUT, *optional])))
    lines, times, prompts, outputs, took = (
        np.concatenate(part) for part in zip(*(own[:-1] for own in chunks), strict=True)
    )
    sessions, after = _chained([name for own in chunks for name in own[-1]])
    order = np.flatnonzero(after != NONE)
    arrivals, think = times.copy(), np.zeros_like(times)
    for row in order.tolist():
        before = after[row]
        if took[before] != UNKNOWN and times[row] >= times[before]:
            arrivals[row] = arrivals[before]
            think[row] = max(0, times[row] - times[before] - took[before])
    return FileRows(
        path=path,
        lines=lines,
        num_prompt_tokens=prompts,
        num_output_tokens=outputs,
        sessions=sessions,
        after=after,
        arrival_ns=arrivals,
        think_ns=think,
    ).columns


def _arrays(
    chunk: Chunk,
) -> tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Sequence[str]
]:
    num = len(chunk.lines)
    took = np.full(num, UNKNOWN)
    if TOOK in chunk.columns:
        took = chunk.convert(TOOK, Converter(_seconds_or_none, f"{SECONDS.allowed}, or nothing"))
    return (
        np.array(chunk.lines),
        chunk.convert(TIME, SECONDS),
        chunk.convert(PROMPT, whole_numbers(1)),
        chunk.convert(OUTPUT, whole_numbers(0)),
        took,
        chunk.columns.get(SESSION, [""] * num),
    )


def _chained(names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sessions by their names, from 0, those without a name apart; and the one before each request in its own."""
    numbers: dict[str, int] = {}
    last: dict[str, int] = {}
    sessions, after, found = [], [], 0
    for row, name in enumerate(names):
        before = last.get(name, NONE) if name else NONE
        after.append(before)
        if before == NONE:
            numbers[name] = found
            found += 1
        sessions.append(numbers[name])
        last[name] = row
    return np.array(sessions, np.int64), np.array(after, np.int64)

"""Read what AIPerf and Dynamo replay: Mooncake's JSON lines with sessions, delays and whom a request waits for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvbench.messages import cut, printable
from kvbench.workload.contents import NONE
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import TraceError, open_text
from kvbench.workload.trace_json import KeyedValues, json_objects
from kvbench.workload.trace_mooncake import block_size
from kvbench.workload.trace_rows import FileRows

HISTORIES = ("whole", "new")
OTHER_NAMES = {
    "input_tokens": "input_length",
    "output_tokens": "output_length",
    "created_time": "timestamp",
    "delay_ms": "delay",
}
PER_MS = 1_000
UNREAD = "dynamo.agentic_mooncake"
"""What the head of Dynamo's later rows of agents says: they have other keys."""
UNANSWERED = 1
"""Output tokens where a row does not say: the one that the prefill gives."""


def read_aiperf(path: Path, block_tokens: int | None = None, history: str | None = None) -> TraceColumns:
    """Read JSON lines with input_length, and maybe output_length, timestamp and delay (ms), session_id, hash_ids.

    Rows of one session_id follow one another, each `delay` after the end of the one before, and not before its
    timestamp. Where rows have a request_id, they follow those that `wait_for` names instead, delay and tool_wait_ms
    after their end; a prompt goes on from the last of its session, but not with prefix_reset.

    Args:
        path: the file, plain or gzip.
        block_tokens: tokens of a block; None: 512, where the file's rows allow no other size.
        history: whole, where a later turn's input_length has all before it in it; new, where it has not; None: whole,
            where rows have hash_ids or each is longer than the prompt and the answer before it.
    Raises:
        TraceMissing: there is no such file.
        TraceError: the file is not of the format, or leaves open what was not given.
    Source: ai-dynamo/aiperf, MooncakeTrace; ai-dynamo/dynamo, MooncakeRow and AgenticMooncakeRow.
    Departs: output_length is 1 where a row has none; rows of texts (text_input, messages, payload) are refused.
    """
    with open_text(path) as text:
        rows = [_row(path, line, values) for line, values in json_objects(path, text)]
    prompts, outputs = (np.array([getattr(row, name) for row in rows], np.int64) for name in ("prompt", "output"))
    sessions, after = _sessions(rows)
    parents, offsets = _parents(path, rows, after)
    ids = [row.ids for row in rows if row.ids is not None]
    if ids and len(ids) < len(rows):
        without = next(row for row in rows if row.ids is None)
        raise without.fields.bad("hash_ids", "a list of block ids in each row, or in none")
    if history is None:
        history = _history(path, prompts, prompts + outputs, after, bool(ids))
    if history == "new":
        prompts = _whole(prompts, outputs, after)
    lines = np.array([row.line for row in rows], np.int64)
    if ids:
        block_tokens = block_size(path, lines, prompts, np.array([each.size for each in ids], np.int64), block_tokens)
    return FileRows(
        path=path,
        lines=lines,
        num_prompt_tokens=prompts,
        num_output_tokens=outputs,
        sessions=sessions,
        after=after,
        arrival_ns=_arrivals(rows, parents, offsets),
        think_ns=np.array([row.delay_ns for row in rows], np.int64),
        parents=parents,
        parent_offsets=offsets,
        ids=ids or None,
        block_tokens=block_tokens or 1,
    ).columns


@dataclass(frozen=True)
class _Row:
    fields: KeyedValues
    line: int
    prompt: int
    output: int
    time_ns: int | None
    delay_ns: int
    ids: NDArray[np.int64] | None

    def named(self, key: str) -> str | None:
        return None if self.fields.values.get(key) is None else self.fields.text(key)


def _row(path: Path, line: int, values: dict[str, object]) -> _Row:
    fields = KeyedValues(f"{path}, line {line}", {OTHER_NAMES.get(name, name): value for name, value in values.items()})
    if fields.values.get("schema") == UNREAD:
        raise fields.bad(
            "schema", "none: rows of Dynamo with play_id and dependencies are not read, those with wait_for are"
        )
    has = {name for name, value in fields.values.items() if value is not None}
    return _Row(
        fields=fields,
        line=line,
        prompt=fields.integer("input_length", 1),
        output=fields.integer("output_length", 0) if "output_length" in has else UNANSWERED,
        time_ns=fields.time_ns("timestamp", PER_MS) if "timestamp" in has else None,
        delay_ns=fields.time_ns("delay", PER_MS, default=0) + fields.time_ns("tool_wait_ms", PER_MS, default=0),
        ids=fields.ids() if "hash_ids" in has else None,
    )


def _sessions(rows: list[_Row]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sessions from 0, those without a name apart; and the request that each goes on from."""
    numbers: dict[str, int] = {}
    last: dict[int, int] = {}
    sessions, after = [], []
    for number, row in enumerate(rows):
        name = row.named("session_id")
        session = len(last) if name is None else numbers.setdefault(name, len(last))
        sessions.append(session)
        after.append(NONE if row.fields.values.get("prefix_reset") else last.get(session, NONE))
        last[session] = number
    return np.array(sessions, np.int64), np.array(after, np.int64)


def _parents(path: Path, rows: list[_Row], after: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whom each follows: those that it waits for; where no request has a name, the one before it in its session."""
    names: dict[str, int] = {}
    for number, row in enumerate(rows):
        name = row.named("request_id")
        if name is not None and names.setdefault(name, number) != number:
            raise row.fields.bad("request_id", "one that no line before has")
    if names:
        waited = [list(_waited(row, names)) for row in rows]
    else:
        waited = [[] if before == NONE else [before] for before in after.tolist()]
    offsets = np.append(0, np.cumsum([len(own) for own in waited]))
    return np.array([parent for own in waited for parent in own], np.int64), offsets


def _waited(row: _Row, names: dict[str, int]) -> Iterator[int]:
    listed = row.fields.values.get("wait_for") or []
    if not isinstance(listed, list):
        raise row.fields.bad("wait_for", "a list of request_ids")
    for name in dict.fromkeys(map(str, listed)):
        if name not in names:
            raise row.fields.bad("wait_for", "request_ids of this file's rows", repr(cut(printable(name))))
        yield names[name]


def _history(
    path: Path, prompts: NDArray[np.int64], ends: NDArray[np.int64], after: NDArray[np.int64], has_ids: bool
) -> str:
    later = np.flatnonzero(after != NONE)
    if has_ids or (prompts[later] > ends[after[later]]).all():
        return "whole"
    raise TraceError(
        f"{path} does not say whether a later turn's input_length has the turns before it in it; give history=whole "
        "where it has, history=new where it has not"
    )


def _whole(prompts: NDArray[np.int64], outputs: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.int64]:
    """Prompts with all before them; whom one goes on from stands before it in the file."""
    whole = prompts.tolist()
    for row, before in enumerate(after.tolist()):
        if before != NONE:
            whole[row] += whole[before] + int(outputs[before])
    return np.array(whole, np.int64)


def _arrivals(rows: list[_Row], parents: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Times; of a row without one, that of whom it follows. None where no row has one."""
    if all(row.time_ns is None for row in rows):
        return None
    known = np.array([NONE if row.time_ns is None else row.time_ns for row in rows], np.int64)
    open_rows = np.flatnonzero(known == NONE)
    while open_rows.size:
        for row in open_rows.tolist():
            own = known[parents[offsets[row] : offsets[row + 1]]]
            if not own.size:
                raise rows[row].fields.bad("timestamp", "a time of each request that follows none, or of no request")
            known[row] = NONE if (own == NONE).any() else own.max()
        left = np.flatnonzero(known == NONE)
        if left.size == open_rows.size:
            known[left] = 0  # a circle, which is refused where it is looked for
            break
        open_rows = left
    return known

"""Read Bailian's traces: JSON lines of chats that go on from others, with ids of blocks of 16 tokens."""

from pathlib import Path

import numpy as np

from kvbench.workload.contents import NONE
from kvbench.workload.interning import fits
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import TraceError, open_text
from kvbench.workload.trace_json import KeyedValues, json_objects
from kvbench.workload.trace_rows import FileRows

BLOCK_TOKENS = 16
NO_PARENT = -1
LEAST, MOST = -(2**63), 2**63 - 1


def read_bailian(path: Path) -> TraceColumns:
    """Read JSON lines with chat_id, parent_chat_id (-1: none), timestamp (s), input_length, output_length, hash_ids.

    A chat goes on from its parent: it begins at its time, or when its parent has ended if that is later.

    Args:
        path: the file, plain or gzip.
    Raises:
        TraceMissing: there is no such file.
        TraceError: the file is not of the format, a parent does not exist, or chats follow one another in a circle.
    Source: alibaba-edu/qwen-bailian-usagetraces-anon.
    Departs: `turn` and `type` are not read; think times are unknown, since answers' times are.
    """
    rows: list[tuple[int, int, int, int, int, int]] = []
    ids = []
    numbers: dict[int, int] = {}
    with open_text(path) as text:
        for line, values in json_objects(path, text):
            row = KeyedValues(f"{path}, line {line}", values)
            prompt, output = row.integer("input_length", 1), row.integer("output_length", 0)
            chat = row.integer("chat_id", LEAST, MOST)
            if numbers.setdefault(chat, len(rows)) != len(rows):
                raise row.bad("chat_id", "one that no line before has")
            ids.append(row.ids())
            if not fits(ids[-1].size, prompt, BLOCK_TOKENS):
                allowed = f"an id for each block of {BLOCK_TOKENS} tokens: {-(-prompt // BLOCK_TOKENS)} for {prompt}"
                raise row.bad("hash_ids", allowed, f"{ids[-1].size} ids")
            parent = row.integer("parent_chat_id", LEAST, MOST)
            rows.append((line, row.time_ns("timestamp"), prompt, output, chat, parent))
    lines, times, prompts, outputs, _, parents = np.array(rows, np.int64).T
    after = np.array([NONE if parent == NO_PARENT else numbers.get(parent, len(rows)) for parent in parents.tolist()])
    if (lost := np.flatnonzero(after == len(rows))).size:
        raise TraceError(
            f"{path}, line {lines[lost[0]]}, key parent_chat_id: got {parents[lost[0]]}, which is no line's chat_id; "
            f"allowed is one of them, or {NO_PARENT} for none"
        )
    return FileRows(
        path=path,
        lines=lines,
        num_prompt_tokens=prompts,
        num_output_tokens=outputs,
        sessions=roots(after),
        after=after,
        arrival_ns=times,
        think_ns=np.zeros_like(times),
        ids=ids,
        block_tokens=BLOCK_TOKENS,
    ).columns


def roots(after: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Sessions by whom requests go on from: numbers from 0 by first appearance; those in a circle have any."""
    above = np.where(after == NONE, np.arange(after.size), after)
    for _ in range(int(after.size).bit_length()):
        above = above[above]
    _, firsts, number = np.unique(above, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[number]

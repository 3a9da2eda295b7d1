"""Read agents' sessions as kv-cache-tester records them: a JSON file a session, work given to others nested in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import NONE
from kvbench.workload.interning import Interning, fits
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import TraceError
from kvbench.workload.trace_json import KeyedValues, read_json
from kvbench.workload.trace_turns import CollectedTurns

SCOPES = ("local", "global")
CALLS = ("n", "s")
SUBAGENT = "subagent"
PER_MS = 1_000


def is_agentic(document: object) -> bool:
    """Whether a JSON document is a session of this format."""
    return isinstance(document, dict) and {"block_size", "hash_id_scope", "requests"} <= set(document)


def read_agentic(path: Path) -> TraceColumns:
    """Read sessions of agents: a file, or all files *.json of a folder.

    A call follows the one before it after its think time. A subagent's calls follow the last call that began before it
    did, and the next call of who started it waits for its end, unless it was launched to run beside: subagents that run
    at the same time are parallel. What is given as a subagent's t is when its result came back, duration_ms after it
    began. Equal ids mean the same within a session, and where hash_id_scope is global in all of them.

    Args:
        path: the file or the folder.
    Returns:
        Sessions without times, in the order of their files' names.
    Raises:
        TraceMissing: there is no such file.
        TraceError: a file is not of the format, or the folder has none.
    Source: callanjfox/kv-cache-tester.
    Departs: what was recorded of answers' times is used for think times only; a subagent's first call, and one that
        waited for subagents, think as long as they were apart.
    """
    turns, texts, anywhere = CollectedTurns(), Interning(), _SameIds()
    rows: list[int] = []
    sizes: set[int] = set()
    for number, (where, document) in enumerate(_documents(path)):
        session = KeyedValues(where, document)
        scope = anywhere if _is_global(session) else _SameIds()
        _Session(session, number, turns, scope).read()
        sizes.update(scope.blocks[-1:])
        if scope is not anywhere:
            rows += scope.into(texts)
    for block_tokens in sorted(set(anywhere.blocks)):
        rows += anywhere.into(texts, block_tokens)
    columns = turns.columns(texts.contents().of(np.argsort(rows)), has_times=False)
    return replace(columns, block_tokens=min(sizes))


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix == ".json" and not each.name.startswith("."))
        if not files:
            raise TraceError(f"{path} has no file named *.json; allowed is a folder with a session a file")
    for file in files:
        document = read_json(file)
        if not is_agentic(document) and path.is_dir():
            raise TraceError(
                f"{file} is no agent's session, as others in its folder: it lacks block_size, hash_id_scope or "
                "requests; allowed is a folder whose *.json are all of one format"
            )
        yield str(file), document


def _is_global(session: KeyedValues) -> bool:
    if session.values.get("hash_id_scope") not in SCOPES:
        raise session.bad("hash_id_scope", " or ".join(SCOPES))
    return bool(session.values["hash_id_scope"] == "global")


@dataclass
class _SameIds:
    """Calls whose equal ids mean the same."""

    rows: list[int] = field(default_factory=list)
    ids: list[NDArray[np.int64]] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    histories: list[int] = field(default_factory=list)

    def into(self, texts: Interning, block_tokens: int | None = None) -> list[int]:
        """Intern those with blocks of this size, or all; returns their rows."""
        chosen = [at for at, own in enumerate(self.blocks) if block_tokens in (None, own)]
        place = {self.rows[at]: new for new, at in enumerate(chosen)} | {NONE: NONE}

        def of(values: Sequence[Any]) -> list[Any]:
            return [values[at] for at in chosen]

        if chosen:
            histories = [place[row] for row in of(self.histories)]
            texts.add(of(self.ids), self.blocks[chosen[0]], of(self.prompts), of(self.outputs), histories)
        return of(self.rows)


@dataclass(frozen=True)
class _Call:
    row: int
    start_ns: int
    end_ns: int


class _Session:
    def __init__(self, fields: KeyedValues, number: int, turns: CollectedTurns, scope: _SameIds) -> None:
        self._fields, self._number, self._turns, self._scope = fields, number, turns, scope
        self._block_tokens = fields.integer("block_size", 1, 2**20)

    def read(self) -> None:
        """Add all calls of the session."""
        try:
            self._calls(self._fields, 0, None)
        except RecursionError:
            raise TraceError(f"{self._fields.where}: subagents are nested too deep") from None

    def _calls(self, level: KeyedValues, origin_ns: int, before: _Call | None) -> _Call:
        """Add the calls of the session, or of a subagent that began at a time; returns the last."""
        made: list[_Call] = []
        joined: list[_Call] = []
        for place, values in enumerate(level.items("requests")):
            call = KeyedValues(f"{level.where}, requests[{place}]", values)
            if call.values.get("type") == SUBAGENT:
                last, is_awaited = self._subagent(call, origin_ns, made, before)
                joined += [last] * is_awaited
            elif call.values.get("type") in CALLS:
                start_ns = origin_ns + call.time_ns("t")
                if made and start_ns < made[-1].start_ns:
                    raise call.bad("t", "a time that is not before the one of the call before")
                made.append(self._call(call, start_ns, made[-1] if made else before, joined, is_first=not made))
                joined = []
            else:
                raise call.bad("type", f"{', '.join(CALLS)} or {SUBAGENT}")
        if not made:
            raise level.bad("requests", f"a list with a request of type {' or '.join(CALLS)}", "none of them")
        return made[-1]

    def _subagent(
        self, entry: KeyedValues, origin_ns: int, made: list[_Call], before: _Call | None
    ) -> tuple[_Call, bool]:
        """Add the calls of a subagent; returns its last, and whether who started it waits for that."""
        end_ns = origin_ns + entry.time_ns("t")
        took_ns = entry.time_ns("duration_ms", PER_MS, default=0)
        start_ns = max(end_ns - took_ns, origin_ns)
        starters = [call for call in made if call.start_ns <= start_ns] or made[:1]
        last = self._calls(entry, start_ns, starters[-1] if starters else before)
        return last, entry.values.get("status") != "async_launched"

    def _call(
        self, call: KeyedValues, start_ns: int, before: _Call | None, joined: list[_Call], is_first: bool
    ) -> _Call:
        prompt, output = call.integer("in", 1), call.integer("out", 0)
        parents = [] if before is None else [before, *joined]
        think_ns = max(0, start_ns - max((parent.end_ns for parent in parents), default=start_ns))
        if before is not None and not is_first and not joined:
            think_ns = call.time_ns("think_time", default=think_ns)
        row = self._turns.add(
            session=self._number,
            num_prompt_tokens=prompt,
            num_output_tokens=output,
            arrival_ns=0,
            parents=[parent.row for parent in parents],
            think_ns=think_ns,
        )
        self._intern(row, call, prompt, output, NONE if before is None else before.row)
        return _Call(row, start_ns, start_ns + call.time_ns("api_time", default=0))

    def _intern(self, row: int, call: KeyedValues, prompt: int, output: int, history: int) -> None:
        ids, size = call.ids(), self._block_tokens
        if not fits(ids.size, prompt, size):
            full = prompt // size
            raise call.bad(
                "hash_ids", f"{full} ids of blocks of {size} tokens for {prompt}, or one more", f"{ids.size} ids"
            )
        self._scope.rows.append(row)
        self._scope.ids.append(ids)
        self._scope.blocks.append(size)
        self._scope.prompts.append(prompt)
        self._scope.outputs.append(output)
        self._scope.histories.append(history)

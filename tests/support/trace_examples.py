"""A small file of each format of traces, and what it is read as; `docs/workloads.md` shows both."""

import json
import tempfile
from pathlib import Path

from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_formats import FORMATS, read_trace


def _lines(*rows: dict[str, object]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _row(tokens: int, output: int, ids: list[int], **more: object) -> dict[str, object]:
    return {"input_length": tokens, "output_length": output, "hash_ids": ids, **more}


def _call(t: float, tokens: int, output: int, ids: list[int], **more: object) -> str:
    call = {"t": t, "type": "n", "in": tokens, "out": output, "hash_ids": ids, "api_time": 2.0, **more}
    return json.dumps(call)


AGENT = f"""{{"block_size": 64, "hash_id_scope": "local", "requests": [
  {_call(0, 150, 20, [1, 2])},
  {{"t": 12, "type": "subagent", "duration_ms": 9000, "status": "completed", "requests": [
    {_call(0, 130, 30, [7, 8])}]}},
  {{"t": 15, "type": "subagent", "duration_ms": 12000, "status": "completed", "requests": [
    {_call(0, 70, 40, [7])}]}},
  {_call(18, 260, 10, [1, 2, 3, 4], think_time=16.0)},
  {_call(25, 330, 15, [1, 2, 3, 4, 5], think_time=5.0)}]}}
"""
EXAMPLES = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.517335+00:00,2399,6\n",
    "burstgpt": "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,1024,12.5,ChatGPT,472,18,490,Conversation log\n20,,3.0,GPT-4,417,276,693,API log\n"
    "45,1024,9.0,ChatGPT,1087,230,1317,Conversation log\n",
    "plain": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,512,64\n1.5,300,20\n",
    "sharegpt": "num_prefill_tokens,num_decode_tokens\n3742,284\n18,243\n",
    "mooncake": _lines(
        _row(1300, 52, [46, 47, 48], timestamp=0),
        _row(1500, 26, [46, 47, 49], timestamp=1053),
    ),
    "bailian": _lines(
        _row(33, 20, [5, 6, 7], chat_id=159, parent_chat_id=-1, timestamp=61.0, type="text", turn=1),
        _row(60, 12, [5, 6, 8, 9], chat_id=160, parent_chat_id=159, timestamp=75.5, type="text", turn=2),
    ),
    "aiperf": _lines(
        {"session_id": "a", "timestamp": 0, "input_length": 300, "output_length": 40},
        {"timestamp": 500, "input_length": 80, "output_length": 10},
        {"session_id": "a", "delay": 2000, "input_length": 420, "output_length": 30},
    ),
    "agentic": AGENT,
    "conversations": json.dumps(
        {
            "messages": [
                {"role": "system", "content": "You are brief."},
                {"role": "user", "content": "What is a prime number?"},
                {"role": "assistant", "content": "A whole number above one with no divisors but one and itself."},
                {"role": "user", "content": "Is one a prime?"},
                {"role": "assistant", "content": "No."},
            ]
        }
    )
    + "\n",
}


def read(name: str) -> TraceColumns:
    """An example's columns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example"
        path.write_text(EXAMPLES[name], encoding="utf-8")
        return read_trace(path, name)


def shared_tokens(columns: TraceColumns, request: int) -> int:
    """Tokens of a prompt that texts before it begin with."""
    contents = columns.contents
    if contents is None:
        return 0
    before = {stretch for each in range(request) for stretch in contents.path(int(contents.answers[each]))}
    return max([0, *(int(contents.ends[at]) for at in contents.path(int(contents.prompts[request])) if at in before)])


def _row_of(columns: TraceColumns, request: int) -> str:
    followed = ""
    if columns.parents is not None and columns.parent_offsets is not None:
        first, stop = columns.parent_offsets[request : request + 2]
        followed = ", ".join(map(str, columns.parents[first:stop]))
    arrival = "" if columns.arrival_ns is None else f"{columns.arrival_ns[request] / 1e9:g}"
    think = f"{columns.think_ns[request] / 1e9:g}" if followed and columns.think_ns is not None else ""
    session = request if columns.sessions is None else columns.sessions[request]
    counts = (columns.num_prompt_tokens[request], columns.num_output_tokens[request], shared_tokens(columns, request))
    return "".join(f"{cell!s:>9}" for cell in (request, session, arrival, followed, think, *counts)).rstrip()


COLUMNS = ("request", "session", "arrives", "follows", "thinks", "prompt", "answer", "shared")


def pages_text() -> str:
    """For each format its example and what is read from it."""
    parts = []
    for name in FORMATS:
        columns = read(name)
        table = ["".join(f"{column:>9}" for column in COLUMNS)]
        table += [_row_of(columns, request) for request in range(columns.num_requests)]
        table += [f"assumed: {note}" for note in columns.notes]
        parts.append(f"`{name}`:\n\n```\n{EXAMPLES[name]}```\n\n```\n" + "\n".join(table) + "\n```")
    return "\n\n".join(parts)

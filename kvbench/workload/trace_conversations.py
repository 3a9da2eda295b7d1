"""Read conversations as texts: ShareGPT's and OpenAI's messages, in a JSON list or one a line."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import NONE
from kvbench.workload.histories import Beginnings, TurnColumns
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import TraceError, open_text
from kvbench.workload.trace_json import KeyedValues, json_objects, read_json
from kvbench.workload.trace_tokens import ABOUT, by_characters, by_tokenizer

LISTS = {"conversations": ("from", "value"), "messages": ("role", "content")}
"""Where messages are, and of each, who says what."""
ANSWERS = frozenset({"assistant", "gpt", "chatgpt", "bing", "bard", "model"})
SYSTEM = "system"


def read_conversations(path: Path, tokenizer: str | None = None) -> TraceColumns:
    """Read conversations, each an object with `conversations` (from, value) or `messages` (role, content).

    All that is said up to an answer is its turn's new text; the history before it is whole, answers included. A
    conversation's first message, where it is the system's, is shared by all that begin with the same.

    Args:
        path: the file, plain or gzip: a JSON list of them, or one a line.
        tokenizer: a tokenizer.json, or a folder that has one; None: a token for four characters.
    Returns:
        Sessions without times.
    Raises:
        TraceMissing: there is no such file.
        TraceError: the file is not of the format, or no conversation says anything.
    Source: the files of ShareGPT, and OpenAI's chat and fine-tuning formats.
    Departs: what a chat template adds is not counted; an empty conversation is left out, which is said; of a message
        in parts, texts count.
    """
    texts, conversations, num_empty = [], [], 0
    for where, values in _objects(path):
        turns = list(_turns(KeyedValues(where, values)))
        num_empty += not turns
        if turns:
            conversations.append(len(turns))
            texts += turns
    if not texts:
        raise TraceError(f"{path} has no conversation that says anything; allowed is a file with some")
    count = by_characters if tokenizer is None else by_tokenizer(Path(tokenizer))
    flat = [text for turn in texts for text in turn]
    system, new, output = np.array(count(flat), np.int64).reshape(-1, 3).T
    sessions = np.repeat(np.arange(len(conversations)), conversations)
    is_first = np.diff(sessions, prepend=NONE) > 0
    rows = np.arange(sessions.size)
    beginnings = _beginnings([turn[0] for turn in texts], system)
    has_beginning = is_first & (beginnings.chosen != NONE)
    columns = TurnColumns(
        arrival_ns=np.zeros_like(rows),
        sessions=sessions,
        after=np.where(is_first, NONE, rows - 1),
        num_new_tokens=np.where(has_beginning, new, np.maximum(new, 1)),
        num_output_tokens=output,
        think_ns=np.zeros_like(rows),
        beginnings=beginnings if has_beginning.any() else None,
    ).columns
    notes = [ABOUT] if tokenizer is None else []
    if num_empty:
        notes.append(f"conversations that say nothing, left out: {num_empty:,}")
    return replace(columns, arrival_ns=None, notes=tuple(notes))


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path) as text:
        is_list = next((line.lstrip()[:1] == "[" for line in text if not line.isspace()), False)
    if is_list:
        for number, values in enumerate(read_json(path)):
            yield f"{path}, conversation {number}", values
    else:
        with open_text(path) as text:
            for line, values in json_objects(path, text):
                yield f"{path}, line {line}", values


def _turns(conversation: KeyedValues) -> Iterator[tuple[str, str, str]]:
    """Of each turn what the system says at the beginning, what else is new, and the answer."""
    key = next((name for name in LISTS if name in conversation.values), "messages")
    messages = conversation.values.get(key)
    if not isinstance(messages, list):
        raise conversation.bad(key, "a list of messages")
    system, new, answer, answered = "", "", "", False
    for number, values in enumerate(messages):
        message = KeyedValues(f"{conversation.where}, {key}[{number}]", values)
        who, said = message.text(LISTS[key][0]), _said(message, LISTS[key][1])
        if who in ANSWERS and (new or system):
            answer, answered = answer + said, True
            continue
        if answered:
            yield system, new, answer
            system, new, answer, answered = "", "", "", False
        if who == SYSTEM and not number:
            system = said
        else:
            new += said
    if system or new:
        yield system, new, answer


def _said(message: KeyedValues, key: str) -> str:
    """A message's text; that of its parts, and what tools are called with."""
    said = message.values.get(key)
    calls = message.values.get("tool_calls")
    called = json.dumps(calls) if calls else ""
    if said is None and called:
        return called
    if isinstance(said, list):
        parts = [KeyedValues(f"{message.where}, {key}[{number}]", part) for number, part in enumerate(said)]
        said = "".join(part.text("text") for part in parts if part.values.get("type", "text") == "text")
    if not isinstance(said, str):
        raise message.bad(key, "text, or a list of parts")
    return said + called


def _beginnings(systems: list[str], tokens: NDArray[np.int64]) -> Beginnings:
    """What the system says at the beginning of conversations, each text once."""
    numbers: dict[str, int] = {}
    ends: list[int] = []
    chosen = np.full(len(systems), NONE)
    for turn, (said, count) in enumerate(zip(systems, tokens.tolist(), strict=True)):
        if count:
            chosen[turn] = numbers.setdefault(said, len(ends))
            ends += [count] * (len(numbers) > len(ends))
    return Beginnings(parents=np.full(len(ends), NONE), ends=np.array(ends, np.int64), chosen=chosen)

"""The formats that traces are published in: what each is recognised by, and what reads it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kvbench.messages import unknown
from kvbench.workload.trace_agentic import read_agentic
from kvbench.workload.trace_aiperf import read_aiperf
from kvbench.workload.trace_bailian import read_bailian
from kvbench.workload.trace_burstgpt import read_burstgpt
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_conversations import read_conversations
from kvbench.workload.trace_csv import read_azure, read_plain, read_sharegpt
from kvbench.workload.trace_mooncake import read_mooncake

CSV, JSON = "CSV", "JSON"


@dataclass(frozen=True, kw_only=True)
class TraceFormat:
    """A format of traces.

    Args:
        about: whose it is, in words.
        kind: CSV or JSON.
        keys: columns, or keys of a row, that a file of it has.
        others: keys of which it has one at least; none where empty.
        without: keys that it has not: with them it is another format.
        read: a file to columns.
        told: what a file leaves open and may be given.
        has_times: whether its requests have times; else sessions are given arrivals.
        shares: what it says of what prompts share; empty: nothing.
        sessions: what it says of turns and who follows whom; empty: nothing.
    """

    about: str
    kind: str
    keys: tuple[str, ...]
    others: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    read: Callable[..., TraceColumns]
    told: tuple[str, ...] = ()
    has_times: bool = True
    shares: str = ""
    sessions: str = ""

    def fits(self, kind: str, keys: frozenset[str]) -> bool:
        """Whether a file with these keys is one of this format."""
        has_one = not self.others or not keys.isdisjoint(self.others)
        return kind == self.kind and keys.issuperset(self.keys) and has_one and keys.isdisjoint(self.without)


CHAT_KEYS = ("chat_id", "parent_chat_id")
ROW_KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
FOLLOWING = ("session_id", "request_id", "wait_for", "delay", "delay_ms", "tool_wait_ms")
TEXTS = ("conversations", "messages")

FORMATS: Mapping[str, TraceFormat] = MappingProxyType(
    {
        "azure": TraceFormat(
            about="Azure/AzurePublicDataset, 2023 and 2024",
            kind=CSV,
            keys=("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
            read=read_azure,
        ),
        "burstgpt": TraceFormat(
            about="HPMLL/BurstGPT",
            kind=CSV,
            keys=("Timestamp", "Request tokens", "Response tokens"),
            read=read_burstgpt,
            shares="histories",
            sessions="Session ID; think time from Elapsed time",
        ),
        "plain": TraceFormat(
            about="a file of your own; microsoft/vidur",
            kind=CSV,
            keys=("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
            read=read_plain,
        ),
        "sharegpt": TraceFormat(
            about="lengths alone; microsoft/vidur",
            kind=CSV,
            keys=("num_prefill_tokens", "num_decode_tokens"),
            without=("arrived_at",),
            read=read_sharegpt,
            has_times=False,
        ),
        "mooncake": TraceFormat(
            about="kvcache-ai/Mooncake, FAST'25",
            kind=JSON,
            keys=ROW_KEYS,
            without=(*CHAT_KEYS, *FOLLOWING),
            read=read_mooncake,
            told=("block_tokens", "time_unit"),
            shares="hash_ids, of 512 tokens or as told",
        ),
        "bailian": TraceFormat(
            about="alibaba-edu/qwen-bailian-usagetraces-anon",
            kind=JSON,
            keys=(*CHAT_KEYS, *ROW_KEYS),
            read=read_bailian,
            shares="hash_ids, of 16 tokens",
            sessions="parent_chat_id; at their times",
        ),
        "aiperf": TraceFormat(
            about="ai-dynamo/aiperf, ai-dynamo/dynamo",
            kind=JSON,
            keys=(),
            others=("input_length", "input_tokens"),
            without=CHAT_KEYS,
            read=read_aiperf,
            told=("block_tokens", "history"),
            shares="hash_ids, of 512 tokens or as told; else histories",
            sessions="session_id, delay; request_id, wait_for, tool_wait_ms",
        ),
        "agentic": TraceFormat(
            about="callanjfox/kv-cache-tester: a file a session, or a folder of them",
            kind=JSON,
            keys=("block_size", "hash_id_scope", "requests"),
            read=read_agentic,
            has_times=False,
            shares="hash_ids, of block_size",
            sessions="turns with think times, subagents at once, joins",
        ),
        "conversations": TraceFormat(
            about="ShareGPT, OpenAI: texts",
            kind=JSON,
            keys=(),
            others=TEXTS,
            without=("input_length", "input_tokens"),
            read=read_conversations,
            told=("tokenizer",),
            has_times=False,
            shares="histories, and what the system says at the beginning",
            sessions="turns",
        ),
    }
)
SHARING = tuple(name for name, one in FORMATS.items() if one.shares)
"""Formats that say what prompts share."""


def read_trace(path: Path, format_name: str, **told: object) -> TraceColumns:
    """Read a trace.

    Args:
        path: the file, plain or gzip; of agentic a folder, too.
        format_name: one of FORMATS.
        told: what a file of the format leaves open.
    Returns:
        Its columns, sorted by arrival; requests of equal arrival keep the file's order.
    Raises:
        ValueError: there is no such format, or nothing of it is told so.
        TraceMissing: there is no such file.
        TraceError: the file is not of the format.
    """
    if format_name not in FORMATS:
        raise ValueError(unknown("trace format", format_name, FORMATS))
    check_told(format_name, told)
    return FORMATS[format_name].read(path, **told)


def check_told(format_name: str, told: Mapping[str, object]) -> None:
    """Refuse what files of a format do not leave open.

    Raises:
        ValueError: they do not.
    """
    if unasked := sorted(set(told) - set(FORMATS[format_name].told)):
        raise ValueError(
            f"{', '.join(unasked)}: null for the format {format_name}, whose files leave nothing of it open"
        )


def markdown_table() -> str:
    """The formats, for the documentation."""
    rows = [
        "| format | recognised by | sessions | shared | times | published by |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in FORMATS.items():
        keys = ", ".join(map(_code, one.keys))
        if one.others:
            keys = ", ".join(filter(None, (keys, " or ".join(map(_code, one.others)))))
        options = "".join(f"; `scenario.{each}`" for each in one.told)
        times = "yes" if one.has_times else "no"
        cells = (
            name,
            f"{one.kind}: {keys}",
            one.sessions or "none",
            one.shares or "nothing",
            times,
            one.about + options,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _code(name: str) -> str:
    return f"`{name}`"

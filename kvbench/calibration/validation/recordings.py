"""What an engine's own scheduler did, step by step: read from a file, and as a trace that can be served again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_flag, check_int
from kvbench.workload.contents import NONE, Contents
from kvbench.workload.trace_columns import TraceColumns

GZIP = b"\x1f\x8b"
SIZES = {
    "num_blocks": 2,
    "block_size": 1,
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1,
    "max_model_len": 1,
    "window": 0,
    "queried_tokens": 0,
    "hit_tokens": 0,
}
"""Whole numbers of a recording, and the least that each can be."""
OPTIONAL = {"states": 0, "state_interval": 0, "window_interval": 1}
"""Whole numbers that need not be said, 0 or more, and what each is where it is not."""
OF_REQUEST = {"arrival_step": 0, "prompt_tokens": 1, "output_tokens": 1}


class Step(NamedTuple):
    """What was done in one step.

    Args:
        scheduled: requests and how many tokens of each are computed, in the scheduler's order.
        preempted: requests that gave way in it, by number.
        free_blocks: that nobody holds after it.
    """

    scheduled: tuple[tuple[int, int], ...]
    preempted: tuple[int, ...]
    free_blocks: int


@dataclass(frozen=True, slots=True, eq=False)
class RecordedSchedule:
    """A workload, and every step that an engine took to serve it.

    Args:
        engine: whose scheduler it was.
        version: which.
        sizes: numbers by SIZES and OPTIONAL: the pool's blocks with the one that stands for none, and the scheduler's
            limits; tokens of prompts that were looked up and found as they were first admitted; window of a second
            group of layers, 0 where all are alike; states 1 where a second group has such; and how far states, or the
            ends of windows, are apart that are kept.
        prefix_caching: whether blocks were kept.
        columns: the requests; moments are numbers of steps.
        steps: in order.
    """

    engine: str
    version: str
    sizes: Mapping[str, int]
    prefix_caching: bool
    columns: TraceColumns
    steps: tuple[Step, ...]


def is_recording(document: Any) -> bool:
    """Whether a document is one."""
    return isinstance(document, dict) and {"num_blocks", "block_size", "requests", "steps"} <= set(document)


def recording_of(document: dict[str, Any]) -> RecordedSchedule:
    """A recording, of its document.

    Raises:
        ValueError: something in it cannot be.
    """
    sizes = _whole(OPTIONAL | document, SIZES | dict.fromkeys(OPTIONAL, 0), "")
    check_flag("prefix_caching", document.get("prefix_caching"))
    for name in ("engine", "version"):
        if not isinstance(document.get(name), str):
            raise ValueError(f"{name} is a text, got {document.get(name)!r}")
    asked = [_whole(each, OF_REQUEST, f"request {number}: ") for number, each in enumerate(_list(document, "requests"))]
    if not asked:
        raise ValueError("a recording has 1 request or more, got none")
    columns = {name: np.array([each[name] for each in asked], np.int64) for name in OF_REQUEST}
    if (np.diff(columns["arrival_step"]) < 0).any():
        raise ValueError("requests stand in order of arrival_step")
    ids = [_ids(each, number, sizes["block_size"]) for number, each in enumerate(document["requests"])]
    return RecordedSchedule(
        engine=document["engine"],
        version=document["version"],
        sizes=sizes,
        prefix_caching=document["prefix_caching"],
        columns=TraceColumns(
            arrival_ns=columns["arrival_step"],
            num_prompt_tokens=columns["prompt_tokens"],
            num_output_tokens=columns["output_tokens"],
            contents=contents_of(columns["prompt_tokens"], columns["output_tokens"], ids, sizes["block_size"]),
        ),
        steps=tuple(_steps(_list(document, "steps"), len(asked))),
    )


def _list(document: dict[str, Any], name: str) -> list[Any]:
    found = document[name]
    if not isinstance(found, list):
        raise ValueError(f"{name} is a list, got {type(found).__name__}")
    return found


def _whole(document: Any, leasts: Mapping[str, int], where: str) -> dict[str, int]:
    if not isinstance(document, dict):
        raise ValueError(f"{where}a table of {', '.join(leasts)}, got {document!r}")
    for name, least in leasts.items():
        check_int(f"{where}{name}", document.get(name), least)
    return {name: document[name] for name in leasts}


def _ids(request: dict[str, Any], number: int, block_tokens: int) -> list[int]:
    ids, wanted = request.get("block_ids"), (request["prompt_tokens"] + request["output_tokens"]) // block_tokens
    if not isinstance(ids, list) or len(ids) != wanted:
        raise ValueError(
            f"request {number}: block_ids is a list of its {wanted} full blocks, got "
            f"{len(ids) if isinstance(ids, list) else repr(ids)}"
        )
    return ids


def _steps(rows: list[Any], num_requests: int) -> Iterator[Step]:
    for number, row in enumerate(rows):
        try:
            scheduled, preempted, free = row
            step = Step(
                tuple((int(who), int(count)) for who, count in scheduled), tuple(map(int, preempted)), int(free)
            )
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"step {number}: [[[request, tokens], …], [preempted, …], free blocks], got {str(row)[:80]}"
            ) from error
        known = {who for who, _ in step.scheduled} | set(step.preempted)
        if known and not 0 <= min(known) <= max(known) < num_requests:
            raise ValueError(f"step {number}: requests are numbers below {num_requests}, got {max(known)}")
        yield step


def contents_of(
    prompts: NDArray[np.int64], outputs: NDArray[np.int64], ids: Sequence[Sequence[int]], block_tokens: int
) -> Contents:
    """Texts from ids of their full blocks, equal where the block and all before it are; the rest is each one's own.

    Raises:
        ValueError: an id stands behind two others.
    """
    ends = [set[int]() for _ in prompts]
    cuts: dict[int, set[int]] = {}
    for prompt, own, own_ends in zip(prompts.tolist(), ids, ends, strict=True):
        block, rest = divmod(prompt, block_tokens)
        if rest:
            (cuts.setdefault(own[block], set()) if block < len(own) else own_ends).add(prompt)
    tree = _Stretches()
    found = [
        tree.text(prompt, total, own, block_tokens, cuts, own_ends)
        for prompt, total, own, own_ends in zip(prompts.tolist(), (prompts + outputs).tolist(), ids, ends, strict=True)
    ]
    columns = tree.parents, tree.ends, *zip(*found, strict=True)
    arrays = (np.array(each, np.int64) for each in columns)
    return Contents(**dict(zip(("parents", "ends", "prompts", "answers"), arrays, strict=True)))


class _Stretches:
    def __init__(self) -> None:
        self.parents: list[int] = []
        self.ends: list[int] = []
        self._blocks: dict[int, list[int]] = {}
        self._before: dict[int, int] = {}

    def text(
        self, prompt: int, total: int, ids: Sequence[int], block_tokens: int, cuts: dict[int, set[int]], own: set[int]
    ) -> tuple[int, int]:
        """The stretches that a text's prompt and its answer end with."""
        last, path = NONE, []
        for number, block in enumerate(ids):
            if block not in self._blocks:
                stops = sorted({*cuts.get(block, ()), (number + 1) * block_tokens})
                self._blocks[block] = self._added(last, stops)
                self._before[block] = last
            elif self._before[block] != last:
                raise ValueError(f"block {block} stands behind two others: equal ids are equal from the beginning on")
            path += self._blocks[block]
            last = path[-1]
        if total > len(ids) * block_tokens:
            path += self._added(last, sorted({*own, total}))
        return next(stretch for stretch in path if self.ends[stretch] == prompt), path[-1]

    def _added(self, parent: int, stops: list[int]) -> list[int]:
        first = len(self.ends)
        self.ends += stops
        self.parents += [parent, *range(first, first + len(stops) - 1)]
        return list(range(first, len(self.ends)))

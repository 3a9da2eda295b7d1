"""Small workloads of tokens for recordings: prompts that share their beginnings, repeat or go on, and their answers."""

from dataclasses import dataclass
from itertools import count, islice

import numpy as np

_BEYOND = 1 << 40  # above all tokens that are made of ids


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as an engine gets it.

    Args:
        arrival_step: it is added before that step is scheduled.
        prompt: token ids.
        answer: token ids that the model is said to choose.
    """

    arrival_step: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a workload looks like.

    Args:
        requests: how many.
        every: mean steps between arrivals; 0: all in the first step.
        burst: requests that arrive together.
        prompt_tokens: fewest and most tokens of a prompt of its own, or after what it shares.
        output_tokens: fewest and most tokens of an answer.
        shared_prefixes: how many beginnings there are to share.
        shared_tokens: fewest and most tokens of such a beginning.
        share: how likely a prompt begins with one of them.
        repeat: how likely a prompt is an earlier one, token by token; among bursts, the one before it.
        follow: how likely a prompt goes on where an earlier request's answer ended.
        multiple: prompts are rounded up to a multiple of so many tokens.
        max_tokens: of a prompt and its answer; prompts that would go on beyond it are of their own.
        seed: of all that is drawn.
    """

    requests: int = 200
    every: float = 3.0
    burst: int = 1
    prompt_tokens: tuple[int, int] = (30, 400)
    output_tokens: tuple[int, int] = (1, 80)
    shared_prefixes: int = 4
    shared_tokens: tuple[int, int] = (32, 200)
    share: float = 0.4
    repeat: float = 0.05
    follow: float = 0.15
    multiple: int = 1
    max_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("requests", "burst", "multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}")
        longest = self.prompt_tokens[1] + self.multiple - 1 + self.output_tokens[1]
        if longest > self.max_tokens:
            raise ValueError(
                f"prompts and answers have up to {longest:,} tokens, more than the {self.max_tokens:,} allowed"
            )
        if self.every < 0 or min(self.share, self.repeat, self.follow) < 0 or self.repeat + self.follow > 1:
            raise ValueError("every, share, repeat and follow are not negative, repeat and follow at most 1 together")


def drawn(shape: Shape) -> list[Asked]:
    """A workload of that shape, in order of arrival."""
    random = np.random.default_rng(shape.seed)
    fresh = count(1)

    def new(bounds: tuple[int, int]) -> tuple[int, ...]:
        return tuple(islice(fresh, int(random.integers(bounds[0], bounds[1] + 1))))

    prefixes = [new(shape.shared_tokens) for _ in range(shape.shared_prefixes)]
    asked: list[Asked] = []
    step = 0
    for number in range(shape.requests):
        if number and number % shape.burst == 0:
            step += int(random.poisson(shape.every))
        kind, answer = random.random(), new(shape.output_tokens)
        room = shape.max_tokens - len(answer)
        prompt: tuple[int, ...] = ()
        if asked and kind < shape.repeat:
            prompt = (asked[-1] if shape.burst > 1 else asked[int(random.integers(len(asked)))]).prompt
        if not 0 < len(prompt) <= room:
            begins: tuple[int, ...] = ()
            if asked and shape.repeat <= kind < shape.repeat + shape.follow:
                earlier = asked[int(random.integers(len(asked)))]
                begins = earlier.prompt + earlier.answer
            elif prefixes and random.random() < shape.share:
                begins = prefixes[int(random.integers(len(prefixes)))]
            own = new(shape.prompt_tokens)
            prompt = begins + own if len(begins) + len(own) + shape.multiple <= room else own
            prompt += tuple(islice(fresh, -len(prompt) % shape.multiple))
        asked.append(Asked(step, prompt, answer))
    return asked


def interned(asked: list[Asked], block_size: int) -> list[list[int]]:
    """Ids of the full blocks of each prompt with its answer, from 1 as they appear: equal ids are equal prefixes."""
    ids: dict[tuple[int, tuple[int, ...]], int] = {}
    rows = []
    for request in asked:
        tokens, parent, row = request.prompt + request.answer, 0, []
        for start in range(0, len(tokens) - block_size + 1, block_size):
            parent = ids.setdefault((parent, tokens[start : start + block_size]), len(ids) + 1)
            row.append(parent)
        rows.append(row)
    return rows


def recorded(rows: list[dict], block_size: int) -> list[Asked]:
    """The workload of a recording: tokens told apart just where its blocks are."""
    fresh = count(_BEYOND)
    asked = []
    for row in rows:
        tokens = tuple(id * block_size + place for id in row["block_ids"] for place in range(block_size))
        length = row["prompt_tokens"] + row["output_tokens"]
        tokens += tuple(islice(fresh, length - len(tokens)))
        prompt = row["prompt_tokens"]
        asked.append(Asked(row["arrival_step"], tokens[:prompt], tokens[prompt:]))
    return asked

"""Facts planted in a text, and whether a model under a cache still finds them, at once and a turn later."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from kvbench.quality.model.steps import CacheCounts, step
from kvbench.quality.model.tokens import Encode, Tokens

NUM_DIGITS = 4
FILLER_TOKENS = 64
"""Tokens of text between the first answer and the later question."""

PLACES = ("Berlin", "Paris", "London", "Madrid", "Rome", "Vienna", "Oslo", "Dublin", "Athens", "Moscow")
THINGS = ("garden", "library", "kitchen", "tower", "bridge", "castle", "harbor", "museum", "school", "church")
KINDS = ((" The secret number of {} is", PLACES), (" Our old {} costs exactly", THINGS))
"""Two kinds of facts, told apart by all their words: a small model mixes up two of one kind."""


@dataclass(frozen=True)
class NeedleTurn:
    """What is asked in one turn.

    Args:
        depth: where the fact was planted, as a share of the context.
        prompt: tokens that come at once; the question ends them.
        answer: tokens that the model should go on with.
    """

    depth: float
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class NeedleDialogue:
    """A context with two facts, one asked at the end of the prompt, the other a turn later.

    Args:
        first: its prompt is the context and a question.
        later: its prompt is more text and another question.
    """

    first: NeedleTurn
    later: NeedleTurn

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole dialogue."""
        return sum(len(turn.prompt) + len(turn.answer) for turn in (self.first, self.later))


def dialogues(
    text: Tokens, encode: Encode, *, context_tokens: int, depths: Sequence[float], num_asked: int, seed: int
) -> list[NeedleDialogue]:
    """Plant facts such as " The secret number of Berlin is 4817." in stretches of a text.

    Each dialogue has two facts of different kinds, at two of the depths; over all dialogues each depth is asked about
    equally often in the first turn and in the later one.

    Args:
        text: to plant them in.
        encode: a piece of text to tokens, without special ones.
        context_tokens: of each context, facts included.
        depths: shares of the context, from 0 to 1.
        num_asked: dialogues a depth, > 0.
        seed: of names, numbers and stretches.
    Raises:
        ValueError: the text is too short, or the context has no room for two facts.
    """
    generator = np.random.default_rng(seed)
    shift = max(len(depths) // 2, 1)
    made = []
    for turn in range(num_asked):
        for at, first in enumerate(depths):
            later = depths[(at + shift) % len(depths)]
            kinds = KINDS if (turn + at) % 2 else KINDS[::-1]
            made.append(_dialogue(text, encode, context_tokens, (first, later), kinds, generator))
    return made


def _dialogue(
    text: Tokens,
    encode: Encode,
    context_tokens: int,
    depths: tuple[float, float],
    kinds: Sequence[tuple[str, Sequence[str]]],
    generator: np.random.Generator,
) -> NeedleDialogue:
    questions = [tuple(encode(words.format(generator.choice(names)))) for words, names in kinds]
    numbers = ["".join(map(str, generator.integers(0, 10, NUM_DIGITS))) for _ in kinds]
    answers = [tuple(encode(f" {number}")) for number in numbers]
    stop = tuple(encode("."))
    facts = [(*question, *answer, *stop) for question, answer in zip(questions, answers, strict=True)]
    ids = text.ids
    num_filled = context_tokens - sum(map(len, facts)) - len(text.prefix)
    num_taken = num_filled + FILLER_TOKENS
    if num_filled < len(facts):
        raise ValueError(f"a context of needles is longer than its facts, {context_tokens - num_filled} tokens here")
    if num_taken > len(ids):
        raise ValueError(f"needles in {context_tokens:,} tokens need a text of {num_taken:,}, got {len(ids):,}")
    start = int(generator.integers(0, len(ids) - num_taken + 1))
    stretch = tuple(ids[start : start + num_taken])
    context, done = [*text.prefix], 0
    for depth, fact in sorted(zip(depths, facts, strict=True)):
        place = round(depth * num_filled)
        context += [*stretch[done:place], *fact]
        done = place
    context += stretch[done:num_filled]
    return NeedleDialogue(
        NeedleTurn(depths[0], (*context, *questions[0]), (*answers[0], *stop)),
        NeedleTurn(depths[1], (*stretch[num_filled:], *questions[1]), (*answers[1], *stop)),
    )


def found(model: PreTrainedModel, counted: CacheCounts, dialogue: NeedleDialogue) -> tuple[bool, bool]:
    """Whether greedy decoding answers the first question, and the later one.

    A turn's prompt is one append; the answer's tokens follow one by one, the right ones whatever the model says, so
    that all caches see the same text: greedy decoding gives the number if and only if each of its tokens has the
    highest logit after those before it. (The first token of an answer follows from the prompt's own pass, in which most
    strategies let it see all of the prompt; the others from what the strategy left of it.)

    Args:
        model: in evaluation mode.
        counted: an empty cache.
        dialogue: what is fed.
    Raises:
        OutOfMemory: the cache's budget does not last.
        CapacityExceeded: the cache cannot hold so many tokens.
    """
    first, later = (_answers(model, counted, turn) for turn in (dialogue.first, dialogue.later))
    return first, later


def _answers(model: PreTrainedModel, counted: CacheCounts, turn: NeedleTurn) -> bool:
    logits, right = step(model, counted.cache, turn.prompt), True
    for at, token in enumerate(turn.answer):
        if at < len(turn.answer) - 1:  # the full stop after the number is not asked for
            right &= int(logits.argmax()) == token
        logits = step(model, counted.cache, (token,))
    return right

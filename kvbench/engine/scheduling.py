"""How an engine fills a step: what a scheduler asks of its settings, and what it decides by them.

The decisions are plain functions of integers: the runner calls them, the fleet compiles them as they stand.
"""

from typing import NamedTuple

STEP_TOKENS = (512, 1024, 2048, 4096, 8192, 16384)
STEP_SEQUENCES = (32, 64, 128, 256, 512, 1024)
"""Of a step, at most, that a search tries."""


class Scheduling(NamedTuple):
    """Rules of a step.

    Args:
        tokens: of a step, at most; None: no bound.
        sequences: live at once, at most; None: as many as fit.
        chunks: whether a prompt that a step has no room for is computed in several.
        mixes: whether prompts and decoding sequences share a step; else prompts go first, and alone.
        counts_decode: whether decoding sequences' tokens come first and are among `tokens`; else those are prompts'.
        evicts: whether requests give way where a pool of blocks does not last; else one is admitted only if the pool
            has room for all that are live to their ends.
        waits_for_end: whether who gave way waits until another has ended; else until a step in which nobody gives way.
        fits_prompts: whether one is admitted only if a pool of blocks has room for its whole prompt, though its chunks
            take blocks as they come.
        plans_steps: whether a step is settled before it is computed: who ends in it keeps its place and its blocks to
            its end, and who gave way computes with what it lost the token that it was about to.
    """

    tokens: int | None = None
    sequences: int | None = None
    chunks: bool = True
    mixes: bool = True
    counts_decode: bool = False
    evicts: bool = True
    waits_for_end: bool = True
    fits_prompts: bool = False
    plans_steps: bool = False

    @property
    def admits_late(self) -> bool:
        """Whether those who are live have their turns in a step before others are admitted to it."""
        return self.plans_steps or self.fits_prompts or not self.waits_for_end

    @property
    def about(self) -> str:
        """For people."""
        whole = "" if self.chunks else "whole prompts, "
        if self.tokens is None:
            return f"{whole or 'prompts '}as they come"
        if not self.mixes:
            return f"{whole}prompts first and alone, {self.tokens:,} tokens a step"
        among = "decoding sequences' first among them" if self.counts_decode else "of prompts"
        kept = "" if self.evicts else ", none admitted that might have to give way"
        return f"{whole}{self.tokens:,} tokens a step, {among}{kept}"

    def of_stages(self, num_stages: int) -> "Scheduling":
        """The rules of a step of a pipeline, which has a batch of so many tokens at each stage."""
        return self if self.tokens is None else self._replace(tokens=self.tokens * num_stages)

    def of_pool(self, has_blocks: bool) -> "Scheduling":
        """The rules where slots are in blocks of a pool, or not: what is asked of a pool is asked of nothing else."""
        if has_blocks:
            return self
        return self._replace(evicts=True, waits_for_end=True, fits_prompts=False, plans_steps=False)

    def most_live(self, otherwise: int) -> int:
        """Sequences live at once: no more than a step has tokens for, where those of decoding ones are among them.

        Args:
            otherwise: where it is left to memory.
        """
        sequences = self.sequences or otherwise
        return sequences if self.tokens is None or not self.counts_decode else min(sequences, self.tokens)


def promised_slots(num_tokens: int, block_tokens: int) -> int:
    """Slots in whole blocks of a request that comes to hold so many tokens."""
    return -(-num_tokens // block_tokens) * block_tokens


def lost_tokens(num_held: int, is_decoding: int, plans_steps: int) -> int:
    """Tokens that a request computes before anything else once it is admitted again, of those it held as it gave way.

    The token that one who decodes was about to compute is known, and computed with them where steps are planned.
    """
    return num_held + 1 if is_decoding and plans_steps else num_held


def prompts_tokens(tokens: int, num_decoding: int, counts_decode: int) -> int:
    """What a step has for prompts, beside so many sequences that decode in it."""
    return max(tokens - num_decoding, 0) if counts_decode else tokens


def chunk_tokens(num_tokens: int, tokens: int, chunks: int, num_stages: int) -> int:
    """How many of a prompt's tokens in a step are in one of the batches that are at a pipeline's stages.

    Args:
        num_tokens: of the prompt, in the step.
        tokens: of a step, all batches together.
        chunks: whether prompts are cut.
        num_stages: of the pipeline.
    """
    return min(num_tokens, max(tokens // num_stages, 1)) if chunks else num_tokens


def taken_tokens(num_wanted: int, left_tokens: int, is_first: int, tokens: int, chunks: int) -> int:
    """How many tokens of a prompt a step computes.

    A prompt that is not cut waits for a step that has room for it; one that no step has room for is the only one of
    its step.

    Args:
        num_wanted: of the prompt, not computed yet.
        left_tokens: what the step has left for prompts.
        is_first: whether no other prompt has taken any of it.
        tokens: of a step.
        chunks: whether prompts are cut.
    """
    if chunks or num_wanted <= left_tokens:
        return min(num_wanted, left_tokens)
    return num_wanted if is_first and num_wanted > tokens else 0

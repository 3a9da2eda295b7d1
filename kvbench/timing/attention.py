"""How long attention takes on an accelerator: one form for all, with figures of a fit or typical ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from kvbench.messages import unknown
from kvbench.model.dtypes import KV_BITS
from kvbench.model.hardware import Hardware
from kvbench.timing.figures import figures_from, mapping_from
from kvbench.timing.prompts import TILE_ROWS, PromptFigures, chunks_of, prefill_s
from kvbench.timing.rooflines import Peaks, Seconds, knee, slot_bytes
from kvbench.timing.shapes import AttentionShape
from kvbench.timing.steps import StepFigures, decode_s, decode_terms

CACHES = ("bfloat16", "fp8")
"""Caches whose kernels have figures of their own; others take those of the nearest in bits."""
WIDE_CACHES = ("float16", "float32")
"""Those that have the first one's, or a machine's own in their place where it was measured with them."""
FEW_BITS = 8
LONE_ROW = 0.7
"""Of what a block takes beside its products, a block of one row: calls of chunks and steps together on an RTX 4090."""
MIXED_KNEE = 2.0
MADE: dict[str, type[PromptFigures] | type[StepFigures]] = {"prefill": PromptFigures, "decode": StepFigures}
FLAGS = ("packs", "regroups")

Figures = TypeVar("Figures", PromptFigures, StepFigures)


class AttentionFigures(NamedTuple):
    """A fit's figures by the cache's dtype, of CACHES; empty of an accelerator that nobody measured."""

    prefill: Mapping[str, PromptFigures]
    decode: Mapping[str, StepFigures]


UNFITTED = AttentionFigures({}, {})


def attention_figures(where: str, given: object) -> AttentionFigures:
    """Figures from a file.

    Args:
        where: their key, for messages.
        given: a mapping from prefill and decode to mappings from a cache's dtype to figures, all of them.
    Raises:
        ValueError: it is something else.
    """
    found: dict[str, dict[str, Any]] = {kind: {} for kind in MADE}
    for kind, by_cache in mapping_from(where, given).items():
        if kind not in MADE:
            raise ValueError(f"{where}: {unknown('kind of attention', kind, MADE)}")
        for cache, figures in mapping_from(f"{where}.{kind}", by_cache).items():
            if cache not in CACHES:
                raise ValueError(f"{where}.{kind}: {unknown('cache', cache, CACHES)}")
            found[kind][cache] = MADE[kind](
                **figures_from(f"{where}.{kind}.{cache}", figures, MADE[kind]._fields, FLAGS)
            )
    return AttentionFigures(**found)


class Attention:
    """What attention takes on one accelerator, one layer of a rank.

    Args:
        peaks: of its data sheet.
        figures: of a fit.
        typical: those that stand in where the fit has none.
    """

    def __init__(
        self,
        peaks: Peaks,
        figures: AttentionFigures = UNFITTED,
        typical: tuple[PromptFigures, StepFigures] = (PromptFigures(), StepFigures()),
    ) -> None:
        self._peaks, self._figures, self._typical = peaks, figures, typical

    def prefill_s(
        self, new_tokens: ArrayLike, context_tokens: ArrayLike, shape: AttentionShape, prompts: ArrayLike = 1
    ) -> Seconds:
        """One call for so many prompts, each of as many new tokens after as many others; of none: the call's floor.

        Of a step's several chunks the floor counts once, and the rest adds up, but for short ones: `timing.prompts`.
        """
        return prefill_s(new_tokens, context_tokens, prompts, shape, self._peaks, self._prompts(shape))

    def decode_s(self, seen_tokens: ArrayLike, batch: ArrayLike, shape: AttentionShape) -> Seconds:
        """A decode step as tables of kernels have it: see `timing.steps`."""
        return decode_s(seen_tokens, batch, shape, self._peaks, self._steps(shape))

    def decode_terms(self, batch: ArrayLike, shape: AttentionShape) -> tuple[Seconds, Seconds]:
        """A decode step of a model: what it takes whatever it sees, and for each token that it sees."""
        return decode_terms(batch, shape, self._peaks, self._steps(shape))

    def mixed_terms(self, batch: ArrayLike, shape: AttentionShape) -> tuple[Seconds, Seconds]:
        """The same where prompts' chunks are in the step too, beside what these take by themselves.

        Engines whose kernels share sequences among blocks call one for prompts and one for steps, and so it is told of
        FlashAttention 3, too. FlashAttention 2 takes both in one call, and a sequence as a prompt of one new token: a
        block a head, none of which shares the walk over what it sees, be there ever so many idle units.
        """
        number, figures = np.asarray(batch, np.float64), self._steps(shape)
        if not figures.regroups:
            return self.decode_terms(number, shape)
        prompts = self._prompts(shape)._replace(packs=0.0)
        row = chunks_of(TILE_ROWS, 0, 1, shape, self._peaks, prompts)
        next_row = chunks_of(TILE_ROWS, 1, 1, shape, self._peaks, prompts)
        work_s, walk_s = next_row.work_s - row.work_s, next_row.walk_s - row.walk_s
        read_s = slot_bytes(shape) / (self._peaks.memory_bytes_per_s * figures.share)
        block_s = row.work_s - TILE_ROWS * work_s
        token_s = knee(np.maximum(work_s, walk_s / np.maximum(number, 1)), np.asarray(read_s), MIXED_KNEE)
        return number * LONE_ROW * block_s, token_s

    def _prompts(self, shape: AttentionShape) -> PromptFigures:
        return _nearest(shape, self._figures.prefill, self._typical[0])

    def _steps(self, shape: AttentionShape) -> StepFigures:
        return _nearest(shape, self._figures.decode, self._typical[1])


def attention_of(hardware: Hardware) -> Attention:
    """What attention takes on an accelerator, by a fit that its file has, or by its data sheet and typical figures.

    Raises:
        ValueError: the file's figures are not allowed.
    """
    given = (hardware.kernels or {}).get("attention")
    figures = UNFITTED if given is None else attention_figures("hardware.kernels.attention", given)
    prompts = PromptFigures(share=hardware.compute_efficiency, memory_share=hardware.memory_efficiency)
    steps = StepFigures(share=hardware.memory_efficiency)
    return Attention(Peaks(hardware.memory_bytes_per_s, hardware.flops_per_s), figures, (prompts, steps))


def _nearest(shape: AttentionShape, by_cache: Mapping[str, Figures], typical: Figures) -> Figures:
    own = CACHES[1] if KV_BITS[shape.kv_dtype] <= FEW_BITS else CACHES[0]
    return by_cache.get(own, by_cache.get(CACHES[0], typical))

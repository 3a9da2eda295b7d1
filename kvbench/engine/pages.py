"""Pages and blocks, as plain functions of integers: layers to groups, groups to pages that are equal.

A page is one block of one layer; a block id stands for a page in each layer of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvbench.engine.pool import Need
from kvbench.model.groups import CHUNKED, STATE, WINDOW


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Layers that hold the same in their pages.

    Args:
        kind: as in LayerGroup.
        num_layers: such layers, > 0.
        block_tokens: tokens of a page; of a state the longest sequence, or what its checkpoints are apart.
        used_bytes: of a page, those that the layer fills.
        page_bytes: of a page, with its padding.
        tokens: of a window or chunk; else None.
    """

    kind: str
    num_layers: int
    block_tokens: int
    used_bytes: int
    page_bytes: int
    tokens: int | None = None


def least_block(page_bytes: int, token_bytes: int, step: int) -> int:
    """Tokens of the smallest block, a multiple of `step`, whose page holds so many bytes."""
    return step * -(-page_bytes // (step * token_bytes))


def equal_pages(layers: Sequence[Layers]) -> list[Layers]:
    """The same layers with pages of equal size.

    A smaller page gets a block of more tokens where a whole number of them makes the largest page; else it is padded.
    """
    largest = max(each.page_bytes for each in layers)
    return [_grown(each, largest) for each in layers]


def _grown(layers: Layers, page_bytes: int) -> Layers:
    times, rest = divmod(page_bytes, layers.page_bytes)
    if rest or layers.kind == STATE:
        return replace(layers, page_bytes=page_bytes)
    return replace(
        layers,
        block_tokens=layers.block_tokens * times,
        used_bytes=layers.used_bytes * times,
        page_bytes=page_bytes,
    )


def group_size(counts: Sequence[int], most_ratio: float) -> int:
    """Layers of a group: the fewest of a kind, or the most where those are nearly as few."""
    return max(counts) if max(counts) < most_ratio * min(counts) else min(counts)


def num_groups(num_layers: int, size: int) -> int:
    """Groups of so many layers; the last may lack some, which are paid for."""
    return -(-num_layers // size)


def need_of(layers: Layers, size: int, scheduled_tokens: int, state_blocks: int, ranks: int) -> Need:
    """What a sequence takes for these layers.

    Args:
        layers: all that are alike.
        size: layers of a group.
        scheduled_tokens: tokens of one sequence that may be computed and not be done with.
        state_blocks: blocks of a state, whatever the length; 0: a checkpoint every block_tokens.
        ranks: that a sequence's tokens are divided over.
    """
    groups = num_groups(layers.num_layers, size)
    padding = groups * size * layers.page_bytes - layers.num_layers * layers.used_bytes
    block_tokens, most_tokens, extra = layers.block_tokens, None, 0
    if layers.kind == WINDOW:
        # Its first token may lie anywhere in a block: one more.
        most_tokens, extra = (layers.tokens or 0) - 1 + scheduled_tokens, 1
    elif layers.kind == CHUNKED:
        most_tokens = (layers.tokens or 0) + scheduled_tokens
    elif layers.kind == STATE and state_blocks:
        block_tokens, extra, ranks = 0, state_blocks, 1
    return Need(
        kind=layers.kind,
        num_groups=groups,
        block_tokens=block_tokens,
        most_tokens=most_tokens,
        extra=extra,
        ranks=ranks,
        padding_bytes=padding,
    )

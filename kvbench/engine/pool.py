"""A pool of cache: blocks, what a sequence takes of them, and so how many sequences fit."""

from dataclasses import dataclass

from kvbench.model.model import Model


@dataclass(frozen=True, kw_only=True)
class Need:
    """Blocks that a sequence takes for groups of layers that are alike.

    Args:
        kind: of these layers, as in LayerGroup.
        num_groups: groups, each with blocks of its own; > 0.
        block_tokens: tokens that a block holds; 0: the sequence takes `extra` blocks, whatever its length.
        most_tokens: tokens held at once, at most, those of the step that computes them included; None: all.
        extra: blocks beside those of tokens.
        ranks: ranks that a sequence's tokens are divided over.
        padding_bytes: of one block of each of the groups, those that no layer fills.
    """

    kind: str
    num_groups: int
    block_tokens: int
    most_tokens: int | None = None
    extra: int = 0
    ranks: int = 1
    padding_bytes: int = 0

    def blocks_each(self, num_tokens: int) -> int:
        """Blocks of each group for a sequence of so many tokens."""
        if not self.block_tokens:
            return self.extra
        held = -(-num_tokens // self.ranks)
        held = held if self.most_tokens is None else min(held, self.most_tokens)
        return -(-held // self.block_tokens) + self.extra

    def blocks_of(self, num_tokens: int) -> int:
        """Blocks of all groups for a sequence of so many tokens."""
        return self.num_groups * self.blocks_each(num_tokens)


@dataclass(frozen=True, kw_only=True)
class SubPool:
    """Blocks of one size, which sequences share.

    Args:
        name: "blocks", or what these are apart for: "full", "window", "states".
        num_blocks: all of them, >= 0.
        block_bytes: of one, over all layers that use it; > 0.
        needs: what a sequence takes of them.
        held_back: blocks that no sequence gets.
    """

    name: str
    num_blocks: int
    block_bytes: int
    needs: tuple[Need, ...]
    held_back: int = 0

    def blocks_of(self, num_tokens: int) -> int:
        """Blocks of a sequence of so many tokens."""
        return sum(need.blocks_of(num_tokens) for need in self.needs)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What a rank's memory for the cache becomes in an engine.

    Args:
        parts: kinds of blocks, the first those that grow with a sequence. Engines that keep all layers' blocks in one
            pool have one part.
        rank: the model of the rank that this is of.
        ranks: ranks that a sequence's tokens are divided over.
        block_tokens: tokens of the smallest block, > 0.
        num_groups: groups of layers with blocks of their own.
        num_tokens: tokens, as the engine's version prints them.
        max_concurrency: sequences of max_model_len at once, as it prints them.
        max_model_len: the longest sequence that is served.
        padding_layers: layers that are paid for and are none.
    """

    parts: tuple[SubPool, ...]
    rank: Model
    ranks: int = 1
    block_tokens: int
    num_groups: int
    num_tokens: int
    max_concurrency: float
    max_model_len: int
    padding_layers: int = 0

    @property
    def num_blocks(self) -> int:
        """Blocks of the first part."""
        return self.parts[0].num_blocks

    @property
    def page_bytes(self) -> int:
        """Bytes of one of these blocks, over all layers that use it."""
        return self.parts[0].block_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of all blocks."""
        return sum(part.num_blocks * part.block_bytes for part in self.parts)

    @property
    def usable_bytes(self) -> int:
        """Bytes of those that sequences get."""
        return sum(max(part.num_blocks - part.held_back, 0) * part.block_bytes for part in self.parts)

    def blocks_of(self, num_tokens: int) -> int:
        """Blocks of the first part that a sequence of so many tokens takes."""
        return self.parts[0].blocks_of(num_tokens)

    def requests(self, num_tokens: int) -> int:
        """Sequences of so many tokens that fit at once: what runs out first binds, be it blocks, windows or states."""
        return min(
            max(part.num_blocks - part.held_back, 0) // taken
            for part in self.parts
            if (taken := part.blocks_of(num_tokens))
        )

    def sequence_bytes(self, num_tokens: int) -> int:
        """Bytes of the blocks that a sequence of so many tokens takes."""
        return sum(part.blocks_of(num_tokens) * part.block_bytes for part in self.parts)

    def waste_bytes(self, num_tokens: int) -> int:
        """Of these, bytes beyond what its layers hold: padding, ends of blocks, and room beyond windows and states."""
        return self.sequence_bytes(num_tokens) - self.rank.held_bytes(-(-num_tokens // self.ranks))

    def padding_bytes(self, num_tokens: int) -> int:
        """Of these, bytes that are there only to make pages and groups equal."""
        return sum(need.blocks_each(num_tokens) * need.padding_bytes for part in self.parts for need in part.needs)

"""Slots in blocks of a pool that all sequences share."""

from collections.abc import Hashable

import torch
from torch import Tensor

from kvbench.backend.storage.base import Fill, Pair, Part, Piece, Shape
from kvbench.backend.storage.casting import Casting
from kvbench.backend.storage.memory import Memory, movable
from kvbench.plan.area import Area
from kvbench.plan.ops import Rule

MOST_WRITTEN = 16
"""Blocks that are written to a table on the device one by one; of more, the table is sent."""


class BlockPool:
    """All blocks of an area: a tensor each for K and V of a layer, allocated once, and who holds which block.

    Args:
        area: how it lives; its layout is blocks.
        shape: of its tensors.
        memory: where they live.
        casting: how K and V change on their way in and out; None: not at all.
    """

    def __init__(self, area: Area, shape: Shape, memory: Memory, casting: Casting | None = None) -> None:
        layout = area.blocks
        self.block_tokens = layout.num_tokens
        num_blocks = layout.pool // layout.num_tokens
        self._free = list(range(num_blocks - 1, -1, -1))
        self._sharers = [0] * num_blocks
        self._names: dict[int, Hashable] = {}
        self._copies: dict[Hashable, list[int]] = {}
        self._idle: dict[int, None] = {}  # those that have a name and no sequence holds, the first let go of first
        self._memory = memory
        self.casting = casting
        layers = range(shape.num_layers)
        self.keys = [memory.empty(shape.of(layout.pool), shape.dtype) for _ in layers]
        self.values = self.keys  # of latents, which are both
        if not shape.is_latent:
            self.values = [memory.empty(shape.values_of(layout.pool), shape.dtype) for _ in layers]
        self._split_blocks()

    @property
    def _tensors(self) -> list[list[Tensor]]:
        """Those of K and V, or of latents."""
        return [self.keys] if self.values is self.keys else [self.keys, self.values]

    def _split_blocks(self) -> None:
        """Views whose third axis is the block."""
        by_block = (len(self._sharers), self.block_tokens)
        self.key_blocks = [tensor.unflatten(2, by_block) for tensor in self.keys]
        self.value_blocks = [tensor.unflatten(2, by_block) for tensor in self.values]

    def select_rows(self, index: Tensor) -> None:
        """Hold chosen rows of all blocks, tensor by tensor."""
        self.key_blocks = self.value_blocks = []
        for tensors in self._tensors:
            for layer, tensor in enumerate(tensors):
                tensors[layer] = self._memory.rows(tensor, index)
        self._split_blocks()

    @property
    def num_free(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._free)

    def take(self) -> int:
        """A free block. The ledger has seen to it that there is one."""
        block = self._free.pop()
        self._sharers[block] = 1
        return block

    def share(self, block: int) -> None:
        """Let one more sequence hold a block."""
        self._sharers[block] += 1

    def is_shared(self, block: int) -> bool:
        """Whether several sequences hold a block."""
        return self._sharers[block] > 1

    def give_back(self, block: int) -> None:
        """Let one sequence less hold a block; free it where that was the last, and it has no name."""
        self._sharers[block] -= 1
        if self._sharers[block]:
            return
        if block in self._names:
            self._idle[block] = None
        else:
            self._free.append(block)

    def publish(self, block: int, key: Hashable) -> None:
        """Give a block a name."""
        self._names[block] = key
        self._copies.setdefault(key, []).append(block)

    def found(self, key: Hashable) -> int:
        """Let one more sequence hold the block of a name that was published first."""
        block = self._copies[key][0]
        self._idle.pop(block, None)
        self.share(block)
        return block

    def drop(self, key: Hashable) -> None:
        """Free the block of a name that was let go of first, where it is of this pool."""
        if key not in self._copies:
            return
        block = next(block for block in self._idle if self._names[block] == key)
        del self._idle[block], self._names[block]
        self._copies[key].remove(block)
        if not self._copies[key]:
            del self._copies[key]
        self._free.append(block)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy a block's first tokens into another."""
        for tensors in (self.key_blocks, self.value_blocks):
            for blocks in tensors:
                blocks[:, :, target, :num_tokens] = blocks[:, :, source, :num_tokens]


class PagedStore:
    """A block table into a pool; read by a gather of whole blocks into staging buffers.

    Args:
        area: how it lives; its layout is blocks.
        shape: of its tensors.
        pool: where its blocks come from.
    """

    __slots__ = (
        "_block_tokens",
        "_index",
        "_may_share",
        "_num_indexed",
        "_pool",
        "_shape",
        "area",
        "first_position",
        "num_used",
        "table",
    )

    def __init__(self, area: Area, shape: Shape, pool: BlockPool) -> None:
        self.area = area
        self._shape = shape
        self._pool = pool
        self._block_tokens = pool.block_tokens
        self.table: list[int] = []
        self._index: Tensor | None = None
        self._num_indexed = 0  # blocks, of those at the table's beginning, that the index has
        self._may_share = False
        self.num_used = self.first_position = 0

    def reserve(self, capacity: int) -> None:
        """Take blocks from the pool, or give the last ones back. See `Store.reserve`."""
        num_blocks = capacity // self._block_tokens
        for block in self.table[num_blocks:]:
            self._pool.give_back(block)
        del self.table[num_blocks:]
        while len(self.table) < num_blocks:
            self.table.append(self._pool.take())
        self._num_indexed = min(self._num_indexed, num_blocks)

    def fork(self, new: "PagedStore", num_tokens: int) -> None:
        """Give an empty store the first tokens: whole blocks are shared, and the last one while both end in it."""
        num_shared, rest = divmod(num_tokens, self._block_tokens)
        num_shared += rest > 0 and num_tokens == self.num_used
        for block in self.table[:num_shared]:
            self._pool.share(block)
        new.table = self.table[:num_shared]
        new.num_used = min(num_tokens, num_shared * self._block_tokens)
        new.first_position = self.first_position
        self._may_share = new._may_share = True
        if new.num_used < num_tokens:
            new.table.append(self._pool.take())
            self._pool.copy(self.table[num_shared], new.table[-1], rest)
            new.num_used = num_tokens

    def publish(self, key: Hashable, num_tokens: int) -> None:
        """Give the block that ends with so many first tokens a name."""
        self._pool.publish(self.table[num_tokens // self._block_tokens - 1], key)

    def reuse(self, key: Hashable) -> None:
        """Take the next tokens over, in the block of a name."""
        self.table.append(self._pool.found(key))
        self.num_used += self._block_tokens

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, position: int) -> None:
        """Block by block; a block that others hold as well is copied first. See `Store.append`."""
        if self._pool.casting is not None:
            keys, values = self._pool.casting.lowered(keys, values)
        if not self.num_used:
            self.first_position = position
        if self._may_share:
            self._make_private()
        done = 0
        while done < num_tokens:
            number, start = divmod(self.num_used, self._block_tokens)
            count = min(num_tokens - done, self._block_tokens - start)
            first = self.table[number] * self._block_tokens + start
            end = first + count
            for layer, pool in enumerate(self._pool.keys):
                pool[:, :, first:end] = keys[layer][:, :, done : done + count]
                if self._pool.values is not self._pool.keys:
                    self._pool.values[layer][:, :, first:end] = values[layer][:, :, done : done + count]
            done += count
            self.num_used += count

    def take_slot(self, position: int) -> int:
        """Count one more token, which the caller writes before anything reads it.

        Args:
            position: of the token in the sequence.
        Returns:
            Its slot of the pool.
        """
        if not self.num_used:
            self.first_position = position
        if self._may_share:
            self._make_private()
        number, start = divmod(self.num_used, self._block_tokens)
        self.num_used += 1
        return self.table[number] * self._block_tokens + start

    def write(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write tokens to slots of the pool, in all layers the same.

        Args:
            slots: from `take_slot`, of whichever stores of the pool: int64, on its device.
            keys: [num_rows, num_kv_heads, tokens, head_dim].
            values: as keys.
        """
        pool = self._pool
        new: tuple[list[Tensor], list[Tensor]] = ([keys] * len(pool.keys), [values] * len(pool.keys))
        if pool.casting is not None:
            new = pool.casting.lowered(*new)
        for tensors, layers in zip((pool.keys, pool.values), new, strict=True):
            for tensor, layer in zip(tensors, layers, strict=True):
                movable(tensor).index_copy_(2, slots, movable(layer.to(tensor.dtype)))

    def _make_private(self) -> None:
        number, num_filled = divmod(self.num_used, self._block_tokens)
        if num_filled and self._pool.is_shared(self.table[number]):
            own = self._pool.take()
            self._pool.copy(self.table[number], own, num_filled)
            self._pool.give_back(self.table[number])
            self.table[number] = own
            self._num_indexed = min(self._num_indexed, number)

    def receive(self, part: Part) -> None:
        """See `Store.receive`."""
        self.append(part.keys, part.values, part.num_tokens, part.first_position)

    def read(self, layer: int) -> list[Pair]:
        """None: blocks lie apart. See `Store.read`."""
        return []

    def pieces(self, layer: int) -> list[Piece]:
        """A view a block; of what was cast, restored. See `Store.pieces`."""
        found = []
        for number, block in enumerate(self.table):
            start = number * self._block_tokens
            count = min(self._block_tokens, self.num_used - start)
            if count > 0:
                first = block * self._block_tokens
                keys, values = (t[layer].narrow(2, first, count) for t in (self._pool.keys, self._pool.values))
                if self._pool.casting is not None:
                    keys, values = self._pool.casting.restored(layer, (keys, values))
                position = self.first_position + start
                found.append(Piece(keys, values, range(position, position + count)))
        return found

    @property
    def slots(self) -> Tensor:
        """Of the pool, those that hold its tokens, in order: int64 [num_used], on the pool's device."""
        of_a_block = torch.arange(self._block_tokens, device=self._blocks.device)
        return (self._blocks[:, None] * self._block_tokens + of_a_block).flatten()[: self.num_used]

    def gathered(self, layer: int, slots: Tensor) -> Pair:
        """K and V of slots of the pool, in new tensors.

        Args:
            layer: which.
            slots: from `slots`, of whichever stores of the pool.
        """
        casting, both = self._pool.casting, (self._pool.keys[layer], self._pool.values[layer])
        keys, values = (movable(of).index_select(2, slots).view(of.dtype) for of in both)
        return (keys, values) if casting is None else casting.restored(layer, (keys, values))

    @property
    def _blocks(self) -> Tensor:
        """The table on the device. It grows in place: one that is sent anew makes the host wait for the device."""
        count = len(self.table)
        if self._index is None or len(self._index) < count or count - self._num_indexed > MOST_WRITTEN:
            room = [0] * count
            with torch.inference_mode(False):  # it is written to later, in that mode or not
                self._index = torch.tensor(self.table + room, dtype=torch.int64, device=self._pool.keys[0].device)
        else:
            for number in range(self._num_indexed, count):
                self._index[number] = self.table[number]
        self._num_indexed = count
        return self._index[:count]

    def fills(self, layer: int, part_tokens: int) -> list[Fill]:
        """A gather of as many blocks as a buffer holds, each. See `Store.fills`."""
        index = self._blocks
        a_time = part_tokens // self._block_tokens
        num_blocks = -(-self.num_used // self._block_tokens)
        firsts = range(0, num_blocks, a_time)
        return [self._fill(layer, first, index[first : min(first + a_time, num_blocks)]) for first in firsts]

    def _fill(self, layer: int, first: int, index: Tensor) -> Fill:
        start = first * self._block_tokens
        num_blocks = len(index)
        count = min(num_blocks * self._block_tokens, self.num_used - start)

        def fill(keys: Tensor, values: Tensor) -> Piece:
            shape = self._shape
            pairs = [(keys, self._pool.key_blocks), (values, self._pool.value_blocks)]
            for target, blocks in pairs[: 1 if shape.is_latent else 2]:
                width = target.shape[3]
                by_block = (shape.num_rows, shape.num_heads, num_blocks, self._block_tokens, width)
                gathered = target.as_strided(by_block, (*target.stride()[:2], self._block_tokens * width, width, 1))
                if self._pool.casting is None and blocks[layer].device == target.device:
                    torch.index_select(blocks[layer], 2, index, out=gathered)
                else:
                    held = blocks[layer]
                    gathered.copy_(movable(held).index_select(2, index).view(held.dtype))
            if self._pool.casting is not None:
                self._pool.casting.restore(layer, keys.narrow(2, 0, count), values.narrow(2, 0, count))
            position = self.first_position + start
            return Piece(keys.narrow(2, 0, count), values.narrow(2, 0, count), range(position, position + count))

        return fill

    def leaving(self, rule: Rule) -> list[Part]:
        """Views of the oldest blocks, a part where several lie behind each other. See `Store.leaving`."""
        left = self.num_used - rule.num_kept(self.num_used)
        parts, number, position = [], 0, self.first_position
        while left:
            first = last = number
            while (last + 1 - first) * self._block_tokens < left and self.table[last + 1] == self.table[last] + 1:
                last += 1
            number = last + 1
            count = min((number - first) * self._block_tokens, left)
            start = self.table[first] * self._block_tokens
            keys, values = ([t.narrow(2, start, count) for t in of] for of in (self._pool.keys, self._pool.values))
            parts.append(Part(count, keys, values, range(position, position + count)))
            left -= count
            position += count
        return parts if self._pool.casting is None else self._pool.casting.restored_parts(parts)

    def keep(self, rule: Rule) -> None:
        """Give the oldest blocks back. See `Store.keep`."""
        num_evicted = self.num_used - rule.num_kept(self.num_used)
        num_blocks = -(-num_evicted // self._block_tokens)
        for block in self.table[:num_blocks]:
            self._pool.give_back(block)
        del self.table[:num_blocks]
        if num_blocks:
            self._index, self._num_indexed = None, 0
        self.first_position += num_evicted
        self.num_used -= num_evicted

    def select_rows(self, index: Tensor, shape: Shape) -> None:
        """See `Store.select_rows`; the pool is this sequence's alone."""
        self._pool.select_rows(index)
        self._shape = shape

    def truncate(self, num_tokens: int) -> None:
        """See `Store.truncate`."""
        self.num_used -= num_tokens

    def release(self) -> None:
        """Give all blocks back."""
        self.reserve(0)

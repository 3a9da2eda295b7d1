"""Parts of storages by themselves: blocks that are private, and rounding to few bits."""

import pytest
import torch

from kvbench.backend.storage.base import Shape
from kvbench.backend.storage.memory import Memory
from kvbench.backend.storage.packed import packed, quantized, unpack, unpacked
from kvbench.backend.storage.paged import BlockPool, PagedStore
from kvbench.plan.area import DEVICE, Area, Blocks
from kvbench.plan.ops import Rule

SHAPE = Shape(1, 1, 1, 2, torch.float32, torch.device("cpu"))


def appended(store, count):
    """More slots, each with its position in K and V."""
    numbers = torch.arange(store.num_used, store.num_used + count, dtype=torch.float32).view(1, 1, -1, 1)
    tensors = [numbers.expand(*SHAPE.of(count))]
    store.append(tensors, tensors, count, store.num_used)


def test_a_block_is_copied_once_and_then_stays():
    area = Area(layout=Blocks(4, 16))
    pool = BlockPool(area, SHAPE, Memory(DEVICE, SHAPE.device))
    first, second = PagedStore(area, SHAPE, pool), PagedStore(area, SHAPE, pool)
    first.reserve(8)
    appended(first, 5)
    first.fork(second, 5)
    assert second.table == first.table
    appended(second, 1)
    own = list(second.table)
    assert (own[0], own[1] == first.table[1]) == (first.table[0], False)
    appended(second, 1)
    appended(first, 1)  # the second holds another block by now
    assert (second.table, pool.num_free) == (own, 1)
    for store, count in ((first, 6), (second, 7)):
        blocks = torch.cat([pool.key_blocks[0][0, 0, block, :, 0] for block in store.table])
        assert blocks[:count].tolist() == list(range(count))


def test_a_table_on_the_device_follows_its_blocks():
    area = Area(layout=Blocks(4, 256))
    pool = BlockPool(area, SHAPE, Memory(DEVICE, SHAPE.device))
    first, second = PagedStore(area, SHAPE, pool), PagedStore(area, SHAPE, pool)

    def check(store):
        assert store._blocks.tolist() == store.table

    first.reserve(8)
    appended(first, 6)
    check(first)
    sent = first._index
    first.reserve(16)  # written in place: there is room for as many again
    check(first)
    assert first._index is sent
    first.fork(second, 6)
    check(second)
    second.reserve(12)
    appended(second, 1)  # a block of its own instead of the shared one
    check(second)
    first.reserve(8)
    pool.take()
    first.reserve(12)  # another block than before where one was given back
    check(first)
    first.reserve(200)
    appended(first, 190)
    check(first)
    first.keep(Rule(recent=180))
    check(first)
    first.reserve(0)
    check(first)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_packed_codes_come_back(bits):
    codes = torch.randint(2**bits, (2, 3, 5, 16), dtype=torch.uint8)
    together = packed(codes, bits)
    assert together.shape[3] == 16 * bits // 8
    assert torch.equal(unpacked(together, bits), codes)
    found = torch.empty(codes.shape)
    unpack(together, bits, found)
    assert torch.equal(found, codes.float())


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_as_many_values_as_there_are_levels_come_back_exactly(bits):
    values = torch.arange(2**bits, dtype=torch.float32).view(1, -1) - 3
    codes, scale, least = quantized(values, bits, axis=1)
    assert codes[0].tolist() == list(range(2**bits))
    assert (scale.item(), least.item()) == (1, -3)

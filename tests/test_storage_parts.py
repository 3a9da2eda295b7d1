"""Parts of storages by themselves: blocks that are private, and rounding to few bits."""

import pytest
import torch

from kvbench.backend.storage.base import Shape
from kvbench.backend.storage.memory import Memory
from kvbench.backend.storage.packed import quantized
from kvbench.backend.storage.paged import BlockPool, PagedStore
from kvbench.plan.area import DEVICE, Area, Blocks

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


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_as_many_values_as_there_are_levels_come_back_exactly(bits):
    values = torch.arange(2**bits, dtype=torch.float32).view(1, -1) - 3
    codes, scale, least = quantized(values, bits, axis=1)
    assert codes[0].tolist() == list(range(2**bits))
    assert (scale.item(), least.item()) == (1, -3)

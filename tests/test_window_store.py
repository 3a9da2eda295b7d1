"""Layers with a window hold its last tokens and no more, however they lie; the newest are seen before they land."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.storage import Areas, SequenceStore, Shape
from kvbench.plan.area import Area, Chunks, Contiguous
from kvbench.plan.ops import Append, Reserve, Settle, Truncate
from tests.support.storages import LiveStorages

WINDOW, LAYERS, HEADS, HEAD_DIM = 12, 2, 2, 4
SLOT_BYTES = 2 * LAYERS * HEADS * HEAD_DIM * 4
LAYOUTS = (Contiguous(), Chunks(8), Chunks(5))


class Filled:
    """A sequence in layers with a window, and all tokens that it was ever given."""

    def __init__(self, layout):
        shape = Shape(LAYERS, 1, HEADS, HEAD_DIM, torch.float32, torch.device("cpu"), window=WINDOW)
        self.areas = Areas((Area(layout=layout),), shape)
        self.sequence = SequenceStore(self.areas)
        self.unit = layout.num_tokens if isinstance(layout, Chunks) else 1
        self.storages, self.capacity, self.generator = LiveStorages(), 0, torch.Generator().manual_seed(0)
        self.keys = [torch.empty(1, HEADS, 0, HEAD_DIM) for _ in range(LAYERS)]

    def do(self, op, keys=()):
        with self.storages:
            self.sequence.carry_out(op, keys, [-each for each in keys])

    def reserve(self, num_tokens, background=False):
        self.capacity = max(self.capacity, -(-num_tokens // self.unit) * self.unit)
        self.do(Reserve(0, self.capacity, background=background))

    def append(self, num_tokens):
        new = [torch.randn(1, HEADS, num_tokens, HEAD_DIM, generator=self.generator) for _ in range(LAYERS)]
        self.keys = [torch.cat(pair, dim=2) for pair in zip(self.keys, new, strict=True)]
        self.do(Append(0, num_tokens), new)

    @property
    def num_tokens(self):
        return self.keys[0].shape[2]

    def check(self, first):
        """All tokens from one on are there, in order; in whatever order they are read."""
        for layer, keys in enumerate(self.keys):
            pieces = [piece for _, piece in self.sequence.pieces(layer)]
            assert [at for piece in pieces for at in piece.positions] == list(range(first, self.num_tokens))
            if pieces:
                assert torch.equal(torch.cat([piece.keys for piece in pieces], 2), keys[:, :, first:])
                assert torch.equal(torch.cat([piece.values for piece in pieces], 2), -keys[:, :, first:])
            read = [pair[0] for pair in self.sequence.read(layer)]
            assert sum(each.shape[2] for each in read) == self.num_tokens - first

    def check_landed(self):
        self.sequence.land()
        self.check(max(self.num_tokens - WINDOW, 0))
        assert self.storages.live_bytes == min(self.capacity, WINDOW) * SLOT_BYTES


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 30), max_size=12))
def test_the_newest_are_seen_with_what_they_look_at_and_then_the_window_is_held(layout, counts):
    filled = Filled(layout)
    for count in counts:
        before = filled.num_tokens
        filled.reserve(before + count)
        filled.append(count)
        filled.check(max(before - WINDOW + 1, 0) if before + count > WINDOW else 0)
        filled.check_landed()
    filled.sequence.release(0, SLOT_BYTES)
    assert not filled.storages.live_bytes


def test_one_part_is_read_whole_whatever_its_order():
    filled = Filled(Contiguous())
    filled.reserve(20)
    for _ in range(15):
        filled.append(1)
    ((keys, _),) = filled.sequence.read(0)
    assert keys.shape[2] == WINDOW
    assert torch.equal(keys.sort(dim=2).values, filled.keys[0][:, :, -WINDOW:].sort(dim=2).values)
    assert filled.sequence.ends_with_newest is None


@pytest.mark.parametrize("capacities", [(6, 10), (6, 40), (20, 40)])
def test_a_window_grows_beside_the_steps_until_it_is_whole(capacities):
    filled = Filled(Contiguous())
    filled.reserve(capacities[0])
    for _ in range(3):
        filled.append(1)
    filled.reserve(capacities[1], background=True)
    filled.append(1)
    filled.do(Settle(0))
    filled.areas.background.wait()
    filled.check_landed()
    for _ in range(capacities[1] - 4):
        filled.append(1)
        filled.check_landed()
    filled.areas.close()


def test_rows_are_chosen_and_the_newest_taken_back():
    filled = Filled(Chunks(8))
    filled.reserve(10)
    filled.append(7)
    filled.do(Truncate(0, 2))
    filled.keys = [keys[:, :, :5] for keys in filled.keys]
    filled.append(2)
    filled.check_landed()
    filled.sequence.select_rows(torch.tensor([0, 0]))
    for layer, keys in enumerate(filled.keys):
        assert torch.equal(filled.sequence.read(layer)[0][0], keys[[0, 0]])

"""What a cache inside a model books is what its tensors take, after every step; rows, truncation and failures too."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

from torch import nn

from kvbench.integrations.layerwise import StepFailed
from kvbench.integrations.transformers import ATTENTION, KVBenchCache
from kvbench.ledger import LedgerError, OutOfMemory
from kvbench.strategy.base import CapacityExceeded
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.families import CONFIGS
from tests.support.storages import LiveStorages
from tests.test_contract import small

HOLDING = [name for name in STRATEGIES if name != "recompute"]
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 4, 2, 8


WINDOWED = "gemma3, one layer of two with a window of 12"


def config_of(attention=ATTENTION, family="llama"):
    config = CONFIGS[family]()
    config._attn_implementation, config.head_dim = attention, HEAD_DIM
    return config


class Driven:
    """Layers that are stepped as a model's are, on random tensors; torch's own storages count what they hold."""

    def __init__(self, chosen, num_rows=2, family="llama", **options):
        self.cache = KVBenchCache(chosen, config_of(family=family), num_output_tokens=100, **options)
        self.num_rows = num_rows
        self.generator = torch.Generator().manual_seed(0)
        self.storages = LiveStorages()
        self.module = nn.Module().eval()
        self.module.num_key_value_groups = NUM_HEADS // NUM_KV_HEADS

    def random(self, num_heads, num_tokens):
        return torch.randn(self.num_rows, num_heads, num_tokens, HEAD_DIM, generator=self.generator)

    def step(self, num_tokens):
        mask = self.mask(num_tokens)
        for layer in self.cache.layers:
            given = [self.random(heads, num_tokens) for heads in (NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS)]
            with self.storages:
                layer.update(*given[1:])
                layer.attend(self.module, *given, mask, scaling=HEAD_DIM**-0.5)
        self.check()

    def mask(self, num_tokens):
        seen = self.cache.get_seq_length()
        return torch.ones(self.num_rows, 1, num_tokens, seen + num_tokens, dtype=torch.bool).tril(seen)

    def select(self, index):
        with self.storages:
            self.cache.reorder_cache(torch.tensor(index))
        self.num_rows = len(index)
        self.check()

    def check(self):
        for sequence in self.cache.batch.sequences:
            sequence._shared.background.wait()
        assert self.storages.live_bytes == self.cache.ledger.held_bytes

    def content(self, layer=0):
        return self.cache.batch.sequences[layer].full_context(0)


@pytest.mark.parametrize("family", ["llama", WINDOWED])
@pytest.mark.parametrize("name", HOLDING)
@settings(max_examples=5, deadline=None)
@given(
    steps=st.lists(
        st.one_of(st.integers(1, 60), st.just(1), st.lists(st.integers(0, 1), min_size=1, max_size=4)), max_size=9
    )
)
def test_books_and_storages_agree_after_every_step_and_change_of_rows(name, family, steps):
    driven = Driven(small(name), family=family)
    driven.step(33)
    for step in steps:
        if isinstance(step, int):
            driven.step(step)
        else:
            index = [min(row, driven.num_rows - 1) for row in step]
            before = driven.content()
            driven.select(index)
            for held, was in zip(driven.content(), before, strict=True):
                assert torch.equal(held, was[index])
    with driven.storages:
        driven.cache.reset()
    assert driven.storages.live_bytes == driven.cache.ledger.fixed_bytes
    driven.num_rows = 1
    driven.step(5)
    with driven.storages:
        driven.cache.close()
    assert driven.storages.live_bytes == 0


@pytest.mark.parametrize("name", [name for name in HOLDING if small(name).lossless])
def test_what_is_cropped_was_never_there(name):
    driven, plain = Driven(small(name), num_rows=1), Driven(small(name), num_rows=1)
    driven.step(20)
    plain.step(20)
    state = driven.generator.get_state()
    driven.step(4)
    driven.cache.crop(-3)
    driven.cache.crop(0)
    driven.check()
    assert driven.cache.get_seq_length() == 21
    driven.generator.set_state(state)
    plain.generator.set_state(state)
    plain.step(4)
    for held, was in zip(driven.content(), plain.content(), strict=True):
        assert torch.equal(held, was[:, :, :21])


def test_what_was_evicted_does_not_come_back():
    driven = Driven(small("sinks"))
    driven.step(9)
    driven.cache.crop(-1)
    driven.step(9)
    with pytest.raises(LedgerError, match=r"tokens were evicted or rounded; what was cannot be restored"):
        driven.cache.crop(-1)
    driven.step(1)
    with pytest.raises(ValueError, match="crop takes minus the number of tokens to remove, got 3"):
        driven.cache.crop(3)


def test_other_rows_are_booked_by_hand():
    """One area of 40 slots; a slot of K and V in 2 layers of 2 KV heads of 8 in float32 has 256 bytes a row."""
    driven = Driven(strategy("static", max_seq_len=40), num_rows=2)
    driven.step(3)
    assert driven.cache.figures().peak_bytes == 2 * 40 * 256 == 20_480
    with driven.storages:
        driven.cache.batch_repeat_interleave(3)
    driven.num_rows = 6
    driven.check()
    assert driven.cache.figures().held_bytes == 6 * 40 * 256 == 61_440
    # While the last of the four tensors is replaced, its old two rows are held as well: 2 x 40 x 2 x 8 x 4 bytes.
    assert driven.cache.figures().peak_bytes == 61_440 + 5_120
    assert driven.storages.peak_bytes == 61_440 + 5_120 + 6 * 8  # and the numbers of six rows


def test_a_budget_is_kept_and_a_refused_step_leaves_no_trace():
    driven = Driven(strategy("dynamic", initial_capacity=16), budget_bytes=2 * 30 * 256)
    driven.step(16)
    held = driven.content()
    with pytest.raises(OutOfMemory):
        driven.step(15)
    for tensor, was in zip(driven.content(), held, strict=True):
        assert torch.equal(tensor, was)
    with pytest.raises(OutOfMemory):
        driven.select([0, 1, 0, 1])
    driven = Driven(strategy("static", max_seq_len=20))
    driven.step(16)
    with pytest.raises(CapacityExceeded):
        driven.step(5)
    driven.step(4)
    assert driven.cache.get_max_length() == 20


def test_a_step_that_was_cut_short_is_told():
    driven = Driven(small("dynamic"))
    driven.step(4)
    given = [driven.random(heads, 1) for heads in (NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS)]
    first = driven.cache.layers[0]
    first.update(*given[1:])
    first.attend(driven.module, *given, driven.mask(1))
    with pytest.raises(StepFailed, match="was not carried out in every layer; reset the cache first"):
        driven.step(1)
    driven = Driven(small("dynamic"))
    driven.cache.layers[1].update(*given[1:])
    driven.cache.batch.begin(1)
    with pytest.raises(StepFailed, match="it is layer 0's turn, got layer 1"):
        driven.cache.batch.enter(1)
    driven.cache.reset()
    driven.storages = LiveStorages()
    driven.step(1)


def test_a_wrong_batch_is_refused():
    driven = Driven(small("dynamic"))
    driven.step(4)
    driven.num_rows = 3
    with pytest.raises(ValueError, match=r"the cache holds 2 rows, 2 KV heads of 8, float32 on cpu; got \(3,"):
        driven.step(1)
    driven.cache.reset()
    driven.storages = LiveStorages()
    driven.step(2)
    assert driven.cache.get_seq_length() == 2

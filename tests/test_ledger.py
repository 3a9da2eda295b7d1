"""The ledger: what it books, what it refuses, and that a refusal leaves no trace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.ledger import Ledger, LedgerError, OutOfMemory
from kvbench.plan.ops import Append, Release, Reserve, Truncate
from tests.support.catalogue import TINY

TOKEN = TINY.bytes_per_token
TENSOR_TOKEN = TINY.tensor_bytes_per_token


@pytest.fixture
def ledger():
    made = Ledger(TINY, budget_bytes=100 * TOKEN)
    made.open(0)
    return made


def test_bytes_of_a_token_by_hand():
    # 2 heads of 8 elements of 4 bytes in each of K and V of 2 layers.
    assert (TENSOR_TOKEN, TOKEN) == (64, 256)


def test_a_resize_holds_one_tensor_twice(ledger):
    assert ledger.book((Reserve(0, 10),)).transient_bytes == 0
    ledger.book((Append(0, 10),))
    receipt = ledger.book((Reserve(0, 40), Append(0, 1)))
    assert receipt.num_resizes == 1
    assert receipt.copied_bytes == 10 * TOKEN
    assert receipt.requested_bytes == 40 * TOKEN
    assert receipt.transient_bytes == 10 * TENSOR_TOKEN
    assert receipt.peak_bytes == 40 * TOKEN + 10 * TENSOR_TOKEN


def test_shrinking_holds_one_small_tensor_twice(ledger):
    ledger.book((Reserve(0, 40), Append(0, 4)))
    receipt = ledger.book((Reserve(0, 8),))
    assert receipt.transient_bytes == 8 * TENSOR_TOKEN
    assert receipt.peak_bytes == 40 * TOKEN + 8 * TENSOR_TOKEN
    assert ledger.allocated_bytes == 8 * TOKEN


def test_rows_multiply_bytes():
    ledger = Ledger(TINY, num_rows=3)
    ledger.open(1)
    ledger.book((Reserve(1, 5), Append(1, 2)))
    assert (ledger.allocated_bytes, ledger.used_bytes) == (15 * TOKEN, 6 * TOKEN)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ((Append(0, 3),), "2 of 4 slots are in use, so that between 1 and 2 tokens"),
        ((Append(0, 0),), "between 1 and 2 tokens"),
        ((Append(0, 1), Append(0, 2)), "between 1 and 1 tokens"),
        ((Reserve(0, 1),), "2 slots are in use"),
        ((Truncate(0, 3),), "between 1 and 2 tokens, those in the area main, can be removed"),
        ((Truncate(0, 0),), "between 1 and 2 tokens, those in the area main, can be removed"),
        ((Append(7, 1),), "sequence 7 is not open"),
        ((Release(7),), "sequence 7 is not open"),
        ((Release(0), Release(0)), "released earlier in the same plan"),
        ((Reserve(0, 9), Append(0, 99)), "between 1 and 7 tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_and_books_nothing(ledger, plan, words):
    ledger.book((Reserve(0, 4), Append(0, 2)))
    before = (ledger.used_bytes, ledger.allocated_bytes, ledger.view.capacity(0), ledger.view.num_used(0))
    with pytest.raises(LedgerError, match=words):
        ledger.book(plan)
    assert (ledger.used_bytes, ledger.allocated_bytes, ledger.view.capacity(0), ledger.view.num_used(0)) == before


def test_a_second_release_and_a_second_open_are_refused(ledger):
    with pytest.raises(LedgerError, match="open already"):
        ledger.open(0)
    ledger.book((Release(0),))
    with pytest.raises(LedgerError, match="not open"):
        ledger.book((Release(0),))
    with pytest.raises(ValueError, match="1 row or more"):
        Ledger(TINY, num_rows=0)


def test_the_double_buffer_counts_against_the_budget(ledger):
    ledger.book((Reserve(0, 60), Append(0, 60)))
    # 90 slots alone would fit in 100; with a tensor of the old 60 (a quarter of 60 slots' bytes) 105 do not.
    with pytest.raises(OutOfMemory) as caught:
        ledger.book((Reserve(0, 90), Append(0, 1)))
    assert caught.value.need_bytes == 90 * TOKEN + 60 * TENSOR_TOKEN
    assert (ledger.allocated_bytes, ledger.view.capacity(0)) == (60 * TOKEN, 60)


def test_room_is_the_largest_resize_that_is_booked(ledger):
    ledger.open(1)
    ledger.book((Reserve(1, 20),))
    ledger.book((Reserve(0, 40), Append(0, 5)))
    room = ledger.view.room(0)
    # 100 slots less the other's 20 and a tensor (a quarter) of the old 40.
    assert room == 70
    with pytest.raises(OutOfMemory):
        ledger.book((Reserve(0, room + 1),))
    ledger.book((Reserve(0, room),))


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_is_positive(budget):
    with pytest.raises(ValueError, match="budget_bytes is 1 or more"):
        Ledger(TINY, budget)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 30)), max_size=30))
def test_totals_are_the_sums_of_a_plain_model(steps):
    ledger = Ledger(TINY)
    model = {}
    for seq, capacity, count in steps:
        if seq not in model:
            ledger.open(seq)
            model[seq] = [0, 0]
        used, _ = model[seq]
        try:
            ledger.book((Reserve(seq, capacity), Append(seq, count)))
        except LedgerError:
            assert capacity < used + count
        else:
            model[seq] = [used + count, capacity]
        if count == 30:
            ledger.book((Release(seq),))
            del model[seq]
        assert ledger.used_bytes == TOKEN * sum(used for used, _ in model.values())
        assert ledger.allocated_bytes == TOKEN * sum(held for _, held in model.values())

"""What compiled code is made of."""

from typing import NamedTuple

import numpy as np

from kvbench.compiled import kernel, part, referred


class Pair(NamedTuple):
    """A table and a number."""

    table: np.ndarray
    number: int


@part
def add(pair: Pair, place: int) -> int:
    """Write to the table, and read the number."""
    pair.table[place] += pair.number
    return pair.number


@kernel
def both(first: Pair, second: Pair) -> int:
    """Two tuples, referred to in turn."""
    total = 0
    for i in range(first.table.size):
        total += add(referred(first), i) + add(referred(Pair(second.table, second.number + i)), i)
    return total


def test_a_tuple_is_read_by_its_address_as_it_is():
    first, second = Pair(np.zeros(3, np.int64), 2), Pair(np.zeros(3, np.int64), 10)
    assert both(first, second) == 3 * 2 + 10 + 11 + 12
    assert first.table.tolist() == [2, 2, 2]
    assert second.table.tolist() == [10, 11, 12]

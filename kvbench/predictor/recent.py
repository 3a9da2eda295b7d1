"""The last requests' further tokens, in order of size as well, and what can be said of them."""

import math
from bisect import bisect_left, insort
from collections import deque


class Recent:
    """A window over the further tokens of completed requests; all sums are of integers, and so exact.

    Args:
        window: requests remembered, > 0.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._in_order: deque[int] = deque()
        self._by_size: list[int] = []
        self._sum = self._sum_of_squares = 0

    def __len__(self) -> int:
        return len(self._in_order)

    def add(self, num_tokens: int) -> None:
        """Take in one more; the oldest goes when the window is full."""
        if len(self._in_order) == self._window:
            oldest = self._in_order.popleft()
            del self._by_size[bisect_left(self._by_size, oldest)]
            self._sum -= oldest
            self._sum_of_squares -= oldest * oldest
        self._in_order.append(num_tokens)
        insort(self._by_size, num_tokens)
        self._sum += num_tokens
        self._sum_of_squares += num_tokens * num_tokens

    def quantile(self, quantile: float) -> int:
        """The least of them that at least this share does not exceed. Needs one or more."""
        return self._by_size[rank(quantile, len(self._by_size)) - 1]

    def mean(self) -> float:
        """Sum ÷ number. Needs one or more."""
        return self._sum / len(self._in_order)

    def deviation(self) -> float:
        """Standard deviation of the population. Needs one or more."""
        num = len(self._in_order)
        return math.sqrt(num * self._sum_of_squares - self._sum**2) / num


def rank(quantile: float, num: int) -> int:
    """Place of a quantile among so many numbers in order of size, from 1: quantile · num, rounded up.

    Args:
        quantile: above 0, at most 1.
        num: numbers, > 0.
    """
    # 0.55 · 100 is 55.00000000000001 in floating point, and its place is 55.
    return max(math.ceil(round(quantile * num, 9)), 1)

"""Time calls against each other, in turn in one loop, so that a drift of the machine's speed falls on all alike."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import torch

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Side:
    """One of the things compared.

    Args:
        name: for people.
        call: what is timed; it is given the round's number.
        around: makes a context in which it is called; entered and left outside the timed region.
    """

    name: str
    call: Callable[[int], object]
    around: Callable[[], AbstractContextManager] = nullcontext


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector out of what is timed."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def synchronize() -> None:
    """Wait for an accelerator's present stream, where torch has started one; what runs beside it may go on."""
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()


def interleaved(
    sides: Sequence[Side], num_rounds: int, *, num_primes: int = 0, clock_ns: Callable[[], int] = perf_counter_ns
) -> list[np.ndarray]:
    """Time every side once a round, beginning with another one each time.

    Args:
        sides: what is compared.
        num_rounds: calls of each.
        num_primes: how often the same call is made untimed right before each timed one. With none, a call finds the
            processor's caches as the other side left them, in one order of two, and as itself left them in the other:
            its times fall into two heaps, and the median may lie in either.
        clock_ns: tells the time; a process's own leaves out what others take of its processor.
    Returns:
        Seconds of each round's call, an array for each side.
    """
    times_ns = np.zeros((len(sides), num_rounds), dtype=np.int64)
    numbered = list(enumerate(sides))
    waits = torch.cuda.is_initialized()
    with no_collection():
        for number in range(num_rounds):
            first = number % len(sides)
            for index, side in numbered[first:] + numbered[:first]:
                call = side.call
                with side.around():
                    for _ in range(num_primes):
                        call(number)
                    if waits:
                        synchronize()
                    start = clock_ns()
                    call(number)
                    if waits:
                        synchronize()
                    end = clock_ns()
                times_ns[index, number] = end - start
    return list(times_ns / NS_PER_S)

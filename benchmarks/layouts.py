"""Slots that lie apart: what appending to them and reading them costs, beside slots in one tensor."""

from collections.abc import Callable

import numpy as np
from appends import SLICE_WINDOWS, appender, slice_assignment
from attending import LENGTH_ROUNDS, NUM_PRIMES
from driven import SEQ, Driven, decoded_tokens, dynamic, random_tokens
from table import Goal, print_row
from timing import Side, interleaved

from kvbench.strategy.base import Strategy
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.paged import Paged
from kvbench.strategy.quantized import Quantized
from kvbench.strategy.sinks import Sinks
from kvbench.strategy.streaming import Streaming

LENGTH = 16_384
APPEND_GOAL = Goal(2.5, at_least=False)
READ_GOAL = Goal(1.3, at_least=False)
DTYPES = ("float16", "float32")


def _strategies() -> dict[str, tuple[Strategy, Goal | None, Goal | None]]:
    """What is measured, and the goals of its append and of its read."""
    tiers = {"eviction": "age", "top_accessed": 1, "access_window": 1, "disk_capacity": 0}
    return {
        "paged": (Paged(block_size=16, pool_tokens=2 * LENGTH), APPEND_GOAL, None),
        "chunked": (Chunked(chunk_tokens=1024), APPEND_GOAL, READ_GOAL),
        "sinks": (Sinks(num_sinks=4, window=1020), APPEND_GOAL, None),
        "streaming": (Streaming(window_size=1024, overlap_size=128, max_retired=10), None, None),
        "heavy_hitters": (HeavyHitters(num_heavy=512, num_recent=512), None, None),
        "int4": (Quantized(bits=4, group_size=32, residual_tokens=128, keys_per="channel"), None, None),
        "hierarchical": (
            Hierarchical(fast_capacity=1024, slow_capacity=2 * LENGTH, read_ahead=False, background=False, **tiers),
            None,
            None,
        ),
        "hierarchical, reading ahead": (
            Hierarchical(fast_capacity=1024, slow_capacity=2 * LENGTH, read_ahead=True, background=False, **tiers),
            None,
            None,
        ),
    }


def appends_apart(quick: bool) -> None:
    """Decode appends at 16,384 tokens, against a bare slice assignment."""
    num_windows, num_steps = SLICE_WINDOWS[quick]
    tokens = decoded_tokens(DTYPES[0])
    prompt = random_tokens(LENGTH, DTYPES[0]), random_tokens(LENGTH, DTYPES[0])
    for name, (strategy, goal, _) in _strategies().items():
        windows = []
        for _ in range(num_windows):
            driven = Driven(DTYPES[0], strategy, prompt)
            sides = [Side(name, appender(driven, tokens)), slice_assignment(prompt, tokens, num_steps)]
            windows.append(interleaved(sides, num_steps))
        ours_s, theirs_s = np.concatenate(windows, axis=1)
        note = f"{num_windows} × {num_steps} appends each; the slowest {1e6 * ours_s.max():.0f} µs"
        print_row(f"append, {name} / slices", f"{LENGTH:,}", DTYPES[0], ours_s, theirs_s, goal, note=note)


def reads_apart(quick: bool) -> None:
    """Decode attention at 16,384 tokens, against the same over slots in one tensor with capacity to spare."""
    num_rounds = 5 if quick else LENGTH_ROUNDS[LENGTH]
    for dtype in DTYPES:
        prompt = random_tokens(LENGTH, dtype), random_tokens(LENGTH, dtype)
        whole = _reader(Driven(dtype, dynamic(LENGTH + 1), prompt))
        for name, (strategy, _, goal) in _strategies().items():
            sides = [Side(name, _reader(Driven(dtype, strategy, prompt))), Side("contiguous", whole)]
            ours_s, theirs_s = interleaved(sides, num_rounds, num_primes=NUM_PRIMES)
            held = "all" if strategy.lossless or name == "int4" else "what is kept"
            note = f"reads {held} of {LENGTH:,}"
            print_row(f"read, {name} / contiguous", f"{LENGTH:,}", dtype, ours_s, theirs_s, goal, note=note)


def _reader(driven: Driven) -> Callable[[int], object]:
    driven.backend.prepare(1, LENGTH)
    return lambda _: driven.backend.attention(SEQ, 1)

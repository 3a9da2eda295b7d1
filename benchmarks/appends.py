"""Appends while decoding: dynamic's against a bare slice assignment, and against transformers' DynamicCache."""

from collections.abc import Callable

import numpy as np
import torch
from driven import DTYPES, HEAD_DIM, NUM_KV_HEADS, NUM_TOKENS_MADE, Driven, decoded_tokens, dynamic, random_tokens
from table import Goal, print_row, shown
from timing import Side, interleaved
from torch import Tensor

LENGTHS = (512, 4096, 16384)
INITIAL_CAPACITY = 512

SLICE_GOAL = Goal(1.4, at_least=False)
CACHE_GOALS = {512: Goal(3, at_least=True), 4096: Goal(20, at_least=True)}
SLICE_WINDOWS = {False: (12, 256), True: (2, 128)}
"""Windows and appends in each, by whether it is quick."""
TOTAL_GOAL = Goal(20, at_least=True, of="mean")

Prompt = tuple[Tensor, Tensor]


def against_slices(quick: bool) -> None:
    """Dynamic's append against buffer[:, :, p:p+1] = k, with capacity to spare on both sides: nothing resizes."""
    num_windows, num_steps = SLICE_WINDOWS[quick]
    for dtype in DTYPES:
        tokens = decoded_tokens(dtype)
        for length in LENGTHS:
            prompt = random_tokens(length, dtype), random_tokens(length, dtype)
            windows = [_slice_window(dtype, prompt, tokens, num_steps) for _ in range(num_windows)]
            ours_s, theirs_s = np.concatenate(windows, axis=1)
            note = f"no resize in the window; {num_windows} × {num_steps} appends each"
            print_row("append / slice assignment", f"{length:,}", dtype, ours_s, theirs_s, SLICE_GOAL, note=note)


def _slice_window(dtype: str, prompt: Prompt, tokens: list[Prompt], num_steps: int) -> list[np.ndarray]:
    length = prompt[0].shape[2]
    capacity = length + num_steps
    driven = Driven(dtype, dynamic(capacity), prompt)
    times = interleaved(
        [Side("dynamic", appender(driven, tokens)), slice_assignment(prompt, tokens, num_steps)], num_steps
    )
    assert driven.capacity == capacity, f"a resize in a window that has none: {driven.capacity} slots"
    return times


def slice_assignment(prompt: Prompt, tokens: list[Prompt], num_steps: int) -> Side:
    """A bare slice assignment of K and V into buffers that hold a prompt's length and so many tokens more."""
    length = prompt[0].shape[2]
    shape = (1, NUM_KV_HEADS, length + num_steps, HEAD_DIM)
    buffer_k, buffer_v = (torch.empty(shape, dtype=part.dtype, device=part.device).zero_() for part in prompt)

    def assign(number: int) -> None:
        keys, values = tokens[number % NUM_TOKENS_MADE]
        position = length + number
        buffer_k[:, :, position : position + 1] = keys
        buffer_v[:, :, position : position + 1] = values

    return Side("slices", assign)


def appender(driven: Driven, tokens: list[Prompt]) -> Callable[[int], None]:
    """A call that appends one token."""
    layers = [([keys], [values]) for keys, values in tokens]

    def append(number: int) -> None:
        keys, values = layers[number % NUM_TOKENS_MADE]
        driven.append(keys, values)

    return append


def against_transformers(quick: bool) -> None:
    """Dynamic's append against DynamicCache.update, in windows and over a whole range, resizes included."""
    try:
        from transformers import DynamicCache
    except ImportError as error:
        print(f"append / DynamicCache: not measured, install the extra peers: pip install 'kvbench[peers]' ({error})")
        return
    for dtype in DTYPES:
        for length in LENGTHS:
            _windows(DynamicCache, dtype, length, quick)
    for dtype in DTYPES:
        _total(DynamicCache, dtype, 512, 2048 if quick else 16_384)


def _windows(cache_class: type, dtype: str, length: int, quick: bool) -> None:
    """Windows at one length: both in turn, and each right after an append of its own, with its data in the caches."""
    num_windows, num_steps = (2, 16) if quick else (32_768 // length, 128) if length < LENGTHS[-1] else (2, 64)
    tokens, prompt = decoded_tokens(dtype), (random_tokens(length, dtype), random_tokens(length, dtype))
    for num_primes, how, resize in (
        (0, "in turn", "each window begins with a resize"),
        (1, "after its like", "no resize is timed"),
    ):
        windows = [
            _cache_window(cache_class, dtype, prompt, tokens, num_steps, num_primes)[0] for _ in range(num_windows)
        ]
        ours_s, theirs_s = np.concatenate(windows, axis=1)
        what, note = f"DynamicCache / append, {how}", f"{num_windows} × {num_steps} appends each; {resize}"
        if not num_primes:
            # Ours begins the even rounds and ends the odd ones.
            after_ours, after_theirs = (shown(np.median(ours_s[first::2])) for first in (0, 1))
            note += f"; ours {after_ours} right after itself, {after_theirs} right after the other"
        goal = CACHE_GOALS.get(length)
        print_row(what, f"{length:,}", dtype, ours_s, theirs_s, goal, speedup=True, note=note)


def _cache_window(
    cache_class: type, dtype: str, prompt: Prompt, tokens: list[Prompt], num_steps: int, num_primes: int = 0
) -> tuple[list[np.ndarray], Driven]:
    driven = Driven(dtype, dynamic(INITIAL_CAPACITY), prompt)
    cache = cache_class()
    cache.update(*prompt, 0)

    def update(number: int) -> None:
        keys, values = tokens[number % NUM_TOKENS_MADE]
        cache.update(keys, values, 0)

    sides = [Side("dynamic", appender(driven, tokens)), Side("DynamicCache", update)]
    return interleaved(sides, num_steps, num_primes=num_primes), driven


def _total(cache_class: type, dtype: str, start: int, end: int) -> None:
    """Decode from start to end, both caches step by step; the ratio that counts is that of the totals."""
    tokens, num_steps = decoded_tokens(dtype), end - start
    _print_estimate(cache_class, dtype, start, end)
    prompt = random_tokens(start, dtype), random_tokens(start, dtype)
    (ours_s, theirs_s), driven = _cache_window(cache_class, dtype, prompt, tokens, num_steps)
    totals = f"totals {shown(theirs_s.sum())} / {shown(ours_s.sum())}; our capacity {start:,} → {driven.capacity:,}"
    label = f"{start:,} → {end:,}"
    goal = TOTAL_GOAL if end == LENGTHS[-1] else None
    print_row("DynamicCache / append, in total", label, dtype, ours_s, theirs_s, goal, speedup=True, note=totals)


def _print_estimate(cache_class: type, dtype: str, start: int, end: int) -> None:
    lengths = np.linspace(start, end, 4).astype(int)
    step_s = []
    for length in lengths:
        prompt = random_tokens(int(length), dtype), random_tokens(int(length), dtype)
        (_, theirs_s), _ = _cache_window(cache_class, dtype, prompt, decoded_tokens(dtype), 8)
        step_s.append(theirs_s.mean())
    print(f"decoding {start:,} → {end:,} in {dtype}: about {np.trapezoid(step_s, lengths):.0f} s …", flush=True)

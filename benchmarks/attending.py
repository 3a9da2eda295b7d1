"""Attention while decoding: over the live cache's strided views, against the best single call on contiguous copies."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from driven import DTYPES, GROWTH_FACTOR, HEAD_DIM, NUM_HEADS, NUM_KV_HEADS, SEQ, Driven, dynamic, random_tokens
from table import Goal, print_row, shown
from timing import Side, interleaved
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LENGTH_ROUNDS = {512: 1000, 4096: 200, 16384: 60}
GOAL = Goal(1.05, at_least=False)
TRIALS = 21
NUM_PRIMES = 3
HOPELESS = 2.0
"""A candidate that took so many times the fastest's time in a first look is not tried again."""

BACKENDS: dict[str, Callable[[], AbstractContextManager]] = {
    "default": nullcontext,
    "flash": partial(sdpa_kernel, SDPBackend.FLASH_ATTENTION),
    "math": partial(sdpa_kernel, SDPBackend.MATH),
    "efficient": partial(sdpa_kernel, SDPBackend.EFFICIENT_ATTENTION),
    "cuDNN": partial(sdpa_kernel, SDPBackend.CUDNN_ATTENTION),
}


def against_best_call(quick: bool) -> None:
    """The backend's decode attention on a cache with spare capacity, against the fastest call found here and now."""
    for dtype in DTYPES:
        for length, num_rounds in LENGTH_ROUNDS.items():
            _compare(dtype, length, max(num_rounds // 20, 5) if quick else num_rounds)


def _compare(dtype: str, length: int, num_rounds: int) -> None:
    prompt = random_tokens(length, dtype), random_tokens(length, dtype)
    driven = Driven(dtype, dynamic(int(length * GROWTH_FACTOR)), prompt)
    backend = driven.backend
    backend.prepare(1, length)
    live = backend.sequence(SEQ).read(0)[0]
    assert not live[0].is_contiguous(), "the live cache has no spare capacity"
    query = random_tokens(1, dtype, NUM_HEADS)
    keys, values = (tensor.contiguous() for tensor in live)
    best = _fastest(query, keys, values, F.scaled_dot_product_attention(_packed(query), *live))
    ours = Side("backend.attention", lambda _: backend.attention(SEQ, 1))
    ours_s, best_s = interleaved([ours, best], num_rounds, num_primes=NUM_PRIMES)
    # In a loop of its own: beside the others it would keep the copies that it shares with the best call in the cache.
    unfused = Side("unfused", lambda _: _unfused(_packed(query), keys, values))
    (unfused_s,) = interleaved([unfused], num_rounds, num_primes=NUM_PRIMES)
    note = f"{best.name}; unfused, for information: {shown(np.median(unfused_s))}"
    print_row("attention / best single call", f"{length:,}", dtype, ours_s, best_s, GOAL, note=note)


def _fastest(query: Tensor, keys: Tensor, values: Tensor, expected: Tensor) -> Side:
    """The fastest of the candidates, all of which must give what is expected."""
    candidates = [side for side in _candidates(query, keys, values) if _is_right(side, expected)]
    first_s = [times.min() for times in interleaved(candidates, 2)]
    left = [side for side, seconds in zip(candidates, first_s, strict=True) if seconds <= HOPELESS * min(first_s)]
    medians = [np.median(times) for times in interleaved(left, TRIALS, num_primes=NUM_PRIMES)]
    return left[int(np.argmin(medians))]


def _is_right(side: Side, expected: Tensor) -> bool:
    """Whether a candidate exists here; one that does gives what is expected."""
    try:
        with side.around():
            found = side.call(0)
    except RuntimeError:  # no such kernel for this device and type
        return False
    torch.testing.assert_close(found.reshape(-1), expected.reshape(-1), rtol=0.05, atol=0.01)
    return True


def _candidates(query: Tensor, keys: Tensor, values: Tensor) -> list[Side]:
    """Single calls on contiguous tensors: three ways to say that query heads share KV heads, on each backend."""
    length = keys.shape[2]
    apart = (NUM_KV_HEADS, 1, length, HEAD_DIM)
    calls = {
        "packed rows": partial(F.scaled_dot_product_attention, _packed(query), keys, values),
        "packed rows, heads as batch": partial(
            F.scaled_dot_product_attention,
            _packed(query).view(NUM_KV_HEADS, 1, -1, HEAD_DIM),
            keys.view(apart),
            values.view(apart),
        ),
        "enable_gqa": partial(F.scaled_dot_product_attention, query, keys, values, enable_gqa=True),
    }
    return [
        Side(f"{name}, {backend} backend", lambda _, call=call: call(), around)
        for name, call in calls.items()
        for backend, around in BACKENDS.items()
    ]


def _packed(query: Tensor) -> Tensor:
    return query.view(1, NUM_KV_HEADS, NUM_HEADS // NUM_KV_HEADS, HEAD_DIM)


def _unfused(packed: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = torch.matmul(packed, keys.transpose(-1, -2)) * HEAD_DIM**-0.5
    return torch.matmul(torch.softmax(scores, dim=-1), values)

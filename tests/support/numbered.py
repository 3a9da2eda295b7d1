"""Caches whose K and V say by hand which token they are of, and what weight attention gives it."""

import math

import torch

from kvbench.model.geometry import KVGeometry
from kvbench.workload.request import Request, Session
from tests.support.driven import Cache

PLAIN = KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=4, dtype="float32")
TOKEN = 32
"""Bytes of a token under PLAIN: K and V of four elements of four bytes."""
UNIT_QUERY = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 4)


def admitted(strategy, num_tokens=1, geometry=PLAIN, attend=False):
    cache = Cache(strategy, geometry=geometry, attend=attend)
    cache.admit(Session(0, (Request(num_tokens),)))
    return cache


def numbered(first, count):
    """K and V of tokens from the first on: each element is the token's number, V's with a minus."""
    keys = torch.arange(first, first + count, dtype=torch.float32).view(1, 1, count, 1).expand(1, 1, count, 4)
    return [keys], [-keys]


def write(cache, first, count, seq=0):
    """Append so many tokens, in as many steps as the strategy takes."""
    cache.append(*numbered(first, count), seq)


def contents(cache, seq=0):
    """Numbers of the tokens that are held, in order; keys, values and positions agree on them."""
    keys, values, positions = cache.sequence(seq).full_context(0)
    assert torch.equal(keys[..., 0], positions.float())
    assert torch.equal(keys, -values)
    return positions[0, 0].tolist()


def read(cache, seq=0):
    """Numbers of the tokens that attention reads, in the order of their slots."""
    return [int(number) for keys, _ in cache.sequence(seq).read(0) for number in keys[0, 0, :, 0]]


def positions(cache, head=0):
    """Positions of the slots of the area main, in the order of slots."""
    store = cache.sequence().stores["main"]
    return store.positions[0][0, head, : store.num_used].tolist()


def weighted(*weights):
    """Keys that a unit query gives these weights before they are normalised: a list a KV head.

    The logit is q·k / √4 with q = (1, 0, 0, 0): a key (2 ln w, 0, 0, 0) gives e^(ln w) = w.
    """
    keys = torch.zeros(1, len(weights), len(weights[0]), 4)
    for head, own in enumerate(weights):
        keys[0, head, :, 0] = torch.tensor([2 * math.log(weight) for weight in own])
    return [keys]


def look(cache, *weights):
    """A step whose tokens have these weights, a list a KV head, and whose every query is the unit query."""
    keys = weighted(*weights)
    geometry = cache.geometry
    queries = UNIT_QUERY.expand(1, geometry.plain.num_heads, len(weights[0]), 4)
    cache.step(keys, keys, queries=[queries] * geometry.num_layers)

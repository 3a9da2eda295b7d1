"""Caches for asyncio under test: what is written to them, what they hold, and a backend held up."""

import asyncio
import threading

import torch

from tests.support.driven import tokens

PATIENCE_S = 10
"""How long a failed test holds its threads up."""


def new(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tokens(generator, 1, count), tokens(generator, 1, count)


def joined(parts, layer):
    return [torch.cat([part[which][layer] for part in parts], 2) for which in (0, 1)]


def equal(pairs, parts):
    """Whether what was got is what was written."""
    return all(
        torch.equal(live, whole)
        for layer, pair in enumerate(pairs)
        for live, whole in zip(pair, joined(parts, layer), strict=True)
    )


async def closed(caches, live):
    """Books and storages agree, and after closing nothing is held."""
    caches.backend.wait()
    assert live["bytes"] == caches.ledger.held_bytes
    await caches.close()
    assert caches.ledger.held_bytes == caches.ledger.fixed_bytes
    assert live["bytes"] == 0


class Held:
    """Holds up what a cache's backend carries out, at an operation of a sequence."""

    def __init__(self, caches, kind, seq=0):
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self._carry_out = caches.backend.carry_out
        self._kind, self._seq = kind, seq
        self.order = []
        caches.backend.carry_out = self

    def __call__(self, op, keys, values):
        self.order.append((op.seq, type(op).__name__))
        if type(op).__name__ == self._kind and op.seq == self._seq and not self.may_go_on.is_set():
            self.begun.set()
            self.may_go_on.wait(PATIENCE_S)
        self._carry_out(op, keys, values)

    async def until_begun(self):
        assert await asyncio.to_thread(self.begun.wait, PATIENCE_S)

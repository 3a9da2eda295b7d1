"""One sequence (or several) under a strategy, a ledger and a backend, checked after every operation."""

import torch

from kvbench.backend.attention import QUERY_CHUNK, packed
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import Measured
from kvbench.ledger import NO_RECEIPT, Limits, completed
from kvbench.plan.ops import Append, Settle, Truncate
from tests.support.catalogue import TINY
from tests.support.storages import LiveStorages

LONGEST = (16384,)
"""What a strategy is told where it leaves to a run what it holds at most."""


class Cache:
    """Drives a strategy as the runner does; after every plan the books and the live storages agree to the byte."""

    def __init__(self, chosen, num_rows=1, geometry=TINY, attend=False, device="cpu"):
        conditions = Conditions(geometry=geometry, device=device, attend=attend, seed=0, num_rows=num_rows)
        self.backend = Measured().made(conditions)
        own_pools = self.backend.has_own_pools
        known = Limits(
            geometry=geometry, budget_bytes=None, num_rows=num_rows, live_tokens=LONGEST, has_own_pools=own_pools
        )
        chosen = chosen.fitted(known)
        self.strategy, self.geometry, self.num_rows = chosen, geometry, num_rows
        self.ledger = chosen.ledger(geometry, num_rows=num_rows)
        if attend:
            self.backend.prepare(1500, 9000)
        self.backend.begin_repetition(chosen.areas)
        chosen.on_begin()
        self.attend = attend
        self.storages = LiveStorages()
        self.peak_bytes = 0
        self.scratch_bytes = 0  # the most that torch held beside what was booked

    @property
    def view(self):
        return self.ledger.view

    def sequence(self, seq=0):
        return self.backend.sequence(seq)

    def carry_out(self, plan, keys=(), values=()):
        self.backend.check(plan)
        plan = completed(plan, self.ledger)
        is_crop = [type(op) for op in plan] == [Truncate] and not self.strategy.recomputes
        receipt = self.ledger.crop(*plan) if is_crop else self.ledger.book(plan)
        done, total = 0, keys[0].shape[2] if len(keys) else 0
        self.storages.peak_bytes = before = self.storages.live_bytes
        with self.storages:
            for op in plan:
                count = op.num_tokens if isinstance(op, Append) else 0
                if count and done == total:
                    done = 0  # the same tokens, to another chain of areas
                cut = [[tensor.narrow(2, done, count) for tensor in tensors] for tensors in (keys, values)]
                self.backend.carry_out(op, *cut)
                done += count
        if any(isinstance(op, Settle) for op in plan):
            self.backend.wait()  # what was replaced is let go of beside the steps
        assert self.storages.live_bytes == self.ledger.held_bytes
        booked = NO_RECEIPT if receipt is None else receipt
        self.peak_bytes = max(self.peak_bytes, booked.peak_bytes)
        if self.ledger.allocated_bytes + self.ledger.waiting_bytes == self.ledger.held_bytes:  # all on the device
            held = max(before, booked.peak_bytes + self.ledger.waiting_bytes)
            self.scratch_bytes = max(self.scratch_bytes, self.storages.peak_bytes - held)
        return booked

    def admit(self, request, seq=0):
        self.ledger.open(seq)
        self.backend.open(seq)
        self.carry_out(self.strategy.on_admit(seq, request, self.view))

    def append(self, keys, values, seq=0):
        """Append, in as many steps as the strategy takes, each with what follows attention."""
        total, done = keys[0].shape[2], 0
        while done < total:
            count = self.strategy.at_once(seq, total - done, self.view) if total - done > 1 else 1
            self.step([t.narrow(2, done, count) for t in keys], [t.narrow(2, done, count) for t in values], seq)
            done += count

    def step(self, keys, values, seq=0, queries=None):
        """One step, attended with made-up queries or given: [num_rows, num_heads, num_tokens, head_dim] a layer."""
        num_tokens = keys[0].shape[2]
        plan = self.strategy.on_append(seq, num_tokens, self.view)
        assert sum(op.num_tokens for op in plan if isinstance(op, Append)) == num_tokens
        self.carry_out(plan, keys, values)
        if queries is not None:
            first = self.view.num_seen(seq) - num_tokens
            chunks = [
                [
                    (first + start, packed(own[:, :, start : start + QUERY_CHUNK], self.geometry.plain.num_kv_heads))
                    for start in range(0, num_tokens, QUERY_CHUNK)
                ]
                for own in queries
            ]
            self.outputs = self.backend.attend_with(seq, chunks)
        elif self.attend:
            self.outputs = self.backend.attention(seq, num_tokens)
        self.carry_out(self.strategy.on_attended(seq, num_tokens, self.view))

    def fork(self, seq, parent, num_tokens):
        self.ledger.open(seq)
        self.backend.open(seq)
        return self.carry_out(self.strategy.on_fork(seq, parent, num_tokens, self.view))

    def finish(self, seq=0):
        self.carry_out(self.strategy.on_finish(seq, self.view))
        if not self.ledger.accounts:
            assert self.storages.live_bytes == self.ledger.fixed_bytes
            assert self.ledger.used_bytes == 0
            with self.storages:
                self.backend.end_repetition()
            assert self.storages.live_bytes == 0


def tokens(generator, num_rows, num_tokens, geometry=TINY):
    """Random K or V, a layer each."""
    shape = (num_rows, geometry.plain.num_kv_heads, num_tokens, geometry.plain.head_dim)
    return [torch.randn(shape, generator=generator) for _ in range(geometry.num_layers)]

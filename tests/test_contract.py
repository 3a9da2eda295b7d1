"""What every strategy keeps to, on every scenario and on random appends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.measured import Measured
from kvbench.ledger import Ledger
from kvbench.ops import Append
from kvbench.runner import run
from kvbench.strategy.base import CapacityExceeded
from kvbench.workload.request import Request, Turn
from kvbench.workload.trace import TraceMissing
from tests.catalogue import SCENARIOS, STRATEGIES, TINY, scenario, strategy
from tests.storages import LiveStorages


class Cache:
    """One sequence under a strategy, a ledger and a backend, checked after every operation."""

    def __init__(self, chosen, num_rows, geometry=TINY):
        self.strategy, self.geometry, self.num_rows = chosen, geometry, num_rows
        self.ledger = Ledger(geometry, area=chosen.area)
        self.backend = Measured(geometry=geometry, device="cpu", attend=False, seed=0, num_rows=num_rows)
        self.backend.begin_repetition(chosen.area)
        self.storages = LiveStorages()
        self.peak_bytes = 0

    def carry_out(self, plan, keys=(), values=()):
        receipt = self.ledger.book(plan)
        with self.storages:
            for op in plan:
                self.backend.carry_out(op, keys, values)
        assert self.storages.live_bytes == self.ledger.allocated_bytes
        if receipt is not None:
            self.peak_bytes = max(self.peak_bytes, receipt.peak_bytes)
            assert self.storages.peak_bytes <= self.peak_bytes, "a resize held more at once than was booked"

    def admit(self, request):
        self.ledger.open(0, self.num_rows)
        self.backend.open(0)
        self.carry_out(self.strategy.on_admit(0, request, self.ledger.view))

    def append(self, keys, values):
        num_tokens = keys[0].shape[2]
        plan = self.strategy.on_append(0, num_tokens, self.ledger.view)
        assert sum(op.num_tokens for op in plan if isinstance(op, Append)) == num_tokens
        self.carry_out(plan, keys, values)

    def finish(self):
        self.carry_out(self.strategy.on_finish(0, self.ledger.view))
        assert self.storages.live_bytes == self.ledger.allocated_bytes == self.ledger.used_bytes == 0


def tokens(generator, num_rows, num_tokens, geometry=TINY):
    shape = (num_rows, geometry.num_kv_heads, num_tokens, geometry.head_dim)
    return [torch.randn(shape, generator=generator) for _ in range(geometry.num_layers)]


HOLDING = [name for name in STRATEGIES if name != "recompute"]


@pytest.mark.parametrize("name", HOLDING)
@settings(max_examples=20, deadline=None)
@given(
    counts=st.lists(st.integers(1, 90), min_size=1, max_size=12), num_rows=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_a_lossless_strategy_returns_what_a_list_would(name, counts, num_rows, seed):
    generator = torch.Generator().manual_seed(seed)
    small = {key: 16 for key in ("initial_capacity", "chunk_tokens") if key in vars(strategy(name))}
    cache = Cache(strategy(name, **small), num_rows)
    cache.admit(Request(0, tuple(Turn(count) for count in counts)))
    all_keys, all_values = [], []
    for count in counts:
        keys, values = tokens(generator, num_rows, count), tokens(generator, num_rows, count)
        cache.append(keys, values)
        all_keys.append(keys)
        all_values.append(values)
        for layer in range(TINY.num_layers):
            pieces = cache.backend.store(0).pieces(layer)
            for which, written in enumerate((all_keys, all_values)):
                live = torch.cat([piece[which] for piece in pieces], dim=2)
                assert torch.equal(live, torch.cat([piece[layer] for piece in written], dim=2))
            del pieces  # a reader's view would keep the storage alive
    cache.finish()


def bytes_agree(name, requests):
    """Run requests one after another; the books and the storages agree after every operation, or it is too long."""
    cache = Cache(strategy(name), 1)
    generator = torch.Generator().manual_seed(0)
    for request in requests:
        cache.admit(request)
        held = 0
        try:
            for turn in request.turns:
                for count in (turn.num_append_tokens, *[1] * turn.num_decode_tokens):
                    written = count + (held if cache.strategy.recomputes else 0)
                    cache.append(tokens(generator, 1, written), tokens(generator, 1, written))
                    cache.carry_out(cache.strategy.on_attended(0, count, cache.ledger.view))
                    held += count
        except CapacityExceeded:
            assert held + written > cache.ledger.view.capacity(0)
        cache.finish()


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("workload", SCENARIOS)
def test_books_and_storages_agree_to_the_byte(name, workload, traces):
    try:
        requests = scenario(workload, max_requests=2).workload(np.random.default_rng(0)).requests
    except TraceMissing as missing:
        pytest.skip(str(missing))
    cut = [
        Request(r.arrival_ns, tuple(Turn(t.num_append_tokens, min(t.num_decode_tokens, 12)) for t in r.turns))
        for r in requests
    ]
    bytes_agree(name, cut)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_leaves_nothing_held_and_every_request_has_an_outcome(name):
    requests = [Request(0, (Turn(30, 5), Turn(7, 2))), Request(0, (Turn(12, 4),)), Request(10**9, (Turn(9000),))]
    backend = Measured(geometry=TINY, device="cpu", attend=True, seed=0)
    budget = 20_000 * TINY.bytes_per_token
    recorder = run(
        {name: strategy(name)},
        requests,
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=budget,
    )
    assert {row.request: row.outcome for row in recorder.requests} == {
        0: "completed",
        1: "completed",
        2: "too_long"
        if hasattr(strategy(name), "max_capacity") or hasattr(strategy(name), "max_seq_len")
        else "completed",
    }

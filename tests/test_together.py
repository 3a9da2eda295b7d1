"""Decode steps of several sequences that attend in one call: the same outputs and rows, and times that are shared."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kvbench.backend import launches, together
from kvbench.backend.base import APPEND, ATTEND
from kvbench.backend.choice import Conditions
from kvbench.backend.clock import LateHostClock
from kvbench.backend.launches import Launches
from kvbench.backend.measured import Measured
from kvbench.backend.reading import decode
from kvbench.backend.together import MOST_BYTES, Ragged, Together, Token, Waiting
from kvbench.ledger import Limits
from kvbench.runner.drive import Driver
from kvbench.runner.recorder import STEP_FIELDS
from kvbench.runner.run import run
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, strategy
from tests.support.driven import Cache

CHATS = [Session(0, (Request(9, 12), Request(7, 5))), Session(0, (Request(30, 20),)), Session(0, (Request(3, 40),))]
TIMES = [name for name in STEP_FIELDS if name.endswith("_ns")]
GROUP = TINY.plain.heads_per_kv_head


def waiting_in(name, *lengths):
    """Sequences of so many tokens, under one strategy."""
    cache, found = Cache(strategy(name)), []
    for seq, length in enumerate(lengths):
        cache.admit(Session(0, (Request(length),)), seq)
        tokens = [torch.randn(1, TINY.plain.num_kv_heads, length, TINY.plain.head_dim) for _ in range(TINY.num_layers)]
        cache.append(tokens, tokens, seq)
        found.append(
            Waiting(cache.sequence(seq), torch.randn(1, TINY.plain.num_kv_heads, GROUP, TINY.plain.head_dim), seq)
        )
    return found


@pytest.mark.parametrize("name", ["dynamic", "paged", "chunked", "sinks", "concat"])
def test_each_sequence_gets_what_it_gets_alone(name):
    waiting = waiting_in(name, 1, 5, 333)
    assert all(each.sequence.is_read_in_place for each in waiting)
    ragged, queries = Ragged([each.sequence for each in waiting], GROUP), torch.cat([each.queries for each in waiting])
    for layer in range(TINY.num_layers):
        alone = torch.cat([decode(each.sequence, layer, each.queries) for each in waiting])
        assert torch.allclose(ragged.decode(queries, layer), alone, atol=1e-5)


@pytest.mark.parametrize("name", ["dynamic", "paged", "sinks", "hierarchical", "heavy_hitters", "int8"])
def test_rows_are_the_same_but_for_times(name, monkeypatch):
    sizes, ragged = [], Ragged
    monkeypatch.setattr(together, "Ragged", lambda own, group: sizes.append(len(own)) or ragged(own, group))
    rows = {}
    for batch_decode in (False, True):
        backend = Measured(batch_decode=batch_decode).made(Conditions(geometry=TINY, device="cpu"))
        once = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 3, "budget_bytes": 1 << 30}
        table = run({name: strategy(name)}, CHATS, backend, **once).steps()
        rows[batch_decode] = dict(zip(STEP_FIELDS, table.T, strict=True))
    for field in STEP_FIELDS:
        if field not in TIMES:
            assert np.array_equal(rows[False][field], rows[True][field]), field
    decoded = rows[True]["output_tokens"] > 0
    assert (rows[True]["attend_ns"][decoded] > 0).all()
    # What attention tells a strategy, and what is staged, is read a sequence at a time.
    assert set(sizes) == ({2, 3} if name in ("dynamic", "paged", "sinks") else set())


@pytest.mark.parametrize("num_requests", [2, 5])
def test_appends_to_blocks_of_one_pool_are_one_write_a_layer(num_requests, monkeypatch):
    """However many requests there are; and each token lies where it would have been written alone."""
    waiting, alone = (waiting_in("paged", *range(1, 1 + num_requests)) for _ in range(2))
    shared, tokens = (
        Together(Ticking(), TINY.num_layers, None),
        torch.randn(num_requests, 2, 1, 2, 1, TINY.plain.head_dim),
    )
    for seq, (each, other) in enumerate(zip(waiting, alone, strict=True)):
        shared._clock.times([])
        slot = each.sequence.append_later()
        shared.add(seq, each.sequence, each.queries, Token(*tokens[seq], slot))
        other.sequence.append(*([of_layers] * TINY.num_layers for of_layers in tokens[seq]), 1)
    monkeypatch.setattr(launches, "DEVICE", torch.device("cpu"))
    with Launches() as counted:
        shared.finish()
    assert counted.operations["index_copy_"] == 2 * TINY.num_layers
    assert [times[APPEND] / 1e9 for times in shared._clock.drain()] == [1 / num_requests] * num_requests
    for each, other in zip(waiting, alone, strict=True):
        (_, found), (_, expected) = (list(one.sequence.pieces(1))[-1] for one in (each, other))
        assert found.positions == expected.positions
        for mine, theirs in zip(found[:2], expected[:2], strict=True):
            assert torch.equal(mine[:, :, -1], theirs[:, :, -1])


def test_what_a_fork_shares_is_written_before():
    backend = Measured(batch_decode=True).made(Conditions(geometry=TINY, device="cpu"))
    backend.prepare(9, 20)
    chosen = strategy("paged").fitted(Limits(geometry=TINY, budget_bytes=None, live_tokens=(20,)))
    backend.begin_repetition(chosen.areas)
    driver = Driver(chosen, chosen.ledger(TINY), backend)
    for seq in (0, 1):
        driver.open(seq)
    backend.step(driver.admit(0, Session(0, (Request(9, 2),))), 0)
    for num_tokens in (9, 1):
        backend.step(driver.append(0, num_tokens), num_tokens)
    assert backend._together._waiting
    backend.step(driver.fork(1, 0, 10), 0)
    assert not backend._together._waiting
    assert torch.equal(*(backend.sequence(seq).full_context(0)[0] for seq in (0, 1)))


class Ticking(LateHostClock):
    """A second passes with every mark."""

    now_ns = 0

    def mark(self):
        self.now_ns += 10**9
        return self.now_ns


@pytest.mark.parametrize(
    ("most_bytes", "expected_s"),
    # One call over 40 tokens; or three one after another.
    [(None, [0.25, 0.5, 0.25]), (MOST_BYTES, [0.25, 0.5, 0.25]), (1, [1, 1, 1])],
)
def test_a_step_has_its_share_of_what_is_done_together(most_bytes, expected_s):
    clock = Ticking()
    shared = Together(clock, TINY.num_layers, most_bytes)
    for seq, (sequence, queries, *_) in enumerate(waiting_in("dynamic", 10, 20, 10)):
        clock.times([])
        shared.add(seq, sequence, queries)
    shared.before(7)  # none of those that wait: nothing is done yet
    assert clock.now_ns == 0
    shared.before(1)
    assert [times[ATTEND] / 1e9 for times in clock.drain()] == expected_s
    shared.finish()  # and nothing waits any more
    assert clock.drain() == []


def test_where_there_is_no_memory_for_copies_each_attends_alone(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(together, "Ragged", full)
    clock = Ticking()
    shared = Together(clock, TINY.num_layers, None)
    for seq, (sequence, queries, *_) in enumerate(waiting_in("dynamic", 3, 4)):
        clock.times([])
        shared.add(seq, sequence, queries)
    shared.finish()
    assert [times[ATTEND] / 1e9 for times in clock.drain()] == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_shapes_fit_together(dtype, monkeypatch):
    """No device is asked: shapes, dtypes and devices alone go through what would be called there."""
    monkeypatch.setattr(Ragged, "keys_and_values", lambda self, layer: self.pair)
    lengths, cuda = [5, 70, 12], {"dtype": dtype, "device": "cuda"}
    with FakeTensorMode():
        ragged = Ragged([], 4)
        ragged._lengths, ragged.pair = lengths, (torch.empty(2, sum(lengths), 64, **cuda),) * 2
        ragged._ends = (torch.empty(4, dtype=torch.int32, device="cuda"),) * 2
        output = ragged.decode(torch.empty(3, 2, 4, 64, **cuda), 0)
    assert (output.shape, output.dtype, output.device.type) == ((3, 2, 4, 64), dtype, "cuda")

"""What every strategy keeps to, on every scenario and on random appends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.ledger import OutOfMemory
from kvbench.plan.area import Cast
from kvbench.runner.run import run
from kvbench.strategy.base import CapacityExceeded
from kvbench.strategy.compressed import Compressed
from kvbench.workload.request import Request, Session
from kvbench.workload.trace import TraceMissing
from tests.support.catalogue import SCENARIOS, STRATEGIES, TINY, node_of, scenario, strategy
from tests.support.driven import LONGEST, Cache, tokens

HOLDING = [name for name in STRATEGIES if name != "recompute"]
SMALL = {
    "initial_capacity": 16,
    "chunk_tokens": 16,
    "block_size": 4,
    "num_sinks": 2,
    "window": 8,
    "num_heavy": 12,
    "num_recent": 6,
    "budget": 24,
    "interval": 16,
    "group_size": 8,
    "residual_tokens": 16,
    "fast_capacity": 40,
    "window_size": 32,
    "overlap_size": 6,
    "max_retired": 3,
}
"""Parameters that make a strategy act on the few tokens of a test."""


SMALL_OF = {
    "adaptive": {"window_messages": 2, "document_tokens": 60, "patience": 1, "min_tokens": 20},
    "sinks_int4": {"window": 48},
}
"""Further ones, or others, of a single strategy."""


def small(name):
    """A strategy that acts early, and so do those nested in it."""
    return strategy(name, **shrunk(node_of("strategy", name), SMALL | SMALL_OF.get(name, {})))


def shrunk(node, figures):
    match node:
        case dict():
            return {key: figures.get(key, shrunk(value, figures)) for key, value in node.items()}
        case list():
            return [shrunk(item, figures) for item in node]
        case _:
            return node


LONGEST_ATTENDED = 300
"""Tokens of an append where attention must be run for its mass, at every pair of tokens."""


def acting(name):
    """A strategy as it is; in small where it needs attention, which is run over few tokens."""
    chosen = strategy(name)
    return small(name) if chosen.signals else chosen


COUNTS = st.lists(st.integers(1, 90), min_size=1, max_size=12)


@pytest.mark.parametrize("name", HOLDING)
@settings(max_examples=10, deadline=None)
@given(counts=COUNTS, num_rows=st.integers(1, 3), seed=st.integers(0, 99))
def test_what_is_held_is_what_was_written(name, counts, num_rows, seed):
    """A lossless strategy holds every token, bit for bit; a lossy one those that it says, under their positions."""
    generator = torch.Generator().manual_seed(seed)
    chosen = small(name)
    cache = Cache(chosen, num_rows, attend=bool(chosen.signals))
    cache.admit(Session(0, tuple(Request(count) for count in counts)))
    written = [[], []]
    for count in counts:
        new = tokens(generator, num_rows, count), tokens(generator, num_rows, count)
        for kept, added in zip(written, new, strict=True):
            kept.append(added)
        cache.append(*new)
        for layer in range(TINY.num_layers):
            check(cache, layer, [torch.cat([each[layer] for each in kept], dim=2) for kept in written])
    cache.finish()


def check(cache, layer, expected):
    keys, values, positions = cache.sequence().full_context(layer)
    seen = expected[0].shape[2]
    index = positions.unsqueeze(-1).expand(-1, -1, -1, TINY.plain.head_dim)
    assert (positions.diff(dim=2) > 0).all()
    assert positions.max() < seen
    assert cache.view.num_seen(0) == seen
    if cache.strategy.lossless:
        assert positions.shape[2] == seen == cache.view.num_attended(0)
    if not isinstance(cache.strategy, Compressed):  # all others keep the newest
        assert (positions[:, :, -1] == seen - 1).all()
    rounded = "packed" in cache.sequence().stores
    if any(isinstance(area.format, Cast) for area in cache.strategy.areas):  # what is held is torch's own cast
        expected = [whole.to(torch.float8_e4m3fn).float() for whole in expected]
    for live, whole in zip((keys, values), expected, strict=True):
        wanted = whole.gather(2, index)
        if rounded:
            assert (live - wanted).abs().max() <= (whole.max() - whole.min()) / 2
        else:
            assert torch.equal(live, wanted)
    attended = sum(pair[0].shape[2] for pair in cache.sequence().read(layer))
    assert attended == cache.view.num_attended(0)


def bytes_agree(name, requests):
    """Run requests one after another; the books and the storages agree after every operation, or it is too long."""
    chosen = acting(name)
    generator = torch.Generator().manual_seed(0)
    for request in requests:
        cache = Cache(chosen, 1, attend=bool(chosen.signals))
        cache.admit(request)
        held = written = 0
        try:
            for count in request.appends():
                written = count + (held if cache.strategy.recomputes else 0)
                cache.append(tokens(generator, 1, written), tokens(generator, 1, written))
                held += count
        except (CapacityExceeded, OutOfMemory):
            assert held + written > LONGEST[0]
        cache.finish()


SCENARIOS_EACH = 4
"""Scenarios on which a strategy is tried each time. Each has four of its own, so that all have strategies."""


def pairs():
    """Every strategy with every scenario."""
    for first, name in enumerate(STRATEGIES):
        own = {(first * SCENARIOS_EACH + more) % len(SCENARIOS) for more in range(SCENARIOS_EACH)}
        for number, workload in enumerate(SCENARIOS):
            yield pytest.param(name, workload, marks=() if number in own else pytest.mark.slow)


@pytest.mark.parametrize(("name", "workload"), list(pairs()))
def test_books_and_storages_agree_to_the_byte(name, workload, traces):
    try:
        requests = scenario(workload, max_requests=2).workload(np.random.default_rng(0)).sessions
    except TraceMissing as missing:
        pytest.skip(str(missing).splitlines()[0])
    most = LONGEST_ATTENDED if strategy(name).signals else 10**9
    cut = [
        Session(
            r.arrival_ns, tuple(Request(min(t.num_append_tokens, most), min(t.num_decode_tokens, 12)) for t in r.turns)
        )
        for r in requests
    ]
    bytes_agree(name, cut)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_leaves_nothing_held_and_every_request_has_an_outcome(name):
    chosen = acting(name)
    longest = (
        LONGEST_ATTENDED if chosen.signals else 9000 if name == "paged" else 3000
    )  # attention's time is its square
    requests = [
        Session(0, (Request(30, 5), Request(7, 2))),
        Session(0, (Request(12, 4),)),
        Session(10**9, (Request(longest),)),
    ]
    backend = MeasuredBackend(Conditions(geometry=TINY, device="cpu"))
    recorder = run(
        {name: chosen},
        requests,
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=20_000 * TINY.bytes_per_token,
    )
    assert {(row.session, row.turn): row.outcome for row in recorder.requests} == dict.fromkeys(
        [(0, 0), (0, 1), (1, 0), (2, 0)], "completed"
    )

"""Work beside the steps: what is held meanwhile, that no token is lost at any interleaving, and how it fails."""

import os
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.background import NICENESS, Thread
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.storage import areas as shared
from kvbench.backend.storage import memory
from kvbench.configuration.errors import UsageError
from kvbench.ledger import BackgroundError, Ledger, LedgerError, OutOfMemory
from kvbench.plan.area import HOST, Area, Blocks, Chunks, Mass, Ring
from kvbench.plan.ops import MAIN, Append, Keep, Move, Release, Reserve, Rule, Settle, Truncate
from kvbench.runner.recorder import STEP_FIELDS, Recorder
from kvbench.runner.run import run
from kvbench.runner.scheduler import Scheduler
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.dynamic import Dynamic
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, strategy
from tests.support.driven import Cache, tokens
from tests.support.workers import Failing, Late

TOKEN = TINY.bytes_per_token
REQUEST = Session(0, (Request(1),))
RING = (Area(HOST, Chunks(8), HOST), Area(layout=Ring()))


def ahead(start_at=0.75, initial=16, maximum=8192):
    return Ahead(initial_capacity=initial, growth_factor=1.5, max_capacity=maximum, round_to=1, start_at=start_at)


def hierarchical(**more):
    return strategy("hierarchical", **{"fast_capacity": 40, "slow_capacity": 512, "background": True} | more)


def driven(chosen, worker=None):
    """An admitted sequence; where a worker is given, it does the background work."""
    cache = Cache(chosen)
    if worker is not None:
        cache.backend._areas.background = worker
    cache.admit(REQUEST)
    return cache


def filled(cache, count, generator=None):
    generator = generator or torch.Generator().manual_seed(0)
    new = tokens(generator, 1, count), tokens(generator, 1, count)
    cache.append(*new)
    return new


def test_capacities_and_bytes_by_hand():
    # 16 slots; from 12 tokens on 24 are filled beside them: 40 in all. The 17th token settles; from 18 on 36, from the
    # 25th they stand alone. Copied: 12, then the 4 written meanwhile; 18, then the 6 written meanwhile.
    ledger, chosen = Ledger(TINY), ahead()
    ledger.open(0)
    ledger.book(chosen.on_admit(0, REQUEST, ledger.view))
    held, copied, resizes = [], 0, 0
    for _ in range(25):
        receipt = ledger.book(chosen.on_append(0, 1, ledger.view))
        if receipt:
            copied += receipt.copied_bytes
            resizes += receipt.num_resizes
        held.append(ledger.allocated_bytes // TOKEN)
    assert held == [16] * 11 + [40] * 5 + [24] + [60] * 7 + [36]
    assert copied == (12 + 4 + 18 + 6) * TOKEN
    assert resizes == 2
    assert ledger.view.capacity(0) == 36


def test_a_prompt_is_grown_for_in_its_step_and_the_next_resize_begins_with_it():
    ledger, chosen = Ledger(TINY), ahead()
    ledger.open(0)
    ledger.book(chosen.on_admit(0, REQUEST, ledger.view))
    assert chosen.on_append(0, 50, ledger.view) == (Reserve(0, 50), Append(0, 50), Reserve(0, 75, background=True))
    ledger.book(chosen.on_append(0, 50, ledger.view))
    # 100 fit neither 50 nor 75: settle, then grow to max(75 · 1.5, 150) in the step.
    plan = chosen.on_append(0, 100, ledger.view)
    assert plan == (Settle(0), Reserve(0, 150), Append(0, 100), Reserve(0, 225, background=True))
    assert chosen.on_append(0, 7, ledger.view)[:2] == (Settle(0), Append(0, 7))


@pytest.mark.parametrize(("budget", "begins"), [(100, True), (99, False)])
def test_without_room_for_both_it_grows_in_the_step(budget, begins):
    # 40 slots and 60 beside them; in the step the old ones are held tensor by tensor: 60 and 40 / 4.
    ledger, chosen = Ledger(TINY, budget * TOKEN), ahead(initial=40)
    ledger.open(0)
    ledger.book(chosen.on_admit(0, REQUEST, ledger.view))
    ledger.book(chosen.on_append(0, 30, ledger.view))
    assert (ledger.view.next_capacity(0) == 60) == begins
    ledger.book(chosen.on_append(0, 10, ledger.view))
    plan = chosen.on_append(0, 1, ledger.view)
    assert plan[0] == (Settle(0) if begins else Reserve(0, 60))
    ledger.book(plan)
    assert ledger.allocated_bytes == 60 * TOKEN


def test_at_the_maximum_nothing_begins():
    ledger, chosen = Ledger(TINY), ahead(initial=16, maximum=16)
    ledger.open(0)
    ledger.book(chosen.on_admit(0, REQUEST, ledger.view))
    assert chosen.on_append(0, 16, ledger.view) == (Append(0, 16),)


STEPS = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=25)


@pytest.mark.parametrize("chosen", [ahead(), ahead(0.1), ahead(1.0), hierarchical(), hierarchical(disk_capacity=512)])
@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_at_every_interleaving_all_tokens_are_read_bit_for_bit(chosen, steps):
    """The work runs between any two steps, or when it is waited for; attention reads every token after each."""
    worker = Late()
    cache, generator = driven(chosen, worker), torch.Generator().manual_seed(1)
    written = [tokens(generator, 1, 0), tokens(generator, 1, 0)]
    for count, catches_up in steps:
        new = filled(cache, count, generator)
        written = [
            [torch.cat(pair, 2) for pair in zip(*pairs, strict=True)] for pairs in zip(written, new, strict=True)
        ]
        if catches_up:
            worker.catch_up()
        for layer in range(TINY.num_layers):
            keys, values, _ = cache.sequence().full_context(layer)
            assert torch.equal(keys, written[0][layer])
            assert torch.equal(values, written[1][layer])
            attended = sum(pair[0].shape[2] for pair in cache.sequence().read(layer))
            assert attended == cache.view.num_attended(0) == keys.shape[2]
    cache.finish()


def test_a_real_thread_keeps_every_token_too():
    cache, generator = driven(ahead(0.3)), torch.Generator().manual_seed(2)
    written = [torch.cat([filled(cache, 1, generator)[0][1]], 2) for _ in range(300)]
    assert torch.equal(cache.sequence().full_context(1)[0], torch.cat(written, 2))
    cache.finish()


def test_what_a_move_beside_the_steps_takes_is_read_where_it_was_until_settled():
    # Fast tier of 40: from 30 tokens on the oldest 20 are copied; the 41st lets go of them.
    cache = driven(hierarchical())
    filled(cache, 30)
    stores = cache.sequence().stores
    assert (stores[MAIN].num_used, stores[HOST].num_used) == (30, 0)
    assert (cache.view.num_used(0), cache.view.num_used(0, HOST), cache.view.num_attended(0)) == (30, 20, 30)
    filled(cache, 10)
    assert (stores[MAIN].num_used, stores[HOST].num_used) == (40, 0)
    filled(cache, 1)
    assert (stores[MAIN].num_used, stores[HOST].num_used) == (21, 20)
    assert cache.view.num_attended(0) == 41
    cache.finish()


def test_scores_that_attention_changed_meanwhile_are_the_new_ones():
    area = Area(positions=True, score=Mass())
    ledger, backend = (
        Ledger(TINY, areas=(area,)),
        MeasuredBackend(Conditions(geometry=TINY, device="cpu", attend=False)),
    )
    backend.begin_repetition((area,))
    ledger.open(0)
    backend.open(0)
    new = tokens(torch.Generator().manual_seed(0), 1, 4)
    for plan in ((Reserve(0, 8),), (Append(0, 4),), (Reserve(0, 16, background=True),)):
        ledger.book(plan)
        backend.carry_out(plan[0], new, new)
    backend.wait()
    store = backend.sequence(0).stores[MAIN]
    store.scores[1][:, :, :4] = 7.0
    ledger.book((Settle(0),))
    backend.carry_out(Settle(0), [], [])
    assert store.scores[1][0, 0, :4].tolist() == [7.0] * 4
    assert store.positions[1][0, 0, :4].tolist() == [0, 1, 2, 3]
    backend.end_repetition()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("torn"), KeyError("lost"), OutOfMemory(5, None, HOST), MemoryError()])
@pytest.mark.parametrize("chosen", [ahead(), hierarchical()])
def test_failed_work_is_told_before_its_settling_is_booked(chosen, error, after):
    cache = driven(chosen, Failing(error, after=after))
    while not cache.view.is_busy(0):
        filled(cache, 1)
    filled(cache, cache.view.capacity(0) - cache.view.num_used(0))
    before = cache.ledger.accounts[0].copy()
    told = OutOfMemory if isinstance(error, OutOfMemory | MemoryError) else BackgroundError
    with pytest.raises(told) as caught:
        filled(cache, 1)
    if told is BackgroundError:
        assert "sequence 0" in str(caught.value)
        assert "area main" in str(caught.value)
        assert type(error).__name__ in str(caught.value)
    elif isinstance(error, OutOfMemory):
        assert caught.value.outcome == "out_of_host_memory"
    assert cache.ledger.accounts[0] == before
    assert cache.storages.live_bytes == cache.ledger.held_bytes
    cache.finish()


def test_failed_work_that_was_never_settled_is_told_once_all_is_released():
    cache = driven(ahead(), Failing(RuntimeError("torn")))
    filled(cache, 12)
    with pytest.raises(BackgroundError, match=r"sequence 0: resizing area main to 24 slots failed.*torn"):
        cache.finish()
    assert cache.ledger.held_bytes == cache.storages.live_bytes == 0


def test_memory_that_was_refused_and_never_needed_is_no_failure():
    cache = driven(ahead(), Failing(MemoryError()))
    filled(cache, 12)
    cache.finish()


def test_a_release_waits_for_the_work():
    begun, may_end = threading.Event(), threading.Event()
    cache = driven(ahead(), Thread(steps_back=True))
    submit = cache.backend._areas.background.submit

    def held_up(work):
        def wait_first():
            begun.set()
            may_end.wait(10)
            work()

        return submit(wait_first)

    cache.backend._areas.background.submit = held_up
    filled(cache, 12)
    assert begun.wait(10)
    new = filled(cache, 3)  # the steps go on
    assert torch.equal(cache.sequence().full_context(0)[0][:, :, 12:], new[0][0])
    threading.Timer(0, may_end.set).start()
    cache.finish()
    assert may_end.is_set()


def batch(worker, monkeypatch, requests, **more):
    """A run under a worker, with what it leaves."""
    monkeypatch.setattr(shared, "worker_of", lambda device, steps_back: worker)
    backend = MeasuredBackend(Conditions(geometry=TINY, device="cpu"))
    chosen, ledger, recorder = ahead(), Ledger(TINY), Recorder(("async",), 0)
    backend.prepare(64, 256)
    backend.begin_repetition(chosen.areas)
    made = Scheduler(chosen, requests, backend, ledger, recorder, (0, 0), 2)
    return made, backend, ledger, recorder


def test_a_run_reports_failed_work_and_leaves_books_and_storages_agreeing(monkeypatch):
    requests = [Session(0, (Request(2, 40),)), Session(0, (Request(3, 40),))]
    made, backend, ledger, _ = batch(Failing(RuntimeError("torn"), number=1), monkeypatch, requests)
    with pytest.raises(BackgroundError, match=r"sequence 0: resizing area main to 24 slots failed.*torn"):
        for _ in made.iterations():
            pass
    assert list(ledger.accounts) == [1] == list(backend._sequences)


@pytest.mark.parametrize("num_requests", [1, 2])
def test_memory_refused_beside_the_steps_is_an_outcome(monkeypatch, num_requests):
    requests = [Session(0, (Request(2 + number, 20),)) for number in range(num_requests)]
    made, backend, ledger, recorder = batch(Failing(MemoryError()), monkeypatch, requests)
    for _ in made.iterations():
        pass
    outcomes = {row.session: (row.outcome, row.num_preemptions) for row in recorder.requests}
    # Alone it ends; beside another it gives way, and is computed again once that one has finished.
    first = ("out_of_memory", 0) if num_requests == 1 else ("completed", 0)
    assert outcomes == dict(list({0: first, 1: ("completed", 1)}.items())[:num_requests])
    assert ledger.held_bytes == 0
    assert not backend._sequences


def test_a_run_resizes_as_often_as_dynamic():
    backend = MeasuredBackend(Conditions(geometry=TINY, device="cpu"))
    plain = Dynamic(initial_capacity=16, growth_factor=1.5, max_capacity=8192, round_to=1)
    requests, once = [Session(0, (Request(5, 200),))], {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1}
    recorder = run({"dynamic": plain, "async": ahead()}, requests, backend, budget_bytes=None, **once)
    steps = recorder.steps()
    counts = [steps[steps[:, 1] == index][:, STEP_FIELDS.index("num_resizes")].sum() for index in (0, 1)]
    assert counts[0] == counts[1] == 7  # 16 24 36 54 81 121 181 271


@pytest.mark.parametrize(
    ("booked", "plan", "words"),
    [
        ((), (Append(0, 1), Settle(0)), "comes first in its plan"),
        ((Reserve(0, 20, background=True),), (Reserve(0, 30),), "settle it first"),
        ((Reserve(0, 20, background=True),), (Keep(0, Rule(recent=1)),), "settle it first"),
        ((Reserve(0, 20, background=True),), (Truncate(0, 1),), "settle it first"),
        ((), (Reserve(0, 10, background=True),), "contiguous slots grow"),
    ],
)
def test_what_the_ledger_refuses_of_a_resize(booked, plan, words):
    ledger = Ledger(TINY)
    ledger.open(0)
    ledger.book((Reserve(0, 10), Append(0, 4)))
    ledger.book(booked)
    with pytest.raises(LedgerError, match=words):
        ledger.book(plan)


@pytest.mark.parametrize(
    ("areas", "plan", "words"),
    [
        (RING, (Append(0, 1, HOST),), "on their way"),
        (RING, (Move(0, MAIN, HOST, Rule(recent=1)),), "on their way"),
        (RING, (Reserve(0, 24, HOST),), "settle it first"),
        (RING, (Keep(0, Rule(recent=1)),), "settle it first"),
    ],
)
def test_what_the_ledger_refuses_of_a_move(areas, plan, words):
    ledger = Ledger(TINY, areas=areas)
    ledger.open(0)
    ledger.book((Reserve(0, 10), Append(0, 8), Reserve(0, 16, HOST)))
    ledger.book((Move(0, MAIN, HOST, Rule(recent=4), background=True),))
    with pytest.raises(LedgerError, match=words):
        ledger.book(plan)
    ledger.book((Settle(0),))
    ledger.book((Append(0, 1, HOST),))
    ledger.book((Release(0),))
    assert ledger.held_bytes == ledger.fixed_bytes


def test_only_the_oldest_of_a_ring_move_beside_the_steps():
    with pytest.raises(UsageError, match=r"only the oldest tokens can move beside the steps .*eviction: access"):
        hierarchical(eviction="access")
    with pytest.raises(ValueError, match="blocks move in a step"):
        hierarchical().over(Blocks(8, 512))
    ledger = Ledger(TINY, areas=(Area("old", Ring()), Area()))
    ledger.open(0)
    ledger.book((Reserve(0, 8), Append(0, 8), Reserve(0, 8, "old")))
    with pytest.raises(LedgerError, match="a ring's oldest slots move to chunks"):
        ledger.book((Move(0, MAIN, "old", Rule(recent=1), background=True),))


def test_pages_are_taken_as_long_as_they_are_wanted(monkeypatch):
    monkeypatch.setattr(memory, "TOUCHED_BYTES", 2 * memory.PAGE_BYTES)
    pages = torch.ones(5 * memory.PAGE_BYTES, dtype=torch.uint8)
    given_up = threading.Event()
    given_up.set()
    memory.while_wanted(given_up, lambda: memory.touch(pages))
    assert pages.all()
    memory.touch(pages)
    assert (pages == 0).nonzero().flatten().tolist() == [page * memory.PAGE_BYTES for page in range(5)]


def test_what_nobody_waits_for_any_more_ends_early():
    worker, seen = Late(), []
    cache = driven(ahead(), worker)
    filled(cache, 12)
    (work,) = cache.backend.sequence(0).under_way
    worker.given[0]._work = lambda: seen.append(work.given_up.is_set())
    assert not work.given_up.is_set()
    cache.backend.sequence(0).release(0, TINY.bytes_per_token)
    assert seen == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_the_thread_steps_back_and_no_other():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for steps_back, more in ((True, NICENESS), (False, 0)):
        worker = Thread(steps_back)
        found = worker.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
        worker.close()
        assert found == min(own + more, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_a_thread_of_a_nice_process_steps_back_further_and_a_refusal_is_no_error(monkeypatch):
    asked = []

    def refuse(which, thread, priority):
        asked.append(priority)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "getpriority", lambda which, thread: 15)
    monkeypatch.setattr(os, "setpriority", refuse)
    worker = Thread(steps_back=True)
    assert worker.submit(lambda: "done").result() == "done"
    worker.close()
    assert asked == [15 + NICENESS]

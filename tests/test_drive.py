"""One driver of a sequence: the same order wherever a sequence lives, and what waits, is told, or is let go of."""

import asyncio

import pytest
import torch

from kvbench.backend.base import Booking, Times
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.integrations.layerwise import Layerwise, StepFailed
from kvbench.integrations.stores import write
from kvbench.ledger import BackgroundError, Ledger, LedgerError, OutOfMemory
from kvbench.plan.area import Area
from kvbench.plan.ops import NOTHING, Append, Keep, Reserve, Rule, Settle
from kvbench.quality.probe import Probe
from kvbench.quality.structured import structured
from kvbench.runner.aio import AsyncCaches
from kvbench.runner.drive import Driver, drive
from kvbench.runner.run import run
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY
from tests.support.driven import tokens
from tests.support.fake import MS, Fake
from tests.support.workers import Failing

NUM_TOKENS, MOST = 12, 5
SESSION = Session(0, (Request(NUM_TOKENS),))
TOKEN = TINY.bytes_per_token


class Told(Dynamic):
    """Takes five tokens at once, and keeps what it is asked, across copies of itself."""

    asked: list = []  # noqa: RUF012

    def __init__(self):
        super().__init__(initial_capacity=16, growth_factor=1.5, max_capacity=64, round_to=1)
        self.asked.clear()

    def on_begin(self):
        super().on_begin()
        self.asked.append("begin")

    def on_admit(self, seq, session, view):
        self.asked.append(("admit", session.turns[0].num_append_tokens))
        return super().on_admit(seq, session, view)

    def at_once(self, seq, num_tokens, view):
        self.asked.append(("at once", num_tokens))
        return min(num_tokens, MOST)

    def on_append(self, seq, num_tokens, view):
        self.asked.append(("append", num_tokens, view.num_used(seq)))
        return super().on_append(seq, num_tokens, view)

    def on_attended(self, seq, num_tokens, view):
        self.asked.append(("attended", num_tokens, view.num_used(seq)))
        return super().on_attended(seq, num_tokens, view)

    def on_finish(self, seq, view):
        self.asked.append("finish")
        return super().on_finish(seq, view)


ORDER = [
    "begin",
    ("admit", 12),
    ("at once", 12),
    ("append", 5, 0),
    ("attended", 5, 5),
    ("at once", 7),
    ("append", 5, 5),
    ("attended", 5, 10),
    ("at once", 2),
    ("append", 2, 10),
    ("attended", 2, 12),
    "finish",
]


def by_run(chosen):
    run({"it": chosen}, [SESSION], Fake(), num_repetitions=1, num_warmup=0, max_concurrency=1, budget_bytes=None)


def by_probe(chosen):
    Probe(SESSION, structured(TINY, NUM_TOKENS, 0), TINY, "cpu")(chosen)


def by_layers(chosen):
    batch = layerwise(chosen)
    step(batch, NUM_TOKENS)
    batch.finish()


def by_asyncio(chosen):
    async def update():
        async with AsyncCaches(chosen, TINY, device="cpu") as caches:
            new = tokens(torch.Generator().manual_seed(0), 1, NUM_TOKENS)
            await caches.update("it", new, new)

    asyncio.run(update())


def layerwise(chosen, budget_bytes=None):
    return Layerwise(chosen, TINY, 1, torch.device("cpu"), budget_bytes, 0)


def step(batch, num_tokens):
    """As a model does: every layer writes, and then attends."""
    batch.begin(num_tokens)
    keys = torch.zeros(1, TINY.plain.num_kv_heads, num_tokens, TINY.plain.head_dim)
    for layer in range(TINY.num_layers):
        sequence, done = batch.enter(layer), 0
        for stride in batch.strides:
            new = keys[:, :, done : done + stride.num_tokens]
            write(sequence, stride.plan, new, new)
            write(sequence, stride.after, new, new)
            done += stride.num_tokens
        batch.leave(layer, is_attended=True)


@pytest.mark.parametrize("driven", [by_run, by_probe, by_layers, by_asyncio])
def test_whoever_drives_it_a_strategy_is_asked_the_same_in_the_same_order(driven):
    driven(Told())
    assert Told.asked == ORDER


def test_a_driven_sequence_has_times_of_admission_and_of_each_step():
    drive_times = drive(Fake(), Told(), SESSION)
    assert Told.asked == ORDER[:-1]  # whoever looks at what it holds ends the repetition
    assert [times.append_ns for times in drive_times] == [0, 50 * MS, 50 * MS, 50 * MS]


class Reducing(Strategy):
    """Keeps four tokens after attention, through an area that must first be given room; asked whether it was done."""

    areas = (Area(positions=True),)
    lossless = False

    def on_append(self, seq, num_tokens, view):
        return (Reserve(seq, view.num_used(seq) + num_tokens), Append(seq, num_tokens))

    def on_attended(self, seq, num_tokens, view):
        return (Keep(seq, Rule(first=1, recent=3)), Reserve(seq, 4))


def held(budget_tokens):
    """After an append of eight: the driver, and what followed attention."""
    chosen = Reducing()
    ledger = chosen.ledger(TINY, budget_tokens * (TOKEN + TINY.track_bytes_per_token))
    driver = Driver(chosen, ledger, Fake())
    driver.open(0)
    driver.append(0, 8)
    return driver, driver.attended(0, 8)


def test_what_follows_attention_waits_where_there_is_no_memory_to_do_it_in():
    driver, after = held(8)  # a tensor's kept slots are gathered beside all
    assert (after, driver.view.num_used(0)) == (None, 8)
    driver, after = held(16)
    assert after.plan == (Keep(0, Rule(first=1, recent=3)), Reserve(0, 4))
    assert driver.view.num_used(0) == 4


def test_what_failed_half_done_does_not_wait():
    class Half(Driver):
        def has_failed(self, seq):
            return True

    driver, _ = held(8)
    with pytest.raises(OutOfMemory):
        Half(driver.strategy, driver.ledger, Fake()).attended(0, 8)


def test_a_mistake_after_attention_is_no_want_of_memory():
    class Wrong(Reducing):
        def on_attended(self, seq, num_tokens, view):
            return (Keep(seq, Rule(first=1, recent=3)), Append(seq, 9))

    driver, _ = held(16)
    with pytest.raises(LedgerError, match="slots are in use"):
        Driver(Wrong(), driver.ledger, Fake()).attended(0, 8)


@pytest.mark.parametrize(("budget_tokens", "attended"), [(8, 8), (16, 4)])
def test_inside_a_model_it_waits_too_and_the_batch_is_whole(budget_tokens, attended):
    batch = layerwise(Reducing(), budget_tokens * (TOKEN + TINY.track_bytes_per_token))
    step(batch, 8)
    assert batch.figures().num_attended == attended
    with pytest.raises(OutOfMemory):
        batch.begin(99)
    assert batch.num_seen == 8


def growing():
    return Ahead(initial_capacity=16, growth_factor=1.5, max_capacity=8192, round_to=1, start_at=0.75)


@pytest.mark.parametrize(("error", "told"), [(RuntimeError("torn"), BackgroundError), (MemoryError(), OutOfMemory)])
def test_failed_work_is_told_each_time_until_its_sequence_is_released(error, told):
    backend, chosen = MeasuredBackend(Conditions(geometry=TINY, device="cpu", attend=False)), growing()
    backend.begin_repetition(chosen.areas)
    backend._areas.background = Failing(error)
    driver = Driver(chosen, chosen.ledger(TINY), backend)
    driver.open(0)
    backend.prepare(16, 16)
    backend.step(driver.admit(0, SESSION), 0)
    for count in (12, 4):
        backend.step(driver.append(0, count), 0)
    for _ in range(2):
        with pytest.raises(told):
            driver.append(0, 1)
        assert driver.view.num_used(0) == 16
    backend.step(driver.finish(0), 0)
    assert driver.ledger.held_bytes == 0
    backend.end_repetition()


@pytest.mark.parametrize(("error", "told"), [(RuntimeError("torn"), BackgroundError), (MemoryError(), OutOfMemory)])
def test_inside_a_model_it_is_told_as_in_a_run(error, told):
    batch = layerwise(growing())
    batch._layers.areas[0].background = batch._layers.areas[1].background = Failing(error)
    step(batch, 12)
    step(batch, 4)
    with pytest.raises(told):
        batch.begin(1)
    with pytest.raises(StepFailed if told is BackgroundError else told):
        batch.begin(1)
    batch.finish()
    assert batch.ledger.held_bytes == 0
    step(batch, 3)  # a new batch
    assert batch.num_seen == 3
    batch.close()


def test_a_model_is_told_of_failed_work_that_was_never_settled_and_all_is_let_go():
    batch = layerwise(growing())
    batch._layers.areas[0].background = batch._layers.areas[1].background = Failing(RuntimeError("torn"))
    step(batch, 12)
    with pytest.raises(BackgroundError, match="resizing area main to 24 slots failed"):
        batch.finish()
    assert (batch.ledger.held_bytes, batch.sequences) == (0, [])


def test_a_booking_says_what_there_is_to_price():
    ledger, chosen = Ledger(TINY), growing()
    driver = Driver(chosen, ledger, Fake())
    driver.open(0)
    booking = driver.book(0, (Reserve(0, 8), Append(0, 8)))
    assert [posting.requested_bytes for posting in booking.receipt.postings] == [8 * TOKEN, 0]
    assert (booking.before_bytes, booking.used_bytes, booking.waited) == (0, 8 * TOKEN, Times(0, 0, 0, 0))
    grown = driver.book(0, (Reserve(0, 16),)).receipt.postings[0]
    assert (grown.num_before, grown.copied_bytes) == (8, 8 * TOKEN)
    driver.book(0, (Reserve(0, 24, background=True),))
    assert driver.book(0, (Settle(0),)).receipt.postings[0].capacity == 24
    released = driver.finish(0)
    assert [held.capacity for held in released.receipt.postings[0].holdings] == [24]
    assert released.account is None
    assert Booking(0, NOTHING).receipt.postings == ()

"""Several caches for asyncio: order, concurrency, cancellation, a bounded queue, and failures that name their cache."""

import asyncio
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.storage.memory import Memory
from kvbench.ledger import Limits, OutOfMemory
from kvbench.runner.aio import AsyncCaches, CacheClosed, CacheRefused
from kvbench.strategy.base import CapacityExceeded
from tests.support.catalogue import STRATEGIES, TINY, strategy
from tests.support.driven import tokens
from tests.support.workers import Failing
from tests.test_background import ahead
from tests.test_contract import small

TOKEN = TINY.bytes_per_token
PATIENCE_S = 10
"""How long a failed test holds its threads up."""
UNUSABLE = ("recompute", "exact", "power_of_two")
"""What holds nothing, and what must know a cache's length before."""
USABLE = [name for name in STRATEGIES if name not in UNUSABLE and not strategy(name).signals]


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


@pytest.fixture
def live():
    """Bytes of live storages, counted as memory gives them, whatever thread asks."""
    found, lock = {"bytes": 0}, threading.Lock()
    given = Memory.untouched

    def died(num_bytes):
        with lock:
            found["bytes"] -= num_bytes

    def watched(self, size, dtype):
        tensor = given(self, size, dtype)
        storage = tensor.untyped_storage()
        with lock:
            found["bytes"] += storage.nbytes()
        weakref.finalize(storage, died, storage.nbytes())
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "untouched", watched)
        yield found


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


@pytest.mark.parametrize("name", USABLE)
def test_every_strategy_keeps_what_it_is_given(name, live):
    chosen = small(name)

    async def main():
        async with AsyncCaches(chosen.fitted(LIMITS), TINY, device="cpu") as caches:
            written = {id: [new(count, seed) for seed, count in enumerate(counts)] for id, counts in BY_ID.items()}
            calls = [caches.update(id, *part) for id, parts in written.items() for part in parts]
            await asyncio.gather(*calls)
            for id, parts in written.items():
                await caches.prefetch(id, 20)
                await caches.update(id, *new(9, 99))
                pairs = await caches.get(id)
                if chosen.lossless:
                    assert equal(pairs, [*parts, new(9, 99)])
            await closed(caches, live)

    asyncio.run(main())


LIMITS = Limits(geometry=TINY, budget_bytes=None, live_tokens=(256,) * 3)
"""What nobody knows here of strategies that leave something to a run."""

BY_ID = {"a": (30, 1, 1, 7), "b": (1, 1, 40), 3: (16, 17)}


@settings(max_examples=15, deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["update", "prefetch", "get"]), st.integers(1, 25)),
        max_size=20,
    ),
    max_workers=st.integers(1, 3),
    max_pending=st.integers(1, 4),
)
def test_calls_on_an_id_take_effect_in_the_order_they_were_made(calls, max_workers, max_pending):
    async def main():
        limits = {"max_workers": max_workers, "max_pending": max_pending}
        async with AsyncCaches(ahead(0.5), TINY, device="cpu", **limits) as caches:
            written = {id: [new(1, ord(id))] for id in "abc"}
            tasks = [asyncio.create_task(caches.update(id, *written[id][0])) for id in "abc"]
            for number, (id, call, count) in enumerate(calls):
                if call == "update":
                    written[id].append(new(count, number))
                    tasks.append(asyncio.create_task(caches.update(id, *written[id][-1])))
                elif call == "prefetch":
                    tasks.append(asyncio.create_task(caches.prefetch(id, count)))
                else:
                    tasks.append(asyncio.create_task(got(caches, id, list(written[id]))))
            await asyncio.gather(*tasks)
            for id, parts in written.items():
                assert equal(await caches.get(id), parts)

    async def got(caches, id, parts):
        assert equal(await caches.get(id), parts)

    asyncio.run(main())


def test_one_id_waits_while_another_goes_on(live):
    async def main():
        caches = AsyncCaches(ahead(), TINY, device="cpu")
        await caches.update("slow", *new(1))
        held = Held(caches, "Append")
        first = asyncio.create_task(caches.update("slow", *new(2, 1)))
        await held.until_begun()
        second = asyncio.create_task(caches.update("slow", *new(3, 2)))
        await caches.update("quick", *new(4))
        assert equal(await caches.get("quick"), [new(4)])
        assert not first.done()
        assert not second.done()
        held.may_go_on.set()
        await second
        assert first.done()
        assert equal(await caches.get("slow"), [new(1), new(2, 1), new(3, 2)])
        await closed(caches, live)

    asyncio.run(main())


def test_a_full_queue_makes_an_update_wait():
    async def main():
        caches = AsyncCaches(ahead(), TINY, device="cpu", max_workers=4, max_pending=2)
        await caches.update("a", *new(1))
        held = Held(caches, "Append")
        running = [asyncio.create_task(caches.update("a", *new(1, seed))) for seed in (1, 2)]
        await held.until_begun()
        other = asyncio.create_task(caches.update("b", *new(1)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert [op for op in held.order if op[0] == 1] == []  # there is a thread for it, and no room in the queue
        held.may_go_on.set()
        await asyncio.gather(*running, other)
        await caches.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["Append", "Reserve", "Settle"])
def test_an_update_cancelled_while_it_works_happens_wholly(kind, live):
    async def main():
        caches = AsyncCaches(ahead(), TINY, device="cpu")
        await caches.update("a", *new(12))  # a resize to 24 slots is under way
        held = Held(caches, kind)
        first = asyncio.create_task(caches.update("a", *new(30, 1)))  # settles, resizes, appends
        await held.until_begun()
        after = asyncio.create_task(caches.update("a", *new(2, 2)))
        await asyncio.sleep(0)
        for _ in range(3):
            first.cancel()
            await asyncio.sleep(0)
        assert not first.done()
        held.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        await after
        assert equal(await caches.get("a"), [new(12), new(30, 1), new(2, 2)])
        await closed(caches, live)

    asyncio.run(main())


@pytest.mark.parametrize("waits_for", ["turn", "queue", "thread"])
def test_an_update_cancelled_before_its_turn_does_nothing(waits_for, live):
    async def main():
        limits = {"max_pending": 1 if waits_for == "queue" else 8, "max_workers": 1}
        caches = AsyncCaches(ahead(), TINY, device="cpu", **limits)
        await caches.update("a", *new(1))
        held = Held(caches, "Append")
        first = asyncio.create_task(caches.update("a", *new(2, 1)))
        await held.until_begun()
        id = "b" if waits_for == "thread" else "a"
        cancelled = asyncio.create_task(caches.update(id, *new(3, 2)))
        after = asyncio.create_task(caches.update(id, *new(4, 3)))
        for _ in range(5):
            await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not first.done()
        held.may_go_on.set()
        await asyncio.gather(first, after)
        assert equal(await caches.get(id), [new(4, 3)] if id == "b" else [new(1), new(2, 1), new(4, 3)])
        await closed(caches, live)

    asyncio.run(main())


def test_what_does_not_fit_is_refused_and_changes_nothing(live):
    async def main():
        # 16 slots each for a and b; 20 more tokens need 24 beside 16.
        caches = AsyncCaches(ahead(1.0), TINY, device="cpu", budget_bytes=40 * TOKEN)
        await caches.update("a", *new(10))
        await caches.update("b", *new(10))
        with pytest.raises(CacheRefused, match="cache 'a': refused, and as it was") as caught:
            await caches.update("a", *new(40, 1))
        assert isinstance(caught.value.__cause__, OutOfMemory)
        with pytest.raises(CacheRefused, match="cache 'c'"):
            await caches.update("c", *new(1))
        assert equal(await caches.get("a"), [new(10)])
        await caches.release("b")
        await caches.update("a", *new(6, 2))
        await caches.update("a", *new(1, 3))
        assert equal(await caches.get("a"), [new(10), new(6, 2), new(1, 3)])
        await closed(caches, live)

    asyncio.run(main())


def test_too_long_is_refused(live):
    async def main():
        caches = AsyncCaches(ahead(maximum=30), TINY, device="cpu")
        await caches.update("a", *new(30))
        for call in (caches.update("a", *new(1)), caches.prefetch("a", 1)):
            with pytest.raises(CacheRefused) as caught:
                await call
            assert isinstance(caught.value.__cause__, CapacityExceeded)
        assert equal(await caches.get("a"), [new(30)])
        await closed(caches, live)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["Append", "Reserve", "Settle"])
def test_a_worker_that_raises_closes_its_cache_and_no_other(kind, live):
    async def main():
        caches = AsyncCaches(ahead(), TINY, device="cpu")
        await caches.update("a", *new(12))
        await caches.update("b", *new(5))
        carry_out = caches.backend.carry_out

        def failing(op, keys, values):
            if type(op).__name__ == kind and op.seq == 0:
                raise RuntimeError("torn")
            carry_out(op, keys, values)

        caches.backend.carry_out = failing
        with pytest.raises(CacheClosed, match="cache 'a': closed, since it failed half done: torn"):
            await caches.update("a", *new(30, 1))
        caches.backend.carry_out = carry_out
        for call in (caches.update("a", *new(1)), caches.get("a"), caches.prefetch("a", 3)):
            with pytest.raises(CacheClosed, match="cache 'a': closed before, until it is released: torn"):
                await call
        assert equal(await caches.get("b"), [new(5)])
        caches.backend.wait()
        assert live["bytes"] == caches.ledger.held_bytes == 16 * TOKEN
        await caches.release("a")
        await caches.update("a", *new(2, 2))
        assert equal(await caches.get("a"), [new(2, 2)])
        await closed(caches, live)

    asyncio.run(main())


@pytest.mark.parametrize("error", [RuntimeError("torn"), MemoryError()])
def test_background_work_that_failed_closes_the_cache_when_it_is_settled(error, live):
    async def main():
        caches = AsyncCaches(ahead(), TINY, device="cpu")
        caches.backend._areas.background = Failing(error)
        await caches.update("a", *new(12))
        await caches.update("a", *new(4, 1))
        with pytest.raises(CacheClosed, match="cache 'a': closed, since it failed half done"):
            await caches.update("a", *new(1, 2))
        await closed(caches, live)

    asyncio.run(main())


def test_a_prefetch_reserves_beside_other_work_and_is_settled_when_it_is_needed(live):
    async def main():
        caches = AsyncCaches(strategy("dynamic", initial_capacity=16), TINY, device="cpu")
        await caches.update("a", *new(10))
        await caches.prefetch("a", 50)
        view = caches.ledger.view
        assert (view.capacity(0), view.next_capacity(0)) == (16, 60)
        await caches.prefetch("a", 20)  # it is on its way
        await caches.update("a", *new(6, 1))
        assert (view.capacity(0), view.next_capacity(0)) == (16, 60)
        await caches.update("a", *new(30, 2))
        assert (view.capacity(0), view.next_capacity(0)) == (60, 0)
        await caches.prefetch("new", 7)
        assert view.capacity(1) == 16
        assert equal(await caches.get("a"), [new(10), new(6, 1), new(30, 2)])
        assert [pair[0].shape for pair in await caches.get("new")] == [(1, 2, 0, 8)] * 2
        await closed(caches, live)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["chunked", "paged"])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_prefetch_that_is_cancelled_gives_back_what_came(name, is_known, live):
    async def main():
        chosen = strategy(name, **({"pool_tokens": 1 << 20} if name == "paged" else {}))
        caches = AsyncCaches(chosen, TINY, device="cpu")
        await caches.update("other", *new(10))
        if is_known:
            await caches.update("a", *new(10))
        before = caches.ledger.held_bytes
        held = Held(caches, "Reserve", seq=1)
        prefetch = asyncio.create_task(caches.prefetch("a", 10**6))
        await held.until_begun()
        prefetch.cancel()
        await asyncio.sleep(0)
        held.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await prefetch
        # Of a new cache, the reserve that was held up may be that of its admission.
        assert 1 <= held.order.count((1, "Reserve")) <= 3
        assert caches.ledger.held_bytes == before
        if is_known:
            assert equal(await caches.get("a"), [new(10)])
        await caches.update("a", *new(3, 1))
        await closed(caches, live)

    asyncio.run(main())


def test_a_prefetch_refused_after_some_pieces_gives_them_back(live):
    async def main():
        caches = AsyncCaches(strategy("chunked"), TINY, device="cpu", budget_bytes=1 << 27)
        await caches.update("a", *new(10))
        before = caches.ledger.held_bytes
        with pytest.raises(CacheRefused, match="budget"):
            await caches.prefetch("a", 10**7)
        assert caches.ledger.held_bytes == before
        await caches.prefetch("a", 10**5)
        assert caches.ledger.view.room(0) >= caches.ledger.view.capacity(0) >= 10**5 + 10
        await closed(caches, live)

    asyncio.run(main())


def test_closing_lets_what_runs_end_and_refuses_what_waits(live):
    async def main():
        caches = AsyncCaches(ahead(), TINY, device="cpu", max_pending=2)
        await caches.update("a", *new(12))
        held = Held(caches, "Append")
        running = asyncio.create_task(caches.update("a", *new(1, 1)))
        await held.until_begun()
        waiting = [asyncio.create_task(caches.update(id, *new(1))) for id in ("a", "b")]
        closing = asyncio.create_task(caches.close())
        await asyncio.sleep(0)
        held.may_go_on.set()
        await running
        for task in waiting:
            with pytest.raises(CacheRefused, match="being closed"):
                await task
        await closing
        await caches.close()
        with pytest.raises(CacheRefused, match="cache 'a': all caches are being closed"):
            await caches.get("a")
        assert live["bytes"] == 0

    asyncio.run(main())


def test_the_body_of_async_with_may_be_cancelled(live):
    async def main():
        caches = AsyncCaches(ahead(), TINY, device="cpu")
        inside = asyncio.Event()

        async def body():
            async with caches:
                await caches.update("a", *new(12))
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert live["bytes"] == caches.ledger.held_bytes == 0

    asyncio.run(main())


def test_what_was_never_there_is_refused():
    async def main():
        async with AsyncCaches(ahead(), TINY, device="cpu") as caches:
            for call in (caches.get("x"), caches.release("x")):
                with pytest.raises(CacheRefused, match="cache 'x': there is none"):
                    await call
            assert not caches._caches

    asyncio.run(main())


def test_bad_input_is_refused_before_it_has_a_turn():
    async def main():
        async with AsyncCaches(ahead(), TINY, device="cpu") as caches:
            keys, values = new(3)
            for bad in (
                keys[:1],
                [t[:, :1] for t in keys],
                [t.half() for t in keys],
                [t[:, :, :0] for t in keys],
                [*keys[:1], values[1][:, :, :2]],
            ):
                with pytest.raises(ValueError, match=r"keys are 2 tensors \[1, 2, num_tokens, 8\] of float32 on cpu"):
                    await caches.update("a", bad, values)
            with pytest.raises(ValueError, match="num_tokens is a positive integer"):
                await caches.prefetch("a", 0)

    asyncio.run(main())
    for name, words in (
        ("recompute", "holds none between"),
        ("heavy_hitters", "needs attention to tell it"),
        ("static", "max_seq_len: null is the longest request .* give a number"),
        ("paged", "pool_tokens: null is all of the budget.* give a number, or a budget_bytes"),
    ):
        with pytest.raises(ValueError, match=words):
            AsyncCaches(strategy(name), TINY, device="cpu")
    with pytest.raises(ValueError, match="max_pending is a positive integer, got 0"):
        AsyncCaches(ahead(), TINY, device="cpu", max_pending=0)

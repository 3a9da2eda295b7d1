"""Several caches for asyncio: order, concurrency, cancellation, a bounded queue, and an end."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.ledger import Limits
from kvbench.runner.aio import AsyncCaches, CacheRefused
from tests.support.asynchronous import Held, closed, equal, new
from tests.support.catalogue import STRATEGIES, TINY, strategy
from tests.test_background import ahead
from tests.test_contract import small

UNUSABLE = ("recompute", "exact", "power_of_two")
"""What holds nothing, and what must know a cache's length before."""
USABLE = [name for name in STRATEGIES if name not in UNUSABLE and not strategy(name).signals]


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

"""Several caches for asyncio: what is refused changes nothing, and a failure closes its cache and no other."""

import asyncio

import pytest

from kvbench.ledger import OutOfMemory
from kvbench.runner.aio import AsyncCaches, CacheClosed, CacheRefused
from kvbench.strategy.base import CapacityExceeded
from tests.support.asynchronous import closed, equal, new
from tests.support.catalogue import TINY, strategy
from tests.support.workers import Failing
from tests.test_background import ahead

TOKEN = TINY.bytes_per_token


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

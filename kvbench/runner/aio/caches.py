"""Several caches for asyncio, over the same strategies, ledger and storages as all else."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Event
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.storage.memory import while_wanted
from kvbench.checks import check_int
from kvbench.ledger import Limits
from kvbench.model.geometry import KVGeometry
from kvbench.runner.aio.executor import Executor, Layers
from kvbench.runner.run import check_signals
from kvbench.strategy.base import Strategy

Found = TypeVar("Found")


class CacheError(Exception):
    """A call on a cache failed; `__cause__` is what it failed of.

    Args:
        id: the cache's.
        message: what happened.
    """

    def __init__(self, id: Hashable, message: str) -> None:
        self.id = id
        super().__init__(f"cache {id!r}: {message}")


class CacheRefused(CacheError):
    """Nothing of the call was done: the cache is as it was, and can be used on."""


class CacheClosed(CacheError):
    """The cache has lost its tokens, or never had any more: what it held is freed. `release` makes its id free."""


@dataclass(eq=False)
class _Cache:
    """One id's cache.

    Args:
        seq: its sequence, while it has one.
        failure: what it was closed for.
        num_calls: calls that wait for their turn, or have it.
        turn: held by the call that works on it.
    """

    seq: int | None = None
    failure: Exception | None = None
    num_calls: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class AsyncCaches:
    """Several caches under one strategy and one budget, for asyncio.

    Calls on one id are carried out in the order in which they were made; calls on others at the same time, by threads
    that share one ledger. At most so many calls wait or run at once; one more waits for room, before it has a turn.

    A call that is cancelled has done all or nothing: before its turn it does nothing, and from then on it ends its
    work, and only then lets the cancellation through. A call that is refused (`CacheRefused`) has done nothing. A call
    that fails with its work half done closes its cache (`CacheClosed`): what that held is freed, and later calls on the
    id fail alike until `release`. Tokens must not be written to until their update has returned.

    Args:
        strategy: what decides, for every cache.
        geometry: the shape of a token's K and V.
        device: auto, cpu or cuda. On an accelerator a call has returned when the work was given to it.
        num_rows: rows of every cache's batch, > 0.
        max_workers: caches that are worked on at the same time, > 0.
        max_pending: calls that wait or run, > 0.
        budget_bytes: what all caches may hold together on the device; None for no limit. What `get` returns is the
            caller's, and not counted.
    Raises:
        ValueError: a number is out of its range, or the strategy needs attention to tell it something, holds
            nothing, or leaves to a run what nobody knows here: the longest sequence, or a pool's size without a budget.
    Source: the article, AsyncKVCache.
    Departs: a second update of an id waits for the first and does not replace it, and a prefetch reserves. A cache has
        no end that could be told, so that strategies which learn from completed requests learn nothing here.
    """

    def __init__(
        self,
        strategy: Strategy,
        geometry: KVGeometry,
        *,
        device: str = "auto",
        num_rows: int = 1,
        max_workers: int = 2,
        max_pending: int = 32,
        budget_bytes: int | None = None,
    ) -> None:
        check_int("max_workers", max_workers, 1)
        check_int("max_pending", max_pending, 1)
        backend = MeasuredBackend(Conditions(geometry=geometry, device=device, attend=False, seed=0, num_rows=num_rows))
        check_signals({type(strategy).__name__: strategy}, backend)
        if strategy.recomputes:
            raise ValueError(f"{type(strategy).__name__} computes all tokens anew in each step, and holds none between")
        strategy = strategy.fitted_to_serve(Limits(geometry=geometry, budget_bytes=budget_bytes, num_rows=num_rows))
        self.ledger = strategy.ledger(geometry, budget_bytes, num_rows)
        self.backend = backend
        self._executor = Executor(strategy, self.ledger, backend)
        self._caches: dict[Hashable, _Cache] = {}
        self._seqs = count()
        self._threads = ThreadPoolExecutor(max_workers, thread_name_prefix="kvbench-aio")
        self._max_pending = max_pending
        self._pending = asyncio.Semaphore(max_pending)
        self._num_drained = 0
        self._draining = asyncio.Lock()
        self._is_closing = False

    async def update(self, id: Hashable, keys: Layers, values: Layers) -> None:
        """Append tokens to a cache; the first update of an id makes it.

        Args:
            id: the cache's.
            keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim].
            values: as keys.
        Raises:
            CacheRefused: they do not fit a budget, or what the strategy holds at most.
            CacheClosed: it failed half done, or had failed before.
            ValueError: they have not the geometry's shape, type or device.
        """
        self._check(keys, values)
        await self._in_turn(id, partial(self._update, keys=keys, values=values))

    async def prefetch(self, id: Hashable, num_tokens: int) -> None:
        """Reserve ahead for so many tokens more, beside other work; an unknown id's cache is made.

        One that is cancelled while it reserves gives back what came piece by piece, and ends.

        Args:
            id: the cache's.
            num_tokens: tokens that are expected, > 0.
        Raises:
            CacheRefused, CacheClosed: as `update`.
        """
        check_int("num_tokens", num_tokens, 1)
        given_up = Event()
        await self._in_turn(id, partial(self._prefetch, num_tokens=num_tokens, given_up=given_up), given_up)

    async def get(self, id: Hashable) -> list[tuple[Tensor, Tensor]]:
        """K and V of all tokens that a cache holds, after all updates that were made before.

        Returns:
            A pair a layer, [num_rows, num_kv_heads, num_tokens, head_dim] each: new tensors on the device.
        Raises:
            CacheRefused: there is no such cache.
            CacheClosed: it had failed before.
        """
        return await self._in_turn(id, self._get)

    async def release(self, id: Hashable) -> None:
        """Free a cache, failed or not; its id can be used anew.

        Raises:
            CacheRefused: there is no such cache.
            CacheClosed: work that it had under way failed; it is freed nevertheless.
        """
        await self._in_turn(id, self._release)

    async def __aenter__(self) -> "AsyncCaches":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let running calls end, refuse those that wait, and free everything. A second time, nothing happens."""
        self._is_closing = True
        async with self._draining:  # of two who close at once, the second finds nothing to drain
            while self._num_drained < self._max_pending:  # those who wait for room come first, and are refused
                await self._pending.acquire()
                self._num_drained += 1
        try:
            if self._executor.is_open:
                await self._to_its_end(self._executor.close)
        finally:
            if not self._executor.is_open:
                self._threads.shutdown()

    async def _in_turn(
        self, id: Hashable, work: Callable[[Hashable, _Cache], Found], given_up: Event | None = None
    ) -> Found:
        """Wait for room in the queue, then for the id's turn; then work in a thread."""
        self._check_open(id)
        async with self._pending:
            self._check_open(id)
            cache = self._caches.setdefault(id, _Cache())
            cache.num_calls += 1
            try:
                async with cache.turn:
                    self._check_open(id)
                    return await self._to_its_end(partial(work, id, cache), given_up)
            finally:
                cache.num_calls -= 1
                if not cache.num_calls and cache.seq is None and cache.failure is None:
                    del self._caches[id]

    def _check_open(self, id: Hashable) -> None:
        if self._is_closing:
            raise CacheRefused(id, "all caches are being closed")

    async def _to_its_end(self, work: Callable[[], Found], given_up: Event | None = None) -> Found:
        """Work in a thread; a cancellation comes through before it has begun, or after it has ended.

        Args:
            work: what to do.
            given_up: set by a cancellation, for work that then ends early.
        """
        given = self._threads.submit(work)
        ended = asyncio.wrap_future(given)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if given_up is not None:
                given_up.set()
            if not given.cancel():
                while not ended.done():
                    await _uncancelled(ended)
                ended.exception()  # the caller is gone; a cache that it closed tells the next one
            raise

    def _update(self, id: Hashable, cache: _Cache, keys: Layers, values: Layers) -> None:
        self._guarded(id, cache, keys[0].shape[2], lambda seq: self._executor.write(seq, keys, values))

    def _prefetch(self, id: Hashable, cache: _Cache, num_tokens: int, given_up: Event) -> None:
        def work(seq: int) -> None:
            self._executor.make_room(seq, num_tokens, given_up)

        while_wanted(given_up, partial(self._guarded, id, cache, num_tokens, work))

    def _guarded(self, id: Hashable, cache: _Cache, num_tokens: int, work: Callable[[int], None]) -> None:
        """Work on a cache, which is made first where there is none; what fails is told by what it leaves."""
        self._check_usable(id, cache)
        seq, is_new = cache.seq, cache.seq is None
        try:
            if seq is None:
                seq = next(self._seqs)
                self._executor.begin(seq, num_tokens)
                cache.seq = seq
            work(seq)
        except Exception as error:
            if cache.seq is None or not self._executor.has_failed(cache.seq):
                if is_new and cache.seq is not None:
                    seq, cache.seq = cache.seq, None
                    self._executor.release(seq)
                raise CacheRefused(id, f"refused, and as it was: {error}") from error
            self._give_up(cache, error)
            raise CacheClosed(id, f"closed, since it failed half done: {error}") from error

    def _give_up(self, cache: _Cache, error: Exception) -> None:
        seq, cache.seq, cache.failure = cache.seq, None, error
        assert seq is not None
        try:
            self._executor.release(seq)
        except Exception as other:
            error.add_note(f"and then: {other}")

    def _get(self, id: Hashable, cache: _Cache) -> list[tuple[Tensor, Tensor]]:
        self._check_usable(id, cache)
        if cache.seq is None:
            raise CacheRefused(id, "there is none; the first update makes it")
        return self._executor.read(cache.seq)

    def _release(self, id: Hashable, cache: _Cache) -> None:
        seq, failure, cache.seq, cache.failure = cache.seq, cache.failure, None, None
        if seq is None and failure is None:
            raise CacheRefused(id, "there is none to release")
        if seq is not None:
            try:
                self._executor.release(seq)
            except Exception as error:
                raise CacheClosed(id, f"released, but {error}") from error

    @staticmethod
    def _check_usable(id: Hashable, cache: _Cache) -> None:
        if cache.failure is not None:
            raise CacheClosed(id, f"closed before, until it is released: {cache.failure}") from cache.failure

    def _check(self, keys: Layers, values: Layers) -> None:
        geometry, rows = self.ledger.geometry, self.backend.num_rows
        num_tokens = keys[0].shape[2] if keys and keys[0].dim() == 4 else 0  # noqa: PLR2004
        shape = (rows, geometry.plain.num_kv_heads, max(num_tokens, 1), geometry.plain.head_dim)
        wanted = (shape, getattr(torch, geometry.dtype), self.backend.device.type)
        for name, tensors in (("keys", keys), ("values", values)):
            found = [(tuple(t.shape), t.dtype, t.device.type) for t in tensors]
            if found != [wanted] * geometry.num_layers:
                raise ValueError(
                    f"{name} are {geometry.num_layers} tensors [{rows}, {geometry.plain.num_kv_heads}, num_tokens, "
                    f"{geometry.plain.head_dim}] of {geometry.dtype} on {self.backend.device.type}, num_tokens 1 or "
                    f"more and the same in all; got {found}"
                )


async def _uncancelled(ended: asyncio.Future[Found]) -> None:
    """Wait, whatever is asked meanwhile; who was cancelled once is told already."""
    try:
        await asyncio.wait([ended])
    except asyncio.CancelledError:
        return

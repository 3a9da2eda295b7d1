"""A device's second stream, its events and pinned memory, on a device that is not here."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kvbench.backend.background import worker_of
from kvbench.backend.base import NO_TIMES
from kvbench.backend.clock import clock_of
from kvbench.backend.storage.transfer import carry
from kvbench.plan.area import HOST
from kvbench.plan.ops import MAIN
from kvbench.runner.aio import AsyncCaches
from kvbench.workload.request import Request, Session
from tests.support import device
from tests.support.catalogue import STRATEGIES, TINY, strategy
from tests.support.device import CUDA, FakeEvent, FakeStream, OnDevice, on_device
from tests.support.driven import Cache, tokens
from tests.support.storages import LiveStorages


@pytest.fixture(autouse=True)
def _use(monkeypatch):
    device.use(monkeypatch)


@pytest.fixture
def worker():
    found = worker_of(CUDA, steps_back=False)
    yield found
    found.close()


def pinned(size):
    return torch.empty(size, pin_memory=True)


def pageable(size):
    return torch.empty(size)


def test_what_the_device_refuses():
    stream, event = FakeStream(), FakeEvent(enable_timing=True)
    with stream, pytest.raises(AssertionError, match="entered twice"), stream:
        pass
    with pytest.raises(AssertionError, match="never recorded"):
        event.wait()
    event.record()
    with pytest.raises(AssertionError, match="before the device has come to it"):
        event.elapsed_time(event)
    with pytest.raises(AssertionError, match="two devices"):
        on_device(torch.ones(3)).add(torch.ones(3))


@pytest.mark.parametrize("host", [pinned, pageable])
def test_what_the_device_lets_pass_as_wrong_tokens(host):
    target, source = host(3), on_device(torch.ones(3))
    target.copy_(source, non_blocking=True)
    assert target.isnan().all()  # read too early
    device.current().synchronize()
    assert target.eq(1).all()
    with FakeStream():
        source.mul_(2)
    moved = torch.empty(3, device=CUDA)
    with (side := FakeStream()):
        moved.copy_(source)
    assert moved.clone().to(torch.device("cpu")).isnan().all()  # another stream's, and nobody waited
    side.synchronize()
    assert moved.to(torch.device("cpu")).eq(2).all()


@pytest.mark.parametrize("part", [slice(None), slice(2, 5)])
@pytest.mark.parametrize("host", [pinned, pageable])
def test_a_copy_to_the_host_is_there_and_one_from_it_waits_for_nobody(host, part):
    source = torch.arange(48.0).view(1, 2, 8, 3)
    away, back = host((1, 2, 8, 3)), torch.empty(1, 2, 8, 3, device=CUDA)
    carry(away[:, :, part], on_device(source)[:, :, part])
    assert torch.equal(away[:, :, part], source[:, :, part])
    device.waits.clear()
    carry(back[:, :, part], away[:, :, part])
    assert not device.waits
    assert torch.equal(back[:, :, part].to(torch.device("cpu")), source[:, :, part])


def test_marks_are_read_when_the_device_has_come_to_them():
    clock = clock_of(CUDA)
    marks = [clock.mark() for _ in range(3)]
    assert clock.times([(0, *marks[:2]), (3, *marks[1:])]) is NO_TIMES
    clock.times([(1, marks[2], clock.mark())], continued=True)
    (times,) = clock.drain()
    assert min(times.reserve_ns, times.append_ns, times.attend_ns) > 0
    assert clock.drain() == []


def test_several_threads_give_a_worker_work_that_runs_one_after_another(worker):
    order = []

    def given(number):
        return worker.submit(lambda: order.append((number, threading.get_ident())))

    with ThreadPoolExecutor(4) as pool:
        for handle in list(pool.map(given, range(32))):
            handle.result()
    assert sorted(number for number, _ in order) == list(range(32))
    assert len({thread for _, thread in order}) == 1


def test_work_is_behind_what_the_device_was_given_and_before_what_waits_for_it(worker):
    source, target = torch.empty(3, device=CUDA), torch.empty(3, device=CUDA)
    source.copy_(on_device(torch.ones(3)))
    handle = worker.submit(lambda: target.copy_(source))
    worker.wait()
    assert handle.result() is target
    assert target.clone().to(torch.device("cpu")).eq(1).all()


def test_work_that_fails_leaves_the_stream_to_others(worker):
    def failing():
        raise RuntimeError("no memory")

    handle = worker.submit(failing)
    for ask in (handle.check, handle.result):
        with pytest.raises(RuntimeError, match="no memory"):
            ask()
    assert worker.submit(lambda: 7).result() == 7


@pytest.mark.parametrize("disk_capacity", [0, 512])
def test_what_moves_and_is_read_beside_the_steps_lets_no_step_wait(disk_capacity, monkeypatch):
    """Tokens leave beside the steps, in parts of chunks; they are read back, each part behind the one before."""
    settings = {"fast_capacity": 40, "slow_capacity": 512, "background": True, "read_ahead": True}
    cache = Cache(strategy("hierarchical", disk_capacity=disk_capacity, **settings), device="cuda")
    monkeypatch.setattr(cache.backend, "wait", lambda: None)  # nothing is replaced that the books would miss
    cache.admit(Session(0, (Request(1),)))
    generator, written, read = torch.Generator().manual_seed(0), [], []
    device.waits.clear()
    for count in (25, *[5, 3, 1, 7] * 5):
        new = tokens(generator, 1, count), tokens(generator, 1, count)
        written.append(new)
        cache.append(*[[on_device(layer) for layer in each] for each in new])
        read.append([[piece.keys.clone() for _, piece in cache.sequence().pieces(layer)] for layer in range(2)])
    assert threading.get_ident() not in device.waits
    assert device.waits  # but their worker did
    assert isinstance(cache.sequence().stores[MAIN].keys[0], OnDevice)
    for number, layers in enumerate(read, start=1):
        for layer, pieces in enumerate(layers):
            expected = torch.cat([keys[layer] for keys, _ in written[:number]], 2)
            assert torch.equal(torch.cat([piece.to(torch.device("cpu")) for piece in pieces], 2), expected)
    cache.finish()


@pytest.mark.parametrize("is_attended", [True, False])
@pytest.mark.parametrize("num_prompt", [1024, 1100])  # whole chunks move, or the last one in part
def test_what_moves_to_the_host_in_a_step_lets_it_go_on_and_is_there_when_the_host_reads_it(num_prompt, is_attended):
    cache, generator = Cache(strategy("hierarchical"), device="cuda"), torch.Generator().manual_seed(0)
    cache.admit(Session(0, (Request(num_prompt),)))
    keys, values = (tokens(generator, 1, num_prompt + 2) for _ in range(2))
    device.waits.clear()
    for start, end in ((0, num_prompt), (num_prompt, num_prompt + 2)):
        cache.append(*[[on_device(layer[:, :, start:end]) for layer in each] for each in (keys, values)])
        assert not device.waits or start  # the step goes on; what comes beside an unfinished chunk is put there first
    sequence = cache.sequence()
    if is_attended:
        device.waits.clear()
        found = list(sequence.pieces(1))
        assert not device.waits or num_prompt % 1024
    else:
        found = [(None, *sequence.stores[HOST].pieces(1))]
        assert device.waits
    held = torch.cat([piece.keys.to(torch.device("cpu")) for _, piece in found], 2)
    assert torch.equal(held, keys[1][:, :, : held.shape[2]])
    assert held.shape[2] == num_prompt + 2 if is_attended else 0 < held.shape[2] < num_prompt


GROWING, MOVING = ("async", {"initial_capacity": 16}), ("hierarchical", {"fast_capacity": 40, "background": True})


@pytest.mark.parametrize(("name", "settings"), [GROWING, MOVING])
def test_several_caches_under_two_workers_keep_every_token(name, settings):
    generator = torch.Generator().manual_seed(0)
    given = [[(tokens(generator, 1, 7), tokens(generator, 1, 7)) for _ in range(12)] for _ in range(3)]

    async def filled(caches, id):
        for new in given[id]:
            await caches.update(id, *[[on_device(layer) for layer in each] for each in new])
        return await caches.get(id)

    async def all_filled():
        async with AsyncCaches(strategy(name, **settings), TINY, device="cuda", max_workers=2) as caches:
            return await asyncio.gather(*(filled(caches, id) for id in range(3)))

    for id, layers in enumerate(asyncio.run(all_filled())):
        for layer, pair in enumerate(layers):
            for which, held in enumerate(pair):
                expected = torch.cat([new[which][layer] for new in given[id]], 2)
                assert torch.equal(held.to(torch.device("cpu")), expected)


class SettledStorages(LiveStorages):
    """What work that is still to be done holds is no storage of a sequence's."""

    def __exit__(self, *raised):
        super().__exit__(*raised)
        for stream in FakeStream.all:
            stream.run()


@pytest.mark.parametrize("name", [name for name in STRATEGIES if not strategy(name).signals])
def test_no_strategy_mixes_tensors_of_two_places(name, monkeypatch):
    monkeypatch.setattr("tests.support.driven.LiveStorages", SettledStorages)
    cache, generator = Cache(strategy(name), device="cuda"), torch.Generator().manual_seed(0)
    cache.admit(Session(0, (Request(600),)))
    for count in (70, 1, 40, 1, 1):
        new = tokens(generator, 1, count), tokens(generator, 1, count)
        cache.append(*[[on_device(layer) for layer in each] for each in new])
        held = [piece.keys.clone() for _, piece in cache.sequence().pieces(0)]
        assert all(isinstance(keys, OnDevice) for keys in held)
    cache.finish()

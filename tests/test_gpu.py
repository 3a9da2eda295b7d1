"""The same code on a CUDA device: books, allocator and times."""

import pytest
import torch

from kvbench.backend.base import Booking
from kvbench.backend.busy import busy_ns
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.ledger import Ledger
from kvbench.model.geometry import KVGeometry
from kvbench.plan.ops import Append, Release, Reserve
from kvbench.runner.frames import steps_frame
from kvbench.runner.run import run
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.driven import Cache, tokens
from tests.support.gpu import DEVICE, on_cuda

pytestmark = pytest.mark.gpu
LOSSLESS = ("concat", "dynamic", "async", "chunked", "paged", "hierarchical", "adaptive")
LLAMA_LAYER = KVGeometry.uniform(num_layers=2, num_heads=32, num_kv_heads=8, head_dim=128, dtype="bfloat16")


@on_cuda
def test_allocated_bytes_equal_the_books():
    backend, ledger = (
        MeasuredBackend(Conditions(geometry=LLAMA_LAYER, device=DEVICE, attend=False)),
        Ledger(LLAMA_LAYER),
    )
    backend.prepare(512, 1024)
    before = torch.cuda.memory_allocated()
    ledger.open(0)
    backend.open(0)
    for plan in ((Reserve(0, 512),), (Append(0, 512),), (Reserve(0, 1024), Append(0, 1))):
        ledger.book(plan)
        backend.step(Booking(0, plan), 0)
        # 512 slots of a tensor are a multiple of the allocator's 512 bytes: it rounds nothing up.
        assert torch.cuda.memory_allocated() - before == ledger.allocated_bytes
    plan = (Release(0),)
    ledger.book(plan)
    backend.step(Booking(0, plan), 0)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_and_its_steps_have_device_times(name):
    backend = MeasuredBackend(Conditions(geometry=LLAMA_LAYER, device=DEVICE))
    requests = [Session(0, (Request(300, 40), Request(20, 10))), Session(0, (Request(700, 5),))]
    recorder = run(
        {name: strategy(name)}, requests, backend, num_repetitions=1, num_warmup=1, max_concurrency=2, budget_bytes=None
    )
    assert {row.outcome for row in recorder.requests} == {"completed"}
    steps = steps_frame(recorder)
    appended = steps[steps["num_tokens"] > 0]
    assert (appended["append_us"] > 0).all()
    assert (appended["attend_us"] > 0).all()


@on_cuda
def test_a_run_keeps_the_allocators_own_peaks():
    backend = MeasuredBackend(Conditions(geometry=LLAMA_LAYER, device=DEVICE))
    settings = {"num_repetitions": 1, "num_warmup": 1, "max_concurrency": 2, "budget_bytes": None}
    recorder = run({"dynamic": strategy("dynamic")}, [Session(0, (Request(300, 40),))], backend, **settings)
    assert {"allocator_allocated_bytes", "allocator_reserved_bytes"} <= set(recorder.allocator[0])


def test_copies_on_the_device_keep_the_tokens():
    backend = MeasuredBackend(Conditions(geometry=LLAMA_LAYER, device=DEVICE, attend=False))
    backend.open(0)
    keys = [torch.randn(1, 8, 100, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)]
    backend.carry_out(Reserve(0, 100), [], [])
    backend.carry_out(Append(0, 100), keys, keys)
    backend.carry_out(Reserve(0, 333), [], [])
    for layer in range(2):
        assert all(torch.equal(live, keys[layer]) for live in backend.sequence(0).read(layer)[0])


@pytest.mark.parametrize("name", LOSSLESS)
def test_storages_are_those_of_the_books_and_hold_every_token(name):
    """Each plan is checked to the byte by `Cache`; what runs in another stream is waited for where it is read."""
    generator = torch.Generator().manual_seed(0)
    changed = {"initial_capacity": 64} if name in ("dynamic", "async") else {}
    cache = Cache(strategy(name, **changed), device=DEVICE)
    cache.admit(Session(0, (Request(600),)))
    written = []
    for count in (300, *[1] * 40, 150, *[1] * 40):
        new = [[tensor.to(DEVICE) for tensor in tokens(generator, 1, count)] for _ in range(2)]
        cache.append(*new)
        written.append(new)
    for layer in range(2):
        keys, values, positions = cache.sequence().full_context(layer)
        for found, which in ((keys, 0), (values, 1)):
            assert torch.equal(found, torch.cat([new[which][layer] for new in written], 2))
        assert positions[0, 0].tolist() == list(range(530))
    cache.finish()


@on_cuda
@pytest.mark.parametrize("background", [False, True])
def test_what_lives_in_the_hosts_memory_is_pinned(background):
    cache = Cache(strategy("hierarchical", background=background), device=DEVICE)
    cache.admit(Session(0, (Request(3000),)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        cache.append(*[[tensor.to(DEVICE) for tensor in tokens(generator, 1, 1000)] for _ in range(2)])
    store = cache.sequence().stores["host"]
    assert store.num_used
    assert all(tensor.is_pinned() for chunks in store.chunks for chunk in chunks for tensor in chunk)


@on_cuda
def test_a_busy_device_is_seen_and_an_idle_one_is_not():
    matrix = torch.ones(2048, 2048, device=DEVICE)
    once, twice = (busy_ns(matrix.device, lambda: [matrix @ matrix for _ in range(count)]) for count in (10, 20))  # noqa: B023
    assert 0 < once < twice
    assert busy_ns(matrix.device, lambda: None) is None


@on_cuda
def test_a_run_tells_busy_time_and_what_stands_behind_it():
    backend = MeasuredBackend(Conditions(geometry=LLAMA_LAYER, device=DEVICE))
    settings = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 2, "budget_bytes": None}
    recorder = run({"dynamic": strategy("dynamic")}, [Session(0, (Request(300, 40),))], backend, **settings)
    assert all(recorder.facts["dynamic"][name] > 0 for name in ("busy_us", "busy_host_us", "busy_bytes"))
    assert backend.describe()["accelerator"]["l2_bytes"] > 0

"""The same code on a CUDA device: books, allocator and times."""

import pytest
import torch

from kvbench.backend.measured import Measured
from kvbench.frames import steps_frame
from kvbench.geometry import KVGeometry
from kvbench.ledger import Ledger
from kvbench.ops import Append, Release, Reserve
from kvbench.runner import run
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, strategy

pytestmark = pytest.mark.gpu
LLAMA_LAYER = KVGeometry(num_layers=2, num_heads=32, num_kv_heads=8, head_dim=128, dtype="bfloat16")


def test_allocated_bytes_equal_the_books():
    backend, ledger = Measured(geometry=LLAMA_LAYER, device="cuda", attend=False, seed=0), Ledger(LLAMA_LAYER)
    backend.prepare(512, 1024)
    before = torch.cuda.memory_allocated()
    ledger.open(0)
    backend.open(0)
    for plan in ((Reserve(0, 512),), (Append(0, 512),), (Reserve(0, 1024), Append(0, 1))):
        ledger.book(plan)
        backend.step(plan, 0, 0)
        # 512 slots of a tensor are a multiple of the allocator's 512 bytes: it rounds nothing up.
        assert torch.cuda.memory_allocated() - before == ledger.allocated_bytes
    plan = (Release(0),)
    ledger.book(plan)
    backend.step(plan, 0, 0)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_and_its_steps_have_device_times(name):
    backend = Measured(geometry=LLAMA_LAYER, device="cuda", attend=True, seed=0)
    requests = [Session(0, (Request(300, 40), Request(20, 10))), Session(0, (Request(700, 5),))]
    recorder = run(
        {name: strategy(name)}, requests, backend, num_repetitions=1, num_warmup=1, max_concurrency=2, budget_bytes=None
    )
    assert {row.outcome for row in recorder.requests} == {"completed"}
    steps = steps_frame(recorder)
    appended = steps[steps["num_tokens"] > 0]
    assert (appended["append_us"] > 0).all()
    assert (appended["attend_us"] > 0).all()
    assert {"allocator_allocated_bytes", "allocator_reserved_bytes"} <= set(recorder.allocator[0])


def test_copies_on_the_device_keep_the_tokens():
    backend = Measured(geometry=LLAMA_LAYER, device="cuda", attend=False, seed=0)
    backend.open(0)
    keys = [torch.randn(1, 8, 100, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    backend.carry_out(Reserve(0, 100), [], [])
    backend.carry_out(Append(0, 100), keys, keys)
    backend.carry_out(Reserve(0, 333), [], [])
    for layer in range(2):
        assert all(torch.equal(live, keys[layer]) for live in backend.sequence(0).read(layer)[0])

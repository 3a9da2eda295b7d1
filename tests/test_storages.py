"""What a strategy's tensors take of a modelled allocator: the ledger's bytes, and what the allocator keeps beside."""

import pytest

from kvbench.backend.allocator import CachingAllocator
from kvbench.backend.allocator.tensors import Storages
from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled
from kvbench.ledger import NO_RECEIPT, Ledger
from kvbench.model.geometry import KVGeometry
from kvbench.plan.ops import Append, Keep, Reserve, Rule
from kvbench.runner.recorder import STEP_FIELDS
from kvbench.runner.run import limits_of, run
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.machines import machine

# Two layers, one KV head of 64, float16: K of a layer is 128 bytes a slot, so that 4 slots fill 512 bytes exactly.
GEOMETRY = KVGeometry.uniform(num_layers=2, num_heads=1, num_kv_heads=1, head_dim=64, dtype="float16")


# A slot of a tensor is 2 KiB: 16,384 of them fill 32 MiB, more than a shared segment.
LARGE = KVGeometry.uniform(num_layers=8, num_heads=8, num_kv_heads=8, head_dim=128, dtype="float16")


def modelled(allocator, geometry=GEOMETRY):
    conditions = Conditions(geometry=geometry, hardware=machine(memory_bytes=10**12), cache_only=True)
    return Modelled(allocator=allocator).made(conditions)


def peaks_of(chosen, allocator, appends):
    backend = modelled(allocator, LARGE)
    requests = [Session(0, tuple(Request(count) for count in appends))]
    settings = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
    recorder = run({"it": chosen}, requests, backend, **settings)
    return recorder.allocator[0]


def follow(storages, ledger, *plan):
    for posting in (ledger.book(plan) or NO_RECEIPT).postings:
        storages.follow(posting)


def test_a_resize_replaces_one_tensor_after_another():
    ledger = Ledger(GEOMETRY)
    allocator = CachingAllocator(None, False)
    storages = Storages(allocator, ledger.costs, GEOMETRY, 1)
    ledger.open(0)
    for op in (Reserve(0, 8), Append(0, 8)):
        follow(storages, ledger, op)
    assert allocator.allocated_bytes == ledger.allocated_bytes == 4 * 1024
    allocator.reset_peaks()
    follow(storages, ledger, Reserve(0, 16))
    assert allocator.allocated_bytes == ledger.allocated_bytes == 4 * 2048
    # When the last of four tensors is replaced its old one is still there.
    assert allocator.peaks()["allocator_allocated_bytes"] == 4 * 2048 + 1024
    follow(storages, ledger, Keep(0, Rule(recent=4)), Reserve(0, 4))
    assert allocator.allocated_bytes == ledger.allocated_bytes == 4 * 512


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("allocator", ["caching", "expandable"])
def test_tensors_are_those_of_the_books(name, allocator):
    """Beside rounding of every tensor to 512 bytes, the allocator's peak is the ledger's; all is given back."""
    chosen = strategy(name)
    if chosen.signals:
        pytest.skip("attention must tell it something, which no model does")
    backend = modelled(allocator)
    requests = [Session(0, (Request(700, 40), Request(500, 40))), Session(0, (Request(900, 30),))]
    settings = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 2, "budget_bytes": None}
    recorder = run({name: chosen}, requests, backend, **settings)
    rows = recorder.steps()
    held = sum(rows[:, STEP_FIELDS.index(field)] for field in ("allocated_bytes", "transient_bytes", "workspace_bytes"))
    peak = recorder.allocator[0]["allocator_allocated_bytes"]
    limits = limits_of(requests, backend, 2, None)
    pools = sum(Ledger(GEOMETRY, areas=chosen.fitted(limits).areas).pool_bytes.values())
    if pools:
        assert peak >= pools
    else:
        assert held.max() <= peak + 512
        assert peak <= held.max() * 1.5 + 64 * 512
    assert recorder.allocator[0]["allocator_reserved_bytes"] >= peak


def test_concat_fragments_what_expandable_segments_do_not():
    """Each new tensor is a little larger than all that are free: the segments of the smaller ones are of no use."""
    appends = [16384] + [1024] * 16

    def reserved_share(name, allocator, **changed):
        found = peaks_of(strategy(name, **changed), allocator, appends)
        return found["allocator_reserved_bytes"] / found["allocator_allocated_bytes"]

    assert reserved_share("concat", "caching") > 1.5
    assert reserved_share("concat", "expandable") < 1.25
    assert reserved_share("static", "caching", max_seq_len=32768) == 1

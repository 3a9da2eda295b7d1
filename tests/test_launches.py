"""What a decode step gives a device: the counter by hand, and ceilings for each strategy."""

import pytest
import torch

from kvbench.api.study import experiment_of
from kvbench.backend.launches import DEVICE, Launches
from kvbench.model.geometry import KVGeometry
from kvbench.studies.base import Setting
from tests.support.catalogue import node_of, strategy
from tests.support.fake import Fake

GEOMETRY = KVGeometry.uniform(num_layers=4, num_heads=4, num_kv_heads=1, head_dim=128, dtype="bfloat16")

CEILINGS = {
    "dynamic": 4,
    "static": 4,
    "sinks": 4,
    "streaming": 4,
    "snapkv": 4,
    "compressed": 4,
    "concat": 6,
    "paged": 8,
    "fp8": 8,
    "chunked": 16,  # at four chunks
    "hierarchical": 24,
    "heavy_hitters": 24,
    "hierarchical_access": 38,
    "int8": 32,
    "int4": 32,
    "int2": 32,
}
"""Kernels of a decode step and layer after 4,000 tokens."""

COPIES = {"hierarchical": 14, "hierarchical_access": 18}
"""From the host's memory beside them; of the others, none."""

BYTES = {
    "dynamic": 1.01,
    "chunked": 1.05,
    "hierarchical": 1.05,
    "paged": 3.05,
    "fp8": 2.55,
    "int8": 3.7,
    "int4": 4.2,
    "int2": 4.4,
}
"""Read and written at most, over those of the context's keys and values."""


def counted(*names, **changed):
    node = node_of("experiment", "launches") | {"strategies": {name: {} for name in names}} | changed
    return experiment_of({"experiment": node, "trusted": []})


def setting():
    return Setting(backend=Fake(GEOMETRY), backend_of=Fake, num_repetitions=1, num_warmup=0, budget_bytes=None, seed=0)


def test_by_hand():
    one, other = (torch.empty(2, 100, dtype=torch.float32, device=DEVICE) for _ in range(2))
    index = torch.empty(10, dtype=torch.int64, device=DEVICE)
    host = torch.empty(100, dtype=torch.float32)
    with Launches() as found:
        one[:1].view(-1)  # what only describes is nothing
        torch.empty(5, device=DEVICE)
        host.add_(1)  # what the host does is nothing either
        assert (found.num_launches, found.num_bytes) == (0, 0)
        one.copy_(other)  # 800 read, 800 written
        one.mul_(other)  # 1,600 read, 800 written
        one.fill_(1.0)  # 800 written
        one.add(other[:, :1].expand(2, 100))  # 800 read, and 2 elements; 800 written
        one.view(-1).index_select(0, index)  # 80 of the index, 40 read, 40 written
        one.view(-1).index_copy_(0, index, other.view(-1)[:10])  # 80 of the index, 40 read, 40 written
        torch.add(one, other, out=one)  # 1,600 read, 800 written
        assert found.num_launches == 7
        assert found.num_bytes == 1600 + 2400 + 800 + 1608 + 160 + 160 + 2400
        torch.logsumexp(one, 1)
        assert found.num_launches == 16
        one[0].copy_(host)
        host.copy_(one[0], non_blocking=True)
        assert one[0].to("cpu", torch.float64).dtype == torch.float64
        assert (found.num_launches, found.num_copies, found.copied_bytes) == (16, 3, 1200)


def test_what_mixes_host_and_device_or_waits_for_a_value_is_refused():
    one = torch.zeros(4, device=DEVICE)
    with Launches():
        with pytest.raises(RuntimeError, match=r"on device cpu|same device"):
            one.add(torch.zeros(4))
        with pytest.raises((RuntimeError, NotImplementedError)):
            one.nonzero()
        with pytest.raises((RuntimeError, NotImplementedError)):
            one.sum().item()


@pytest.fixture(scope="module")
def table():
    return counted(*CEILINGS).table(Fake(GEOMETRY)).set_index("strategy")


@pytest.mark.parametrize("name", CEILINGS)
def test_no_strategy_launches_more_than_its_ceiling(name, table):
    row = table.loc[name]
    assert row["launches"] <= CEILINGS[name]
    assert row["copies"] == COPIES.get(name, 0)
    assert row["bytes_per_needed"] <= BYTES.get(name, 100)


def test_the_tables_rows_are_a_layers(table):
    # 4,000 tokens and those of the steps, K and V of 128 elements in two bytes; the queries and outputs are little.
    assert table.loc["dynamic", "device_bytes"] == pytest.approx(4003 * 512, rel=0.01)
    assert table.loc["concat", "device_bytes"] == pytest.approx(3 * 4003 * 512, rel=0.01)
    # Of the prompt, in steps of 1,024 at most, 2,976 moved when as many came after them; then half of 1,024 did.
    assert table.loc["hierarchical", "copied_bytes"] == 3488 * 512
    assert table.loc["heavy_hitters", "launches_a_step"] == 2  # positions to come, and where each head begins


def test_what_an_experiment_says():
    findings = counted("dynamic", "concat", "hierarchical", context_tokens=1500).run(setting())
    assert findings.summary["strategy"].tolist() == ["dynamic", "concat", "hierarchical"]
    fewest, most, copies = findings.sentences
    assert fewest.startswith("Fewest kernels a decode step and layer, 4, launch dynamic; most, ")
    assert most.startswith("Most bytes are read and written by concat: 3.01 times")
    assert copies.endswith("on top in hierarchical.")
    assert list(findings.charts) == ["launches"]


def test_each_strategy_of_the_experiment_is_one_of_kvbenchs():
    for name in node_of("experiment", "launches")["strategies"]:
        assert strategy(name) is not None

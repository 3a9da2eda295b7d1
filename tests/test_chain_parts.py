"""Chains: which parts go together, and that books and storages agree whatever they do."""

import numpy as np
import pytest
import torch
import yaml

from kvbench.configuration.errors import UsageError
from kvbench.configuration.targets import build
from kvbench.configuration.vet import vet_file
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.chain import Chain
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.concat import Concat
from kvbench.strategy.exact import Exact
from kvbench.strategy.recompute import Recompute
from kvbench.strategy.snapkv import SnapKV
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, node_of
from tests.support.driven import Cache, tokens
from tests.support.parts import dynamic, heavy, packing, paged, predictive, sinks, tiers, windows
from tests.test_contract import check

ALONE = {
    "one part": ([dynamic()], "two strategies or three"),
    "none": ([], "two strategies or three"),
    "no list": (dynamic(), "two strategies or three"),
    "the same": ([sinks(), heavy()], "sinks and heavy_hitters both evict"),
    "static, dynamic": (
        [Static(max_seq_len=40), dynamic(), packing()],
        "static and dynamic both decide how capacity grows",
    ),
    "two placements": ([packing(), tiers()], "quantized and hierarchical both decide where tokens go"),
    "recompute": ([Recompute(), packing()], "recompute does not do one of these alone"),
    "a chain": ([Chain(parts=[dynamic(), tiers()]), sinks()], "chain does not do one of these alone"),
    "no strategy": ([dynamic(), "sinks"], "a part of a chain decides"),
}


@pytest.mark.parametrize(("parts", "words"), ALONE.values(), ids=ALONE)
def test_what_is_no_chain(parts, words):
    with pytest.raises(ValueError, match=words):
        Chain(parts=parts)


REFUSED = {
    (heavy, packing): "it keeps positions and mass beside each slot, which packed slots do not",
    (
        lambda: SnapKV(budget=24, window=8, kernel_size=3, pooling="max"),
        packing,
    ): "positions and votes beside each slot",
    (lambda: Compressed(kept_fraction=0.5, interval=16), packing): "packed groups leave whole, the oldest first",
    (windows, packing): "the one out of sight, the other into few bits",
    (sinks, tiers): "nothing is left for a slow tier",
    (heavy, tiers): "nothing is left for a slow tier",
    (lambda: SnapKV(budget=24, window=8, kernel_size=3, pooling="max"), tiers): "chunks of a slow tier keep no votes",
    (lambda: Compressed(kept_fraction=0.5, interval=16), tiers): "chunks lose their oldest tokens only",
    (windows, tiers): "the one out of sight, the other to a slow tier",
    (lambda: Static(max_seq_len=40), tiers): "hierarchical reserves what it needs on the device at once already",
    (lambda: Chunked(chunk_tokens=16), tiers): "left half empty at the front",
    (lambda: Chunked(chunk_tokens=16), sinks): "left half empty at the front",
    (paged, packing): "the few that are not packed fill no pool",
    (paged, sinks): "these are the sinks",
    (paged, heavy): "it evicts single tokens from everywhere",
    (paged, windows): "nothing to take from a pool",
    (dynamic, lambda: Compressed(kept_fraction=0.5, interval=16)): "compressed decides itself how its capacity grows",
    (
        dynamic,
        lambda: SnapKV(budget=24, window=8, kernel_size=3, pooling="max"),
    ): "snapkv decides itself how its capacity grows",
    (dynamic, lambda: tiers(background=True)): "set background to false",
    (lambda: dynamic(30), tiers): "dynamic grows to 30 tokens, and 40 are needed",
    (
        lambda: Ahead(initial_capacity=8, growth_factor=1.5, max_capacity=600, round_to=1, start_at=0.9),
        tiers,
    ): "only contiguous slots that none leaves can grow beside the steps",
}


@pytest.mark.parametrize(("parts", "words"), REFUSED.items(), ids=list(REFUSED.values()))
def test_what_does_not_go_together(parts, words):
    for order in (parts, parts[::-1]):
        with pytest.raises(ValueError, match=words):
            Chain(parts=[make() for make in order])


TOGETHER = {
    "sinks, quantized": (lambda: sinks(60), lambda: packing(13)),
    "dynamic, sinks, quantized": (dynamic, lambda: sinks(60), lambda: packing(13)),
    "paged, hierarchical": (paged, tiers),
    "paged, hierarchical with files": (paged, lambda: tiers(disk_capacity=512)),
    "dynamic, hierarchical": (dynamic, tiers),
    "dynamic, hierarchical by access": (dynamic, lambda: tiers(eviction="access")),
    "concat, hierarchical": (Concat, tiers),
    "predictive, quantized": (predictive, packing),
    "exact, quantized": (lambda: Exact(round_to=1), packing),
    "dynamic, sinks": (dynamic, sinks),
    "dynamic, heavy_hitters": (dynamic, heavy),
    "dynamic, streaming": (dynamic, windows),
}


@pytest.mark.parametrize("parts", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_is_what_was_written(parts, seed):
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    chosen = Chain(parts=[make() for make in parts])
    counts = [int(rng.integers(1, 80)) if rng.random() < 0.3 else 1 for _ in range(40)]
    while sum(counts) > 550:
        counts.pop()
    cache = Cache(chosen, 1 + seed % 2, attend=bool(chosen.signals))
    cache.admit(Session(0, tuple(Request(count) for count in counts)))
    written = [[], []]
    for count in counts:
        new = tokens(generator, cache.num_rows, count), tokens(generator, cache.num_rows, count)
        for all_of, added in zip(written, new, strict=True):
            all_of.append(added)
        cache.append(*new)
        for layer in range(TINY.num_layers):
            check(cache, layer, [torch.cat([each[layer] for each in all_of], dim=2) for all_of in written])
    cache.finish()


def test_parts_in_a_file_are_strategies_of_kvbench_or_of_a_package_that_was_named(tmp_path):
    node = node_of("strategy", "sinks_int4")
    for target in ("os.system", "kvbench.workload.arrivals.Poisson", "kvbench.strategy.base.rounded_up"):
        node["parts"][1] = {"_target_": target}
        with pytest.raises(UsageError, match=r"strategy\.mine\.parts\[1\]: unknown target"):
            build(node, "strategy", "strategy.mine")
        path = tmp_path / "mine.yaml"
        path.write_text("# @package strategy.mine\n" + yaml.safe_dump(node), encoding="utf-8")
        with pytest.raises(UsageError, match="unknown target"):
            vet_file(path, "strategy", ())
    with pytest.raises(UsageError, match=r"strategy\.mine\.parts\[0\]: window is a positive integer"):
        build({**node, "parts": [node["parts"][0] | {"window": 0}]}, "strategy", "strategy.mine")

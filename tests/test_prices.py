"""Prices of whole models by hand, on machines of round figures; and that tables say what kernels do."""

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvbench.configuration.catalogue import file_of
from kvbench.configuration.model import model_of
from kvbench.model.geometry import KVGeometry, geometry_in
from kvbench.model.parallel import Parallel
from kvbench.model.ranks import rank_of
from kvbench.timing import iteration
from kvbench.timing.iteration import iteration_of, node_tokens
from kvbench.timing.kernels import kernels_of
from kvbench.timing.prices import (
    DECODE_UNIT,
    LINEAR,
    NODES,
    PREFILL,
    SEQUENCES,
    SIZES,
    attention_ps,
    decode_ps,
    mixed_ps,
    node_of,
    pair_price,
    sized_ps,
    units_seen,
)
from kvbench.timing.pricing import prices_of
from kvbench.timing.shapes import AttentionShape, Factors
from kvbench.timing.work import Exchanged, Work, work_of
from tests.support.machines import GEOMETRY, WORK, machine

MACHINE = machine(step_s=1e-3)
PS = 1e12


class RoundKernels:
    """Each kernel takes 1 ps a byte that it reads or writes; attention of prompts 1 ps for 1,000 operations after 7 ns,
    of a decode step 3 ns more a layer and sequence; an exchange 5 ns more. Numbers have 2 bytes."""

    def product_s(self, m, n, k, dtype, *, converts):
        assert not converts
        return 2e-12 * (n * k + m * n + m * k)

    def experts_s(self, num_tokens, shape):
        touched = shape.num_experts * (1 - (1 - shape.top_k / shape.num_experts) ** num_tokens)
        return 2e-12 * touched * 3 * shape.hidden * shape.intermediate

    def prefill_s(self, new, before, shape, prompts=1):
        pairs = new * before + new * (new + 1) / 2
        if shape.window:
            over, hidden = np.maximum(new + before - shape.window, 0), np.maximum(before - shape.window, 0)
            pairs = pairs - (over * (over + 1) - hidden * (hidden + 1)) / 2
        written = new * shape.num_kv_heads * (shape.key_dim + shape.value_dim) * 2 / 64e9
        return 7e-9 + written + 1e-15 * pairs * 2 * (shape.key_dim + shape.value_dim) * shape.num_heads

    def mixed_terms(self, batch, shape):
        fixed, token = self.decode_terms(batch, shape)
        return 2 * fixed, 3 * token

    def decode_terms(self, batch, shape):
        slot_s = 2e-12 * shape.num_kv_heads * (shape.key_dim + shape.value_dim)
        return 3e-9 * batch, np.full(batch.shape, slot_s)

    def traffic_s(self, num_bytes):
        return 1e-12 * num_bytes

    def exchange_s(self, kind, num_bytes, ranks):
        return 5e-9 + 1e-12 * num_bytes


@pytest.fixture
def by_hand(monkeypatch):
    """Kernels of round figures for every machine."""
    monkeypatch.setattr(iteration, "kernels_of", lambda hardware: RoundKernels())
    iteration._iteration.cache_clear()
    yield
    iteration._iteration.cache_clear()


def model(name):
    return model_of({"model": yaml.safe_load(file_of("model", name).read_text(encoding="utf-8")), "dtype": None})


def work(name):
    made = model(name)
    return work_of(geometry_in(made), made, made)


@pytest.mark.usefixtures("by_hand")
def test_a_decode_step_of_llama_by_hand():
    prices = prices_of(MACHINE, work("llama3_8b"))
    batch, context = 8, 1_000
    # Fused matrices of a layer, and the head's: all but the embedding of 8.03 billion parameters, which is not read.
    body = 32 * (4096 * 6144 + 4096 * 4096 + 4096 * 28672 + 14336 * 4096)
    assert body + 2 * 4096 * 128256 + 65 * 4096 == 8_030_261_248
    # A product reads its inputs and writes its outputs, of 2 bytes; between products norms, the turning of 40 heads
    # and the feed-forward's gate read and write 65 · 4 · 4096, 32 · 2 · 40 · 128 and 32 · 3 · 14336 numbers, and the
    # embedding's row two of 4096.
    ends = 32 * (4096 + 6144 + 4096 + 4096 + 4096 + 28672 + 14336 + 4096)
    between = 65 * 4 * 4096 + 32 * 2 * 40 * 128 + 32 * 3 * 14336 + 2 * 4096
    assert sized_ps(LINEAR, batch, prices.tables) == pytest.approx(2 * body + batch * 2 * (ends + between), abs=20)
    # Of a sequence's logits 10 bytes pass by, beside the head.
    head = 2 * 4096 * 128256 + batch * (2 * (4096 + 128256) + 10 * 128256)
    assert sized_ps(SEQUENCES, batch, prices.tables) == pytest.approx(head, abs=20)
    attended = decode_ps(batch, batch * units_seen(context, prices), prices.tables)
    assert attended == batch * (context * 131_072 + 32 * 3_000)
    beside = mixed_ps(batch, batch * units_seen(context, prices), prices.tables)
    assert beside == batch * (3 * context * 131_072 + 2 * 32 * 3_000)
    assert (prices.write_ps, prices.step_ps) == (2_048_000, 10**9)  # 131,072 bytes at 64 GB/s


@pytest.mark.usefixtures("by_hand")
def test_a_prompt_of_llama_by_hand():
    prices = prices_of(MACHINE, work("llama3_8b"))
    new, before = 512, 1_536
    body = 32 * (4096 * 6144 + 4096 * 4096 + 4096 * 28672 + 14336 * 4096)
    ends = 32 * (4096 + 6144 + 4096 + 4096 + 4096 + 28672 + 14336 + 4096)
    between = 65 * 4 * 4096 + 32 * 2 * 40 * 128 + 32 * 3 * 14336 + 2 * 4096
    assert sized_ps(LINEAR, new, prices.tables) == pytest.approx(2 * body + new * 2 * (ends + between), abs=20)
    # One row alone gets logits.
    head = 2 * 4096 * 128256 + 2 * (4096 + 128256) + 10 * 128256
    assert sized_ps(SEQUENCES, 1, prices.tables) == pytest.approx(head, abs=20)
    # Each pair of query and key: a product and a sum of 128 in 32 heads and layers.
    pairs = 512 * 1_536 + 512 * 513 // 2
    attention = pairs * 2 * (128 + 128) * 32 * 32 / 1e3
    assert attention_ps(new, before, prices, prices.tables) == pytest.approx(attention, rel=1e-5)
    assert attention_ps(new, before, prices, prices.tables) + new * prices.write_ps == pytest.approx(
        attention + 512 * 2_048_000, rel=1e-5
    )
    assert prices.prompt_ps == 32 * 7_000  # of all prompts of an iteration


@pytest.mark.usefixtures("by_hand")
def test_a_mixture_reads_the_experts_that_its_tokens_touch():
    spent_s = iteration_of(MACHINE, work("qwen3_30b_a3b")).tokens["experts"]
    # Of 128 experts in each of 48 layers a token takes 8, of three matrices of 2048 by 768.
    expert = 3 * 2048 * 768 * 2
    for num_tokens, touched in ((1, 8), (2, 8 + 8 * 120 / 128), (10**4, 128)):
        assert spent_s[num_tokens] * PS == pytest.approx(48 * touched * expert, rel=1e-9)
    assert spent_s[0] == 0


@pytest.mark.usefixtures("by_hand")
def test_a_ranks_share_of_experts_sees_the_tokens_of_all_replicas():
    made = model("qwen3_30b_a3b")
    parallel = Parallel(data=8, expert=8)
    rank = rank_of(made, parallel)
    own = work_of(geometry_in(rank), rank, made, parallel)
    (routed,) = own.tokens.experts
    # 16 of 128 experts, of whose a token takes 8 · 16 / 128 in the mean; 8 replicas send theirs.
    assert (routed.shape.num_experts, routed.shape.top_k, routed.sources) == (16, 1, 8)
    touched = 16 * (1 - (1 - 1 / 16) ** (3 * 8))
    spent = iteration_of(MACHINE, own).tokens
    assert spent["experts"][3] * PS == pytest.approx(48 * touched * 3 * 2048 * 768 * 2, rel=1e-9)
    # There and back, each token's 2048 numbers to 8 experts.
    assert own.tokens.exchanged == (Exchanged("all_to_all", 2 * 48, 8 * 2048 * 2, 8),)
    assert spent["exchange"][3] == pytest.approx(96 * (5e-9 + 3 * 32_768e-12))


@pytest.mark.usefixtures("by_hand")
def test_windows_see_their_last_tokens_in_steps_and_in_prompts():
    prices = prices_of(MACHINE, work("gpt_oss_20b"))
    window, full = prices.sights
    assert (window.reach, window.weight, full.weight) == (128, 1, 1)  # 12 layers each, alike
    for num_tokens, seen in ((100, 200), (128, 256), (1_000, 1_128)):
        assert units_seen(num_tokens, prices) == seen
        # K and V of 8 heads of 64 in 12 layers, 2 bytes each.
        assert decode_ps(1, seen, prices.tables) == seen * 12 * 2 * 8 * 64 * 2 + 24 * 3_000
    pairs = 2_048 * 2_049 // 2 + 128 * 129 // 2 + (2_048 - 128) * 128
    found = attention_ps(2_048, 0, prices, prices.tables)
    assert found == pytest.approx(pairs * 2 * (64 + 64) * 64 * 12 / 1e3, rel=1e-4)


@pytest.mark.usefixtures("by_hand")
def test_slots_of_several_layers_are_weighed_by_what_they_take():
    prices = prices_of(MACHINE, work("gemma3_27b"))
    window, full = prices.sights
    assert (window.weight, full.weight) == (26, 5)  # of 52 and 10 layers
    slot_ps = 2 * 16 * 128 * 2  # of one layer
    assert units_seen(1, prices) * prices.tables[DECODE_UNIT, 4] == pytest.approx(62 * slot_ps, rel=1e-3)


def test_beyond_a_table_each_token_more_adds_as_much():
    tables = prices_of(machine(), WORK).tables
    at, half = tables[LINEAR, SIZES], tables[LINEAR, SIZES // 2]
    assert sized_ps(LINEAR, SIZES, tables) == at
    assert sized_ps(LINEAR, SIZES + SIZES // 2, tables) == pytest.approx(2 * at - half, abs=SIZES)
    assert [sized_ps(row, 0, tables) for row in (LINEAR, SEQUENCES)] == [0, 0]
    assert (np.diff(tables[[LINEAR, SEQUENCES]]) >= 0).all()


def test_nodes_are_lengths():
    for node, tokens in enumerate(node_tokens().tolist()):
        assert node_of(tokens)[:2] == (node, 0)
    assert node_of(17) == (16, 1, 1)
    assert node_of(10**9) == (127, 0, 0)


LENGTHS = st.integers(0, NODES - 1).map(lambda node: int(node_tokens()[node]))


@given(LENGTHS.filter(bool), LENGTHS, st.sampled_from([0, 7, 1_024]))
def test_attention_of_prompts_is_what_kernels_say(new, before, window):
    """At the lengths that have a price of their own; the writing of K and V, which kernels do, is a price by itself."""
    geometry = GEOMETRY
    if window:
        sizes = {"num_layers": 3, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "dtype": "float16"}
        geometry = KVGeometry.uniform(**sizes, num_window_layers=2, window_tokens=window)
    prices = prices_of(MACHINE, WORK._replace(geometry=geometry))
    wanted_s = sum(
        group.num_layers
        * kernels_of(MACHINE).prefill_s(
            new, before, AttentionShape(2, 1, 8, 8, "float16", "float16", group.tokens or 0)
        )
        for group in geometry.groups
    )
    found = prices.prompt_ps + attention_ps(new, before, prices, prices.tables) + new * prices.write_ps
    assert found / PS == pytest.approx(float(wanted_s), rel=1e-3)


@given(st.integers(1, 300_000), st.integers(0, 300_000))
def test_between_lengths_a_pair_costs_between_theirs(new, before):
    tables = prices_of(MACHINE, WORK).tables
    (node, rest, _), (beside, more, _) = node_of(new), node_of(before)
    ends = [
        tables[PREFILL, min(node + i, NODES - 1) * NODES + min(beside + j, NODES - 1)]
        for i in range(1 + (rest > 0))
        for j in range(1 + (more > 0))
    ]
    assert min(ends) - 2 <= pair_price(new, before, 0, tables) <= max(ends)


@pytest.mark.usefixtures("by_hand")
def test_a_factor_multiplies_its_kind_of_work_alone():
    own = work("qwen3_30b_a3b")
    plain, more = (
        prices_of(MACHINE, own, factors=factors) for factors in (Factors(), Factors(decode=2.0, prefill=3.0, host=4.0))
    )
    assert (more.tables[[LINEAR, SEQUENCES]] == plain.tables[[LINEAR, SEQUENCES]]).all()
    assert decode_ps(4, 900, more.tables) == 2 * decode_ps(4, 900, plain.tables)
    assert more.tables[PREFILL] == pytest.approx(3 * plain.tables[PREFILL], abs=3)
    assert more.step_ps == 4 * plain.step_ps
    products = prices_of(MACHINE, own, factors=Factors(products=2.0)).tables[LINEAR, 1]
    spent = iteration_of(MACHINE, own).tokens
    assert products - plain.tables[LINEAR, 1] == pytest.approx(spent["products"][1] * PS, abs=2)


def test_the_cache_alone_has_no_tables():
    prices = prices_of(machine(), Work(GEOMETRY))
    assert not prices.tables.any()
    assert (prices.sights[0].read_ps, prices.sights[0].pair_ps) == (1_000, 1_000)
    assert (prices.write_ps, prices.state_ps, prices.unit_bytes) == (1_000, 0, 64)
    assert (prices.copy_ps, prices.swap_ps) == (2_000, 10_000)
    assert prices.storage_ps == 4 * (9_000 + 1_000)  # K and V of two layers
    assert prices_of(machine(memory_efficiency=0.5), Work(GEOMETRY)).copy_ps == 4_000

"""What a rank holds: heads, states, latents, layers, experts and vocabulary, by hand."""

from dataclasses import replace

import pytest

from kvbench.model.parallel import Parallel
from kvbench.model.ranks import rank_of, stage_layers
from kvbench.model.weights import WeightPart
from tests.support.engine_models import attention, latent, model, plain, qwen3_5_27b

LLAMA = plain(80, 64, 8, 128)


@pytest.mark.parametrize(("tensor", "heads", "kv_heads"), [(1, 64, 8), (4, 16, 2), (8, 8, 1), (16, 4, 1)])
def test_heads_divide_and_kv_heads_are_repeated(tensor, heads, kv_heads):
    (group,) = rank_of(LLAMA, Parallel(tensor=tensor)).groups
    assert (group.num_heads, group.num_kv_heads, group.num_layers) == (heads, kv_heads, 80)
    assert group.token_bytes == 80 * 2 * kv_heads * 128 * 2


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        (Parallel(tensor=6), r"parallel\.tensor divides the 64 heads of tried, got 6"),
        (Parallel(pipeline=81), r"parallel\.pipeline is at most the 80 layers of tried, got 81"),
        (
            Parallel(tensor=4, expert=3),
            r"parallel\.expert divides the ranks of a stage, tensor times data, here 4, got 3",
        ),
        (
            Parallel(tensor=16, decode_context=4),
            r"divides the 2 tensor ranks that hold the same KV heads of tried, got 4",
        ),
    ],
)
def test_what_does_not_divide_is_refused(parallel, message):
    with pytest.raises(ValueError, match=message):
        rank_of(LLAMA, parallel)


def test_kv_heads_that_neither_divide_nor_repeat_are_refused():
    with pytest.raises(ValueError, match=r"the 10 KV heads of tried, or is a multiple of them, got 4"):
        rank_of(plain(40, 40, 10, 128), Parallel(tensor=4))


def test_ideally_nothing_is_refused_for_its_heads():
    (group,) = rank_of(plain(40, 40, 10, 128), Parallel(tensor=4), "ideal").groups
    assert (group.num_heads, group.num_kv_heads) == (12, 3)
    (group,) = rank_of(plain(32, 71, 1, 64), Parallel(tensor=2), "ideal").groups
    assert (group.num_heads, group.num_kv_heads) == (36, 1)


def test_latents_and_their_indexers_lie_on_every_rank():
    whole = latent(61, index_bytes=132)
    rank = rank_of(whole, Parallel(tensor=8, decode_context=8))
    assert rank.bytes_per_token == whole.bytes_per_token == 61 * (1_152 + 132)
    assert rank.groups[0].num_heads == 16


def test_states_divide_by_rows():
    whole, rank = qwen3_5_27b(), rank_of(qwen3_5_27b(), Parallel(tensor=2))
    assert rank == replace(qwen3_5_27b(ranks=2), max_tokens=None)
    assert rank.state_bytes * 2 == whole.state_bytes
    with pytest.raises(ValueError, match=r"heads of tried, got 5"):
        rank_of(qwen3_5_27b(), Parallel(tensor=5))


def test_stages_before_the_last_have_the_layers_that_are_left_over():
    assert stage_layers(61, 4) == [15, 15, 16, 15]
    assert stage_layers(62, 4) == [15, 16, 16, 15]
    assert stage_layers(63, 4) == [16, 16, 16, 15]
    assert stage_layers(62, 4, "ideal") == [16, 16, 15, 15]


def test_a_stage_counts_its_layers_from_0_and_most_counts():
    rank = rank_of(plain(7, 2, 2, 64), Parallel(pipeline=2))
    assert (rank.num_layers, rank.groups[0].layers) == (4, (0, 1, 2, 3))


def weighed(*, tied):
    """Two layers of everything that divides in its own way."""
    parts = [
        WeightPart(name="embedding", kind="embedding", num_parameters=100 * 8),
        WeightPart(name="attention", kind="body", num_parameters=640, layers=(0, 1)),
        WeightPart(name="kv", kind="body", num_parameters=160, layers=(0, 1), split="kv_heads"),
        WeightPart(name="norms", kind="body", num_parameters=16, layers=(0, 1), split="replicated"),
        WeightPart(name="experts", kind="experts", num_parameters=96, layers=(1,), num_experts=10, num_active=2),
        WeightPart(name="norms", kind="body", num_parameters=8, split="replicated"),
    ]
    if not tied:
        parts.append(WeightPart(name="head", kind="head", num_parameters=100 * 8))
    return replace(model(attention((0, 1), 8, 2, 4)), weights=tuple(parts), vocab_size=100, hidden_size=8)


def counts(rank):
    found = {}
    for part in rank.weights:
        found[part.name] = found.get(part.name, 0) + part.total
    return found


def test_parameters_divide_by_what_they_are():
    rank = counts(rank_of(weighed(tied=False), Parallel(tensor=4)))
    # 100 rows padded to 128, 32 a rank; one of two KV heads on each rank.
    assert rank == {
        "embedding": 32 * 8,
        "attention": 2 * 160,
        "kv": 2 * 80,
        "norms": 2 * 16 + 8,
        "experts": 10 * 24,
        "head": 32 * 8,
    }


def test_experts_are_divided_whole():
    parts = {part.name: part for part in rank_of(weighed(tied=True), Parallel(tensor=4, expert=4)).weights}
    assert (parts["experts"].num_experts, parts["experts"].num_parameters) == (3, 96)
    parts = {part.name: part for part in rank_of(weighed(tied=True), Parallel(tensor=4, expert=2)).weights}
    assert (parts["experts"].num_experts, parts["experts"].num_parameters) == (5, 48)
    parts = {part.name: part for part in rank_of(weighed(tied=True), Parallel(tensor=2, data=4, expert=8)).weights}
    assert (parts["experts"].num_experts, parts["experts"].num_parameters) == (2, 96)
    with pytest.raises(ValueError, match=r"at most the 10 experts of tried, got 16"):
        rank_of(weighed(tied=True), Parallel(tensor=2, data=8, expert=16))


def test_the_embedding_is_with_the_first_stage_and_the_head_with_the_last():
    last = counts(rank_of(weighed(tied=False), Parallel(pipeline=2)))
    assert last == {"attention": 640, "kv": 160, "norms": 24, "experts": 960, "head": 128 * 8}
    tied = counts(rank_of(weighed(tied=True), Parallel(pipeline=2)))
    assert tied == {"attention": 640, "kv": 160, "norms": 24, "experts": 960, "embedding": 128 * 8}


def test_one_rank_is_the_whole():
    whole = weighed(tied=False)
    assert rank_of(whole, Parallel(), "ideal") == whole

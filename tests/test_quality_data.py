"""K, V and queries to probe with: the structure that is promised is there, and a recorded file is checked."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from kvbench.model.geometry import KVGeometry
from kvbench.quality.recorded import KEY, RecordingError, read, write
from kvbench.quality.sample import ExactAttention
from kvbench.quality.structured import Structure, needle_starts, structured

GEOMETRY = KVGeometry.uniform(num_layers=1, num_heads=8, num_kv_heads=4, head_dim=128, dtype="float32", name="small")
TOKENS = 1000


@pytest.fixture(scope="module")
def sample():
    return structured(GEOMETRY, TOKENS, 0)


@pytest.fixture(scope="module")
def mass(sample):
    """Of 20 queries: the mean of attention by distance, [20, 8 heads, tokens], and the positions."""
    exact = ExactAttention(sample)
    positions = range(600, 1000, 20)
    return positions, [exact.at(position).weights.flatten(0, 2) for position in positions]


def test_its_shapes_and_seed(sample):
    assert sample.keys.shape == sample.values.shape == (1, 4, TOKENS, 128)
    assert sample.queries.shape == (1, 8, TOKENS, 128)
    assert torch.equal(sample.keys, structured(GEOMETRY, TOKENS, 0).keys)
    assert not torch.equal(sample.keys, structured(GEOMETRY, TOKENS, 1).keys)


def test_heavy_channels_are_few_large_and_nearly_constant(sample):
    means, spreads = sample.keys[0].mean(dim=1), sample.keys[0].std(dim=1)
    heavy = means.abs() > 5
    assert heavy.sum(dim=1).tolist() == [4] * 4  # 128 / 32
    assert (spreads[heavy] / means[heavy].abs()).mean() == pytest.approx(0.05, rel=0.1)
    assert spreads[~heavy].mean() == pytest.approx(1, abs=0.15)
    assert len({tuple(row.nonzero().flatten().tolist()) for row in heavy}) == 4  # each head has its own


def test_sinks_get_much_of_the_attention_and_say_little(sample, mass):
    shares = torch.stack([weights[:, :4].sum(dim=1) for weights in mass[1]])
    assert 0.25 < shares.mean() < 0.5
    norms = sample.values[0].norm(dim=2)
    assert norms[:, :4].mean() < 0.2 * norms[:, 4:].mean()
    assert (sample.keys[0, :, :4].norm(dim=2) < sample.keys[0, :, 4:].norm(dim=2).mean(dim=1, keepdim=True)).all()


def test_recent_tokens_get_more_attention(mass):
    positions, found = mass

    def at(first, last):
        return torch.stack(
            [
                weights[:, position - last : position - first + 1].mean()
                for position, weights in zip(positions, found, strict=True)
            ]
        ).mean()

    assert at(0, 9) > 2 * at(10, 29) > 4 * at(60, 400)
    recent = torch.stack([weights[:, -64:].sum(dim=1).mean() for weights in found]).mean()
    assert 0.2 < recent < 0.5


def test_neighbours_resemble_each_other(sample):
    keys = sample.keys[0]
    keys = keys - keys.mean(dim=1, keepdim=True)

    def likeness(distance):
        return torch.cosine_similarity(keys[:, 10:-distance], keys[:, 10 + distance :], dim=2).mean().item()

    assert likeness(1) == pytest.approx(0.95, abs=0.06)
    assert likeness(20) == pytest.approx(0.95**20, abs=0.1)
    assert likeness(1) > likeness(5) > likeness(20) > likeness(200) - 0.05


def test_a_few_others_are_looked_at_much_by_all(mass):
    far = torch.stack([weights[:, 4:500] for weights in mass[1]]).mean(dim=0)
    top = far.topk(10, dim=1).values  # 2 % of them
    assert (top.mean(dim=1) > 8 * far.mean(dim=1)).all()


def test_needles_are_found_by_their_queries_and_by_no_other(sample, mass):
    assert [needle.depth for needle in sample.needles] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert [needle.start for needle in sample.needles] == [100, 299, 498, 697, 896]  # shares of 996
    for needle in sample.needles:
        queries = needle.queries[0].view(4, 2, 128)
        weights = torch.softmax(queries @ sample.keys[0].transpose(1, 2) / math.sqrt(128), dim=2)
        there = slice(needle.start, needle.start + needle.num_tokens)
        assert (weights[:, :, there].sum(dim=2) > 0.8).all()
        values = sample.values[0, :, there]
        assert torch.equal(values, values[:, :1].expand_as(values))
    before = torch.stack([weights[:, 498:502].sum(dim=1) for weights in mass[1]])
    assert before.mean() < 0.02


def test_needles_are_as_long_as_any(sample):
    starts = [needle.start + offset for needle in sample.needles for offset in range(4)]
    for tensor in (sample.keys[0], sample.values[0]):
        norms = (tensor - tensor.mean(dim=1, keepdim=True)).norm(dim=2)  # without heavy channels, which are all alike
        assert norms[:, starts].mean() == pytest.approx(norms[:, 4:].mean().item(), rel=0.05)


def test_needles_are_left_out_where_they_have_no_room():
    structure = Structure()
    assert needle_starts(20, structure) == []  # 4 sinks and 5 needles of 4 tokens are 24
    assert needle_starts(40, structure) == [4, 11, 18, 25, 32]  # 36 times 0.1 is 3.6: behind the sinks
    assert structured(GEOMETRY, 20, 0).needles == ()
    thin = KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, dtype="float32")
    assert structured(thin, TOKENS, 0).needles == ()
    with pytest.raises(ValueError, match="head_dim of at least 8, got 4"):
        structured(KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=4, dtype="float32"), 10, 0)


def test_depths_are_in_order():
    with pytest.raises(ValueError, match="from 0 to 1, in order"):
        Structure(depths=(0.5, 0.1))


SMALL = KVGeometry.uniform(num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float32", name="small")


def tensors(tokens=10, **changed):
    generator = torch.Generator().manual_seed(0)
    made = {
        name: torch.randn(2, heads, tokens, 8, generator=generator)
        for name, heads in (("keys", 2), ("values", 2), ("queries", 4))
    }
    return {name: tensor for name, tensor in (made | changed).items() if tensor is not None}


def saved(path, made, about=None):
    save_file(made, path, {KEY: json.dumps({"version": 1} if about is None else about)})
    return path


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "deep" / "kv.safetensors"
    made = tensors()
    write(path, **made, about={"model": "small", "text": "a page"})
    assert [each.name for each in path.parent.iterdir()] == ["kv.safetensors"]
    sample = read(path, SMALL, 7, 0)
    for name, tensor in made.items():
        assert torch.equal(getattr(sample, name), tensor[:, :, :7])
    assert sample.needles == ()
    assert sample.about == "K and V recorded in kv.safetensors, model small, text a page"
    assert read(path, SMALL, 4096, 0).num_tokens == 10


def test_missing_queries_are_random_and_it_is_said(tmp_path):
    path = saved(tmp_path / "kv.safetensors", tensors(queries=None))
    first, same, other = (read(path, SMALL, 99, seed) for seed in (1, 1, 2))
    assert first.queries.shape == (2, 4, 10, 8)
    assert torch.equal(first.queries, same.queries)
    assert not torch.equal(first.queries, other.queries)
    assert "no queries, so that they are random" in first.about


def test_a_recording_is_taken_in_the_models_dtype(tmp_path):
    half = KVGeometry.uniform(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, dtype="bfloat16")
    assert read(saved(tmp_path / "kv.safetensors", tensors()), half, 99, 0).keys.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"values": None}, "it has no tensor values"),
        ({"values": torch.zeros(2, 2, 9, 8)}, "values are shaped as keys, (2, 2, 10, 8), got (2, 2, 9, 8)"),
        ({"queries": torch.zeros(2, 4, 9, 8)}, "queries are shaped as keys"),
        ({"queries": torch.zeros(2, 6, 10, 8)}, "6 query heads; the model small has 3, 2 of 8 and 4"),
        ({"keys": torch.zeros(2, 10, 8)}, "keys have four dimensions"),
        ({"keys": torch.full((2, 2, 10, 8), torch.nan)}, "keys is finite throughout"),
        ({"keys": torch.zeros(2, 2, 10, 8, dtype=torch.int32)}, "keys is of dtype F32, F16, BF16, got I32"),
    ],
)
def test_a_broken_recording_is_refused_in_one_line(tmp_path, changed, words):
    path = saved(tmp_path / "kv.safetensors", tensors(**changed))
    with pytest.raises(RecordingError) as told:
        read(path, SMALL, 99, 0)
    assert words in str(told.value)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_recording_of_more_layers_than_the_model_has_is_refused(tmp_path):
    path = saved(tmp_path / "kv.safetensors", tensors())
    one = KVGeometry.uniform(num_layers=1, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float32")
    with pytest.raises(RecordingError, match="it has 2 layers"):
        read(path, one, 99, 0)


@pytest.mark.parametrize(
    ("about", "words"),
    [({}, "of version None"), ({"version": 2}, "of version 2"), ([1], "no JSON object"), (None, "no JSON object")],
)
def test_a_file_of_another_kind_is_refused(tmp_path, about, words):
    path = tmp_path / "kv.safetensors"
    save_file(tensors(), path, {} if about is None else {KEY: json.dumps(about)})
    with pytest.raises(RecordingError, match=f"metadata kvbench_kv is {words}"):
        read(path, SMALL, 99, 0)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "kv.safetensors"
    torch.save(tensors(), path)
    with pytest.raises(RecordingError, match=r"expected is a \.safetensors file"):
        read(path, SMALL, 99, 0)
    with pytest.raises(RecordingError, match="there is no such file"):
        read(tmp_path / "none.safetensors", SMALL, 99, 0)


def test_what_does_not_fit_together_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="values are shaped as keys"):
        write(tmp_path / "kv.safetensors", torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 4, 8))
    with pytest.raises(ValueError, match=r"go to a \.safetensors file"):
        write(tmp_path / "kv.pt", torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8))
    assert list(tmp_path.iterdir()) == []

"""Attention against a plain reference: causal, aligned lower right, grouped-query heads."""

import pytest
import torch

from kvbench.backend.attention import Merging, attention_and_lse, merged, packed
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.storage.memory import Staging
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area, Blocks, Chunks, Packed, Ring
from kvbench.plan.ops import Append, Move, Reserve, Rule
from tests.support import kernels


def reference(queries, keys, values):
    """Softmax attention of the newest tokens' queries, each over all tokens up to its own."""
    group = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    num_queries, num_keys = queries.shape[2], keys.shape[2]
    scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
    position = torch.arange(num_keys - num_queries, num_keys)[:, None]
    scores = scores.masked_fill(torch.arange(num_keys)[None, :] > position, float("-inf"))
    return torch.softmax(scores, dim=-1) @ values


def unpacked(rows, num_heads):
    """Rows of KV heads as heads: [num_rows, num_heads, num_queries, head_dim]."""
    num_rows, num_kv_heads, num_packed, head_dim = rows.shape
    group = num_heads // num_kv_heads
    grouped = rows.reshape(num_rows, num_kv_heads, num_packed // group, group, head_dim)
    return grouped.transpose(2, 3).reshape(num_rows, num_heads, num_packed // group, head_dim)


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (8, 2), (6, 1)])
@pytest.mark.parametrize(
    "area",
    [Area(), Area(layout=Ring(3)), Area(layout=Chunks(64)), Area(layout=Chunks(7)), Area(layout=Blocks(16, 1024))],
)
@pytest.mark.parametrize(("held", "appended"), [(0, 1), (0, 7), (40, 1), (40, 30), (10, 300), (0, 600)])
@pytest.mark.parametrize("is_accelerator", [False, True])
def test_attention_is_causal_and_aligned_lower_right(
    num_heads, num_kv_heads, held, appended, area, is_accelerator, monkeypatch
):
    if is_accelerator:
        kernels.use(monkeypatch)
    geometry = KVGeometry.uniform(
        num_layers=2, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=16, dtype="float32"
    )
    backend = MeasuredBackend(Conditions(geometry=geometry, device="cpu", seed=3))
    backend.prepare(600, 700)
    backend.begin_repetition((area,))
    backend.open(0)
    generator = torch.Generator().manual_seed(1)
    pieces = [torch.randn(2, 1, num_kv_heads, held + appended, 16, generator=generator) for _ in range(2)]
    keys, values = list(pieces[0]), list(pieces[1])
    backend.carry_out(Reserve(0, 896), [], [])  # a multiple of every chunk
    backend.carry_out(Append(0, held + appended), keys, values)
    outputs = backend.attention(0, appended)
    if appended == 1:
        store = backend._inputs.decode_queries
        rows = store[(held + 1) % len(store)]
    else:
        last = appended - (appended - 1) // 256 * 256  # the last chunk's queries
        rows = backend._inputs.queries[:, :, : last * num_heads // num_kv_heads]
    queries = unpacked(rows, num_heads)
    for layer in range(2):
        expected = reference(queries, keys[layer], values[layer])
        assert torch.allclose(unpacked(outputs[layer][-1], num_heads), expected, atol=1e-5)


HOST = Area("old", Chunks(8), tier="host")


@pytest.mark.parametrize(
    ("areas", "num_moved", "in_place", "is_staged"),
    [
        ((Area(),), 0, True, False),
        ((Area(layout=Chunks(64)),), 0, True, False),
        ((Area(layout=Chunks(64), tier="host"),), 0, False, True),
        ((Area(layout=Blocks(16, 1024)),), 0, False, True),
        ((Area("old", Chunks(8)), Area()), 20, False, False),
        ((HOST, Area()), 20, False, True),
        ((HOST, Area()), 0, True, False),
    ],
)
def test_only_what_lies_in_one_area_on_the_device_is_read_in_place(areas, num_moved, in_place, is_staged):
    geometry = KVGeometry.uniform(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, dtype="float32")
    backend = MeasuredBackend(Conditions(geometry=geometry, device="cpu", seed=3))
    backend.prepare(600, 700)
    backend.begin_repetition(areas)
    backend.open(0)
    generator = torch.Generator().manual_seed(1)
    keys, values = ([torch.randn(1, 2, 70, 16, generator=generator) for _ in range(2)] for _ in range(2))
    for area in areas:
        backend.carry_out(Reserve(0, 128, area.name), [], [])
    backend.carry_out(Append(0, 70), keys, values)
    if num_moved:
        backend.carry_out(Move(0, "main", "old", Rule(recent=70 - num_moved)), [], [])
    sequence = backend.sequence(0)
    assert sequence.ends_with_newest is (sequence.stores["main"] if in_place else None)
    assert isinstance(sequence.read(0), list) is not is_staged
    outputs = backend.attention(0, 30)
    queries = unpacked(backend._inputs.queries[:, :, :60], 4)
    for layer in range(2):
        expected = reference(queries, keys[layer], values[layer])
        assert torch.allclose(unpacked(outputs[layer][-1], 4), expected, atol=1e-5)


def test_packing_puts_a_tokens_rows_together():
    queries = torch.arange(6.0).reshape(1, 6, 1, 1) + 10 * torch.arange(2.0).reshape(1, 1, 2, 1)
    rows = packed(queries, 2).reshape(2, 6)
    assert rows.tolist() == [[0, 1, 2, 10, 11, 12], [3, 4, 5, 13, 14, 15]]
    assert torch.equal(unpacked(packed(queries, 2), 6), queries)


@pytest.mark.parametrize("is_accelerator", [False, True])
def test_parts_and_their_log_sum_exp_merge_into_the_whole(is_accelerator, monkeypatch):
    generator = torch.Generator().manual_seed(2)
    queries, keys, values = (torch.randn(1, 2, n, 16, generator=generator) for n in (5, 40, 40))
    mask = torch.ones(5, 40, dtype=torch.bool).tril(35)
    if is_accelerator:
        kernels.use(monkeypatch)
    spans = [(0, 10), (10, 37), (37, 40)]
    parts = [attention_and_lse(queries, keys[:, :, a:b], values[:, :, a:b], mask[:, a:b]) for a, b in spans]
    assert torch.allclose(merged(parts), reference(queries, keys, values), atol=1e-5)
    merging = Merging()
    for part in parts:
        merging.add(*part)
    assert torch.allclose(merging.output(), reference(queries, keys, values), atol=1e-5)


@pytest.mark.parametrize("is_accelerator", [False, True])
def test_who_may_look_nowhere_gets_nothing_whatever_the_kernel_gives(is_accelerator, monkeypatch):
    queries, keys, values = (torch.randn(1, 2, n, 16) for n in (5, 40, 40))
    mask = torch.ones(5, 40, dtype=torch.bool)
    mask[1] = False
    mask[2, :20] = False
    if is_accelerator:
        kernels.use(monkeypatch)
    halves = [slice(0, 20), slice(20, 40)]
    parts = [attention_and_lse(queries, keys[:, :, own], values[:, :, own], mask[:, own]) for own in halves]
    merging = Merging()
    for part in parts:
        merging.add(*part)
    for output in (merged(parts), merging.output()):
        assert (output[:, :, 1] == 0).all()
        assert torch.allclose(
            output[:, :, 2], reference(queries[:, :, 2:3], keys[:, :, 20:], values[:, :, 20:])[:, :, 0], atol=1e-5
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_on_an_accelerator_what_comes_before_a_chunk_is_attended_without_a_mask(dtype, monkeypatch):
    called = kernels.use(monkeypatch).called
    geometry = KVGeometry.uniform(num_layers=1, num_heads=4, num_kv_heads=2, head_dim=16, dtype=dtype)
    backend = MeasuredBackend(Conditions(geometry=geometry, device="cpu"))
    backend.prepare(400, 500)
    backend.begin_repetition((Area(),))
    backend.open(0)
    backend.carry_out(Reserve(0, 448), [], [])
    tokens = [torch.randn(1, 2, 401, 16).to(getattr(torch, dtype))]
    backend.carry_out(Append(0, 400), [tokens[0][:, :, :400]], [tokens[0][:, :, :400]])
    backend.attention(0, 400)  # 256 tokens among themselves, then 144 on those and among themselves
    unmasked = "flash" if dtype == "bfloat16" else "efficient"
    assert called == ["efficient", unmasked, "efficient"]
    backend.carry_out(Append(0, 1), [tokens[0][:, :, 400:]], [tokens[0][:, :, 400:]])
    backend.attention(0, 1)
    assert called[3:] == [unmasked]


STAGED_HERE = {
    "blocks": (Area(layout=Blocks(16, 4096)),),
    "packed": (Area("old", Chunks(128), format=Packed(4, 32, "channel")), Area(layout=Ring())),
    "packed by token": (Area("old", Chunks(64), format=Packed(2, 16, "token")), Area(layout=Ring())),
}


@pytest.mark.parametrize("areas", STAGED_HERE.values(), ids=STAGED_HERE)
@pytest.mark.parametrize("at_once", [1024, 8192])
def test_what_is_gathered_or_restored_at_once_is_what_is_read_in_parts(areas, at_once, monkeypatch):
    geometry = KVGeometry.uniform(num_layers=1, num_heads=4, num_kv_heads=2, head_dim=16, dtype="float32")
    backend = MeasuredBackend(Conditions(geometry=geometry, device="cpu"))
    backend.prepare(2600, 2700)
    backend.begin_repetition(areas)
    backend.open(0)
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randn(1, 2, 2560, 16, generator=generator) for _ in range(2)]
    backend.carry_out(Reserve(0, 2560), [], [])
    backend.carry_out(Append(0, 2560), [tokens[0]], [tokens[1]])
    if len(areas) > 1:
        backend.carry_out(Reserve(0, 2560, "old"), [], [])
        backend.carry_out(Move(0, "main", "old", Rule(recent=160)), [], [])
    in_parts = [backend.attention(0, 1)[0], backend.attention(0, 300)[0]]
    sizes = []

    def staging(num_buffers, shape, memory, num_tokens):
        sizes.append(num_tokens)
        return Staging(num_buffers, shape, memory, num_tokens)

    monkeypatch.setattr("kvbench.backend.storage.memory.IN_PARTS", ())
    monkeypatch.setattr("kvbench.backend.storage.areas.AT_ONCE_TOKENS", at_once)
    monkeypatch.setattr("kvbench.backend.storage.areas.Staging", staging)
    for queries, expected in zip((1, 300), in_parts, strict=True):
        for found, part in zip(backend.attention(0, queries)[0], expected, strict=True):
            assert torch.allclose(found, part, atol=1e-5)
    assert set(sizes) == {min(3072, at_once)}

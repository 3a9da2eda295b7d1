"""Recorded K and V as a run's data: every token lands at its position, whatever appends it."""

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf

from kvbench.api.probe import is_wanted, probed
from kvbench.backend.attention import packed
from kvbench.backend.base import Booking
from kvbench.backend.choice import Conditions
from kvbench.backend.inputs import RecordedInputs, Recording
from kvbench.backend.measured import MeasuredBackend
from kvbench.cli.source import initialized
from kvbench.configuration.chosen import workload_of
from kvbench.configuration.data import recording_of
from kvbench.configuration.parts import geometry_of
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area, Blocks, Chunks, Ring
from kvbench.plan.ops import Append, Release, Reserve, Truncate
from kvbench.quality.recorded import write
from kvbench.results.results import load
from kvbench.runner.run import run
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, strategy

SHAPED = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=8", "model.num_layers=2"]
QUICK = [*SHAPED, "repetitions=1", "warmup=0", "device=cpu"]


def recording(num_layers=2, num_tokens=50, geometry=TINY):
    generator = torch.Generator().manual_seed(7)

    def made(num_heads):
        return torch.randn(num_layers, num_heads, num_tokens, geometry.plain.head_dim, generator=generator)

    heads = (geometry.plain.num_kv_heads, geometry.plain.num_kv_heads, geometry.plain.num_heads)
    return Recording(*map(made, heads), about="made for a test")


def replaying(given, area=None, num_rows=1, attend=True, geometry=TINY):
    backend = MeasuredBackend(
        Conditions(recording=given, geometry=geometry, device="cpu", attend=attend, num_rows=num_rows)
    )
    backend.prepare(40, 400)
    backend.begin_repetition((area or Area(),))
    backend.open(0)
    return backend


def assert_holds(backend, given, num_tokens=None, seq=0):
    """Every layer's slots hold the recording's tokens of their positions; beyond its end, and its layers', its first.

    num_tokens: all tokens of so many are there; None where some were evicted.
    """
    num_recorded, _, length, _ = given.keys.shape
    for layer in range(backend.geometry.num_layers):
        keys, values, positions = backend.sequence(seq).full_context(layer)
        index = (positions % length).unsqueeze(-1).expand_as(keys)
        for got, whole in ((keys, given.keys), (values, given.values)):
            assert torch.equal(got, whole[layer % num_recorded].expand(backend.num_rows, -1, -1, -1).gather(2, index))
        if num_tokens is not None:
            assert torch.equal(positions, torch.arange(num_tokens).expand_as(positions))


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("area", [Area(), Area(layout=Ring(3)), Area(layout=Chunks(7)), Area(layout=Blocks(16, 1024))])
def test_each_append_writes_the_tokens_of_its_positions(area, num_rows):
    given = recording()
    backend = replaying(given, area, num_rows)
    backend.step(Booking(0, (Reserve(0, 112), Append(0, 12))), 12)
    assert_holds(backend, given, 12)
    backend.step(Booking(0, (Append(0, 1),)), 1)
    backend.step(Booking(0, (Append(0, 30),)), 30)
    backend.step(Booking(0, (Append(0, 2), Append(0, 1))), 3)  # two appends of one plan follow each other
    assert_holds(backend, given, 46)
    backend.step(Booking(0, (Append(0, 20),)), 20)  # over the end, from within
    assert_holds(backend, given, 66)
    backend.step(Booking(0, (Append(0, 1),)), 1)
    assert_holds(backend, given, 67)


def test_a_short_recording_comes_again_and_again():
    given = recording(num_tokens=3)
    backend = replaying(given)
    backend.step(Booking(0, (Reserve(0, 64), Append(0, 11))), 11)
    assert_holds(backend, given, 11)


def test_an_append_longer_than_any_prepared_comes_in_pieces():
    inputs = replaying(recording())._inputs
    sizes = [piece.num_tokens for piece, _, _ in inputs.pieces(Append(0, 120))]
    assert sizes == [40, 10, 40, 10, 20]  # 40 prepared, 50 recorded


def test_fewer_layers_are_used_again_in_turn():
    geometry = KVGeometry.uniform(num_layers=5, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float32")
    given = recording(num_layers=2)
    backend = replaying(given, geometry=geometry)
    backend.step(Booking(0, (Reserve(0, 16), Append(0, 16))), 16)
    assert_holds(backend, given, 16)
    same = [backend.sequence(0).full_context(layer)[0] for layer in (0, 2, 1)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


def test_another_sequence_and_one_begun_anew_start_at_the_first_token():
    given = recording()
    backend = replaying(given)
    backend.open(1)
    backend.step(Booking(0, (Reserve(0, 16), Append(0, 9))), 9)
    backend.step(Booking(1, (Reserve(1, 16), Append(1, 4))), 4)
    assert_holds(backend, given, 4, seq=1)
    backend.carry_out(Release(0), [], [])
    backend.open(0)
    backend.step(Booking(0, (Reserve(0, 16), Append(0, 10))), 10)
    assert_holds(backend, given, 10)
    backend.step(Booking(0, (Truncate(0, 3), Append(0, 1))), 1)  # what was taken back is appended again
    assert_holds(backend, given, 8)


@pytest.mark.parametrize(("held", "appended"), [(0, 20), (49, 1), (50, 1), (45, 12), (12, 1)])
def test_queries_are_those_of_the_newest_tokens(held, appended):
    given = recording()
    backend = replaying(given)
    if held:
        backend.step(Booking(0, (Reserve(0, 100), Append(0, held))), 0)
    backend.step(Booking(0, (Reserve(0, 100), Append(0, appended))), 0)
    outputs = backend.attention(0, appended)
    at = [position % 50 for position in range(held, held + appended)]
    for layer in range(2):
        queries = given.queries[layer][:, at]  # [4 heads, appended, 8]
        keys, values, _ = (tensor[0] for tensor in backend.sequence(0).full_context(layer))
        scores = queries @ keys.repeat_interleave(2, 0).transpose(1, 2) / 8**0.5
        seen = torch.arange(held + appended) <= torch.arange(held, held + appended).unsqueeze(1)
        expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values.repeat_interleave(2, 0)
        got = torch.cat(outputs[layer], dim=2)
        assert torch.allclose(got, packed(expected.unsqueeze(0), 2), atol=1e-5)


class Watched(MeasuredBackend):
    """Notes at each step's end what the sequence holds."""

    def step(self, booking, num_queries, continued=False):
        times = super().step(booking, num_queries, continued)
        seq = booking.seq
        if seq in self._sequences and any(isinstance(op, Append) for op in booking.plan):
            assert_holds(self, self._recording, seq=seq)
            self.seen.append((seq, self.sequence(seq).num_seen))
        return times


@pytest.mark.parametrize(
    ("name", "changed", "budget_tokens"),
    [  # 54 and 50 tokens at their ends: more than there is room for
        ("concat", {}, 96),
        ("dynamic", {"initial_capacity": 8}, 96),
        ("paged", {"pool_tokens": 96}, 999),
        ("recompute", {}, 96),
        ("sinks", {"num_sinks": 2, "window": 9}, 999),
    ],
)
def test_a_run_writes_the_recording_whoever_is_preempted(name, changed, budget_tokens):
    backend = Watched(Conditions(recording=recording(), geometry=TINY, device="cpu"))
    backend.seen = []
    recorder = run(
        {name: strategy(name, **changed)},
        [Session(0, (Request(30, 12), Request(9, 3))), Session(0, (Request(20, 30),))],
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=budget_tokens * TINY.bytes_per_token,
    )
    assert [row.outcome for row in recorder.requests] == ["completed"] * 3
    assert {(0, 53), (1, 49)} <= set(backend.seen)
    if name in ("concat", "dynamic", "paged"):  # the others hold little
        assert any(row.num_preemptions for row in recorder.requests)


def test_random_inputs_are_as_they_were():
    backend = MeasuredBackend(Conditions(geometry=TINY, device="cpu"))
    backend.prepare(8, 16)
    assert not isinstance(backend._inputs, RecordedInputs)
    (_, keys, _), *_ = backend._inputs.pieces(Append(0, 8))
    assert keys[0] is keys[1]


def recorded_file(path, num_layers=2, num_tokens=60, queries=True):
    given = recording(num_layers, num_tokens)
    write(path, given.keys, given.values, given.queries if queries else None, {"model": "tiny", "text": "a page"})
    return path


def test_a_run_says_what_it_appends_and_judges_on_it(kvbench, tmp_path):
    recorded_file(tmp_path / "kv.safetensors", num_layers=1)
    said = kvbench("+scenario=short_chat", *QUICK, "data=kv.safetensors", "strategy=[int8,dynamic]")
    words = (
        "appended are K and V recorded in kv.safetensors, model tiny, text a page; its 60 tokens begin again where a "
        "sequence is longer (at most 1,050); it has 1 of 2 layers: layer i gets its layer i modulo 1"
    )
    assert words in said
    (folder,) = (tmp_path / "results" / "short_chat").iterdir()
    results = load(folder)
    assert results.environment["data"] == words
    assert "held against exact attention; K and V recorded in kv.safetensors" in results.environment["quality"]
    assert words in (folder / "report.md").read_text()
    assert results.summary["probed_tokens"].tolist() == [60, 60]
    assert "quality_data: kv.safetensors" in (folder / "config.yaml").read_text()


def composed(*overrides):
    with initialized():
        return OmegaConf.to_container(compose("config", ["+scenario=short_chat", *SHAPED, *overrides]), resolve=True)


def test_quality_is_judged_on_what_is_appended_unless_it_is_told_otherwise(tmp_path):
    path = recorded_file(tmp_path / "kv.safetensors", num_tokens=1050, queries=False)
    chosen = {"int8": strategy("int8", group_size=8)}
    errors = {}
    for name, overrides in (("recorded", []), ("made", ["quality_data=null"])):
        config = composed(f"data={path}", *overrides)
        geometry, (_, workload) = geometry_of(config), workload_of(config)
        assert is_wanted(config, geometry, chosen)
        assert not is_wanted(config, geometry, {"exact": strategy("exact")})  # lossless: nothing to judge
        found = probed(config, geometry, chosen, workload.sessions, lambda *_: None)
        errors[name] = found.found["int8"].error_relative
        assert ("recorded in kv.safetensors" in found.data) == (name == "recorded")
        about = recording_of(config, geometry, workload.sessions).about
        assert about == (
            "appended are K and V recorded in kv.safetensors, model tiny, text a page; it has no queries, so that they "
            "are random"
        )
    assert 0 < errors["recorded"] != pytest.approx(errors["made"], rel=0.05)
    assert not is_wanted(composed(f"data={path}", "quality=false"), geometry, chosen)
    assert is_wanted(composed(f"data={path}", f"quality_data={tmp_path}"), geometry, {"exact": strategy("exact")})
    assert recording_of(composed(f"quality_data={path}"), geometry, workload.sessions) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=none.safetensors"], "data: none.safetensors: there is no such file; expected is a .safetensors file"),
        (["data=torn.safetensors"], "data: torn.safetensors: "),
        (["data=other.safetensors"], "it has 3 layers, 2 KV heads of 8 and 4 query heads; the model Article has 2, 2"),
        (["data=5"], "data is a path, or null, got 5"),
        (["daata=kv.safetensors"], "Did you mean 'data'?"),
        (["data=kv.safetensors", "backend=modelled", "hardware=h100"], "backend=modelled makes none"),
        (["data=kv.safetensors", "backend=fleet", "hardware=h100"], "backend=fleet makes none"),
        (["data=kv.safetensors", "quality_data=x.safetensors", "quality=false"], "quality=false asks for no probe"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_run(kvbench, tmp_path, arguments, words):
    recorded_file(tmp_path / "other.safetensors", num_layers=3)
    whole = recorded_file(tmp_path / "kv.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    said = kvbench("+scenario=short_chat", *SHAPED, "strategy=dynamic", *arguments, status=2)
    assert words in said
    assert not (tmp_path / "results").exists()


def test_an_experiment_has_its_own_data(kvbench):
    said = kvbench("+experiment=recompute", "data=kv.safetensors", status=2)
    assert "an experiment decides itself what it appends and probes: leave data out" in said

"""Calibration: medians, errors by hand, a whole run on a tiny grid, and books that agree with what was measured."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

import kvbench as kv
from kvbench.api import calibrating
from kvbench.backend.choice import Conditions
from kvbench.backend.curves import CURVES, Curves, lines_of
from kvbench.backend.modelled import Modelled
from kvbench.calibration import measure
from kvbench.calibration.bench import CalibrationBench
from kvbench.calibration.file import file_text, validation_of
from kvbench.calibration.kernels import fit_kernels
from kvbench.calibration.measure import Grid, bench_for, hardware_of, measured, num_probes, warmed_up
from kvbench.calibration.own_kernels import KernelGrid, timed_kernels
from kvbench.calibration.probes import storage
from kvbench.calibration.result import Calibration
from kvbench.calibration.samples import Samples, growing
from kvbench.calibration.validate import (
    OF_ALL,
    OF_REQUEST,
    STEP,
    Outcome,
    ValidationCase,
    outcomes_of,
    typical,
)
from kvbench.calibration.whole import fitting
from kvbench.cli import calibrate
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import composed
from kvbench.configuration.errors import UsageError
from kvbench.configuration.parts import parts_of
from kvbench.fleet.fleet import Fleet
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import hardware_from
from tests.support import device
from tests.support.catalogue import TINY, strategy
from tests.support.gpu import DEVICE
from tests.support.machines import WEIGHTS, machine

TINY_GRID = Grid(
    slots=(9, 33),
    storage_bytes=(1 << 10, 1 << 12, 1 << 20),
    moved_slots=(18, 34),
    queries=(3, 8),
    queried_slots=(9, 33),
    bits=(8,),
    dtypes=("fp8_e4m3",),
    num_rounds=1,
    kernels=KernelGrid(tokens=(1, 2, 4, 8), widths=(8, 16, 24), lengths=(8, 16, 300), batches=(1, 2), num_rounds=2),
)


def test_a_point_is_a_median_and_what_is_larger_takes_no_less():
    samples = Samples()
    for seconds in (3.0, 1.0, 2.0, -1.0, 9.0):
        samples.add("copy", 4, seconds)
    samples.add("copy", 2, 4.0)
    samples.add("copy", 8, 1.23456)
    # By size 4, 2 and 1.23456: each below the one before, so that their mean, 2.41152, stands for all.
    assert samples.curves() == {"copy": [[2, 2.412], [4, 2.412], [8, 2.412]]}


def test_growing_values_stay_and_others_meet_in_the_middle():
    assert growing([1.0, 2.0, 2.0, 5.0]) == [1.0, 2.0, 2.0, 5.0]
    assert growing([1.0, 4.0, 2.0, 5.0]) == [1.0, 3.0, 3.0, 5.0]
    # 6 and 2 make 4, which is below 5: 5, 6 and 2 make 13/3.
    assert growing([5.0, 6.0, 2.0]) == pytest.approx([13 / 3] * 3)


def rows(step_us, **changed):
    """Three steps of one request: an admission, and two that append."""
    columns = {name: [1, 2, 3] for name in (*OF_REQUEST, *OF_ALL)} | {"num_tokens": [0, 5, 1], "iteration": [0, 0, 1]}
    index = pd.MultiIndex.from_tuples([("one", 0, step) for step in range(3)], names=STEP)
    return pd.DataFrame(columns | {"step_us": step_us} | changed, index=index)


def test_errors_and_noise_by_hand():
    case = ValidationCase("some", [], 1)
    first, second, model = rows([99.0, 10.0, 30.0]), rows([99.0, 14.0, 36.0]), rows([0.0, 7.0, 45.0])
    [found] = outcomes_of(case, ["one"], first, second, model)
    # Means of the steps that append: 20, 25 and 26. Errors 6/20 and 1/25, mean 0.17; noise 5/20.
    assert (found.measured_us, found.modelled_us) == (22.5, 26.0)
    assert (found.error, found.noise) == (pytest.approx(0.17), 0.25)
    # Of steps: 3/10 and 15/30 from the first, 7/14 and 9/36 from the second; noise 4/10 and 6/30.
    assert found.step_error == pytest.approx((0.4 + 0.375) / 2)
    assert found.step_noise == pytest.approx(0.3)
    assert found.differences == ()
    said = validation_of([found])
    assert (said["error"], said["noise"], said["exact"]) == (0.17, 0.25, True)
    assert said["errors"] == {"one": 0.17}
    assert said["scenarios"]["some"]["one"]["step_error"] == 0.3875


def test_steps_whose_bytes_differ_are_told():
    case, first = ValidationCase("some", [], 1), rows([1.0, 1.0, 1.0])
    [found] = outcomes_of(case, ["one"], first, first, rows([1.0, 1.0, 1.0], allocated_bytes=[1, 2, 4]))
    assert found.differences == ("allocated_bytes",)
    assert not validation_of([found])["exact"]
    # Where others are live in a step, what all hold tells nothing.
    other = rows([1.0, 1.0, 1.0], allocated_bytes=[1, 2, 4], iteration=[0, 0, 2])
    assert outcomes_of(case, ["one"], first, first, other)[0].differences == ()
    [found] = outcomes_of(case, ["one"], first, first, rows([1.0, 1.0, 1.0]).iloc[:2])
    assert found.differences == ("steps",)


def test_a_typical_step_is_the_median_of_its_repetitions():
    columns = {name: [1] * 4 for name in (*OF_REQUEST, *OF_ALL, "iteration")}
    settings = {"strategy": "one", "session": 0, "phase": "decode", "warmup": [True, False, False, False]}
    steps = pd.DataFrame(columns | settings | {"repetition": range(4), "step_us": [100.0, 1.0, 5.0, 2.0]})
    assert typical(steps)["step_us"].tolist() == [2.0]


def test_every_probe_runs_and_every_curve_is_there():
    bench, grid = bench_for(TINY, "cpu", TINY_GRID)
    assert len(list(warmed_up(bench, grid))) == num_probes(bench, grid)
    *_, samples = measured(bench, grid)
    curves = samples.curves()
    formats = {"pack_8", "restore_8", "cast_fp8_e4m3", "restore_fp8_e4m3"}
    assert set(curves) == {*CURVES, "queries_3", "queries_8", *formats}
    for name, points in curves.items():
        assert len(points) >= 2, name
    assert [size for size, _ in curves["queries_8"]] == [9, 33]
    assert [size for size, _ in curves["host"]] == [0, 2, 4]
    # One layer is measured: 2 KV heads of 8 float32 are 64 bytes a token and tensor.
    assert [size for size, _ in curves["allocate"]] == [9 * 64, 16 * 64, 33 * 64]


@pytest.mark.gpu
def test_a_gpu_is_measured_by_its_own_clock():
    bench, grid = bench_for(TINY, DEVICE, TINY_GRID)
    assert len(list(warmed_up(bench, grid))) == num_probes(bench, grid)
    *_, samples = measured(bench, grid)
    assert hardware_of(bench, samples).calibrated_for["device"] == DEVICE
    assert all(seconds > 0 for _, seconds in samples.curves()["decode"])


def test_a_fake_clock_gives_the_curves_that_it_should(monkeypatch):
    moments = iter(range(0, 1 << 30, 1_000))  # each look at the clock is 1 µs after the one before
    monkeypatch.setattr("kvbench.backend.clock.HostClock.mark", lambda self: next(moments))
    bench, grid = bench_for(TINY, "cpu", TINY_GRID)
    *_, samples = measured(bench, grid)
    curves = samples.curves()
    assert [seconds for _, seconds in curves["decode"]] == [1e-6, 1e-6]
    assert [seconds for _, seconds in curves["allocate"]] == [5e-7] * 3  # K and V share a microsecond
    # 18 and 34 tokens fill 4 and 8 blocks of 4, 1 and 2 of 16: a microsecond in all, and a median of two.
    assert curves["append_piece"] == [[4, 1.875e-7], [16, 7.5e-7]]


def test_an_accelerators_work_and_its_launching_are_timed_apart(monkeypatch):
    device.use(monkeypatch)
    moments = iter(range(0, 1 << 30, 5_000))
    monkeypatch.setattr("kvbench.backend.clock.HostClock.mark", lambda self: next(moments))
    bench = CalibrationBench(TINY, "cuda", 64)
    emptied = []
    monkeypatch.setattr("torch.accelerator.empty_cache", lambda: emptied.append(1))
    busy, launches = Samples(), Samples()
    storage(bench, 33, busy)
    assert len(device.held) == 6 + 2 + 6  # a reserve and a release three times, a fill and a release, six copies
    with bench.on_host():
        storage(bench, 33, launches)
    assert len(device.held) == 14
    # The device's clock counts marks, a millisecond each; the host's, looks of 5 µs. K and V share an allocation's.
    assert busy.curves() == {"allocate": [[2112, 5e-4]], "free": [[2112, 5e-4]], "copy": [[2112, 1e-3]]}
    assert launches.curves() == {"allocate": [[2112, 2.5e-6]], "free": [[2112, 2.5e-6]], "copy": [[2112, 5e-6]]}
    assert not emptied  # what is allocated again comes from what the allocator keeps


def test_of_work_and_its_launching_the_longer_is_what_a_step_waits_for():
    curves = {"decode": [[10, 1.0], [20, 4.0]], "launch_decode": [[10, 2.0], [30, 2.0]], "copy": [[1, 5], [2, 6]]}
    lines = lines_of(curves)
    assert [lines["decode"].at(size) for size in (10, 20, 30)] == [2.0, 4.0, 7.0]
    assert [lines["copy"].at(size) for size in (1, 2)] == [5, 6]


def test_a_gpu_is_calibrated_at_sizes_that_fill_it(monkeypatch):
    device.use(monkeypatch)
    monkeypatch.setattr("kvbench.backend.device.default_budget_bytes", lambda device: 1 << 40)
    _, grid = bench_for(TINY, "cuda", measure.FULL)
    assert max(grid.slots) == 65_000
    assert max(grid.storage_bytes) == 256 << 20
    assert bench_for(TINY, "cpu", measure.FULL)[1] == measure.FULL


@pytest.fixture
def small(tmp_path, monkeypatch):
    """An empty folder, where a calibration is of a tiny model, with few points and runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "FULL", Grid(**vars(TINY_GRID) | {"bits": (8, 4, 2)}))
    monkeypatch.setattr(calibrating, "STRATEGIES", ("dynamic", "int8", "paged"))
    monkeypatch.setattr(calibrating, "CASES", {"streaming": None, "parallel_sampling": 1})
    monkeypatch.setattr(calibrating, "NUM_REPETITIONS", 1)


def test_a_machine_is_written_whole_and_loads(tmp_path, monkeypatch, small, capsys):
    of_configuration = calibrating.composed_for
    monkeypatch.setattr(calibrating, "composed_for", lambda *given: (TINY, *of_configuration(*given)[1:]))
    assert calibrate.main(["out=mine.yaml", "device=cpu"]) == 0
    said = capsys.readouterr().out
    assert "bytes, slots and resizes: equal in every step" in said
    assert "backend=modelled hardware=./mine.yaml cache_only=true model=article" in said
    assert "rows that fitted nothing: MAPE" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.parquet", "mine.yaml"]
    text = (tmp_path / "mine.yaml").read_text()
    hardware = hardware_from(yaml.safe_load(text))
    assert file_text(hardware) == text
    assert set(hardware.validation["errors"]) == {"dynamic", "int8", "paged"}
    assert list(hardware.validation["scenarios"]) == ["streaming", "parallel_sampling, 1 requests"]
    assert Curves(hardware, TINY, 1).deviation == ""
    line = ["+scenario=streaming", "backend=modelled", "hardware=./mine.yaml", "cache_only=true", "strategy=dynamic"]
    with read(line) as command:
        check(command)
        backend = parts_of(composed(command)).backend
    assert (backend.hardware.name, backend.scope) == (hardware.name, "cache")
    again = kv.calibrate_from("mine.parquet", hardware="./mine.yaml", out="again.yaml")
    said = {"engine": "torch", "version": hardware.kernels["version"], "source": hardware.kernels["source"]}
    assert again.hardware.kernels | said == hardware.kernels
    assert kv.calibrate_from("mine.parquet").hardware.name == hardware.name
    with pytest.raises(UsageError, match="it exists already"):
        calibrate.main(["out=mine.yaml"])


def test_a_machine_with_kernels_prices_whole_models_by_them_and_the_cache_alone_by_its_curves():
    bench, grid = bench_for(TINY, "cpu", TINY_GRID)
    *_, samples = measured(bench, grid)
    hardware = hardware_of(bench, samples)
    whole = Conditions(geometry=TINY, weights=WEIGHTS, hardware=hardware)
    with pytest.raises(ValueError, match="calibrated for the cache alone: add cache_only=true"):
        Modelled().made(whole)
    with pytest.raises(ValueError, match="calibrated for the cache alone; a fleet serves whole models"):
        Fleet().made(whole)
    table = timed_kernels(bench, grid.kernels, 1 << 30, lambda number: None)
    fitted = fit_kernels(table, hardware, {}).hardware
    whole = replace(whole, hardware=fitted)
    backend = Modelled().made(whole)
    assert backend.scope == "model"
    assert backend.signals  # of curves there are none
    assert backend.work_s(np.array([1]), np.array([1]), np.array([1]))["products"] > 0
    assert Fleet().made(whole).machine == fitted
    assert not Modelled().made(replace(whole, cache_only=True)).signals


def test_kernels_are_timed_by_the_devices_clock_and_left_out_where_memory_does_not_last(monkeypatch):
    moments = iter(range(0, 1 << 40, 1_000))  # each look at the clock is 1 µs after the one before
    monkeypatch.setattr("kvbench.backend.clock.HostClock.mark", lambda self: next(moments))
    bench, grid = bench_for(TINY, "cpu", TINY_GRID)
    counted = []
    table = timed_kernels(bench, grid.kernels, 1 << 30, counted.append)
    # 4 · 3 · 3 products, 4 · 3 of two kinds elementwise, prompts of 8, 16 and 300 and three after others, 2 · 3 steps.
    assert table["op"].value_counts().to_dict() == {
        "gemm": 36,
        "elementwise": 24,
        "decode_attention": 6,
        "prefill_attention": 6,
    }
    assert sum(counted) == 2 * len(table)
    assert set(table["seconds"]) == {1e-6}
    step = table[(table["op"] == "decode_attention") & (table["batch"] == 2)].iloc[0]
    # 9 slots of K and V of 2 heads, queries and results of 4, all of 8 float32, two sequences.
    assert (step["context_tokens"], step["bytes"]) == (8, 2 * 8 * 4 * (2 * 9 * 2 + 2 * 4))
    assert set(table["dtype"]) == {"float32"}
    small = timed_kernels(bench, grid.kernels, 4_000, lambda number: None)
    assert 0 < len(small) < len(table)
    assert small["n"].max() == 24


def test_a_call_gives_the_machine_its_errors_and_what_is_left_out(tmp_path, small):
    odd = kv.KVGeometry.uniform(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=40, dtype="float32")
    found = kv.calibrate(odd, dtype="float16", device="cpu")
    assert list(tmp_path.iterdir()) == []
    assert list(found.left_out) == ["int8"]
    assert found.is_exact
    assert "bytes, slots and resizes: equal in every step" in found.verdict
    table = found.table.set_index(["scenario", "strategy"])
    names = ("streaming", "parallel_sampling, 1 requests")
    assert list(table.index) == [(scenario, strategy) for scenario in names for strategy in ("dynamic", "paged")]
    assert (found.hardware.calibrated_for["head_dim"], found.hardware.calibrated_for["dtype"]) == (40, "float16")
    of_streaming = found.hardware.validation["scenarios"]["streaming"]["paged"]
    assert table.loc[("streaming", "paged"), "error"] == pytest.approx(of_streaming["error"], rel=1e-3)
    settings = {"cache_only": True, "dtype": "float16"}
    results = kv.run("streaming", "paged", model=odd, hardware=found.hardware, settings=settings)
    assert results.summary["source"].tolist() == ["modelled"]


def outcome(scenario, strategy, error, *differences):
    shares = {"noise": 0.05, "step_error": 0.2, "step_noise": 0.1}
    return Outcome(scenario, strategy, 1500.0, 1200.0, error, **shares, differences=differences)


def test_what_a_calibration_says_by_hand():
    outcomes = [outcome("chat", "paged", 0.1), outcome("chat", "int8", 0.3, "copied_bytes"), outcome("m", "x", 0.15)]
    found = Calibration(machine(), outcomes, {})
    assert not found.is_exact
    assert found.verdict.splitlines() == [
        "bytes, slots and resizes: NOT equal in every step: int8 in chat: copied_bytes",
        "chat: mean error 20.0 %, noise 5.0 %; goal of at most 15 %: MISSED",
        "m: mean error 15.0 %, noise 5.0 %; goal of at most 15 %: met",
    ]
    lines = [line.split() for line in found.text.splitlines()]
    assert lines[2] == ["chat", "paged", "1.500", "1.200", "10.0", "5.0", "20.0", "10.0"]
    assert lines[5] == ["mean", "18.3", "5.0", "20.0", "10.0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], r"out=… is missing; for example: python -m kvbench calibrate"),
        (["mine.yaml"], "expected key=value, got 'mine.yaml'"),
        (["ou=mine.yaml"], r"unknown key 'ou'\. Did you mean 'out'"),
        (["out=mine.yml"], r"ends in \.yaml, got 'mine\.yml'"),
        (["out=mine.yaml", "model=articel"], "articel"),
        (["out=mine.yaml", "dtype=float31"], "unknown dtype 'float31'"),
        (["out=mine.yaml", "device=gpu"], "^unknown device 'gpu'"),
        (["out=mine.yaml", "model=deepseek_v3"], "^model=deepseek_v3: .*latent layers"),
    ],
)
def test_the_verb_refuses_and_writes_nothing(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        calibrate.main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_an_interruption(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "FULL", TINY_GRID)

    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("kvbench.calibration.whole.steps_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate.main(["out=mine.yaml", "device=cpu"])
    assert list(tmp_path.iterdir()) == []


def test_memory_that_does_not_last_is_refused(monkeypatch):
    monkeypatch.setattr("kvbench.backend.device.default_budget_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match="more than the 125 bytes that are free"):
        bench_for(TINY, "cpu", TINY_GRID)


def test_a_strategy_that_the_model_has_no_room_for_is_left_out_with_the_reason():
    odd = KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=80, dtype="float16")
    found, left_out = fitting(odd, {name: strategy(name) for name in ("static", "int8")})
    assert list(found) == ["static"]
    assert "8 bits in groups of 32: head_dim is a multiple" in left_out["int8"]
    bench, grid = bench_for(odd, "cpu", TINY_GRID)
    *_, samples = measured(bench, grid)
    assert "pack_8" in samples.curves()  # in smaller groups

"""Modelled runs through the command line: what is written, compared and refused."""

import json

import pandas as pd
import pytest

from kvbench.backend.measured import MeasuredBackend
from kvbench.results.results import load

H100 = ["backend=modelled", "hardware=h100", "model=llama3_8b"]


def only_folder(tmp_path, name):
    (folder,) = (tmp_path / "results" / name).iterdir()
    return folder


def test_a_run_says_what_it_is(kvbench, tmp_path):
    out = kvbench("+scenario=chat_poisson", "strategy=[paged,dynamic]", *H100)
    results = load(only_folder(tmp_path, "chat_poisson"))
    assert set(results.summary["source"]) == {"modelled"}
    assert set(results.summary["scope"]) == {"model"}
    assert set(results.summary["hardware"]) == {"H100 SXM 80 GB"}
    assert results.summary["step_error"].isna().all()
    assert results.requests["repetition"].nunique() == 1  # a second one would take the same time
    assert results.environment["hardware_source"].startswith("NVIDIA H100")
    # 16.06 GB of weights at 0.8 of 3,350 GB/s are 5.99 ms; with launches and the host no step is shorter.
    decode = results.steps[results.steps["phase"] == "decode"]
    assert decode.groupby(["strategy", "iteration"], observed=True)["step_us"].sum().min() > 5_990
    known = "Modelled on H100 SXM 80 GB: 90 % intervals, from kernels that were measured there."
    assert known in out
    assert known in (only_folder(tmp_path, "chat_poisson") / "report.md").read_text()


def test_a_probe_sets_no_pool_of_a_modelled_machines_memory_aside(kvbench, tmp_path, monkeypatch):
    pools, begin = [], MeasuredBackend.begin_repetition
    told = lambda self, areas: (pools.append(areas[0].layout.pool_tokens), begin(self, areas))  # noqa: E731
    monkeypatch.setattr(MeasuredBackend, "begin_repetition", told)
    probe = ["quality=true", "quality_tokens=64", "scenario.max_requests=1"]
    kvbench("+scenario=chat_poisson", "strategy=paged", *probe, *H100)
    assert pools == [64]
    assert load(only_folder(tmp_path, "chat_poisson")).summary["error_relative"].notna().all()


def test_the_allocators_model_stands_in_the_table(kvbench, tmp_path):
    maximum = "strategy.static.max_seq_len=8192"
    out = kvbench("+scenario=periodic", "strategy=[concat,static]", maximum, "backend.allocator=caching", *H100)
    summary = load(only_folder(tmp_path, "periodic")).summary.set_index("strategy")
    for name in ("concat", "static"):
        row = summary.loc[name]
        share = 1 - row["allocator_allocated_bytes"] / row["allocator_reserved_bytes"]
        assert row["allocator_unused_share"] == pytest.approx(share)
        # Its tensors are whole multiples of 512 bytes: the two agree.
        assert row["allocator_allocated_bytes"] == row["peak_bytes"]
    assert summary.loc["concat", "allocator_unused_share"] > summary.loc["static", "allocator_unused_share"] == 0
    assert "reserved" in out
    assert "external fragmentation" in (only_folder(tmp_path, "periodic") / "report.md").read_text()


def test_measured_and_modelled_are_kept_apart_in_one_sweep(kvbench, tmp_path):
    tiny = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=8", "repetitions=2", "device=cpu"]
    both = ["backend=measured,modelled", "hardware=h100", "cache_only=true"]
    out = kvbench("-m", "+scenario=short_chat", "strategy=[static,dynamic]", *both, *tiny)
    folder = only_folder(tmp_path, "short_chat")
    summary = pd.read_csv(folder / "summary.csv")
    assert (
        sorted(zip(summary["source"], summary["scope"], strict=True))
        == [("measured", "cache")] * 2 + [("modelled", "cache")] * 2
    )
    # Bytes and resizes are the same; times stand beside each other in the chart of the error alone.
    for column in ("peak_bytes", "num_resizes", "copied_bytes", "cumulative_bytes"):
        assert summary.groupby("strategy")[column].nunique().eq(1).all()
    charts = {path.name for path in (folder / "charts").glob("*.png")}
    assert "model_error.png" in charts
    assert "hardware is not looked at" in out


def test_environment_tells_of_the_machine(kvbench, tmp_path):
    kvbench("+scenario=short_chat", "strategy=static", "cache_only=true", "backend=modelled", "hardware=l40s")
    environment = json.loads((only_folder(tmp_path, "short_chat") / "environment.json").read_text())
    assert environment["device"] == "modelled"
    assert environment["validation"] is None


def test_models_without_plain_layers_are_priced(kvbench, tmp_path):
    """DeepSeek-V3's latents and Gemma's windows: of 300 tokens all are in the window; of 2,000 it holds 1,024."""
    for model, appends, slots in (("deepseek_v3", 300, 70_272 * 300), ("gemma3_12b", 2_000, None)):
        kvbench(
            "+scenario=short_chat",
            f"scenario.appends=[{appends}]",
            "strategy=exact",
            "cache_only=true",
            "backend=modelled",
            "hardware=h200",
            f"model={model}",
            "quality=false",
        )
        folder = sorted((tmp_path / "results" / "short_chat").iterdir())[-1]
        peak = load(folder).summary["peak_allocated_bytes"].iloc[0]
        if slots is None:  # 8 layers of 48 hold all, 40 hold 1,024: K and V of 8 heads of 256 in 2 bytes
            slots = 2 * 8 * 256 * 2 * (8 * 2_000 + 40 * 1_024)
        assert peak == slots


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backend=modelled"], "name one, such as hardware=h100"),
        (["backend=modelled", "hardware=h100"], "model Article has no num_parameters"),
        ([*H100, "backend.allocator=cuda"], "unknown allocator 'cuda'"),
        ([*H100, "hardware.flops_per_s=-1"], "hardware.flops_per_s is a number above 0, got -1"),
        ([*H100, "budget_bytes=900000000000"], "budget_bytes is at most the 60,456,467,365 that H100 SXM 80 GB has"),
        ([*H100, "model=llama3_70b"], "nothing is left for caches"),
        (
            [*H100, "attend=false", "strategy=heavy_hitters"],
            "needs attention to tell it: mass; backend modelled supplies none",
        ),
        ([*H100, "backend.memory_fraction=no"], "memory_fraction"),
    ],
)
def test_bad_input_is_one_message(kvbench, tmp_path, arguments, message):
    said = kvbench("+scenario=short_chat", *arguments, status=2)
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "results").exists()

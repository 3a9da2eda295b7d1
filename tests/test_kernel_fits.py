"""Figures of products, experts, traffic and sums are found in tables whose truth is known, without rows that judge."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

import kvbench as kv
from kvbench.calibration.kernels import fit_kernels, is_doubtful
from kvbench.calibration.kernels_file import with_kernels
from kvbench.calibration.products import fit_products, touched_by_rows
from kvbench.calibration.tables import NEEDED, is_held_out, read_kernels
from kvbench.calibration.validation.kernels import judged_kernels
from kvbench.calibration.validation.rows import errors_of
from kvbench.cli.calibrate import main
from kvbench.model.hardware import hardware_from
from kvbench.timing.doubt import LEVELS
from kvbench.timing.experts import ExpertFigures
from kvbench.timing.kernels import kernels_of
from kvbench.timing.memory import TrafficFigures
from kvbench.timing.products import ProductFigures
from kvbench.timing.shapes import ExpertShape
from tests.support.catalogue import node_of
from tests.support.fits import MEASURED, table_of
from tests.support.machines import machine
from tests.support.measurements import measurement

BASE = machine(memory_bytes_per_s=3e12, flops_per_s=1e15, flops_8bit_per_s=2e15)
POINTS = {"2": [[1024, 5e-6], [65536, 1e-5], [16777216, 9e-5]]}
TRUTH = {
    "products": {"bfloat16": ProductFigures(floor_s=6e-6, share=0.7, compute_share=0.6, sharpness=4.0)._asdict()},
    "experts": {"bfloat16": ExpertFigures(floor_s=2e-5, share=0.6, compute_share=0.4, sharpness=2.0)._asdict()},
    "traffic": TrafficFigures(floor_s=3e-6, share=0.6)._asdict(),
    "all_reduce": POINTS,
}
OURS = kernels_of(replace(BASE, kernels=TRUTH))
WIDTHS = (256, 1024, 4096, 16384)


def rows(op, names, values, seconds, **texts):
    found = pd.DataFrame(list(values), columns=list(names)).assign(op=op, dtype="bfloat16", **texts)
    return found.assign(seconds=seconds(found))


def experts(table):
    found = np.empty(len(table))
    for key, at in table.groupby(["num_experts", "top_k", "hidden", "intermediate"]).indices.items():
        shape = ExpertShape(*map(int, key), "bfloat16")
        own = table.iloc[at]
        found[at] = OURS.touched_experts_s(own["m"], touched_by_rows(own, shape), shape)
    return found


def table():
    parts = [
        rows(
            "gemm",
            "mnk",
            itertools.product((1, 4, 16, 64, 256, 1024, 4096, 16384), WIDTHS, WIDTHS),
            lambda own: OURS.product_s(own["m"], own["n"], own["k"], "bfloat16"),
        ),
        rows(
            "moe",
            ("m", "num_experts", "top_k", "hidden", "intermediate"),
            [(m, *each) for m in 2 ** np.arange(15) for each in ((8, 2, 4096, 4096), (128, 8, 2048, 768))],
            experts,
            detail="routing=balanced;tp=1",
        ),
        rows(
            "elementwise",
            ("m", "bytes"),
            [(1, int(1000 * 2 ** (n / 3))) for n in range(72)],
            lambda own: OURS.traffic_s(own["bytes"]),
            detail="act_fn",
        ),
        rows(
            "elementwise",
            ("m", "bytes"),
            [(1, 10**6 + n) for n in range(30)],
            lambda own: np.ones(30),
            detail="sampler; a bound",
        ),
        rows(
            "all_reduce",
            ("num_gpus", "bytes"),
            [(2, 2**n) for n in range(10, 25)],
            lambda own: OURS.exchange_s("all_reduce", own["bytes"], 2),
            detail="vllm_graph",
        ),
        rows("all_reduce", ("num_gpus", "bytes"), [(2, 512), (2, 256)], lambda own: np.ones(2), detail="vllm_eager"),
    ]
    columns = dict.fromkeys(name for names in NEEDED.values() for name in names)
    whole = pd.concat(parts, ignore_index=True)
    filled = {name: whole[name].fillna(0).astype(np.int64) if name in whole else 0 for name in columns}
    return whole.assign(kv_dtype="", source="", detail=whole["detail"].fillna(""), **filled)


def test_planted_figures_are_found_again():
    fit = fit_kernels(table(), BASE, {"engine": "mine"})
    found = fit.hardware.kernels
    for work in ("products", "experts"):
        for name in ("floor_s", "share", "compute_share"):
            assert found[work]["bfloat16"][name] == pytest.approx(TRUTH[work]["bfloat16"][name], rel=0.05)
    assert found["traffic"]["share"] == pytest.approx(0.6, rel=0.02)
    assert found["all_reduce"]["2"][0] == [1024, 5e-6]
    assert len(found["all_reduce"]["2"]) < 7
    assert found["engine"] == "mine"
    number, mape, bias = found["errors"]["products"]["bfloat16"]
    assert number == (is_held_out(table()) & (table()["op"] == "gemm")).sum()
    assert abs(bias) <= mape < 0.02
    assert set(found["residuals"]) == {"products", "experts", "traffic"}  # of sums there are too few rows
    assert all(len(values) == len(LEVELS) and max(map(abs, values)) < 0.1 for values in found["residuals"].values())
    assert kernels_of(fit.hardware).is_fitted


def test_rows_that_judge_fit_nothing():
    frame = table()
    held = is_held_out(frame)
    spoiled = frame.assign(seconds=frame["seconds"].where(~held, 1.0))
    assert fit_products(spoiled, BASE) == fit_products(frame, BASE)
    other = fit_products(frame.assign(seconds=frame["seconds"].where(held, frame["seconds"] * 2)), BASE)
    assert other != fit_products(frame, BASE)


def test_what_differs_by_shape_becomes_a_correction():
    frame = table()
    of_products = frame["op"] == "gemm"
    slow = of_products & (frame["m"] == 16384)
    many = pd.concat([frame.assign(n=frame["n"] + over) for over in (0, 16, 32)], ignore_index=True)
    slowed = pd.concat([slow] * 3, ignore_index=True)
    many["seconds"] *= np.where(slowed, 1.3, 1.0)
    fit = fit_kernels(many[pd.concat([of_products] * 3, ignore_index=True)], BASE, {})
    ours = kernels_of(fit.hardware)
    ratio = ours.product_s(16384, 4096, 4096, "bfloat16") / OURS.product_s(16384, 4096, 4096, "bfloat16")
    assert ratio == pytest.approx(1.3, abs=0.08)
    assert "corrections" in fit.hardware.kernels["products"]["bfloat16"]


def test_what_says_little_of_a_machine_makes_no_interval():
    told = pd.DataFrame(
        [
            ("moe", "bfloat16", 8, "routing=balanced;tp=1", False),
            ("moe", "fp8", 8, "routing=balanced;tp=1", True),
            ("moe", "bfloat16", 8, "routing=power_law_1.2", True),
            ("moe", "fp8_block", 256, "routing=balanced;tp=1", True),
            ("gemm", "fp8", 0, "", False),
            ("all_reduce", "bfloat16", 0, "vllm_graph", False),
            ("all_reduce", "float16", 0, "NCCL", True),
        ],
        columns=["op", "dtype", "num_experts", "detail", "doubtful"],
    )
    assert is_doubtful(told).tolist() == told["doubtful"].tolist()
    assert is_doubtful(told[2:3]).tolist() == is_doubtful(told[6:]).tolist() == [False]


def test_a_table_that_fits_nothing_is_refused():
    with pytest.raises(ValueError, match="too few rows of every kind"):
        fit_kernels(table()[:5], BASE, {})


@pytest.mark.parametrize("name", MEASURED)
def test_shipped_fits_are_as_far_off_as_they_say(name):
    frame = read_kernels(measurement(table_of(name)))
    ours = hardware_from(node_of("hardware", name))
    rows = judged_kernels(frame[is_held_out(frame) & (frame["op"] == "gemm")], kernels_of(ours)).rows
    told = ours.kernels["errors"]["products"]
    for group, own in rows.groupby("group"):
        assert [len(own), *errors_of(own)[1:3]] == pytest.approx(told[group], abs=6e-4)
    assert errors_of(rows).mape < (0.09 if name == "l40s" else 0.08)
    # Widths that no table has lie between those that it has: 28,672 outputs of 4,096 inputs, as Llama's have.
    tokens = [1, 16, 256, 4096]
    kernels = kernels_of(ours)
    less, this, more = (kernels.product_s(tokens, n, 4096, "bfloat16") for n in (16384, 28672, 65536))
    assert (less < this).all()
    assert (this < more).all()
    assert (np.diff(kernels.product_s(np.geomspace(4096, 1e6, 30), 4096, 4096, "bfloat16")) > 0).all()


def test_a_table_becomes_a_hardware_file(tmp_path, capsys):
    path, out = tmp_path / "h100_mine.csv", tmp_path / "mine.yaml"
    table().assign(source="someone/kernels@1:mine/1.2.0/gemm").to_csv(path, index=False)
    assert main([f"from={path}", f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "rows that fitted nothing: MAPE" in printed
    assert "small batch" in printed
    text = out.read_text(encoding="utf-8")
    assert text.startswith("# NVIDIA H100 SXM")
    made = hardware_from(yaml.safe_load(text))
    assert list(made.kernels)[:3] == ["engine", "version", "source"]
    assert (made.kernels["engine"], made.kernels["version"]) == ("mine", "1.2.0")
    found = kv.calibrate_from(path, hardware=out)
    assert found.hardware.kernels["products"] == made.kernels["products"]
    assert with_kernels(text, found.hardware.kernels) == text
    assert set(found.table["kind"]) == {"gemm", "moe", "elementwise", "all_reduce"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["from=none.parquet"], "of which hardware it is, is not said"),
        (["from=h100_none.parquet"], r"h100_none\.parquet cannot be read"),
        (["from=h100_x.csv", "model=article"], "model=… is of a machine that is measured here"),
        (["hardware=h100", "out=x.yaml"], "hardware=… goes with from=TABLE"),
        (["from=a.csv", "hardware=h1000"], "Did you mean 'h100'"),
        (["from=h100_x.csv", "out=x.yml"], r"out is a file whose name ends in \.yaml"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        main(arguments)

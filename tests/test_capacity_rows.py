"""What engines printed of their caches, held against their rules: by hand, and on published lines where they are."""

import csv

import pytest

from kvbench.calibration.capacity_rows import Figure, engine_of_row, told_of, version_of_row
from kvbench.calibration.public_shapes import public_shape
from kvbench.configuration.catalogue import names
from kvbench.model.parallel import Parallel
from tests.support.catalogue import preset
from tests.support.measurements import measurement

STATED = ("engine", "version", "model", "hardware", "gpu_memory_gib", "kv_dtype", "available_kv_gib", "doubt")
NUMBERS = (
    "tensor_parallel",
    "pipeline_parallel",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "block_size",
)
COLUMNS = (*STATED, *NUMBERS, "num_tokens", "max_concurrency")
EXPLAINED = {
    "c050": "the count is the smallest over four ranks, the memory is one rank's",
    "c088": "max_num_batched_tokens is not stated: with 8,192, as in other lines of its source, it is exact",
    "c100": "its sparse attention has pools that are not modelled",
}


def row(**given):
    return dict.fromkeys(COLUMNS, "") | {"engine": "vLLM"} | {key: str(value) for key, value in given.items()}


def test_a_line_is_told_from_what_it_states():
    told = told_of(
        row(
            version="0.23.1rc1.dev531",
            model="nvidia/Qwen3.6-27B-NVFP4, MTP 2",
            kv_dtype="fp8",
            max_model_len=262_144,
            block_size=1_600,
            available_kv_gib="48.6",
            num_tokens=1_394_129,
            max_concurrency="5.32",
        )
    )
    assert told.pool.num_blocks == 936
    assert [(figure.name, figure.is_within) for figure in told.figures(row(num_tokens=1_394_129))] == [("tokens", True)]
    assert told.share == 0.003
    assert told.engine.num_speculative_tokens == 2


def test_ranks_come_from_the_line():
    told = told_of(
        row(
            version="~ 2025-11 (V1)",
            model="moonshotai/Kimi-K2-Thinking",
            tensor_parallel=8,
            available_kv_gib="46.8",
            doubt="decode context parallel 8",
        )
    )
    assert told.parallel == Parallel(tensor=8, decode_context=8)
    assert told.pool.num_tokens == 8 * 715_072


@pytest.mark.parametrize(
    ("given", "version"),
    [
        ({"version": "0.11.2rc1+rhai0"}, "0.11.2rc1"),
        ({"version": "~ 2025-11 (V1; default 0.90)"}, "0.11"),
        ({"version": "~ 0.10/0.11 (V1)"}, "0.10"),
        ({"version": "~ 2026-05 (before the printed count changed)"}, "0.19"),
        ({"version": "~ 2026-08 (kv_cache_utils.py:2235)"}, "0.26"),
        ({"version": "~ 2026", "num_tokens": 21_390, "max_concurrency": "10.44", "max_model_len": 2_048}, "0.22"),
        ({"version": "~ 2026", "num_tokens": 129_472, "max_concurrency": "1.97", "max_model_len": 262_144}, "0.19"),
    ],
)
def test_a_version_is_stated_or_told_by_its_month_or_its_own_count(given, version):
    assert version_of_row(row(**given)) == version


@pytest.mark.parametrize(
    ("text", "name", "token_bytes"),
    [
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "llama-3.3-70b", 327_680),
        ("neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w8a8", "llama-3.1-70b", 327_680),
        ("Qwen/Qwen3-235B-A22B-FP8", "qwen3-235b-a22b", 94 * 2_048),
        ("Qwen2.5-0.5B (local snapshot)", "qwen2.5-0.5b", 12_288),
        ("48 layers x 8 KV heads x 128 (Qwen2.5-14B by size)", "stated", 196_608),
        ("google/gemma-3-27b-it", "gemma-3-27b", 507_904),
        ("Qwen3.8-27B-FP8, DFlash2 drafter", "qwen3.5-27b", 65_536),
        ("moonshotai/Kimi-K2-Thinking", "kimi-k2", 70_272),
        ("Meta Llama 3.1 8B Instruct", "llama-3.1-8b", 131_072),
        ("Llama3.1-70B", "llama-3.1-70b", 327_680),
        ("Qwen 2.5 Coder 7B AWQ", "qwen2.5-7b", 57_344),
        ("Qwen/Qwen2.5-VL-72B-Instruct", "qwen2.5-72b", 327_680),
        ("Qwen3.5-122B NVFP4", "qwen3.5-122b-a10b", 12 * 2_048),
        ("Qwen/Qwen3-Coder-Next-FP8", "qwen3-next-80b-a3b", 24_576),
        ("gemma3_12b", "gemma-3-12b", 48 * 8_192),
    ],
)
def test_shapes_are_known_by_name_or_by_what_is_stated(text, name, token_bytes):
    found = public_shape(text)
    assert (found.name, found.bytes_per_token) == (name, token_bytes)


def test_what_is_not_known_is_said():
    assert public_shape("zai-org/GLM-4.5V") is None
    with pytest.raises(ValueError, match=r"the shape of acme/Anvil-9B is not known here"):
        told_of(row(model="acme/Anvil-9B"))
    with pytest.raises(ValueError, match=r"vLLM, SGLang or TensorRT-LLM, got llama.cpp"):
        engine_of_row(row(model="x", engine="llama.cpp"), public_shape("qwen3-8b"))


def test_a_figure_is_off_by_what_its_digits_cannot_hide():
    assert Figure(name="concurrency", told=0.8158, printed=0.82, digits=2, share=0.003).error == 0
    assert Figure(name="tokens", told=1_010, printed=1_000, digits=0, share=0.003).error == pytest.approx(0.01)
    assert not Figure(name="tokens", told=990, printed=1_000, digits=0, share=0.003).is_within


def test_published_lines_are_told_or_explained():
    with measurement("capacity.csv").open(encoding="utf-8", newline="") as file:
        rows = [each for each in csv.DictReader(file) if each["circular"] == "no"]
    assert len(rows) == 37
    off = set()
    for each in rows:
        try:
            figures = told_of(each).figures(each)
        except ValueError:
            off.add(each["id"])
            continue
        assert figures
        if not all(figure.is_within for figure in figures):
            off.add(each["id"])
    assert off == set(EXPLAINED)


def test_a_rank_with_less_memory_has_the_count_of_c050():
    """178,880 tokens are 11,180 blocks, 8.01 to 8.02 GiB: within what four ranks of 8.11 GiB at most may differ."""
    line = row(version="~ 2025-07 (V1)", model="Qwen/Qwen3-235B-A22B-FP8", tensor_parallel=4, available_kv_gib="8.02")
    assert told_of(line).pool.num_tokens == pytest.approx(178_880, rel=0.001)


def test_the_batch_of_other_lines_of_its_source_makes_c088_exact():
    line = row(
        version="~ 2026-08",
        model="Qwen3.8-27B-FP8, DFlash2 drafter",
        tensor_parallel=2,
        max_model_len=65_536,
        max_num_batched_tokens=8_192,
        available_kv_gib="11.15",
    )
    assert told_of(line).pool.num_tokens == 214_135


@pytest.mark.parametrize("name", [name for name in names("model") if public_shape(preset(name).name)])
def test_a_shape_that_a_preset_has_too_is_the_presets(name):
    own = preset(name)
    told = public_shape(own.name)
    lengths = (0, 1, 128, 1_000, 100_000)
    assert [told.held_bytes(tokens) for tokens in lengths] == [own.held_bytes(tokens) for tokens in lengths]
    assert told.num_layers == own.num_layers

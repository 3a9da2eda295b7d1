"""Hardware files: published figures, and one message for what is missing or wrong."""

import inspect
import math
from dataclasses import MISSING, fields

import pytest

from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys, composed
from kvbench.configuration.catalogue import names
from kvbench.configuration.errors import UsageError
from kvbench.configuration.parts import geometry_of, hardware_of, weights_of
from kvbench.model.hardware import Hardware, accelerator_from, hardware_from
from kvbench.timing.kernels import kernels_of
from tests.support.catalogue import node_of
from tests.support.fits import MEASURED

# GiB that a process is told; GB/s, dense TFLOP/s of 16, 8 and 4 bits, GB/s to the host and to neighbours, watts: sheets
PUBLISHED = {
    "a100_40": (39.49, 1_555, 312, None, None, 32, 300, 400),
    "a100_80": (79.25, 2_039, 312, None, None, 32, 300, 400),
    "h100": (79.18, 3_350, 989, 1_979, None, 64, 450, 700),
    "h200": (139.80, 4_800, 989, 1_979, None, 64, 450, 700),
    "h20": (95.11, 4_000, 148, 296, None, 64, 450, 400),
    "b200": (178.35, 8_000, 2_250, 4_500, 9_000, 64, 900, 1_000),
    "gb200": (184.31, 8_000, 2_500, 5_000, 10_000, 225, 900, 1_200),
    "l40s": (44.40, 864, 362, 733, None, 32, 32, 350),
    "l4": (22.03, 300, 121, 242, None, 32, 32, 72),
    "a10": (22.06, 600, 125, None, None, 32, 32, 150),
    "a10g": (22.06, 600, 70, None, None, 32, 32, 300),
    "t4": (14.56, 320, 65, None, None, 16, 16, 70),
    "rtx_4090": (23.52, 1_008, 165, 330, None, 32, 32, 450),
    "rtx_5090": (31.36, 1_792, 209, 419, 1_676, 64, 64, 575),
    "rtx_pro_6000": (94.97, 1_792, 504, 1_008, 2_015, 64, 64, 600),
    "mi300x": (191.98, 5_300, 1_307, 2_615, None, 64, 448, 750),
    "mi325x": (255.98, 6_000, 1_307, 2_615, None, 64, 448, 1_000),
    "mi355x": (287.98, 8_000, 2_500, 5_000, 10_100, 64, 537.6, 1_400),
}


def test_every_file_is_checked():
    assert sorted(PUBLISHED) == names("hardware")


@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_of_the_data_sheets(name):
    node = node_of("hardware", name)
    made = hardware_from(node)
    told, bandwidth, rate, rate_8, rate_4, host, link, power = PUBLISHED[name]
    assert made.memory_bytes == round(told * 2**30)
    assert (made.memory_bytes_per_s, made.flops_per_s) == (bandwidth * 1e9, rate * 1e12)
    assert (made.flops_8bit_per_s, made.flops_4bit_per_s) == tuple(x and x * 1e12 for x in (rate_8, rate_4))
    assert (made.host_bytes_per_s, made.link_bytes_per_s, made.power_w) == (host * 1e9, link * 1e9, power)
    assert made.memory_efficiency == 0.8
    assert "data sheet" in made.source or "white paper" in made.source
    assert (made.curves, made.calibrated_for, made.validation) == (None, None, None)
    assert (made.kernels is not None) == (name in MEASURED)
    assert kernels_of(made).is_fitted == (name in MEASURED)
    assert sorted(node) == sorted(field.name for field in fields(Hardware))


def test_memory_is_what_a_process_is_told_not_what_the_sheet_says():
    told = {name: hardware_from(node_of("hardware", name)) for name in PUBLISHED}
    for name, made in told.items():
        nominal = int(made.name.split()[-2]) * 2**30
        assert 0.9 * nominal < made.memory_bytes < 1.01 * nominal, name


def test_no_figure_has_a_second_default():
    assert all(field.default in (MISSING, None) and field.kw_only for field in fields(Hardware))
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(Hardware).parameters.values())


BAD = [
    ({"name": ""}, r"hardware\.name is a text, got ''"),
    ({"source": None}, r"hardware\.source is a text, got None"),
    ({"memory_bytes": 0.5}, r"hardware\.memory_bytes is a positive integer, got 0\.5"),
    ({"memory_bytes": True}, r"hardware\.memory_bytes is a positive integer, got True"),
    ({"memory_bytes_per_s": 0}, r"hardware\.memory_bytes_per_s is a number above 0, got 0"),
    ({"flops_per_s": "fast"}, r"hardware\.flops_per_s is a number above 0, got 'fast'"),
    ({"host_bytes_per_s": math.inf}, r"hardware\.host_bytes_per_s is a number above 0, got inf"),
    ({"disk_bytes_per_s": math.nan}, r"hardware\.disk_bytes_per_s is a number above 0, got nan"),
    ({"flops_per_s": 1e-300}, r"hardware\.flops_per_s is from 1e\+06 to 1e\+21, got 1e-300"),
    ({"memory_bytes_per_s": 1e300}, r"hardware\.memory_bytes_per_s is from 1e\+06 to 1e\+21, got 1e\+300"),
    ({"host_bytes_per_s": 10**400}, r"hardware\.host_bytes_per_s is a number above 0"),
    ({"memory_bytes": 2**61}, r"hardware\.memory_bytes is at most 2\^60"),
    ({"host_efficiency": 1e-300}, r"hardware\.host_efficiency is at least 0\.01"),
    ({"step_s": 1e18}, r"hardware\.step_s is at most 3,600 seconds"),
    ({"memory_efficiency": 1.2}, r"hardware\.memory_efficiency is a number above 0 and at most 1, got 1\.2"),
    ({"compute_efficiency": 0}, r"hardware\.compute_efficiency is a number above 0 and at most 1, got 0"),
    ({"host_efficiency": None}, r"hardware\.host_efficiency is a number above 0 and at most 1, got None"),
    ({"launch_s": -1e-6}, r"hardware\.launch_s is a number of at least 0, got -1e-06"),
    ({"step_s": "2e-4"}, r"hardware\.step_s is a number of at least 0, got '2e-4'"),
    ({"flops_8bit_per_s": 1.0}, r"hardware\.flops_8bit_per_s is from 1e\+06 to 1e\+21, got 1\.0"),
    ({"link_bytes_per_s": 0}, r"hardware\.link_bytes_per_s is a number above 0, got 0"),
    ({"link_s": -1}, r"hardware\.link_s is a number of at least 0, got -1"),
    ({"accelerators_per_node": 0}, r"hardware\.accelerators_per_node is a positive integer.*, got 0"),
    ({"power_w": "hot"}, r"hardware\.power_w is a number of at least 0.*, got 'hot'"),
    ({"price_per_hour": math.nan}, r"hardware\.price_per_hour is a number of at least 0.*, got nan"),
    ({"curves": [1]}, r"hardware\.curves is a mapping, or null, got \[1\]"),
    ({"calibrated_for": "cpu"}, r"hardware\.calibrated_for is a mapping, or null, got 'cpu'"),
    ({"validation": {"noise": 0.1}}, r"hardware\.validation\.error is a number of at least 0, got None"),
    ({"validation": {"error": 0.1, "noise": "x"}}, r"hardware\.validation\.noise is a number.*'x'"),
    ({"curves": {"copy": [[1, 2]]}}, r"hardware\.curves\.copy is a list of at least 2 \[size, seconds\] points"),
    ({"curves": {"copy": "x"}}, r"hardware\.curves\.copy is a list of at least 2"),
    ({"curves": {"copy": [[1, 2], [3]]}}, r"hardware\.curves\.copy: a point is \[size, seconds\].*got \[3\]"),
    ({"curves": {"copy": [[1, 2], [3, math.nan]]}}, "seconds of a point is a number of at least 0, got nan"),
    ({"curves": {"copy": [[-1, 2], [3, 4]]}}, r"at least 0, got -1"),
    ({"curves": {"copy": [[1, 2], [1, 3]]}}, r"sizes grow and seconds never fall, got \[1, 3\] after \[1, 2\]"),
    ({"curves": {"copy": [[1, 2], [3, 1]]}}, r"sizes grow and seconds never fall, got \[3, 1\] after \[1, 2\]"),
]


@pytest.mark.parametrize(("changed", "words"), BAD)
def test_a_bad_figure_is_named(changed, words):
    with pytest.raises(ValueError, match=words):
        hardware_from(node_of("hardware", "h100") | changed)


def test_what_a_calibration_writes_is_taken():
    measured = {
        "curves": {"copy": [[0, 1e-6], [1024, 1e-6], [4096, 2e-6]]},
        "calibrated_for": {"dtype": "float32", "num_heads": 8, "num_kv_heads": 2, "head_dim": 64},
        "validation": {"error": 0.1, "noise": 0.03, "by_strategy": {"static": 0.1}, "scenarios": ["bursty"]},
    }
    made = hardware_from(node_of("hardware", "h100") | measured)
    assert made.curves["copy"][1] == [1024, 1e-6]
    assert made.validation["error"] == 0.1


def test_a_missing_figure_is_said_with_what_the_file_takes():
    node = node_of("hardware", "h100")
    del node["host_bytes_per_s"]
    with pytest.raises(ValueError, match="hardware H100 SXM 80 GB: missing host_bytes_per_s; it takes name, memory_by"):
        hardware_from(node)
    with pytest.raises(ValueError, match=r"hardware: missing name, memory_bytes, .*; it takes"):
        hardware_from({})


def test_what_no_question_needs_may_be_left_out():
    memory_alone = {"name": "Mine", "memory_bytes": 24 * 2**30}
    made = accelerator_from(memory_alone)
    assert made.memory_bytes == 24 * 2**30
    with pytest.raises(ValueError, match=r"Mine states no hardware\.link_s, which a test needs"):
        made.needed("link_s", "a test")
    assert accelerator_from(memory_alone | {"link_s": 2e-6}).needed("link_s", "a test") == 2e-6
    with pytest.raises(ValueError, match="hardware Mine: missing memory_bytes_per_s, flops_per_s"):
        hardware_from(memory_alone)
    with pytest.raises(ValueError, match="hardware: missing name, memory_bytes; it takes name"):
        accelerator_from({})
    with pytest.raises(ValueError, match=r"unknown figure 'links'\. Did you mean 'link_s'"):
        accelerator_from(memory_alone | {"links": 3})
    assert accelerator_from(node_of("hardware", "h100")).memory_bytes == round(79.18 * 2**30)


def test_an_unknown_figure_is_said_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown figure 'flops'\. Did you mean 'flops_per_s'\?"):
        hardware_from(node_of("hardware", "h100") | {"flops": 1.0})


def config(model="llama3_8b", dtype=None, hardware=None, **changed):
    return {"model": node_of("model", model) | changed, "dtype": dtype, "hardware": hardware}


def test_weights_take_the_configured_dtype():
    assert weights_of(config()).num_bytes == 2 * 8_030_261_248
    assert weights_of(config(dtype="float32")).num_bytes == 4 * 8_030_261_248
    assert weights_of(config("deepseek_v3")).active_bytes == 39_513_107_456  # of eight bits, but embeddings and head
    assert weights_of(config("article")) is None


def test_hardware_is_optional():
    assert hardware_of(config()) is None
    assert hardware_of({}) is None
    assert hardware_of(config(hardware=node_of("hardware", "h200"))).name == "H200 SXM 141 GB"
    with pytest.raises(UsageError, match="hardware is a mapping of figures, got 3"):
        hardware_of(config(hardware=3))


def flat(**changed):
    """A model by kvbench's own keys."""
    sizes = {"num_layers": 32, "num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "dtype": "bfloat16"}
    weights = {"hidden_size": 4096, "num_parameters": 8_030_261_248, "num_active_parameters": None}
    return {"model": {"name": "Mine", **sizes, **weights, **changed}, "dtype": None, "hardware": None}


def test_a_models_missing_and_unknown_keys_are_named():
    without = flat()
    del without["model"]["head_dim"]
    with pytest.raises(UsageError, match="model: missing head_dim; it takes num_layers, num_heads"):
        geometry_of(without)
    with pytest.raises(UsageError, match=r"unknown parameter 'num_parametres'\. Did you mean 'num_parameters'\?"):
        geometry_of(flat(num_parametres=3))
    with pytest.raises(UsageError, match=r"model\.num_active_parameters is at most num_parameters"):
        weights_of(flat(num_active_parameters=10**12))


def test_a_model_file_without_weights_is_one_for_the_cache_alone():
    bare = flat()
    for key in ("hidden_size", "num_parameters", "num_active_parameters"):
        del bare["model"][key]
    assert geometry_of(bare).bytes_per_token == 131_072
    assert weights_of(bare) is None


def composed_with(*arguments):
    with read(["+scenario=short_chat", *arguments]) as command:
        check(command)
        check_keys(command)
        return composed(command)


@pytest.mark.parametrize("name", ["mine.yaml", "h100.yaml", "null.yaml", "my machine.yml"])
def test_a_file_of_the_users_is_chosen_by_its_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("defaults: [h200, _self_]\nname: Mine\nlaunch_s: 1.0e-6\n")
    for path in (f"./{name}", str(tmp_path / name)):
        made = hardware_of(composed_with(f"hardware={path}", "hardware.step_s=0"))
        assert (made.name, made.launch_s, made.step_s, made.memory_bytes) == ("Mine", 1e-6, 0, round(139.8 * 2**30))


def test_hardware_is_chosen_with_or_without_a_plus_and_none_by_default():
    assert hardware_of(composed_with()) is None
    for argument in ("hardware=l40s", "+hardware=l40s"):
        assert hardware_of(composed_with(argument)).name == "L40S 48 GB"

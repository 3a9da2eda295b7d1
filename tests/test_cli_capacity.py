"""The verb capacity: what it prints, writes and refuses."""

import json
import subprocess
import sys

import pytest

import kvbench as kv
from kvbench.workload.scenario import Appends
from tests.support.published import LLAMA

MODEL, H100 = "model=./llama.json", "hardware=" + "h100"
SAID = """
import sys
sys.argv[1:] = sys.argv[1].split()
from kvbench.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code
assert not {"torch", "pandas", "hydra", "matplotlib"} & set(sys.modules)
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama.json").write_text(json.dumps(LLAMA))


def answers(kvbench, *arguments):
    return json.loads(kvbench("capacity", *arguments, "format=json"))


def test_it_imports_no_torch_and_no_pandas():
    asked = " ".join(["capacity", MODEL, H100, "scenario=chat_poisson", "format=json"])
    done = subprocess.run([sys.executable, "-c", SAID, asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes_per_token"] == 131_072


def test_one_object_an_accelerator(kvbench):
    alone = answers(kvbench, MODEL, H100)
    both = answers(kvbench, MODEL, "hardware=h100,h200")
    assert both[0] == alone
    assert [each["hardware"] for each in both] == ["h100", "h200"]
    assert answers(kvbench, MODEL, "hardware=[ h100 , h200 ]") == both
    assert both[1]["num_tokens"] > alone["num_tokens"] > 0


def test_the_call_gives_what_the_verb_prints(kvbench):
    fit = kv.capacity("./llama.json", hardware="h100", engine="ideal", settings={"model.kv_dtype": "fp8_e4m3"})
    asked = (MODEL, H100, "engine=ideal", "model.kv_dtype=fp8_e4m3")
    assert answers(kvbench, *asked) == fit.as_dict()
    assert kvbench("capacity", *asked).rstrip("\n") == fit.text


def test_a_call_is_of_one_accelerator():
    with pytest.raises(ValueError, match=r"hardware is one accelerator, got \['h100'\]; of several, ask once for each"):
        kv.capacity("./llama.json", hardware=["h100"])


def test_lengths_that_are_not_served_are_said():
    fit = kv.capacity("./llama.json", hardware="h100", scenario=Appends(appends=[1_000, 200_000]), strategies=())
    assert "the scenario's p95 of 201,000 tokens is more than is served" in fit.text
    assert fit.requests[201_000] == 2


def test_a_scenarios_own_lengths(kvbench):
    found = answers(kvbench, MODEL, H100, "scenario=chat_poisson", "strategy=[dynamic,sinks]")
    mean, p95 = (found["scenario"][name] for name in ("mean", "p95"))
    assert mean < p95
    assert found["requests"][str(mean)] > found["requests"][str(p95)] > found["requests"]["131072"]
    assert set(found["strategies"]) == {"dynamic", "sinks"}


def test_the_chart_is_written_where_it_is_told(kvbench, tmp_path):
    said = kvbench("capacity", MODEL, H100, "chart=charts/mine.png")
    assert "chart: charts/mine.png, charts/mine.svg" in said
    assert {path.name for path in (tmp_path / "charts").iterdir()} == {"mine.png", "mine.svg"}


def test_what_does_not_fit_is_an_answer(kvbench):
    asked = (MODEL, "hardware=t4", "engine.max_model_len=65536")
    found = answers(kvbench, *asked)
    assert (found["num_blocks"], found["num_tokens"], found["max_concurrency"]) == (0, 0, 0)
    assert found["short_bytes"] > 0
    assert any("parallel.tensor=2" in each for each in found["instead"])
    said = kvbench("capacity", *asked)
    assert "nothing fits" in said
    assert "parallel.tensor=2" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([H100], ["model=… is missing", "for example"]),
        ([MODEL], ["hardware=… is missing"]),
        ([MODEL, "hardware="], ["hardware=… is missing"]),
        (["llama3_8b", H100], ["expected key=value, got 'llama3_8b'"]),
        ([MODEL, MODEL, H100], ["model=… stands twice"]),
        (["model=llama3_8", H100], ["unknown model 'llama3_8'", "'llama3_8b'"]),
        ([MODEL, "hardware=h10"], ["unknown hardware 'h10'", "'h100'"]),
        ([MODEL, H100, "engine=vlm"], ["unknown engine 'vlm'", "'vllm'"]),
        ([MODEL, H100, "model.kv_dtyp=fp8"], ["'kv_dtyp'", "'kv_dtype'"]),
        ([MODEL, H100, "model.kv_dtype=fp9"], ["fp9", "fp8"]),
        ([MODEL, H100, "parallel.tensr=2"], ["'tensr'", "'tensor'"]),
        ([MODEL, H100, "parallel.tensor=3"], ["parallel.tensor divides the 32 heads", "got 3"]),
        ([MODEL, H100, "parallel.tensor=0"], ["parallel.tensor is a positive integer"]),
        ([MODEL, H100, "parallel.tensor=16"], ["at most the 8 accelerators of a node"]),
        ([MODEL, H100, "parallel.pipeline=33"], ["at most the 32 layers", "got 33"]),
        ([MODEL, H100, "engine.max_model_le=9"], ["'max_model_le'", "'max_model_len'"]),
        ([MODEL, H100, "format=xml"], ["format is table or json, got 'xml'"]),
        ([MODEL, H100, "chart=mine.pdf"], ["ends in .png or .svg", "mine.pdf"]),
        ([MODEL, H100, "strategy=dynamc"], ["unknown strategy 'dynamc'", "'dynamic'"]),
        ([MODEL, H100, "scenario=chat_poison"], ["unknown scenario", "'chat_poisson'"]),
        ([MODEL, H100, "scenario=chat_poisson", "seed=x"], ["seed is an integer of at least 0"]),
        ([MODEL, H100, "sed=1"], ["unknown key 'sed'", "'seed'"]),
        (
            [
                MODEL,
                H100,
                "model.kv_dtype=[",
            ],
            ["model.kv_dtype: cannot read '['"],
        ),
        (["model=./none.json", H100], ["none.json"]),
        ([MODEL, "hardware=./none.yaml"], ["none.yaml"]),
        ([MODEL, H100, "model.kv_dtype=nvfp4"], ["H100", "no products in 4 bits", "fp8_e4m3"]),
    ],
)
def test_bad_input_is_one_message(kvbench, arguments, words):
    said = kvbench("capacity", *arguments, status=2)
    assert said.startswith("kvbench: ")
    for word in words:
        assert word in said, said

"""`make gpu`: every part has its limit, one that fails does not end the rest, and the table comes last."""

import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Part, checked, errors, fastest, goals, last_line, met, parts, run
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys, composed


def python(name, code, limit_s=60, digest=last_line, missing=""):
    return Part(name, limit_s, ("-c", code), digest, missing)


def test_parts_go_on_whatever_becomes_of_one(tmp_path, capsys):
    chosen = [
        python("good", "print('3 passed')"),
        python("fails", "import sys; print('1 failed'); sys.exit(3)"),
        python("hangs", "print('begun', flush=True); import threading; threading.Event().wait()", limit_s=1),
        python("lacking", "print('never')", missing="there is no trace"),
        python("long", f"print('a' * {gpu.LONGEST}); print('the | end')"),
    ]
    folder = tmp_path / "new" / "folder"
    assert run(chosen, {"device": "none"}, folder) == 1
    assert {path.name for path in folder.iterdir()} == {f"{part.name}.log" for part in chosen} | {
        "machine.json",
        "table.md",
    }
    text = (folder / "table.md").read_text()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert [(row[0], row[1], row[3]) for row in rows[2:]] == [
        ("good", "ok", "3 passed"),
        ("fails", "FAILED with status 3", "1 failed"),
        ("hangs", "ENDED after 1 s", "begun"),
        ("lacking", "skipped", "there is no trace"),
        ("long", "ok", "the / end"),
    ]
    assert capsys.readouterr().out.endswith(f"\n{text}\nfiles: {folder}\n")
    assert len((folder / "long.log").read_text()) == gpu.LONGEST
    assert (folder / "lacking.log").read_text() == "skipped: there is no trace\n"


def test_what_there_is_no_time_for_is_told(tmp_path):
    chosen = [python("late", "print('never')"), python("lacking", "", missing="there is no trace")]
    assert run(chosen, {}, tmp_path / "late", total_s=0) == 1
    assert "| late | NOT BEGUN | 0 | no time was left |" in (tmp_path / "late" / "table.md").read_text()
    assert run(chosen[1:], {}, tmp_path / "skipped") == 0


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py", str(tmp_path)])
    for device, words in (
        ("cuda", "finds no CUDA device here, so that nothing was run"),
        ("gpu", "is cpu or cuda, got 'gpu'"),
        ("cpu", "exists already"),
    ):
        monkeypatch.setenv(gpu.VARIABLE, device)
        assert gpu.main() == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_its_runs_can_be_composed(device, monkeypatch, tmp_path):
    monkeypatch.setenv("KVBENCH_TRACES", str(tmp_path))
    chosen = {part.name: part for part in parts(device)}
    names = ["probe", "tests", "short_chat", "chat_poisson", "azure_conv", "decode", "calibrate", "order", "memory"]
    assert list(chosen) == names
    if device == "cuda":
        assert sum(part.limit_s for part in chosen.values()) == gpu.TOTAL_S
    assert chosen["azure_conv"].missing == "KVBENCH_TRACES has no AzureLLMInferenceTrace_conv.csv"
    for name in ("short_chat", "chat_poisson", "azure_conv"):
        with read(list(chosen[name].arguments[2:])) as command:
            check(command)
            check_keys(command)
            config = composed(command)
        assert config["model"]["name"] == "Llama-3.1-8B"
        assert config["model"]["num_layers"] == (8 if device == "cuda" else 1)
        assert (config["dtype"], config["device"]) == ("bfloat16", device)
    assert any(path.endswith("test_gpu.py") for path in chosen["tests"].arguments)


def test_what_the_probe_says_in_short(tmp_path):
    said = [
        {"machine": {"torch": "2"}},
        {"copies": {"as_read": 4.1, "large": 4.3}},
        {"marks": {"failed": "RuntimeError: none"}},
        {"kernels": {"as_torch_chooses": [40.0, 41.0, 0.2]}},
        {"dynamic": {"busy_us": 300.4, "busy_host_us": 900.0, "busy_bytes": 1.0}},
    ]
    words = "marks RuntimeError: none; copy 4.3 TB/s, as read 4.1; attention as torch chooses ms: new 40.0, known 0.2; "
    assert met("\n".join(["a line", *map(json.dumps, said)]), tmp_path) == words + "dynamic busy 300 of 900 µs"
    assert met("it failed at once", tmp_path) == ""


def test_a_part_has_variables_and_a_program_of_its_own(tmp_path, capsys):
    code = "import os; print(os.environ['SANITIZED'], 'passed')"
    part = Part("some", 60, ("-c", code), last_line, under=("env",), environment={"SANITIZED": "1"})
    assert run([part], {}, tmp_path / "new") == 0
    assert "| some | ok |" in capsys.readouterr().out


def test_digests(tmp_path):
    assert last_line("....\n== 3 passed, 1 skipped in 2.00s ==\n\n", tmp_path) == "3 passed, 1 skipped in 2.00s"
    assert last_line("", tmp_path) == ""
    said = "| append / slices | 512 | bfloat16 | 1 | met | |\n| attention | 512 | float32 | 2 | MISSED |\n| none | 1 |"
    assert goals(said, tmp_path) == "1 of 2 goals met; missed: attention 512 float32"
    line = "short_chat: mean error 4.0 %, noise 1.0 %"
    assert errors(f"a\n{line}\nb", tmp_path) == line
    assert checked("==== a\n======= ERROR SUMMARY: 0 errors\n", tmp_path) == "ERROR SUMMARY: 0 errors"
    assert checked("some words", tmp_path) == "some words"
    assert fastest("", tmp_path) == "it wrote no summary"
    (tmp_path / "run").mkdir()
    summary = "strategy,outcome,step_mean_us\nstatic,completed,1234.5\nconcat,out_of_memory,\n"
    (tmp_path / "run" / "summary.csv").write_text(summary)
    assert fastest("", tmp_path) == "ms a step: static 1.23, concat out_of_memory"

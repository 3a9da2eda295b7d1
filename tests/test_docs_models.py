"""docs/models.md: its commands are accepted, its lists are the catalogue's, and its program runs."""

import re
import shlex
from pathlib import Path

import pytest

from kvbench.api.study import experiment_of
from kvbench.cli import VERBS
from kvbench.cli.arguments import key_values
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys, composed
from kvbench.cli.record import DEFAULTS, KEYS, USAGE
from kvbench.configuration.model import name_or_path_of
from tests.support.catalogue import STRATEGIES, strategy

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
RUNS = [line for line in LINES if line.startswith("python -m kvbench") and line.split()[3] not in VERBS]
RECORDS = [line for line in LINES if line.startswith("python -m kvbench record")]


def test_every_command_is_checked():
    installs = [line for line in LINES if line.startswith("python -m pip install")]
    assert len(installs) == 2
    assert sorted(installs + RUNS + RECORDS) == sorted(LINES)


@pytest.mark.parametrize("command", RUNS)
def test_its_runs_are_accepted(command):
    with read(shlex.split(command)[3:]) as line:
        check(line)
        check_keys(line)
        config = composed(line)
    if line.choices("experiment"):
        experiment_of(config)
        assert name_or_path_of(config)


@pytest.mark.parametrize("command", RECORDS)
def test_its_recordings_are_accepted(command):
    key_values(shlex.split(command)[4:], KEYS, ("model",), USAGE, DEFAULTS)


def test_it_names_the_strategies_that_need_kvbenchs_attention():
    shown = re.findall(r"`(\w+)`", PAGE.split("<!-- needing -->")[1].split("<!-- /needing -->")[0])
    built = {name: strategy(name) for name in STRATEGIES if name != "recompute"}
    assert shown == [name for name, made in built.items() if made.signals or not made.attends_all]


@pytest.mark.slow
def test_its_program_runs(smollm2, monkeypatch, capsys):
    # The model of the session, which this program gives another attention: it is put back.
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    before = smollm2.model.config._attn_implementation
    monkeypatch.setattr("kvbench.integrations.models.load", lambda name, device, dtype: smollm2)
    try:
        exec(compile(program, "docs/models.md", "exec"), {})
    finally:
        smollm2.model.set_attn_implementation(before)
    said, figures = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert said.startswith("The sky is blue because")
    assert "num_attended=32" in figures

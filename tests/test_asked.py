"""A results folder says how to run it again by hand."""

import re
import shlex

import pytest
import yaml

from kvbench.cli.asked import again, asked_for
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys, composed

SCENARIO = """
_target_: kvbench.workload.scenario.Appends
description: mine
appends: [100, 50, 10]
max_requests: 1
"""
HARDWARE = "defaults: [h200, _self_]\nname: Mine\n"
MODEL = "# a model of another folder\ndefaults: [article, _self_]\nname: Small\nnum_layers: 2\n"


def read_back(arguments):
    with read(arguments) as command:
        check(command)
        check_keys(command)
        overrides = [o.input_line for o in command.overrides if not o.key_or_group.startswith("hydra.")]
        return composed(command), asked_for(arguments, command).record(overrides)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    folder = tmp_path / 'my folder\'s "own"'
    (folder / "more, and" / "model").mkdir(parents=True)
    (folder / "good.yaml").write_text(SCENARIO)
    (folder / "h100.yaml").write_text(HARDWARE)
    (folder / "more, and" / "model" / "small.yaml").write_text(MODEL)
    monkeypatch.chdir(folder)
    return folder


def arguments_of(line, monkeypatch):
    """A recorded line, as a shell would take it."""
    change, directory, then, *command = shlex.split(line)
    assert (change, then, command[:3]) == ("cd", "&&", ["python", "-m", "kvbench"])
    monkeypatch.chdir(directory)
    return command[3:]


@pytest.mark.parametrize(
    "folders", [["--config-dir", "more, and"], ["hydra.searchpath=['file://more, and']"]], ids=["flag", "key"]
)
def test_what_was_asked_for_can_be_asked_again(mine, tmp_path, monkeypatch, folders):
    files = ["+scenario=./good.yaml", "hardware=h100.yaml", "model=small", "backend=modelled", "hydra.run.dir=here"]
    config, asked = read_back([*folders, *files, "trusted=[mine]", "strategy=[static,dynamic]"])
    assert asked["working_directory"] == str(mine)
    for path in re.findall(r"/[^ ]*kvbench-[^ ]*", str(asked)):
        pytest.fail(f"{path} is gone when the run has ended")
    monkeypatch.chdir(tmp_path)
    repeated, later = read_back(arguments_of(asked["again"], monkeypatch))
    assert repeated == config
    assert later["again"] == asked["again"]
    assert repeated["hardware"]["name"] == "Mine"


def test_the_scenario_of_a_configuration_is_a_scenario_file(mine):
    config, _ = read_back(["+scenario=good.yaml"])
    (mine / "good.yaml").unlink()
    (mine / "cut_out.yaml").write_text(yaml.safe_dump(config["scenario"]))
    assert read_back(["+scenario=cut_out.yaml"])[0] == config


def test_a_run_is_repeated_into_a_new_folder():
    line = again("/somewhere", ["-m", "+scenario=a,b", "hydra.sweep.dir=here", "strategy=[static,dynamic]"])
    assert line == "cd /somewhere && python -m kvbench -m +scenario=a,b 'strategy=[static,dynamic]'"

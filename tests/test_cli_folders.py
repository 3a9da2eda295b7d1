"""A configuration folder from a stranger: what Hydra would take from it is refused, and nothing in it is ever run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

import kvbench
from kvbench.cli import files
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys, composed
from kvbench.configuration.catalogue import GROUPS
from kvbench.configuration.errors import UsageError
from kvbench.configuration.vet import MOST_REFERENCES

SCENARIO = "_target_: kvbench.workload.scenario.Appends\ndescription: mine\nappends: [3]\n"
CALLBACK = "# @package hydra.callbacks.x\n_target_: evil.Callback\n"
OPENED = "# @package {}\n_target_: builtins.open\nfile: touched\nmode: w\n"
LOGGING = "# @package hydra.job_logging\nversion: 1\nhandlers: {x: {(): evil.Callback}}\n"

OUTSIDE = {  # a file that Hydra would find, and the arguments that would choose it where Hydra would not by itself
    "hydra/launcher/basic.yaml": (CALLBACK, []),
    "hydra/sweeper/basic.yaml": (CALLBACK, []),
    "hydra/callbacks/default.yaml": (CALLBACK, ["hydra/callbacks=default"]),
    "hydra/job_logging/mine.yaml": (LOGGING, ["hydra/job_logging=mine"]),
    "hydra/hydra_logging/mine.yaml": (LOGGING, ["hydra/hydra_logging=mine"]),
    "hydra/help/default.yaml": (CALLBACK, []),
    "hydra/hydra_help/default.yaml": (CALLBACK, []),
    "hydra/output/default.yaml": (CALLBACK, []),
    "hydra/env/default.yaml": (CALLBACK, []),
    "hydra/config.yaml": (CALLBACK, []),
    "Hydra/launcher/basic.YML": (CALLBACK, []),
    "config.yaml": ("hydra: {searchpath: ['pkg://evil']}\n", []),
    "seed/x.yaml": (OPENED.format("hydra.callbacks.x"), ["+seed=x"]),
    "quality/x.yaml": ("# @package _global_.hydra.callbacks\nx: {_target_: evil.Callback}\n", ["+quality=x"]),
    "text/x.yaml": (OPENED.format("_global_.hydra.callbacks.x"), ["+text=x"]),
    "scenario/deep/x.yaml": (OPENED.format("hydra.callbacks.x"), ["+scenario=deep/x"]),
    "hydra_config.yaml": (CALLBACK, ["+hydra_config=x"]),
    "experiments/x.yaml": (CALLBACK, []),
}


HARMLESS = {"text/x.yaml"}
"""Where the arguments mean what they would mean without the folder."""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A folder with a module that leaves a trace when it is imported, and a way to add files to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('touched', 'w').close()\nclass Callback: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    def add(name, content):
        path = tmp_path / "stranger" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    yield add
    assert not (tmp_path / "touched").exists()


def composing(*arguments):
    with read(list(arguments)) as command:
        check(command)
        check_keys(command)
        return composed(command)


@pytest.mark.parametrize("admission", ["--config-dir=stranger", "hydra.searchpath=[file://stranger]"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_folder_that_holds_more_than_kvbenchs_groups_is_refused(name, admission, stranger):
    content, chosen = OUTSIDE[name]
    stranger(name, content)
    with pytest.raises(UsageError, match=r"a folder hydra|holds no other YAML"):
        composing(admission, "+scenario=short_chat", *chosen)


@pytest.mark.parametrize("name", OUTSIDE)
def test_hydra_never_reads_what_lies_in_a_folder(name, stranger, kvbench, monkeypatch):
    content, chosen = OUTSIDE[name]
    stranger(name, content)
    monkeypatch.setattr(files, "_check_folder", lambda folder: None)
    shown = kvbench(
        "--config-dir=stranger",
        "+scenario=short_chat",
        "--cfg=all",
        *chosen,
        status=0 if name in HARMLESS or not chosen else 2,
    )
    assert "evil" not in shown.replace("kvbench: ", "").partition("\n")[2]


INSIDE = [
    # a file of one of kvbench's groups, words of the message
    ("# @package hydra.callbacks.x\n" + SCENARIO, "package is scenario"),
    ("# @package _global_.hydra\n" + SCENARIO, "package is scenario"),
    ("# hello\n\n#@package   scenario.hydra\n" + SCENARIO, "package is scenario"),
    ("# @package: _global_\n" + SCENARIO, "package is scenario"),
    ("%YAML 1.1\n---\n# @package _global_\n" + SCENARIO, "package is scenario"),
    (SCENARIO + "hydra: {searchpath: ['pkg://evil']}\n", "may not set hydra"),
    (SCENARIO + "defaults: [/hydra/launcher@_global_: basic]\n", "defaults list"),
    (SCENARIO + "defaults: [override /hydra/job_logging: default]\n", "defaults list"),
    (SCENARIO + "defaults: ['/config']\n", "defaults list"),
    (SCENARIO + "defaults: ['../hydra/x']\n", "defaults list"),
    (SCENARIO + "defaults: {strategy: evil}\n", "defaults list"),
    (SCENARIO + "more: {callbacks: {_target_: evil.Callback}}\n", "unknown target 'evil.Callback'"),
    (SCENARIO + "trusted: [evil]\nmore: {_target_: evil.Callback}\n", "unknown target 'evil.Callback'"),
]


@pytest.mark.parametrize(("content", "words"), INSIDE)
def test_a_file_in_a_group_stays_in_it(content, words, stranger):
    stranger("scenario/mine.yaml", content)
    with pytest.raises(UsageError, match=words):
        composing("--config-dir=stranger", "+scenario=mine")


COMMANDS = [
    # Hydra's own settings, by which a run could be made to call something
    "hydra/job_logging=default",
    "hydra/launcher@hydra.callbacks.x=basic",
    "+hydra/launcher@quality=basic",
    "+hydra.job_logging.handlers.x={(): evil.Callback}",
    "hydra.job.env_set={PYTHONPATH: stranger}",
    "hydra.job.chdir=true",
    "hydra.output_subdir=x",
    "hydra.mode=MULTIRUN",
    "~hydra.callbacks",
    "hydra={callbacks: {}}",
    "+seed@hydra.callbacks.x=basic",
    "+_dummy_empty_config_@hydra.callbacks=x",
    "+text={_target_: evil.Callback}",
    "+data.x={_target_: evil.Callback}",
    "text={a: [{_target_: evil.Callback}]}",
    "+model.x={_target_: evil.Callback}",
]


@pytest.mark.parametrize("override", COMMANDS)
def test_settings_that_could_run_something_are_refused(override, stranger, kvbench):
    kvbench("+scenario=short_chat", override, status=2)


def test_a_folder_of_kvbenchs_groups_is_used_and_forgotten(stranger, kvbench):
    stranger("scenario/mine.yaml", SCENARIO)
    stranger("scenario/mine_too.yaml", "defaults: [mine, _self_]\nappends: [3, 4]\n")
    stranger("strategy/half.yaml", "# @package strategy.half\n_target_: kvbench.strategy.concat.Concat\n")
    stranger("README.md", "nothing")
    for admission in ("--config-dir=stranger", "hydra.searchpath=[file://stranger]"):
        config = composing(admission, "+scenario=mine_too", "strategy=[half]", "scenario.max_concurrency=2")
        assert config["scenario"]["appends"] == [3, 4]
        assert config["scenario"]["max_concurrency"] == 2
        assert list(config["strategy"]) == ["half"]
        assert not any(ConfigStore.instance().repo.get(group) for group in GROUPS)
    kvbench(
        "--config-dir=stranger", "-m", "+scenario=glob(mine_*)", "strategy=half", "model.num_layers=1", "repetitions=1"
    )


def test_kvbenchs_own_file_comes_before_a_folders(stranger):
    stranger("scenario/short_chat.yaml", SCENARIO)
    assert composing("--config-dir=stranger", "+scenario=short_chat")["scenario"]["description"] != "mine"


SECRETS = ["${oc.env:SECRET}", "a ${oc.env:SECRET}", "${oc.${dtype}:SECRET}", "${oc.decode:${oc.env:SECRET}}"]
SECRETS += ["${oc.select:nowhere,${oc.env:SECRET}}", "${ oc.env:SECRET }", "${oc.env:SECRET,1}", "${now:%Y}"]


@pytest.mark.parametrize("text", SECRETS)
def test_a_file_does_not_read_the_environment(text, stranger):
    stranger("scenario/mine.yaml", SCENARIO.replace("mine", f"'{text}'"))
    with pytest.raises(UsageError, match="may refer to another key"):
        composing("--config-dir=stranger", "+scenario=mine")


def test_the_command_line_may_read_the_environment_and_a_file_may_point_at_a_key(stranger, monkeypatch):
    monkeypatch.setenv("SECRET", "of my own")
    stranger("scenario/mine.yaml", SCENARIO.replace("mine", "'${device}'"))
    config = composing("--config-dir=stranger", "+scenario=mine", "device=${oc.env:SECRET}")
    assert config["scenario"]["description"] == "of my own"


def test_references_cannot_grow_without_end(stranger):
    many = "".join(f"x{number}: '${{seed}}'\n" for number in range(MOST_REFERENCES + 1))
    stranger("scenario/mine.yaml", SCENARIO + many)
    with pytest.raises(UsageError, match="refers to other keys at most"):
        composing("--config-dir=stranger", "+scenario=mine")


def test_the_working_directory_brings_no_plugin_of_hydras(tmp_path):
    for name in ("hydra_plugins/evil.py", "hydra_plugins/evil/__init__.py", "tqdm.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("open('touched', 'w').close()\n")
    environment = os.environ | {"PYTHONPATH": str(Path(kvbench.__file__).parent.parent)}
    command = [sys.executable, "-m", "kvbench", "+scenario=short_chat", "--cfg=job"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "touched").exists()

"""Sweeps with a manifest through the command line: stopped, taken up again, shared, joined."""

import json

import pytest

from kvbench.api import working
from kvbench.api.points import configuration_of, place
from kvbench.cli import points, run
from kvbench.cli.asked import asked_for
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys
from kvbench.cli.points import has_manifest, manifest_of
from kvbench.cli.work import main as run_work
from kvbench.configuration.errors import UsageError
from kvbench.decide.manifest import read_manifest
from kvbench.results.results import load
from tests.support.killed import manifest_of as tiny
from tests.test_configuration import composed

TINY = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=8"]
SWEEP = ["-m", "+scenario=short_chat", "strategy=[static,exact]", *TINY, "backend=counted", "seed=1,2,3"]


def made(*arguments):
    with read([*arguments]) as command:
        check(command)
        check_keys(command)
        return manifest_of(command, asked_for([*arguments], command))


@pytest.fixture
def broken(monkeypatch):
    """Breaks the points that are named, as long as they are."""
    names, job_of = set(), working.carry_out

    def carry_out(manifest, folder, point, say):
        if point.number in names:
            raise KeyboardInterrupt
        return job_of(manifest, folder, point, say)

    monkeypatch.setattr(working, "carry_out", carry_out)
    return names


@pytest.mark.parametrize(
    "fixed",
    [
        ["+scenario=chat_poisson", "strategy=[paged,dynamic]", "backend=fleet", "hardware=h100", "model=llama3_8b"],
        ["+scenario=short_chat", "data=x.safetensors", "device=cpu"],
        ["+scenario=chat_poisson", "backend=fleet", "hardware=h100", "scenario.repetitions=7"],
        ["+scenario=short_chat", "seed=${scenario.repetitions}", "repetitions='${oc.select:nowhere,3}'"],
        ["+scenario=short_chat", "+strategy@strategy.fast=dynamic", "strategy.fast.growth_factor=3"],
        ["+experiment=growth_factors"],
    ],
)
def test_points_are_what_hydra_would_compose(fixed, monkeypatch):
    swept = {"warmup": ["0", "1"], "model.num_layers": ["1", "2"], "model": ["llama3_8b", "article"]}
    if "model=llama3_8b" in fixed:
        fixed.remove("model=llama3_8b")
    manifest = made("-m", *fixed, *(f"{key}={','.join(values)}" for key, values in swept.items()))
    assert len(manifest) == 8
    for number in range(8):
        point = manifest.combination(number)
        expected = composed(*fixed, *point.lines)
        found = configuration_of(manifest, point)
        if "strategy" in expected and manifest.are_default:  # composed alone knows nothing of what a fleet compares
            expected["strategy"] = {name: expected["strategy"][name] for name in found["strategy"]}
        assert found == expected


def test_a_group_is_composed_once_a_choice(monkeypatch):
    asked, compose = [], points.compose_config
    monkeypatch.setattr(points, "compose_config", lambda lines: asked.append(lines) or compose(lines))
    manifest = made(*SWEEP, "model=llama3_8b,article,qwen3_8b", "hardware=h100,h200", "warmup=range(0,100)")
    assert len(manifest) == 3 * 3 * 2 * 100
    assert len(asked) == 1 + 2 + 1


@pytest.mark.parametrize(
    ("more", "is_so"), [("warmup=0", True), ("hydra.sweep.dir=x", True), ("hydra/launcher=joblib", False)]
)
def test_launchers_of_hydras_carry_jobs_as_they_did(more, is_so):
    with read([*SWEEP, more]) as command:
        assert has_manifest(command) == is_so


def test_a_key_is_set_where_it_leads():
    config = {"a": {"b": [1, {"c": 2}]}, "d": {"e": 1, "f": 2}}
    place(config, "a.b[1].c", 3)
    place(config, "d", {"e": 5, "g": {"h": 6}})
    place(config, "new.key", 7)
    assert config == {"a": {"b": [1, {"c": 3}]}, "d": {"e": 5, "f": 2, "g": {"h": 6}}, "new": {"key": 7}}
    for key in ("a.b[9]", "d.e.x", "d.e.x.y"):
        with pytest.raises(UsageError, match=key.partition("[")[0]):
            place(config, key, 1)


def test_the_same_command_goes_on_where_it_was_stopped(kvbench, tmp_path, broken, capsys):
    broken.add(1)
    with pytest.raises(KeyboardInterrupt, match="1 of 3 points are done; they are in results/short_chat/"):
        run.main(SWEEP)
    (folder,) = (tmp_path / "results" / "short_chat").iterdir()
    assert load(folder).summary["seed"].tolist() == [1, 1]
    assert "interrupted: 2 of 3 points are missing" in (folder / "report.md").read_text()
    broken.clear()
    said = kvbench(*SWEEP)
    assert "1 of 3 points are done already" in said
    assert "sweep: 3 jobs in results/short_chat/" in said
    assert list((tmp_path / "results" / "short_chat").iterdir()) == [folder]
    found = load(folder)
    assert found.summary["seed"].tolist() == [1, 1, 2, 2, 3, 3]
    assert found.requests["seed"].unique().tolist() == found.steps["seed"].unique().tolist() == [1, 2, 3]
    assert list(found.steps.columns)[:3] == ["repetition", "warmup", "strategy"]
    assert found.environment["points"] == {"all": 3, "finished": 3, "missing": 0}
    kvbench(*SWEEP)  # it is at its end: this is another
    assert len(list((tmp_path / "results" / "short_chat").iterdir())) == 2


def test_a_folder_takes_the_same_sweep_and_no_other(kvbench, tmp_path, broken):
    into = "hydra.sweep.dir=one"
    broken.add(2)
    with pytest.raises(KeyboardInterrupt, match="2 of 3 points are done"):
        run.main([*SWEEP, into])
    said = kvbench(*SWEEP, into, "warmup=0", status=2)
    assert "another sweep is in the folder: the configuration differs; name a new one" in said
    assert "not empty" in kvbench("+scenario=short_chat", *TINY, "hydra.run.dir=one", status=2)
    assert load(tmp_path / "one").summary["seed"].tolist() == [1, 1, 2, 2]
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    manifest["versions"]["packages"]["torch"] = "0.1"
    (tmp_path / "one" / "manifest.json").write_text(json.dumps(manifest))
    for command in (["resume", "one"], ["work", "one"]):
        assert "not this kvbench's, or not this machine's, to go on with: torch: 0.1 there" in kvbench(
            *command, status=2
        )
    kvbench("collect", "one")


def test_other_commands_run_join_and_take_up_a_sweep(kvbench, tmp_path, broken):
    said = kvbench(*SWEEP, "hydra.sweep.dir=one", "workers=0")
    assert "one: 3 points. Run them: python -m kvbench work one" in said
    assert "has no finished job" in kvbench("collect", "one", status=1)
    broken.add(2)
    with pytest.raises(KeyboardInterrupt):
        run_work(["one"])
    assert "sweep: 2 jobs in one, 1 missing" in kvbench("collect", "one")
    broken.clear()
    assert "nothing is left to run; join it: python -m kvbench collect one" in kvbench("work", "one")
    assert "sweep: 3 jobs in one" in kvbench("resume", "one")
    assert load(tmp_path / "one").summary["seed"].tolist() == [1, 1, 2, 2, 3, 3]


def test_a_measured_sweep_is_one_machines(kvbench, tmp_path, monkeypatch):
    sweep = [*(each for each in SWEEP if not each.startswith("backend=")), "device=cpu", "repetitions=1"]
    kvbench(*sweep, "hydra.sweep.dir=one", "workers=0")
    monkeypatch.setattr(working, "this_machine", lambda: {"host": "elsewhere", "cpu": "another"})
    assert "there, elsewhere here" in kvbench("work", "one", status=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["work"], ["give the folder of one sweep, got none"]),
        (["resume", "a", "b"], ["got a, b"]),
        (["collect", "nowhere"], ["nowhere is no folder of a sweep: it has no manifest.json"]),
        (["collect", "nowhere", "workers=2"], ["unknown key 'workers'"]),
        (["work", "nowhere", "wrkers=2"], ["workers"]),
        ([*SWEEP, "workers=two"], ["workers is a whole number of processes", "'two'"]),
        (["+scenario=short_chat", "workers=2"], ["workers=2 is of a sweep: add -m"]),
        ([*SWEEP, "workers=2", "hydra/launcher=basic"], ["of a sweep with a manifest"]),
        ([*SWEEP, "warmup=interval(0,1)"], ["warmup=interval(0,1)"]),
    ],
)
def test_what_cannot_be_is_told(kvbench, arguments, words):
    said = kvbench(*arguments, status=2)
    for word in words:
        assert word in said


def test_a_manifest_names_packages_only_with_leave(kvbench, tmp_path):
    node = "+strategy.own={_target_: brokenpackage.Own}"
    made("-m", "+scenario=short_chat", node, "trusted=[brokenpackage]", "seed=1,2").write(tmp_path)
    with pytest.raises(UsageError, match="to let it, say so: trusted=\\[brokenpackage\\]"):
        working.work(tmp_path)
    with pytest.raises(UsageError, match="at least 1, got 0"):
        working.work(tmp_path, workers=0, trusted=["brokenpackage"])


@pytest.mark.slow
def test_processes_share_a_sweep(kvbench, tmp_path):
    kvbench(*SWEEP[:-1], "seed=range(0,40)", "hydra.sweep.dir=one", "workers=2")
    assert load(tmp_path / "one").summary["seed"].tolist() == [seed for seed in range(40) for _ in range(2)]


def test_what_a_row_refers_to_is_known(tmp_path):
    manifest = made(*SWEEP, "warmup=0,${seed}")
    manifest.write(tmp_path)
    again = read_manifest(tmp_path)
    assert again.identity == manifest.identity
    assert [configuration_of(again, again.combination(number))["warmup"] for number in range(4)] == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("machine", "workers", "warned"), [({"cpu": "this"}, 2, True), ({"cpu": "this"}, 1, False), (None, 2, False)]
)
def test_workers_that_measure_on_one_machine_are_warned(tmp_path, monkeypatch, capsys, machine, workers, warned):
    for way in ("_run_beside", "run_here"):
        monkeypatch.setattr(working, way, lambda *_: None)
    working.work_on(tmp_path, tiny(3, machine=machine), workers)
    assert ("measure on one machine" in capsys.readouterr().err) == warned

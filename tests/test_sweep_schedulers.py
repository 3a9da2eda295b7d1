"""Schedulers that start workers of a sweep, as the docs have them; a test skips where its own is not installed."""

import pytest
import yaml

from kvbench.cli import VERBS
from kvbench.results.results import load
from tests.support.pages import ROOT, blocks
from tests.test_cli_sweep import SWEEP


@pytest.fixture
def schedulers():
    """What the page defines."""
    found = {}
    (block,) = [each for each in blocks(ROOT / "docs" / "scaling.md", "python") if "schedulers.py" in each.text]
    exec(block.text, found)
    return found


@pytest.fixture
def folder(kvbench, tmp_path):
    """A sweep of which nothing is run."""
    kvbench(*SWEEP, "hydra.sweep.dir=one", "workers=0")
    return tmp_path / "one"


def check_ran(kvbench, folder):
    kvbench("collect", "one")
    assert load(folder).summary["seed"].tolist() == [1, 1, 2, 2, 3, 3]


@pytest.mark.slow
def test_submitit_runs_workers(schedulers, kvbench, folder):
    pytest.importorskip("submitit", reason="submitit is missing: pip install 'kvbench[slurm]'")
    schedulers["by_submitit"](str(folder), 2, cluster="local")
    check_ran(kvbench, folder)


@pytest.mark.slow
def test_ray_runs_workers(schedulers, kvbench, folder):
    pytest.importorskip("ray", reason="ray is missing: pip install 'kvbench[ray]'")
    schedulers["by_ray"](str(folder), 2, num_cpus=2, include_dashboard=False)
    check_ran(kvbench, folder)


def test_pods_run_what_a_worker_is_called():
    (job,) = [yaml.safe_load(block.text) for block in blocks(ROOT / "docs" / "scaling.md", "yaml")]
    (pod,) = job["spec"]["template"]["spec"]["containers"]
    *python, verb, _ = pod["command"]
    assert (python, verb in VERBS) == (["python", "-m", "kvbench"], True)
    (volume,) = job["spec"]["template"]["spec"]["volumes"]
    assert [volume["name"]] == [each["name"] for each in pod["volumeMounts"]]

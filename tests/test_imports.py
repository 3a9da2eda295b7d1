"""Imports point one way, and torch stays where tensors are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kvbench

ROOT = Path(kvbench.__file__).resolve().parent

GROUND = {
    "messages": set(),
    "files": set(),
    "compiled": set(),
    "lazy": set(),
    "checks": {"messages"},
    "tried": {"checks"},
}
DECIDE = {
    "plan": set(),
    "model": set(),
    "workload": set(),
    "ledger": {"plan", "model"},
    "predictor": {"workload"},
    "strategy": {"plan", "model", "workload", "ledger", "predictor", "engine"},
    "engine": {"model"},
}
# What each part may import of kvbench, besides itself and the ground.
ALLOWED = {part: set(GROUND) | allowed for part, allowed in DECIDE.items()}
ALLOWED |= GROUND
ALLOWED["results"] = {*GROUND, "model"}
ALLOWED["charts"] = {*GROUND, "results"}
ALLOWED["timing"] = {*GROUND, "model"}
ALLOWED["backend"] = {*GROUND, "plan", "model", "timing", "ledger", "engine", "results"}
ALLOWED["runner"] = {*ALLOWED["backend"], "backend", "strategy", "workload"}
ALLOWED["fleet"] = ALLOWED["runner"]
ALLOWED["integrations"] = ALLOWED["runner"] | {"runner"}
ALLOWED["calibration"] = ALLOWED["runner"] | {"runner", "fleet"}
ALLOWED["quality"] = ALLOWED["integrations"] | {"integrations"}
ALLOWED["decide"] = {*ALLOWED["runner"], "runner", "fleet"}
ALLOWED["studies"] = {*ALLOWED["quality"], "quality", "calibration", "fleet", "charts", "decide"}
ALLOWED["configuration"] = {*ALLOWED["studies"], "studies"}
ALLOWED["api"] = {*ALLOWED["configuration"], "configuration", "predictor"}
ALLOWED["cli"] = {*GROUND, "workload", "results", "charts", "decide", "configuration", "api"}  # it computes nothing
THIRD_PARTY = {
    "charts": {"numpy", "pandas", "matplotlib"},
    "results": {"numpy", "pandas", "pyarrow"},
    "fleet": {"numpy", "pandas"},
    "timing": {"numpy"},
    "compiled": {"numba"},
    "decide": {"numpy", "pandas", "pyarrow", "optuna"},
    "engine": set(),
    "predictor": {"numpy", "safetensors"},
    "ledger": set(),
    "model": set(),
    "plan": set(),
    "strategy": set(),
    "workload": {"numpy", "tokenizers"},
}
TORCH = ("backend", "calibration", "integrations", "quality", "runner/aio")


def modules():
    return list(ROOT.rglob("*.py"))


def part_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "kvbench.backend" and part_of(path) == "backend":
                yield from (f"kvbench.backend.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = part_of(path)
    for name in imported(path):
        root, _, rest = name.partition(".")
        if root in ("hydra", "omegaconf"):
            assert part in ("cli", "__main__"), f"{path} knows Hydra"
        if root == "torch":
            assert str(path.relative_to(ROOT)).startswith(TORCH), f"{path} imports torch"
        if root == "kvbench" and rest and part in ALLOWED:
            target = rest.split(".")[0]
            assert target in ALLOWED[part] | {part}, f"{path}: {part} may not import {target}"
        if part in THIRD_PARTY and root != "kvbench" and root not in sys.stdlib_module_names:
            assert root in THIRD_PARTY[part], f"{path}: {part} may not import {root}"


def test_every_part_has_a_rule():
    parts = {part_of(path) for path in modules()} - {"__init__", "__main__"}
    assert parts == set(ALLOWED)


LIST = """
import sys
sys.argv[1:] = sys.argv[1].split()
from kvbench.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code
assert not {"torch", "pandas", "hydra", "matplotlib"} & set(sys.modules)
"""


@pytest.mark.parametrize("argument", ["--help", "scenarios", "strategies", "metrics", "--version"])
def test_help_and_lists_import_no_torch(argument):
    done = subprocess.run([sys.executable, "-c", LIST, argument], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_files_are_small():
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in modules())
    assert lengths[len(lengths) // 2] < 150
    assert lengths[-1] <= 400


def test_no_two_classes_share_a_name():
    named = [
        node.name
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert {name for name in named if named.count(name) > 1} == set()


WITHOUT_NUMBA = """
import importlib, pkgutil, sys
sys.modules["numba"] = None
import kvbench.cli
for found in pkgutil.iter_modules(kvbench.cli.__path__):
    importlib.import_module(f"kvbench.cli.{found.name}")
import kvbench as kv
open("h100_mine.csv", "w").write("op,dtype,m,n,k,seconds\\ngemm,bfloat16,16,4096,4096,1e-5\\n")
assert len(kv.validate("h100_mine.csv").rows) == 1
"""


def test_verbs_need_no_extra_until_something_is_simulated(tmp_path):
    told = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr

"""Imports point one way, and torch stays where tensors are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kvbench

ROOT = Path(kvbench.__file__).resolve().parent

# What each part may import of kvbench; a part may always import itself.
ALLOWED = {
    "printable": set(),
    "naming": {"printable"},
    "environment": set(),
    "busy": set(),
    "partial": set(),
    "compiled": set(),
    "columns": set(),
    "schema": {"columns"},
    "statistics": set(),
    "geometry": {"naming"},
    "weights": set(),
    "hardware": {"naming"},
    "area": {"checks"},
    "checks": {"naming"},
    "ops": {"area", "checks"},
    "regular_file": set(),
    "workload": {"naming", "regular_file"},
    "prefix": {"compiled", "naming", "workload"},
    "ledger": {"area", "geometry", "naming", "ops"},
    "predictor": {"checks", "naming", "workload"},
    "strategy": {"area", "checks", "geometry", "naming", "ops", "ledger", "workload", "predictor"},
    "cost": {"geometry", "hardware", "weights"},
    "backend": {"naming", "environment", "area", "cost", "geometry", "hardware", "ops", "ledger", "weights"},
    "fleet": {
        "area",
        "backend",
        "compiled",
        "cost",
        "geometry",
        "hardware",
        "ledger",
        "naming",
        "strategy",
        "weights",
        "workload",
    },
    "recorder": {"backend", "columns"},
    "progress": {"recorder", "workload"},
    "batching": {
        "area",
        "backend",
        "columns",
        "ledger",
        "ops",
        "progress",
        "recorder",
        "strategy",
        "workload",
    },
    "runner": {"area", "backend", "batching", "ledger", "ops", "recorder", "strategy", "workload"},
    "aio": {"area", "backend", "geometry", "ledger", "ops", "runner", "strategy", "workload"},
    "calibration": {
        "area",
        "backend",
        "frames",
        "geometry",
        "hardware",
        "ledger",
        "ops",
        "recorder",
        "runner",
        "strategy",
        "workload",
    },
    "front": {"provenance", "schema"},
    "metrics": {"columns", "provenance", "schema", "statistics"},
    "frames": {"backend", "columns", "metrics", "provenance", "recorder", "schema", "workload"},
    "histogram": {"statistics"},
    "fleet_sums": {"histogram", "schema", "workload"},
    "fleet_frames": {"fleet_sums", "histogram", "schema", "workload"},
    "provenance": {"hardware"},
    "plots": {"front", "partial", "provenance", "schema"},
    "report": {"columns", "front", "printable", "provenance", "schema"},
    "results": {"metrics", "partial"},
    "quality": {"backend", "geometry", "ledger", "naming", "ops", "results", "strategy", "workload"},
    "integrations": {
        "area",
        "backend",
        "geometry",
        "ledger",
        "naming",
        "ops",
        "quality",
        "regular_file",
        "results",
        "strategy",
        "workload",
    },
    "experiment": {
        "aio",
        "area",
        "backend",
        "checks",
        "compiled",
        "cost",
        "fleet",
        "frames",
        "front",
        "geometry",
        "hardware",
        "integrations",
        "ledger",
        "metrics",
        "naming",
        "ops",
        "plots",
        "prefix",
        "provenance",
        "quality",
        "report",
        "results",
        "runner",
        "schema",
        "statistics",
        "strategy",
        "weights",
        "workload",
    },
}
THIRD_PARTY = {
    "front": {"numpy", "pandas"},
    "plots": {"numpy", "pandas", "matplotlib"},
    "report": {"numpy", "pandas"},
    "metrics": {"numpy", "pandas"},
    "fleet_frames": {"numpy", "pandas"},
    "provenance": {"pandas"},
    "schema": set(),
    "compiled": {"numba"},
    "prefix": {"numpy"},
    "fleet": {"numpy"},
    "predictor": {"numpy", "safetensors"},
    "strategy": set(),
    "workload": {"numpy"},
}


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
            assert part in ("aio", "backend", "calibration", "integrations", "quality"), f"{path} imports torch"
        if root == "kvbench" and rest and part in ALLOWED:
            target = rest.split(".")[0]
            assert target in ALLOWED[part] | {part}, f"{path}: {part} may not import {target}"
        if part in THIRD_PARTY and root != "kvbench" and root not in sys.stdlib_module_names:
            assert root in THIRD_PARTY[part], f"{path}: {part} may not import {root}"


def test_every_part_has_a_rule():
    parts = {part_of(path) for path in modules()} - {"__init__", "__main__", "cli"}
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

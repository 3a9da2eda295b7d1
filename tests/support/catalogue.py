"""Every strategy and every scenario that the project ships, built from its YAML, for contract tests."""

import yaml

from kvbench.configuration.catalogue import file_of, names
from kvbench.configuration.model import model_of
from kvbench.configuration.targets import build
from kvbench.model.geometry import KVGeometry

TINY = KVGeometry.uniform(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float32")
STRATEGIES = names("strategy")
SCENARIOS = [name for name in names("scenario") if name != "agents"]
"""Whose sessions are turns after turns, as a run takes them."""


def node_of(group, name):
    return yaml.safe_load(file_of(group, name).read_text(encoding="utf-8"))


def preset(name):
    return model_of({"model": node_of("model", name), "dtype": None})


def strategy(name, **changed):
    return build(node_of("strategy", name) | changed, "strategy", f"strategy.{name}")


def scenario(name, **changed):
    return build(node_of("scenario", name) | changed, "scenario", "scenario")

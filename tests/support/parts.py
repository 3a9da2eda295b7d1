"""Parts of chains under test, small enough to be counted by hand."""

from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.paged import Paged
from kvbench.strategy.predictive import Predictive
from kvbench.strategy.quantized import Quantized
from kvbench.strategy.sinks import Sinks
from kvbench.strategy.streaming import Streaming


def tiers(**changed):
    figures = {"fast_capacity": 40, "slow_capacity": 512, "disk_capacity": 0, "eviction": "age"}
    more = {"top_accessed": 8, "access_window": 4, "read_ahead": True, "background": False}
    return Hierarchical(**(figures | more | changed))


def packing(residual_tokens=16):
    return Quantized(bits=4, group_size=8, residual_tokens=residual_tokens, keys_per="channel")


def dynamic(maximum=600):
    return Dynamic(initial_capacity=8, growth_factor=1.5, max_capacity=maximum, round_to=1)


def paged(pool_tokens=64):
    return Paged(block_size=4, pool_tokens=pool_tokens)


def predictive():
    figures = {"initial_capacity": 8, "growth_factor": 1.5, "max_capacity": 600, "round_to": 1}
    return Predictive(history_window=4, rule="total", **figures)


def heavy():
    return HeavyHitters(num_heavy=12, num_recent=6)


def windows():
    return Streaming(window_size=32, overlap_size=6, max_retired=3)


def sinks(window=48):
    return Sinks(num_sinks=2, window=window)

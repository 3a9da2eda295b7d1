"""Strategies: each decides what happens to a sequence's slots, as a plan. One method a file; no tensors here."""

from typing import TYPE_CHECKING

from kvbench.lazy import public

if TYPE_CHECKING:
    from kvbench.strategy.adaptive import Adaptive as Adaptive
    from kvbench.strategy.adaptive import Switch as Switch
    from kvbench.strategy.async_growth import Ahead as Ahead
    from kvbench.strategy.base import Strategy as Strategy
    from kvbench.strategy.chain import Chain as Chain
    from kvbench.strategy.chunked import Chunked as Chunked
    from kvbench.strategy.compressed import Compressed as Compressed
    from kvbench.strategy.concat import Concat as Concat
    from kvbench.strategy.dynamic import Dynamic as Dynamic
    from kvbench.strategy.exact import Exact as Exact
    from kvbench.strategy.forecast import AverageForecast as AverageForecast
    from kvbench.strategy.forecast import LearnedForecast as LearnedForecast
    from kvbench.strategy.forecast import QuantileForecast as QuantileForecast
    from kvbench.strategy.fp8 import Fp8 as Fp8
    from kvbench.strategy.heavy_hitters import HeavyHitters as HeavyHitters
    from kvbench.strategy.hierarchical import Hierarchical as Hierarchical
    from kvbench.strategy.paged import Paged as Paged
    from kvbench.strategy.power_of_two import PowerOfTwo as PowerOfTwo
    from kvbench.strategy.predictive import Predictive as Predictive
    from kvbench.strategy.quantized import Quantized as Quantized
    from kvbench.strategy.recompute import Recompute as Recompute
    from kvbench.strategy.sinks import Sinks as Sinks
    from kvbench.strategy.sinks_quantized import SinksQuantized as SinksQuantized
    from kvbench.strategy.snapkv import SnapKV as SnapKV
    from kvbench.strategy.static import Static as Static
    from kvbench.strategy.streaming import Streaming as Streaming

__getattr__, __all__ = public(__name__, __file__)


def __dir__() -> list[str]:
    return __all__

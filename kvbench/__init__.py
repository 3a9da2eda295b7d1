"""kvbench: benchmark KV-cache strategies for LLM inference.

The public names are here; `kvbench.strategy`, `kvbench.workload` and `kvbench.plan` hold the rest. Each is imported
when it is used: `import kvbench` loads neither torch nor pandas.
"""

from typing import TYPE_CHECKING

from kvbench.lazy import public

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kvbench.api.calibrating import calibrate as calibrate
    from kvbench.api.calibrating_from import calibrate_from as calibrate_from
    from kvbench.api.capacity import capacity as capacity
    from kvbench.api.collecting import collect as collect
    from kvbench.api.comparing import compare as compare
    from kvbench.api.job import Stopped as Stopped
    from kvbench.api.rating import rate as rate
    from kvbench.api.recommending import recommend as recommend
    from kvbench.api.recording import record as record
    from kvbench.api.rerunning import rerun as rerun
    from kvbench.api.training import train as train
    from kvbench.api.tuning import tune as tune
    from kvbench.api.validating import validate as validate
    from kvbench.api.verbs import describe as describe
    from kvbench.api.verbs import run as run
    from kvbench.api.verbs import show as show
    from kvbench.api.verbs import study as study
    from kvbench.api.verbs import sweep as sweep
    from kvbench.api.working import resume as resume
    from kvbench.api.working import work as work
    from kvbench.backend.measured import Measured as Measured
    from kvbench.backend.modelled import Modelled as Modelled
    from kvbench.engine.ideal import Ideal as Ideal
    from kvbench.engine.sglang import SGLang as SGLang
    from kvbench.engine.trtllm import TensorRTLLM as TensorRTLLM
    from kvbench.engine.vllm import VLLM as VLLM
    from kvbench.fleet.fleet import Fleet as Fleet
    from kvbench.integrations.models import load_model as load_model
    from kvbench.integrations.transformers.attention import use_attention as use_attention
    from kvbench.integrations.transformers.cache import KVBenchCache as KVBenchCache
    from kvbench.model.geometry import KVGeometry as KVGeometry
    from kvbench.model.groups import LayerGroup as LayerGroup
    from kvbench.model.hardware import Hardware as Hardware
    from kvbench.model.model import Model as Model
    from kvbench.model.parallel import Parallel as Parallel
    from kvbench.results.results import Results as Results
    from kvbench.results.results import load as load
    from kvbench.runner.aio import AsyncCaches as AsyncCaches
    from kvbench.strategy.adaptive import Adaptive as Adaptive
    from kvbench.strategy.base import Strategy as Strategy
    from kvbench.strategy.compressed import Compressed as Compressed
    from kvbench.strategy.dynamic import Dynamic as Dynamic
    from kvbench.strategy.fp8 import Fp8 as Fp8
    from kvbench.strategy.heavy_hitters import HeavyHitters as HeavyHitters
    from kvbench.strategy.hierarchical import Hierarchical as Hierarchical
    from kvbench.strategy.paged import Paged as Paged
    from kvbench.strategy.predictive import Predictive as Predictive
    from kvbench.strategy.quantized import Quantized as Quantized
    from kvbench.strategy.sinks import Sinks as Sinks
    from kvbench.strategy.snapkv import SnapKV as SnapKV
    from kvbench.strategy.static import Static as Static
    from kvbench.strategy.streaming import Streaming as Streaming
    from kvbench.workload.request import Request as Request
    from kvbench.workload.request import Session as Session
    from kvbench.workload.scenario import Scenario as Scenario

__getattr__, __all__ = public(__name__, __file__, ("plan", "strategy", "workload"))


def __dir__() -> list[str]:
    return __all__

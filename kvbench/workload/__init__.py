"""Workloads: what is asked of a cache, and when."""

from typing import TYPE_CHECKING

from kvbench.lazy import public

if TYPE_CHECKING:
    from kvbench.workload.agents import Agents as Agents
    from kvbench.workload.arrivals import AllAtOnce as AllAtOnce
    from kvbench.workload.arrivals import Arrivals as Arrivals
    from kvbench.workload.arrivals import ClosedLoop as ClosedLoop
    from kvbench.workload.arrivals import ConstantRate as ConstantRate
    from kvbench.workload.arrivals import Gamma as Gamma
    from kvbench.workload.arrivals import Poisson as Poisson
    from kvbench.workload.arrivals import Sinusoidal as Sinusoidal
    from kvbench.workload.conversation import Conversations as Conversations
    from kvbench.workload.conversation import ParallelSampling as ParallelSampling
    from kvbench.workload.dialogue import Dialogue as Dialogue
    from kvbench.workload.dialogue import Exchange as Exchange
    from kvbench.workload.lengths import ConstantLength as ConstantLength
    from kvbench.workload.lengths import Empirical as Empirical
    from kvbench.workload.lengths import Lengths as Lengths
    from kvbench.workload.lengths import Lognormal as Lognormal
    from kvbench.workload.lengths import Uniform as Uniform
    from kvbench.workload.lengths import Zipf as Zipf
    from kvbench.workload.prefixes import SharedPrefixes as SharedPrefixes
    from kvbench.workload.request import Request as Request
    from kvbench.workload.request import Session as Session
    from kvbench.workload.scenario import Appends as Appends
    from kvbench.workload.scenario import Scenario as Scenario
    from kvbench.workload.scenario import Workload as Workload
    from kvbench.workload.trace import Trace as Trace

__getattr__, __all__ = public(__name__, __file__)


def __dir__() -> list[str]:
    return __all__

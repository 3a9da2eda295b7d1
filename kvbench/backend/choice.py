"""What a user chooses as `backend`, and what a run gives it to be made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvbench.engine.base import Engine
from kvbench.engine.scheduling import Scheduling
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.parameters import ModelParameters
from kvbench.model.ranks import rank_of
from kvbench.timing.products import at_share

if TYPE_CHECKING:
    from kvbench.backend.inputs import Recording


ALONE = Parallel()
"""A model on one accelerator."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a run gives its backend, whichever was chosen; each takes what concerns it.

    Args:
        geometry: the shape of a token's K and V.
        hardware: the machine to model; None names none.
        weights: the model's parameters; None where they are not known.
        model: the whole of it, for what lays it over accelerators; None: only its geometry is known.
        parallel: how it is laid over them.
        engine: the serving engine whose rules hold; None: none's.
        device: auto, cpu or cuda.
        attend: whether steps attend over the live cache; without, the cache alone is timed.
        cache_only: whether weights and projections are left out of a modelled step.
        seed: of random inputs.
        num_rows: rows of every sequence's batch, > 0.
        recording: what steps append; None for what the backend makes itself.
    """

    geometry: KVGeometry
    hardware: Hardware | None = None
    weights: ModelParameters | None = None
    model: Model | None = None
    parallel: Parallel = ALONE
    engine: Engine | None = None
    device: str = "auto"
    attend: bool = True
    cache_only: bool = False
    seed: int = 0
    num_rows: int = 1
    recording: "Recording | None" = None

    @property
    def machine(self) -> Hardware | None:
        """The machine to model, as an engine uses it: with its host time of a step, and what its products reach."""
        if self.hardware is None or self.engine is None:
            return self.hardware
        machine, host_s = at_share(self.hardware, self.engine.reaches), self.engine.host_s
        return machine if host_s is None else replace(machine, step_s=host_s)

    @property
    def scheduling(self) -> Scheduling:
        """How the engine fills a step of the model on that machine; without one, each step is of all that are live."""
        return Scheduling() if self.resolved is None else self.resolved.scheduling

    @property
    def caches_prefixes(self) -> bool:
        """Whether the engine keeps blocks for requests that begin alike; without one, nobody does."""
        return self.resolved is not None and self.resolved.caches_prefixes

    @property
    def state_interval(self) -> int:
        """As of `Engine`."""
        return 0 if self.resolved is None else self.resolved.state_interval

    @property
    def window_interval(self) -> int:
        """As of `Engine`."""
        return 1 if self.resolved is None else self.resolved.window_interval

    @property
    def state_block_tokens(self) -> int | None:
        """As of `Limits`."""
        if self.model is None or not (self.model.state_bytes and self.caches_prefixes):
            return None
        assert self.resolved is not None
        rank = rank_of(self.model, self.parallel, divides=self.resolved.divides)
        return self.resolved.pool(rank, 0, self.parallel).block_tokens

    @property
    def resolved(self) -> Engine | None:
        """The engine, with a value for each setting that was left to it; None: there is none, or no model."""
        if self.engine is None or self.model is None:
            return None
        return self.engine.resolved(self.hardware, self.model, self.parallel)


class BackendChoice(ABC):
    """The base of what a user chooses as `backend`: settings, with defaults, of which a run makes what it needs."""

    @abstractmethod
    def made(self, conditions: Conditions) -> object:
        """What carries a run out: a `Backend`, or a simulation of a whole scenario.

        Raises:
            ValueError: settings and conditions do not go together.
        """

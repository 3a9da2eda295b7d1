"""What an engine is here: settings under its own flags' names, and the pool that it makes of a rank's memory."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from kvbench.checks import check_number
from kvbench.engine.memory import RankMemory
from kvbench.engine.pool import Pool
from kvbench.engine.scheduling import Scheduling
from kvbench.engine.version import key_of
from kvbench.model.accelerator import MOST_S, Accelerator
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel

MOST_SHARE = 10.0
"""Of what measured kernels reach."""


@dataclass(frozen=True, kw_only=True)
class Engine(ABC):
    """A serving engine's settings.

    Args:
        version: whose rules hold, such as "0.20.2"; None: the newest that is known here.
        step_s: host time of a step that the device waits for, in seconds; None: what `host_s` says.
        compute_share: of the rate at which products of 16 bits multiply by fits of measured kernels, what the engine's
            reach; None: what `reaches` says.
    """

    version: str | None = None
    step_s: float | None = None
    compute_share: float | None = None

    name: ClassVar[str]
    """What configuration calls it."""
    divides: ClassVar[str] = "vllm"
    """How its ranks are cut, as `rank_of` calls it."""

    def __post_init__(self) -> None:
        if self.version is not None and not isinstance(self.version, str):
            # 0.20 without quotes is the number 0.2, another version.
            raise ValueError(f"engine.version is a text such as '0.20.2', in quotes, got {self.version!r}")
        if self.version is not None:
            key_of(self.version)
        if self.step_s is not None:
            check_number("engine.step_s", self.step_s, 0, MOST_S)
        if self.compute_share is not None:
            check_number("engine.compute_share", self.compute_share, 0, MOST_SHARE, above=True)

    @property
    def reaches(self) -> float:
        """Of the rate of fitted products of 16 bits, what its own reach: as said, or as measurements of the engine
        say."""
        return 1.0 if self.compute_share is None else self.compute_share

    @property
    def host_s(self) -> float | None:
        """What a step waits for the host: as said, or as measurements of the engine say; None: as the hardware's file
        says."""
        return self.step_s

    @property
    @abstractmethod
    def scheduling(self) -> Scheduling:
        """How it fills a step, of what is said: ask it of `resolved` settings."""

    @property
    def caches_prefixes(self) -> bool:
        """Whether blocks of prompts and answers stay for requests that begin alike: ask it of `resolved` settings."""
        return False

    @property
    def state_interval(self) -> int:
        """Tokens between states that are kept for requests that begin alike, beside those at prompts' last blocks and
        where prompts part; at most a block's: all; 0: none. Ask it of `resolved` settings."""
        return 0

    @property
    def window_interval(self) -> int:
        """The same of the blocks that layers with a window need to go on there."""
        return 1

    @abstractmethod
    def resolved(self, hardware: Accelerator | None, model: Model, parallel: Parallel | None = None) -> Self:
        """The same with a value for each setting that was left to the engine.

        Args:
            hardware: the accelerator; None: one that the engine does not know.
            model: the model, or a rank of it.
            parallel: how it is laid over accelerators; None: on one.
        """

    @abstractmethod
    def memory(self, rank: Model, hardware: Accelerator, parallel: Parallel | None = None) -> RankMemory:
        """Where a rank's memory goes, and what it leaves for the cache.

        Args:
            rank: the model of the rank that holds most.
            hardware: the accelerator.
            parallel: how the model is laid over accelerators; None: on one.
        """

    @abstractmethod
    def pool(self, rank: Model, available_bytes: int, parallel: Parallel | None = None) -> Pool:
        """The cache that so much memory of a rank becomes.

        Args:
            rank: the model of the rank that holds most.
            available_bytes: what is left for the cache; nothing, or less, makes a pool of no blocks.
            parallel: how the model is laid over accelerators; None: on one.
        Raises:
            ValueError: a setting and the model do not go together.
        """

    def notes(self, pool: Pool) -> tuple[str, ...]:
        """What keeps the engine, as resolved, from starting with a pool that holds a sequence: a sentence each."""
        return ()


def capped(limit: int | None, model: Model) -> int:
    """The longest sequence: the setting, or what the model was made for.

    Raises:
        ValueError: neither is known.
    """
    if limit is not None:
        return limit
    if model.max_tokens is None:
        raise ValueError(f"model {model.name} does not say how long its contexts may be: set max_model_len")
    return model.max_tokens

"""Measuring a scenario: strategies run, lossy ones are probed, and what was finished survives a signal."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kvbench.api.estimate import seconds_of
from kvbench.api.probe import Comparison, probed, quality_line
from kvbench.api.progress import Advance, watched
from kvbench.backend.base import Backend
from kvbench.configuration.parts import Config, Parts, strategies_of
from kvbench.results.busy import Processors, since
from kvbench.runner.recorder import Recorder
from kvbench.runner.run import run


class RunResult(NamedTuple):
    """What was recorded.

    Args:
        recorder: rows of finished repetitions.
        quality: what lossy strategies cost; None where it was not probed.
        others_share: what other programs took of the processors; None where that is not known.
        stopped: how far it came, where a signal ended it; "" where it was not.
    """

    recorder: Recorder
    quality: Comparison | None
    others_share: float | None
    stopped: str

    @property
    def notes(self) -> list[str]:
        """Lines that the header lacks as long as nothing was measured."""
        quality = [] if self.quality is None else [quality_line(self.quality)]
        return quality + ([f"stopped: {self.stopped}"] if self.stopped else [])


def measure(config: Config, parts: Parts, device: Config) -> RunResult:
    """Run, and probe what lossy strategies cost; stopped, keep what was finished.

    Raises:
        KeyboardInterrupt: it was stopped before any repetition was finished.
    """
    sessions, backend = parts.workload.sessions, parts.backend
    total = sum(session.num_tokens for session in sessions) * len(parts.strategies)
    recorder = Recorder(tuple(parts.strategies), parts.num_warmup)
    quality, stopped, start = None, "", clocked(backend)
    others_share = None
    try:
        num_tokens = total * (parts.num_repetitions + parts.num_warmup)
        with watched(num_tokens, "tokens", _estimate_s(parts, device)) as advance:
            run(
                parts.strategies,
                sessions,
                backend,
                num_repetitions=parts.num_repetitions,
                num_warmup=parts.num_warmup,
                max_concurrency=parts.max_concurrency,
                budget_bytes=parts.budget_bytes,
                on_iteration=stepping(advance),
                recorder=recorder,
            )
            others_share = since(start)
            # Not as this run has them: tensors for one sequence, and no pool of a modelled machine's whole memory.
            quality = probed(config, backend.geometry, strategies_of(config), sessions, advance)
    except KeyboardInterrupt:
        others_share = since(start) if others_share is None else others_share
        recorder.drop_unfinished()
        stopped = how_far(recorder.num_finished(), parts.num_repetitions)
        if not stopped:
            raise
    return RunResult(recorder, quality, others_share, stopped)


def _estimate_s(parts: Parts, device: Config) -> float:
    """How long all repetitions of all strategies take, about."""
    bandwidth = device.get("copy_bandwidth_bytes_per_s") if parts.backend.source == "measured" else None
    one = seconds_of(parts.workload.sessions, parts.backend.slot_bytes, bandwidth)
    return one * len(parts.strategies) * (parts.num_repetitions + parts.num_warmup)


def how_far(num_finished: Mapping[str, int], num_asked: int) -> str:
    """How many repetitions are done of those asked for, in words; "" where none are."""
    most = max(num_finished.values())
    if not most:
        return ""
    fewer = ", ".join(f"{name} {number}" for name, number in num_finished.items() if number < most)
    return f"{most} of {num_asked} repetitions are done{f' ({fewer})' if fewer else ''}"


def clocked(backend: Backend) -> Processors | None:
    """Where the processors stand before this machine's times are taken; None where none are."""
    return Processors.now() if backend.source == "measured" else None


def stepping(advance: Advance) -> Callable[[str, int, int], None]:
    """A callback for `run` that tells how far it has come."""

    def step(strategy: str, repetition: int, num_tokens: int) -> None:
        advance(f"{strategy}, repetition {repetition}", num_tokens)

    return step

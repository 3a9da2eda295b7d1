"""Measuring a scenario: strategies run, lossy ones are probed, and what was finished survives a signal."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kvbench.api.probe import probed, quality_line
from kvbench.api.progress import Advance, watched
from kvbench.backend.base import Backend
from kvbench.configuration.chosen import strategies_of
from kvbench.configuration.parts import Config, Parts
from kvbench.quality.compare import Comparison
from kvbench.results.environment import Processors, since
from kvbench.runner.recorder import Recorder
from kvbench.runner.run import run
from kvbench.workload.request import Session


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
                num_clients=parts.workload.num_clients,
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


STEP_S = 3e-4
"""Of the host's for a step, whatever it does."""
DECODE_PASSES = 2.0
"""Times that a decode step takes the copying of all that it reads."""
PREFILL_PASSES = 0.1
"""The same for each token of a prefill, whose tokens are read for together."""


def seconds_of(sessions: Sequence[Session], slot_bytes: int, bandwidth_bytes_per_s: float | None) -> float:
    """Seconds that one strategy takes for all sessions, to within a few times.

    Args:
        sessions: what is run.
        slot_bytes: of a token.
        bandwidth_bytes_per_s: of copying on the machine; None where nothing is carried out.
    """
    num_steps, passed_tokens = 0, 0.0
    for session in sessions:
        held = 0
        for number, turn in enumerate(session.turns):
            prompt, decoded = session.num_prefill_tokens(number), turn.num_decode_steps
            passed_tokens += PREFILL_PASSES * prompt * (held + prompt / 2)
            held += prompt
            passed_tokens += DECODE_PASSES * decoded * (held + decoded / 2)
            held += decoded
            num_steps += 1 + decoded
    moved_s = passed_tokens * slot_bytes / bandwidth_bytes_per_s if bandwidth_bytes_per_s else 0.0
    return num_steps * STEP_S + moved_s

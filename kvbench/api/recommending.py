"""The public call that says what to deploy, and what it returns: an answer with its doubt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.api.tuning import TRIALS, Tuned, tune
from kvbench.configuration.errors import refusing
from kvbench.decide.constraints import constraints_of
from kvbench.files import write_text
from kvbench.results.quality_columns import QUALITY_OF_MODEL

if TYPE_CHECKING:
    from kvbench.api.loads import Loads
    from kvbench.backend.choice import BackendChoice
    from kvbench.charts.tuned import TunedChart
    from kvbench.model.hardware import Hardware
    from kvbench.workload.scenario import Scenario

LOSSLESS = ("paged", "dynamic", "static", "chunked", "hierarchical")
LOSSY = ("fp8", "int8", "int4", "int2", "sinks", "sinks_int4", "heavy_hitters", "snapkv", "compressed", "streaming")
"""Strategies that are tried where none are named; lossy ones only where a condition says what they may cost."""
DEGREES = {"tensor": [1, 2, 4]}
"""Ranks that are tried where nothing is said."""
SUBJECT = "cost_per_million_tokens"


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """What to deploy, and how far that can be trusted.

    Args:
        verdict: "satisfied": the best holds, and beats each usual choice that does; "no better": a usual choice is to
            be kept; "cannot be told", or "violated": nothing is known to hold, or nothing holds.
        tuned: all that was tried, and how the best compares.
        loads: up to which load it holds, and who wins at others; None where the load was not changed.
        parts: sentences by question: what to use, what it saves, how sure, what limits it, what would change the
            answer, what was not looked at.
    """

    verdict: str
    tuned: Tuned
    loads: "Loads | None"
    parts: Mapping[str, tuple[str, ...]]

    @property
    def text(self) -> str:
        """The answer in plain words, and a table of what it costs beside the usual choice."""
        from kvbench.api.advice_text import text_of

        return text_of(self)

    @property
    def chart(self) -> "TunedChart":
        """All that was tried."""
        return self.tuned.chart

    def save(self, folder: "str | PathLike[str]") -> None:
        """Write the search's files, and the answer as recommendation.txt.

        Args:
            folder: made where it is not there.
        Raises:
            OSError: it cannot be written.
        """
        self.tuned.save(folder)
        write_text(Path(folder) / "recommendation.txt", self.text + "\n")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        loads = None if self.loads is None else self.loads.as_dict()
        told = {"verdict": self.verdict, "parts": {name: list(said) for name, said in self.parts.items()}}
        return told | {"loads": loads, "search": self.tuned.as_dict()}


def recommend(
    scenario: "str | PathLike[str] | Scenario",
    strategies: Any = None,
    *,
    subject_to: str | Iterable[str],
    hardware: "str | PathLike[str] | Mapping[str, object] | Hardware | Sequence[Any]",
    minimise: Iterable[str] = (),
    maximise: Iterable[str] = (),
    search: Iterable[str] = (),
    engine: Any = "vllm",
    parallel: Any = None,
    backend: "str | Mapping[str, object] | BackendChoice | None" = "fleet",
    trials: int = TRIALS,
    workers: int = 1,
    folder: "str | PathLike[str] | None" = None,
    settings: Mapping[str, object] | None = None,
    trusted: Iterable[str] = (),
    **chosen: Any,
) -> Recommended:
    """Say which strategy, precision, parallelism and parameters to use, as `python -m kvbench recommend …` does.

    It is a search, as `tune` does it, and what it found in plain words: what the best costs and saves against the usual
    choice, how sure that is, what limits it, what would change the answer, and what was not looked at.

    Args:
        scenario: as in `run`.
        strategies: as in `run`; None: lossless ones, and lossy ones where a condition is of quality.
        subject_to: what has to hold: "ttft_p99_s<=1", or several.
        hardware: as in `run`, or a list.
        minimise: as in `tune`.
        maximise: likewise.
        search: likewise; (): parameters as they come.
        engine: as in `run`, or a list.
        parallel: degrees, or lists of them; None: 1, 2 and 4 tensor ranks.
        backend: as in `tune`.
        trials: likewise.
        workers: likewise.
        folder: likewise.
        settings: likewise.
        trusted: likewise.
        chosen: model, as in `run`, or a list.
    Returns:
        The answer; that it cannot be told is one.
    Raises:
        ValueError: the input is wrong, or nothing could be served.
        FileNotFoundError: a trace is missing.
        KeyboardInterrupt: it was stopped.
    """
    with refusing():
        constraints = constraints_of([subject_to] if isinstance(subject_to, str) else subject_to)
    is_lossy = any(each.column in QUALITY_OF_MODEL for each in constraints)
    if strategies is None:
        strategies = [*LOSSLESS, *(LOSSY if is_lossy else ())]
    common: dict[str, Any] = {"hardware": hardware, "engine": engine, "parallel": parallel or DEGREES, **chosen}
    common |= {"backend": backend, "settings": settings, "trusted": tuple(trusted)}
    found = tune(
        scenario,
        strategies,
        minimise=minimise,
        maximise=maximise,
        subject_to=[each.text for each in constraints],
        search=search,
        trials=trials,
        workers=workers,
        folder=folder,
        **common,
    )
    from kvbench.api.advising import advised

    return advised(found, constraints, scenario, strategies, tuple(search), common)

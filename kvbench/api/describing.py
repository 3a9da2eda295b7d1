"""What a scenario is, before anything is run: its requests in numbers, and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvbench.charts.workload import WorkloadChart
from kvbench.configuration.chosen import workload_of
from kvbench.configuration.parts import Config, check_numbers
from kvbench.workload.describe import concurrency, describe
from kvbench.workload.request import NS_PER_S, Session

TOKENS_PER_S = 20.0
"""Decoding speed for the chart of live requests: a reader's pace on a large model; a run measures its own."""
ROWS = ("turns", "prompt_tokens", "output_tokens", "total_tokens")
COLUMNS = ("sum", "min", "median", "mean", "p90", "max")


@dataclass(frozen=True)
class Description:
    """A scenario's requests.

    Args:
        name: the scenario's.
        numbers: counts, seconds and tokens, by name; those of arrivals are None where all come at once.
        chart: lengths, arrivals and live requests.
        num_clients: who send them, each the next one when its last has ended; None: they arrive at their times.
        notes: what was assumed of them, in sentences.
    """

    name: str
    numbers: Mapping[str, int | float | None]
    chart: WorkloadChart
    num_clients: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The numbers, for people."""
        of = self.numbers
        counts = f"{of['num_sessions']:,} of {of['num_available']:,} sessions, {of['num_requests']:,} requests"
        lines = [f"{self.name}: {counts} over {of['duration_s']:,.4g} s"]
        lines += [f"assumed: {note}" for note in self.notes]
        if self.num_clients is not None:
            lines.append(f"sent by {self.num_clients:,} at once, each its next when its last has ended")
        if of["gap_cv"] is not None:
            rate = f"{of['arrival_rate_per_s']:.3g} a second"
            lines.append(f"arrivals: {rate}, coefficient of variation {of['gap_cv']:.2f}")
        lines.append(f"{'a session':<14}" + "".join(f"{column:>12}" for column in COLUMNS))
        for row in ROWS:
            figures = "".join(f"{of[f'{row}_{column}']:>12,.6g}" for column in COLUMNS)
            lines.append(f"{row.replace('_', ' '):<14}{figures}")
        return "\n".join(lines)


def described(name: str, config: Config) -> Description:
    """The configured scenario.

    Args:
        name: the scenario's.
        config: composed and resolved.
    Raises:
        UsageError: the configuration is wrong.
        FileNotFoundError: a trace is missing.
    """
    check_numbers(config)
    scenario, workload = workload_of(config)
    name = scenario.named(name)
    sessions, most = workload.sessions, scenario.max_concurrency
    chart = WorkloadChart(
        scenario=name,
        prompt_tokens=_lengths(sessions, "num_append_tokens"),
        output_tokens=_lengths(sessions, "num_decode_tokens"),
        arrival_s=[session.arrival_ns / NS_PER_S for session in sessions],
        num_sessions=len(sessions),
        live=concurrency(workload, TOKENS_PER_S, min(most, workload.num_clients or most)),
        live_title=f"Live requests, at most {most} at once, if each decodes {TOKENS_PER_S:g} tokens/s",
    )
    return Description(name, describe(workload), chart, workload.num_clients, workload.notes)


def _lengths(sessions: Sequence[Session], name: str) -> list[int]:
    """Tokens of a session's turns together; of a single session, of each turn."""
    if len(sessions) == 1:
        return [getattr(turn, name) for turn in sessions[0].turns]
    return [sum(getattr(turn, name) for turn in session.turns) for session in sessions]

"""What a scenario is, before anything is run: its requests in numbers, and drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

from kvbench.charts.workload import WorkloadChart
from kvbench.configuration.chosen import columns_of
from kvbench.configuration.errors import refusing
from kvbench.configuration.parts import Config, check_numbers
from kvbench.workload.describe import concurrency, describe, session_starts_ns, session_tokens, turn_tokens
from kvbench.workload.request import NS_PER_S

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
        lines += _shared(of)
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
    scenario, columns, num_available = columns_of(config)
    name = scenario.named(name)
    with refusing():
        numbers = describe(columns, num_available)
    most, clients = scenario.max_concurrency, columns.num_clients
    num_sessions = int(numbers["num_sessions"] or 0)
    what = "sessions" if num_sessions < columns.num_requests else "requests"
    lengths = (turn_tokens(columns), columns.num_output_tokens) if num_sessions == 1 else session_tokens(columns)
    prompts, outputs = (each.tolist() for each in lengths)
    chart = WorkloadChart(
        scenario=name,
        prompt_tokens=prompts,
        output_tokens=outputs,
        arrival_s=(session_starts_ns(columns) / NS_PER_S).tolist(),
        num_sessions=num_sessions,
        num_turns=columns.num_requests,
        live=concurrency(columns, TOKENS_PER_S, min(most, clients or most)),
        live_title=f"Live {what}, at most {most} at once, if each decodes {TOKENS_PER_S:g} tokens/s",
        notes=_shared(numbers),
    )
    return Description(name, numbers, chart, clients, columns.notes)


def _shared(of: Mapping[str, int | float | None]) -> list[str]:
    """What prompts have in common, where they have anything."""
    repeated, shared = (100 * (of[name] or 0) for name in ("repeated_prompt_share", "shared_prefix_share"))
    if not repeated:
        return []
    others = f"; sessions' first prompts share {shared:.3g} % with other sessions" * (shared > 0)
    return [
        f"Prompts with their histories: {of['whole_prompt_tokens']:,} tokens, {repeated:.3g} % of them in a prompt or "
        f"an answer before{others}"
    ]

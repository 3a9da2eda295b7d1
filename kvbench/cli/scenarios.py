"""`kvbench scenarios [NAME]`: list the scenarios, or draw what one is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.configuration.catalogue import listing
from kvbench.configuration.errors import UsageError

if TYPE_CHECKING:
    from kvbench.workload.request import Session
    from kvbench.workload.scenario import Workload

TOKENS_PER_S = 20.0
"""Decoding speed for the chart of live requests: a reader's pace on a large model; a run measures its own."""


def main(arguments: list[str]) -> int:
    """List, or draw one scenario; further arguments are overrides of it.

    Raises:
        UsageError: no such scenario, or its trace is missing.
    """
    if not arguments:
        print(
            f"{listing('scenario')}\n\n`kvbench scenarios NAME` draws one; `python -m kvbench +scenario=NAME` runs it."
        )
        return 0
    # Imported here, so that the list comes at once.
    from kvbench.cli.command_line import check, read
    from kvbench.cli.keys import check_keys, composed
    from kvbench.configuration.parts import check_numbers, workload_of

    chosen = arguments[0].removeprefix("+").removeprefix("scenario=")
    with read([f"+scenario={chosen}", *arguments[1:]]) as command:
        check(command)
        check_keys(command)
        config = composed(command)
    check_numbers(config)
    try:
        scenario, workload = workload_of(config)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    name = command.choices("scenario")[0]
    _draw(name, workload, scenario.max_concurrency)
    return 0


def _draw(name: str, workload: "Workload", max_concurrency: int) -> None:
    from kvbench.charts.chart import save
    from kvbench.charts.workload import WorkloadChart
    from kvbench.workload.describe import concurrency, describe
    from kvbench.workload.request import NS_PER_S

    numbers = describe(workload)
    counts = (
        f"{numbers['num_sessions']:,} of {numbers['num_available']:,} sessions, {numbers['num_requests']:,} requests"
    )
    rows = ("turns", "prompt_tokens", "output_tokens", "total_tokens")
    columns = ("sum", "min", "median", "mean", "p90", "max")
    print(f"{name}: {counts} over {numbers['duration_s']:,.4g} s")
    if numbers["gap_cv"] is not None:
        print(
            f"arrivals: {numbers['arrival_rate_per_s']:.3g} a second, coefficient of variation {numbers['gap_cv']:.2f}"
        )
    print(f"{'a session':<14}" + "".join(f"{column:>12}" for column in columns))
    for row in rows:
        print(f"{row.replace('_', ' '):<14}" + "".join(f"{numbers[f'{row}_{column}']:>12,.6g}" for column in columns))
    sessions = workload.sessions
    places = f"at most {max_concurrency} at once"
    chart = WorkloadChart(
        scenario=name,
        prompt_tokens=_lengths(sessions, "num_append_tokens"),
        output_tokens=_lengths(sessions, "num_decode_tokens"),
        arrival_s=[session.arrival_ns / NS_PER_S for session in sessions],
        num_sessions=len(sessions),
        live=concurrency(workload, TOKENS_PER_S, max_concurrency),
        live_title=f"Live requests, {places}, if each decodes {TOKENS_PER_S:g} tokens/s",
    )
    folder = Path("results") / "scenarios"
    try:
        paths = save(chart.figure(), folder, name)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error}") from error
    drawn = "" if chart.only_appends else f" (live requests: {places}, {TOKENS_PER_S:g} tokens/s each)"
    print(f"chart{drawn}: {', '.join(map(str, paths))}")


def _lengths(sessions: "Sequence[Session]", name: str) -> list[int]:
    """Tokens of a session's turns together; of a single session, of each turn."""
    if len(sessions) == 1:
        return [getattr(turn, name) for turn in sessions[0].turns]
    return [sum(getattr(turn, name) for turn in session.turns) for session in sessions]

"""`kvbench scenarios [NAME]`: list the scenarios, or draw what one is."""

from pathlib import Path

from kvbench.configuration.catalogue import listing
from kvbench.configuration.errors import UsageError

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
        _, workload = workload_of(config)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    name = command.choices("scenario")[0]
    _draw(name, workload)
    return 0


def _draw(name: str, workload: object) -> None:
    from kvbench.charts.canvas import save
    from kvbench.charts.workload import workload_chart
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
    figure = workload_chart(
        name,
        [session.num_prompt_tokens for session in sessions],
        [session.num_decode_tokens for session in sessions],
        [session.arrival_ns / NS_PER_S for session in sessions],
        concurrency(workload, TOKENS_PER_S),
    )
    folder = Path("results") / "scenarios"
    try:
        paths = save(figure, folder, name)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error}") from error
    print(f"chart (live requests at {TOKENS_PER_S:g} tokens/s each): {', '.join(map(str, paths))}")

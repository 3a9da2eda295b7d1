"""`kvbench scenarios [NAME]`: list the scenarios, or draw what one is."""

from pathlib import Path

from kvbench.configuration.catalogue import listing
from kvbench.configuration.errors import UsageError


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
    from kvbench.api.describing import described
    from kvbench.charts.chart import save
    from kvbench.cli.command_line import check, read
    from kvbench.cli.keys import check_keys, composed

    chosen = arguments[0].removeprefix("+").removeprefix("scenario=")
    with read([f"+scenario={chosen}", *arguments[1:]]) as command:
        check(command)
        check_keys(command)
        config = composed(command)
    name = command.choices("scenario")[0]
    try:
        found = described(name, config)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    print(found.text)
    folder = Path("results") / "scenarios"
    try:
        paths = save(found.chart.figure(), folder, name)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error}") from error
    drawn = "" if found.chart.only_appends else f" ({found.chart.live_title})"
    print(f"chart{drawn}: {', '.join(map(str, paths))}")
    return 0

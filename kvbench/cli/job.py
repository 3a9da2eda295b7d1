"""One job: say what is run, run it, print the table, and write the folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from kvbench.api.engines import job_of
from kvbench.api.job import Stopped
from kvbench.api.shown import charts_of, num_warnings, report_of, text_of
from kvbench.cli.terminal import say
from kvbench.cli.writing import draw, writing
from kvbench.configuration.parts import Config
from kvbench.results.results import Results


def run_job(name: str, config: Config, config_text: str, asked: Config, folder: Path) -> None:
    """Run a scenario or an experiment, and keep what was done where a signal ends it.

    Args:
        name: the scenario's or the experiment's.
        config: composed and resolved.
        config_text: the same as YAML, for config.yaml.
        asked: what was asked for, for environment.json.
        folder: where results go.
    Raises:
        UsageError: the configuration is wrong; nothing was run.
        KeyboardInterrupt: a signal ended it; says what was kept.
    """
    job = job_of(name, config, config_text, asked)
    say(job.header)
    try:
        results, stopped = job.run(), ""
    except Stopped as stop:
        results, stopped = stop.results, str(stop)
    more = list(results.environment["header"])[len(job.header) :]
    print("\n".join(more), end="\n" * bool(more), flush=True)
    keep(results, folder)
    if stopped:
        raise KeyboardInterrupt(f"{stopped}; they are in {folder}")


def keep(
    results: Results,
    folder: Path,
    written: Results | None = None,
    said: str = "",
    writers: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """Write a folder's rows, print the table whatever becomes of them, draw the charts and write the report.

    Args:
        results: what is shown.
        folder: where they go.
        written: what is written, where that has more rows: jobs that failed.
        said: a line behind the table.
        writers: of frames that are longer than memory; what is there is replaced then. See `Results.save`.
    Raises:
        WriteFailed: a file could not be written; the table was printed.
    """
    try:
        with writing(folder):
            (written or results).save(folder, writers, replaces=writers is not None)
    finally:
        shown = [] if results.summary.empty else [text_of(results)]
        print("\n".join([*shown, said] if said else shown), flush=True)
    charts, report = draw(folder, lambda: charts_of(results), lambda charts: report_of(results, charts))
    if results.summary.empty:
        return
    number = num_warnings(results)
    warned = f" ({number} warning{'' if number == 1 else 's'} in it)" if number else ""
    print(f"charts: {charts}\nreport: {report}{warned}", flush=True)

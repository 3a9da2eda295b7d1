"""Writing a folder so that nothing that was measured is lost: to a signal, a full disk or a chart."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kvbench.charts.chart import Chart, save
from kvbench.configuration.errors import WriteFailed
from kvbench.files import write_text

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write a folder's rows: a first signal that would stop the program waits for the end, a second does not.

    Raises:
        WriteFailed: a file could not be written.
        KeyboardInterrupt: a signal came.
    """
    try:
        with _undisturbed():
            yield
    except OSError as error:
        raise WriteFailed(f"cannot write to {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield
        return
    received: list[int] = []

    def wait(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    heard = [number for number in STOPPING if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, wait) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


def draw(
    folder: Path, charts: Callable[[], Sequence[Chart]], report: Callable[[Sequence[Chart]], str]
) -> tuple[Path, Path]:
    """Draw charts and write the report of a folder whose rows are written.

    Args:
        folder: of the results.
        charts: makes them.
        report: the text, from the charts.
    Returns:
        The folder of the charts, and the report.
    Raises:
        WriteFailed: a file could not be written; the rows are not touched by it.
    """
    where, path = folder / "charts", folder / "report.md"
    try:
        made = charts()
        for chart in made:
            save(chart.figure(), where, chart.name)
        write_text(path, report(made))
    except OSError as error:
        why = error.strerror or error
        raise WriteFailed(f"{folder}: its charts or its report cannot be written: {why}; its rows are whole") from error
    return where, path

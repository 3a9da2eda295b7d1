"""Processes that work beside each other, and end with the one that started them."""

import multiprocessing
import multiprocessing.connection
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess

STOP_S = 30.0
"""That a worker has to write what it has, once it is told to stop."""
LOOK_S = 0.5


def run_beside(
    target: Callable[..., object], arguments: tuple[object, ...], number: int, on_look: Callable[[], object]
) -> list[int]:
    """Run a function in so many processes, to their ends.

    Args:
        target: a module's own; it calls `as_worker` first.
        arguments: its own, which can be pickled.
        number: of processes.
        on_look: called every now and then, and at the end.
    Returns:
        Exit statuses other than 0.
    """
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=target, args=arguments, daemon=True) for _ in range(number)]
    try:
        for process in running:
            process.start()
        while any(process.is_alive() for process in running):
            multiprocessing.connection.wait([process.sentinel for process in running if process.is_alive()], LOOK_S)
            on_look()
    finally:
        _stop(running)
    return [process.exitcode for process in running if process.exitcode]


def as_worker() -> Callable[[], bool]:
    """Be a worker: a signal to end comes as Ctrl-C does. What it returns says whether who started it still lives."""
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    above = multiprocessing.parent_process()
    return lambda: above is None or above.is_alive()


def _stop(running: Iterable[BaseProcess]) -> None:
    """Tell processes to stop, and let them write what they have."""
    started = [process for process in running if process.pid is not None]
    for process in started:
        process.terminate()
    for process in started:
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()

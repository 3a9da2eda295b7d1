"""`python -m kvbench …`: a bare first word is a verb, anything else is a run."""

import os
import sys

if __name__ == "__main__" and os.path.realpath(sys.path[0]) != os.path.realpath(f"{__file__}/../.."):
    # `python -m` looks for modules where it is started, and Hydra imports every hydra_plugins that it finds.
    del sys.path[0]

import importlib
import signal
from typing import NoReturn

from kvbench.cli import VERBS
from kvbench.cli.terminal import complain, shown, unsaid
from kvbench.configuration.errors import UsageError

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:]
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(number := getattr(signal, name)) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, signal.default_int_handler)  # leave as tidily as on Ctrl-C
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    with shown():
        status = _run(arguments, full_error)
        if why := unsaid():
            complain(why)
    sys.exit(status or int(bool(why)))


def _run(arguments: list[str], full_error: bool) -> int:
    try:
        _check_directory()
        return _answer(arguments)
    except UsageError as error:
        if full_error:
            raise
        complain(error)
        return error.status
    except KeyboardInterrupt as interrupt:
        print(f"\nkvbench: interrupted; {str(interrupt) or 'nothing was written'}", file=sys.stderr)
        # Threads of libraries may be at work; nothing is left to write, so do not wait for them.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    except Exception as error:
        if full_error:
            raise
        complain(f"unexpected {type(error).__name__}: {error}\n  HYDRA_FULL_ERROR=1 shows where it comes from")
        return 1


def _check_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("the working directory is gone: change to one that exists") from error


def _answer(arguments: list[str]) -> int:
    if {"-h", "--help"}.intersection(arguments):
        from kvbench.cli.help import text

        print(text())
        return 0
    if "--version" in arguments:
        from kvbench import __version__

        print(f"kvbench {__version__}")
        return 0
    if arguments and arguments[0][:1].isalpha() and "=" not in arguments[0]:
        if arguments[0] not in VERBS:
            from kvbench.cli.help import unknown_verb

            raise UsageError(unknown_verb(arguments))
        status: int = importlib.import_module(VERBS[arguments[0]]).main(arguments[1:])
        return status
    from kvbench.cli.run import main as run

    return run(arguments)


if __name__ == "__main__":
    main()

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
from kvbench.cli.errors import UsageError
from kvbench.cli.terminal import complain, shown

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave as tidily as on Ctrl-C
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    with shown():
        _run(arguments, full_error)


def _run(arguments: list[str], full_error: bool) -> NoReturn:
    try:
        _check_directory()
        sys.exit(_answer(arguments))
    except UsageError as error:
        if full_error:
            raise
        complain(error)
        sys.exit(error.status)
    except KeyboardInterrupt as interrupt:
        print(f"\nkvbench: interrupted; {str(interrupt) or 'nothing was written'}", file=sys.stderr)
        # Threads of libraries may be at work; nothing is left to write, so do not wait for them.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        if full_error:
            raise
        complain(f"unexpected {type(error).__name__}: {error}\n  HYDRA_FULL_ERROR=1 shows where it comes from")
        sys.exit(1)


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
            from kvbench.cli.meant import unknown_verb

            raise UsageError(unknown_verb(arguments))
        return importlib.import_module(VERBS[arguments[0]]).main(arguments[1:])
    from kvbench.cli.run import main as run

    return run(arguments)


if __name__ == "__main__":
    main()

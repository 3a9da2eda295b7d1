"""The flags of a run: Hydra's parser, and those of its flags that a run has a use for."""

from argparse import Namespace
from collections.abc import Iterator
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from kvbench.configuration.errors import UsageError

REFUSED = {
    "experimental_rerun": "it unpickles a file",
    "config_path": "kvbench has one primary configuration; --config-dir adds groups to it",
    "config_name": "kvbench has one primary configuration; --config-dir adds groups to it",
    "shell_completion": "kvbench has none",
    "help": "an abbreviation may mean another flag; write --help in full",
}
SWITCHES = ("run", "multirun", "resolve", "hydra_help")
VALUES = ("cfg", "package", "info")


def parsed_arguments(arguments: list[str]) -> Namespace:
    """Flags and overrides, in any order.

    Raises:
        UsageError: a flag is unknown, wants a value, or is refused.
    """
    parser = get_args_parser()
    parser.error = _refuse
    parsed = parser.parse_intermixed_args(arguments)
    for flag, why in REFUSED.items():
        if getattr(parsed, flag) not in (None, False):
            raise UsageError(f"--{flag.replace('_', '-')} is refused: {why}")
    modes = [name for name in ("run", "multirun", "cfg", "info") if getattr(parsed, name) not in (None, False)]
    if len(modes) > 1:
        raise UsageError(f"--{' and --'.join(modes)} do not go together")
    for name in ("resolve", "package"):
        if getattr(parsed, name) not in (None, False) and parsed.cfg is None:
            raise UsageError(f"--{name} is said of what --cfg prints: give --cfg=job beside it")
    return parsed


def flags_of(parsed: Namespace) -> Iterator[str]:
    """The flags that Hydra gets."""
    for name in SWITCHES:
        if getattr(parsed, name):
            yield f"--{name.replace('_', '-')}"
    for name in VALUES:
        if getattr(parsed, name) is not None:
            yield f"--{name}={getattr(parsed, name)}"


def _refuse(message: str) -> NoReturn:
    raise UsageError(f"{message}\n  python -m kvbench --help tells what can be given")

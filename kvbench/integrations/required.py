"""The extra `hf`: what needs transformers asks here, and what is said where it is missing stands here alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

LEAST = (5, 14)
INSTALL = "  install it: python -m pip install 'transformers>=5.14' gguf accelerate"


class TransformersMissing(ImportError, ValueError):
    """Transformers, or what it needs for GGUF files, is missing or too old: says what to install.

    A ValueError too, so that the command line shows the message as it does any other of a wrong input.
    """


def required(what: str, *packages: str) -> None:
    """Import transformers, and packages beside it, or say what to install.

    Args:
        what: what needs it, as the subject of a sentence.
        packages: further ones of the extra.
    Raises:
        TransformersMissing: one cannot be imported, or transformers is too old.
    """
    for package in ("transformers", *packages):
        try:
            found = import_module(package)
        except ImportError as reason:
            raise TransformersMissing(
                f"{what} needs {package}, which could not be imported ({reason})\n{INSTALL}"
            ) from reason
        if package == "transformers" and _version(found.__version__) < LEAST:
            raise TransformersMissing(
                f"{what} needs transformers of at least {'.'.join(map(str, LEAST))}, got {found.__version__}\n{INSTALL}"
            )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


@contextmanager
def loading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong in loading a file into one sentence.

    Args:
        path: what is loaded.
        kind: as what.
    Raises:
        ValueError: it failed.
    """
    try:
        yield
    except Exception as error:  # a broken file fails in as many ways as it has bytes
        said = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path}: it cannot be loaded as {kind}: {type(error).__name__}: {said}") from error

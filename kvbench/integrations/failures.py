"""Files of others that fail to load, in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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

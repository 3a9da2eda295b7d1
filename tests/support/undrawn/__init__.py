"""Charts that are made but neither laid out nor drawn: their files are there, and empty."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

SITE = str(Path(__file__).parent)
"""On a process's PYTHONPATH, before the checkout, it leaves that process's charts undrawn too."""


def undraw(setattr: Callable[[object, str, object], None]) -> None:
    """Leave charts undrawn from here on.

    Args:
        setattr: sets the attributes, as pytest's does for the length of a test.
    """
    setattr(Figure, "savefig", lambda figure, path, **how: Path(path).write_bytes(b""))
    setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)

"""Charts that are made but neither laid out nor drawn: their files are there, and empty."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

SITE = str(Path(__file__).parent)
"""On a process's PYTHONPATH, before the checkout, it leaves that process's charts undrawn too."""


def undraw(setattr: Callable[[object, str, object], None], drawn: tuple[str, ...] = ()) -> None:
    """Leave charts undrawn from here on.

    Args:
        setattr: sets the attributes, as pytest's does for the length of a test.
        drawn: charts that are drawn all the same, though not laid out: each with this in its file's name.
    """
    draw = Figure.savefig

    def savefig(figure: Figure, path: Path, **how: object) -> None:
        if any(name in path.name for name in drawn):
            draw(figure, path, **how)
        else:
            path.write_bytes(b"")

    setattr(Figure, "savefig", savefig)
    setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)

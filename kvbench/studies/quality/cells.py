"""Cells: what is measured of one contender in one form, and the folder that keeps each when it is finished."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kvbench.results.folder import write_text
from kvbench.studies.quality.contenders import Contender

STREAMING, CONTINUED, NEEDLES = "streaming", "continued", "needles"
COMPLETED, OUT_OF_MEMORY, CAPACITY_EXCEEDED = "completed", "out_of_memory", "capacity_exceeded"


@dataclass(frozen=True)
class Cell:
    """What is measured at once.

    Args:
        contender: of whom.
        form: streaming: token by token from an empty cache; continued: a prefill, then token by token; needles.
        num_tokens: of the text; of needles, a context's.
        num_fed: tokens that go through the model, about; for the progress bar.
    """

    contender: Contender
    form: str
    num_tokens: int
    num_fed: int


@dataclass(frozen=True)
class CellResult:
    """What was measured.

    Args:
        figures: by name; of a cell that was not completed, its outcome alone.
        measured_at: when, as text.
        is_earlier: whether an earlier run measured it.
    """

    figures: Mapping[str, object]
    measured_at: str
    is_earlier: bool = False


class CellFolder:
    """A folder of finished cells, each whole under a name made of all that determines it.

    Args:
        folder: where.
        common: what determines all cells: model, text, versions, settings.
        reads: whether earlier cells are taken; without, each is measured and written anew.
    """

    def __init__(self, folder: Path, common: Mapping[str, object], *, reads: bool) -> None:
        self.folder = folder
        self._common = dict(common)
        self._reads = reads

    def read(self, cell: Cell) -> CellResult | None:
        """An earlier run's figures; None where there are none, or none that can be read."""
        holder = cell.contender.holder
        is_known = isinstance(holder, str) or type(holder).__module__.startswith("kvbench.")
        if not (self._reads and is_known):  # the code of a strategy from outside is not part of the name
            return None
        about, path = self._named(cell)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            # How much memory there is may have changed.
            is_taken = kept["about"] == about and kept["figures"]["outcome"] != OUT_OF_MEMORY
            return CellResult(kept["figures"], kept["measured_at"], True) if is_taken else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, cell: Cell, figures: Mapping[str, object]) -> CellResult:
        """Keep what was measured."""
        about, path = self._named(cell)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(path, json.dumps({"about": about, "measured_at": now, "figures": dict(figures)}, indent=1) + "\n")
        return CellResult(figures, now)

    def _named(self, cell: Cell) -> tuple[dict[str, object], Path]:
        holder = cell.contender.holder
        about = self._common | {
            "form": cell.form,
            "num_tokens": cell.num_tokens,
            "holder": holder if isinstance(holder, str) else described(holder),
            "budget_tokens": cell.contender.budget_tokens,
        }
        about = json.loads(json.dumps(about))  # as it is read back
        return about, self.folder / f"{_digest(json.dumps(about, sort_keys=True).encode())}.json"


def described(value: object) -> object:
    """An object as text and numbers: its class, and what it holds, all the way down."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return [[described(key), described(item)] for key, item in value.items()]
        case list() | tuple():
            return [described(item) for item in value]
        case _ if type(value).__module__.startswith("kvbench.") and hasattr(value, "__dict__"):
            return {"class": _name(value), **{key: described(item) for key, item in vars(value).items()}}
        case _:
            return f"{_name(value)} {value!r}"


def code_fingerprint(package: Path, parts: Iterable[str]) -> str:
    """Of the code of some of a package's parts, whatever its version says."""
    digest = hashlib.sha256()
    of_parts = [path for part in parts for path in (package / part, *(package / part).rglob("*.py"))]
    for path in sorted(path for path in of_parts if path.is_file()):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def fingerprint_of_ids(ids: tuple[int, ...]) -> str:
    """Of a text's tokens."""
    return _digest(json.dumps(ids).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"

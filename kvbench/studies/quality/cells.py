"""Who is compared, and the cells that are measured of each; the folder that keeps each cell when it is finished."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvbench.files import write_text
from kvbench.strategy.base import Strategy

KVBENCH, TRANSFORMERS = "kvbench", "transformers"
LOSSLESS_PEERS = ("dynamic", "static")
PRIMED = {"fp8": 64}
"""Tokens that transformers' caches are fed at once where others get one by one: fp8 keeps its first update's scale."""
STREAMING, CONTINUED, NEEDLES = "streaming", "continued", "needles"
COMPLETED, OUT_OF_MEMORY, CAPACITY_EXCEEDED = "completed", "out_of_memory", "capacity_exceeded"


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
        label: of the strategy or cache.
        holder: a strategy as configured, or the name of one of transformers' caches.
        budget_tokens: that attention may read; None: no such budget.
    """

    label: str
    holder: Strategy | str
    budget_tokens: int | None = None

    @property
    def kind(self) -> str:
        """Whose it is."""
        return TRANSFORMERS if isinstance(self.holder, str) else KVBENCH

    @property
    def lossless(self) -> bool:
        """Whether attention reads every token, unchanged."""
        return self.holder in LOSSLESS_PEERS if isinstance(self.holder, str) else self.holder.lossless

    @property
    def reference(self) -> bool:
        """Whether it is there to compare with, and never chosen."""
        return not isinstance(self.holder, str) and self.holder.reference

    @property
    def title(self) -> str:
        """The label and the budget."""
        return self.label if self.budget_tokens is None else f"{self.label} within {self.budget_tokens:,}"

    def holder_of(self, num_tokens: int) -> Strategy | str:
        """What holds a sequence of so many tokens: the strategy, within its budget.

        Raises:
            ValueError: the budget is less than it can do with.
        """
        if isinstance(self.holder, str) or self.budget_tokens is None:
            return self.holder
        return self.holder.within(self.budget_tokens, num_tokens) or self.holder


def contenders(
    strategies: Mapping[str, Strategy], peers: Iterable[str], budgets: Sequence[float], num_tokens: int
) -> tuple[list[Contender], list[str]]:
    """All rows, in order, and why some are not.

    Args:
        strategies: by label.
        peers: names of transformers' caches.
        budgets: shares of the tokens.
        num_tokens: of the text.
    Returns:
        The contenders, and a sentence for each budget that a strategy cannot do with.
    """
    found: list[Contender] = []
    refused = []
    for label, strategy in strategies.items():
        for share in budgets:
            budget_tokens = max(round(share * num_tokens), 1)
            try:
                is_bounded = strategy.within(budget_tokens, num_tokens) is not None
            except ValueError as error:
                refused.append(f"{label} is left out within {budget_tokens:,} tokens: {error}.")
                continue
            contender = Contender(label, strategy, budget_tokens if is_bounded else None)
            if contender not in found:
                found.append(contender)
    return found + [Contender(f"{TRANSFORMERS} {name}", name) for name in dict.fromkeys(peers)], refused


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

    figures: Mapping[str, Any]
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
            # Of a dataclass its parameters: what is derived from them comes and goes.
            names = [each.name for each in fields(value)] if is_dataclass(value) else list(vars(value))
            return {"class": _name(value), **{name: described(getattr(value, name)) for name in names}}
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

"""Lines that engines printed at their start beside what is said here, as text and as plain values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.calibration.capacity_rows import GIB
from kvbench.calibration.printed.held import ANOTHER_RANK, Agreement, HeldLine, held
from kvbench.calibration.printed.rows import read_rows
from kvbench.configuration.catalogue import names, own_node
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import accelerator_of, model_of
from kvbench.configuration.published import JSON, published_node
from kvbench.messages import cut, printable

if TYPE_CHECKING:
    from kvbench.charts.frame import TextColumn
    from kvbench.model.accelerator import Accelerator
    from kvbench.model.model import Model

CONFIGS = "configs"
NAME_WIDTH, MODEL_WIDTH, ENGINE_WIDTH = 10, 24, 14
NOTHING = "–"


def printed_lines(table: Path, configs: Path | None) -> "PrintedLines":
    """Lines of a table beside what is said here.

    Args:
        table: CSV.
        configs: a folder of models' published configurations; None: that beside the table, where there is one.
    Raises:
        ValueError: there is no such folder, or the table is broken.
    """
    rows = read_rows(table)
    folder = table.parent / CONFIGS if configs is None else configs
    if configs is not None and not folder.is_dir():
        raise UsageError(f"configs={folder}: there is no such folder")
    models, unread = models_at_hand(folder)
    return PrintedLines(name=table.name, lines=tuple(held(rows, models, _accelerators())), unread=unread)


def models_at_hand(folder: Path) -> tuple[dict[str, "Model"], dict[str, str]]:
    """Models by name, a folder's before kvbench's own; and why others of it cannot be read."""
    more, unread = _models_of(folder) if folder.is_dir() else ({}, {})
    return more | {name: model for name, model in _own_models().items() if name not in more}, unread


def _own_models() -> dict[str, "Model"]:
    found = (model_of({"model": own_node("model", name), "dtype": None}) for name in names("model"))
    return {model.name: model for model in found}


def _models_of(folder: Path) -> tuple[dict[str, "Model"], dict[str, str]]:
    """The models of a folder, and why others of it cannot be read."""
    found, unread = {}, {}
    for path in sorted(folder.iterdir()):
        if not (path.suffix == JSON or (path.is_dir() and any(path.glob(f"*{JSON}")))):
            continue
        try:
            node = published_node(path)
            found[node["name"]] = model_of({"model": node, "dtype": None})
        except ValueError as error:
            unread[path.name] = str(error)
    return found, unread


def _accelerators() -> dict[str, "Accelerator"]:
    nodes = {name: accelerator_of({"hardware": own_node("hardware", name)}) for name in names("hardware")}
    return {name: machine for name, machine in nodes.items() if machine is not None}


@dataclass(frozen=True, kw_only=True)
class PrintedLines:
    """A table of printed lines beside what is said here.

    Args:
        name: the table's.
        lines: one by one.
        unread: configurations of the folder that cannot be read, and why.
    """

    name: str = ""
    lines: tuple[HeldLine, ...]
    unread: Mapping[str, str]

    @cached_property
    def agreement(self) -> Agreement:
        """How many agree."""
        return Agreement(self.lines)

    @property
    def text(self) -> str:
        """Two tables, what could not be said and why, and a last line of counts and errors."""
        from kvbench.charts.frame import terminal_table

        parts = [
            "What the printed GiB become",
            terminal_table(self._given_the_cache(), 1),
            "GiB for the cache, from configuration and flags alone",
            terminal_table(self._from_flags(), 1),
            *(["\n".join(reasons)] if (reasons := list(self._reasons())) else []),
            self.agreement.sentence,
        ]
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values: `lines`, one object each, and `counts`."""
        agreement = self.agreement
        return {
            "lines": [_object(each) for each in self.lines],
            "counts": {
                "lines": len(self.lines),
                "judged": len(agreement.judged),
                "agree": sum(each.agrees for each in agreement.judged),
                "off": [each.name for each in agreement.off],
                "excused": [each.name for each in agreement.excused],
                "not_told": [each.name for each in agreement.not_told],
                "judged_from_flags": len(agreement.of_flags),
                "off_from_flags": [each.name for each in agreement.flags_off],
            },
            "sentence": agreement.sentence,
        }

    def _given_the_cache(self) -> list["TextColumn"]:
        from kvbench.charts.frame import TextColumn

        lines = self.lines
        pools = [each.told.pool if each.told else None for each in lines]
        return [
            *_subjects(lines),
            TextColumn("GiB", "", [_text(each, "available_kv_gib", ",.2f") for each in lines]),
            TextColumn("tokens", "", [_text(each, "num_tokens", ",.0f") for each in lines]),
            TextColumn("ours", "", [_number(pool.num_tokens if pool else None, ",") for pool in pools]),
            TextColumn("at once", "", [_text(each, "max_concurrency", ",.2f") for each in lines]),
            TextColumn("ours", "", [_number(pool.max_concurrency if pool else None, ",.2f") for pool in pools]),
            TextColumn("off", "%", [_share(each.error) for each in lines]),
            TextColumn("", "", [_verdict(each) for each in lines], is_number=False),
        ]

    def _from_flags(self) -> list["TextColumn"]:
        from kvbench.charts.frame import TextColumn

        lines = self.lines
        ours = [None if each.flags_bytes is None else each.flags_bytes / GIB for each in lines]
        return [
            *_subjects(lines),
            TextColumn("printed", "GiB", [_text(each, "available_kv_gib", ",.2f") for each in lines]),
            TextColumn("ours", "GiB", [_number(each, ",.2f") for each in ours]),
            TextColumn("off", "%", [_share(each.flags_error) for each in lines]),
            TextColumn("", "", [self._flags_verdict(each) for each in lines], is_number=False),
        ]

    def _flags_verdict(self, each: HeldLine) -> str:
        if each.flags_bytes is None:
            return f"lacks {cut(each.missing)}"
        if each not in self.agreement.of_flags:
            return "no evidence" if each.row["available_kv_gib"] else "no GiB printed"
        return "near" if each.flags_agree else "off"

    def _reasons(self) -> Iterator[str]:
        for each in self.agreement.not_told:
            yield f"{each.name} is not told: {each.why_not}"
        for each in self.agreement.excused:
            said = (
                each.row["explanation"] if each.excuse == ANOTHER_RANK else "max_num_batched_tokens, which it hangs on"
            )
            yield f"{each.name} is excused, {each.excuse}: {said}"
        for what, lines in (("given the cache", self.agreement.off), ("from flags", self.agreement.flags_off)):
            if lines:
                yield f"off, {what}: {', '.join(each.name for each in lines)}"
        for name, why in self.unread.items():
            yield f"{printable(name)} cannot be read: {why}"


def _subjects(lines: tuple[HeldLine, ...]) -> list["TextColumn"]:
    from kvbench.charts.frame import TextColumn

    return [
        TextColumn("line", "", [cut(printable(each.name), NAME_WIDTH) for each in lines], is_number=False),
        TextColumn("model", "", [cut(printable(each.row["model"]), MODEL_WIDTH) for each in lines], is_number=False),
        TextColumn("engine", "", [cut(_engine(each), ENGINE_WIDTH) for each in lines], is_number=False),
    ]


def _engine(each: HeldLine) -> str:
    engine = each.told.engine if each.told else None
    if engine is None:
        return printable(each.row["engine"]).lower()
    return f"{engine.name} {engine.version}" if engine.version else engine.name


def _verdict(each: HeldLine) -> str:
    if not each.is_evidence:
        return "no evidence"
    if each.error is None:
        return "not told"
    return "agrees" if each.agrees else each.excuse or "off"


def _text(each: HeldLine, column: str, form: str) -> str:
    return _number(float(each.row[column]) if each.row[column] else None, form)


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:+.2f}"


def _object(each: HeldLine) -> dict[str, Any]:
    pool = each.told.pool if each.told else None
    return {
        "line": each.name,
        "model": each.row["model"],
        "taken_for": each.model,
        "available_gib": float(each.row["available_kv_gib"]) if each.row["available_kv_gib"] else None,
        "printed": {figure.name: figure.printed for figure in each.figures},
        "told": None
        if pool is None
        else {"blocks": pool.num_blocks, "tokens": pool.num_tokens, "concurrency": pool.max_concurrency},
        "error": each.error,
        "verdict": _verdict(each),
        "why_not": each.why_not or None,
        "flags_bytes": each.flags_bytes,
        "flags_error": each.flags_error,
        "missing": each.missing or None,
    }

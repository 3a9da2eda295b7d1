"""What a validation found: published figures beside ours, what they come to, and on which conditions it fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kvbench.api.held_file import HeldFile
from kvbench.api.printed_lines import PrintedLines
from kvbench.calibration.printed.held import Agreement, HeldLine
from kvbench.calibration.validation.conditions import Condition, failures
from kvbench.calibration.validation.rows import HELD_OUT, Errors, errors_by, errors_of, held_rows
from kvbench.configuration.errors import WriteFailed, refusing

if TYPE_CHECKING:
    from kvbench.charts.validation import ValidationChart

NAME = "validation"


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Published figures beside ours.

    Args:
        printed: tables of lines that engines printed.
        files: files of measured times.
        conditions: on which it fails.
    """

    printed: tuple[PrintedLines, ...] = ()
    files: tuple[HeldFile, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def lines(self) -> tuple[HeldLine, ...]:
        """Printed lines, one by one."""
        return tuple(line for each in self.printed for line in each.lines)

    @property
    def unread(self) -> Mapping[str, str]:
        """Configurations of models that cannot be read, and why."""
        return {name: why for each in self.printed for name, why in each.unread.items()}

    @cached_property
    def agreement(self) -> Agreement:
        """How many of the printed lines agree."""
        return Agreement(self.lines)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every figure that is judged: file, what, kind, group, region, unit, published, ours, error (ours ÷ published
        − 1), held_out (whether it fitted nothing), low and high (our interval, where there is one).
        """
        return pd.concat([*map(_of_lines, self.printed), *(each.rows for each in self.files)], ignore_index=True)

    @property
    def errors(self) -> Errors:
        """What all rows come to."""
        return errors_of(self.rows)

    @property
    def groups(self) -> pd.DataFrame:
        """The same by kind and group: a row each; columns that begin with held_out_ are of rows that fitted nothing."""
        return _frame(self.rows, ("kind", "group"))

    @property
    def regions(self) -> pd.DataFrame:
        """The same by kind and region: small and large, short and long."""
        return _frame(self.rows, ("kind", "region"))

    @property
    def not_told(self) -> tuple[str, ...]:
        """What could not be said, and why."""
        return tuple(f"{each.name}: {why}" for each in self.files for why in each.not_told)

    @cached_property
    def failed(self) -> tuple[str, ...]:
        """The conditions that hold, each with what was found."""
        with refusing():
            return failures(self.conditions, self.rows)

    @property
    def summary(self) -> str:
        """Counts and errors, in a line."""
        from kvbench.api.validation_text import summary_of

        return summary_of(self)

    @property
    def text(self) -> str:
        """Tables, what could not be said and why, and a last line of counts and errors."""
        from kvbench.api.validation_text import text_of

        return text_of(self)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        from kvbench.api.validation_text import as_dict

        return as_dict(self)

    @property
    def chart(self) -> "ValidationChart":
        """Ours over published; its `figure()` draws it."""
        from kvbench.charts.validation import ValidationChart

        told = [*(each.name for each in self.printed), *(f"{each.name}: {each.about}" for each in self.files)]
        return ValidationChart(rows=self.rows, subject=". ".join(told), notes=(self.summary,))

    def save(self, folder: str | Path) -> list[Path]:
        """Write the rows as validation.csv, and the chart as PNG and SVG.

        Args:
            folder: made where it is not there.
        Returns:
            The paths.
        Raises:
            WriteFailed: a file cannot be written.
        """
        from kvbench.charts.chart import save
        from kvbench.files import write_whole

        table = Path(folder).expanduser() / f"{NAME}.csv"
        try:
            write_whole(table, lambda partial: self.rows.to_csv(partial, index=False))
            return [table, *save(self.chart.figure(), table.parent, NAME)]
        except OSError as error:
            raise WriteFailed(f"out={folder}: it cannot be written: {error.strerror or error}") from error


def _of_lines(printed: PrintedLines) -> pd.DataFrame:
    """Printed lines that are judged: tokens given the cache, and GiB from flags."""
    agreement = Agreement(printed.lines)
    parts = [
        _rows([(each, *_tokens(each)) for each in agreement.judged], "cache_tokens", "tokens", "given the cache"),
        _rows([(each, *_gib(each)) for each in agreement.of_flags], "cache_gib", "GiB", "from flags"),
    ]
    return pd.concat(parts).assign(file=printed.name)


def _rows(lines: Sequence[tuple[HeldLine, float, float]], kind: str, unit: str, region: str) -> pd.DataFrame:
    return held_rows(
        what=[each.name for each, _, _ in lines],
        kind=kind,
        group=[each.row["engine"].lower() for each, _, _ in lines],
        region=region,
        unit=unit,
        published=[published for _, published, _ in lines],
        ours=[ours for _, _, ours in lines],
    )


def _tokens(each: HeldLine) -> tuple[float, float]:
    assert each.told is not None
    assert each.told.pool is not None
    return float(each.row["num_tokens"]), each.told.pool.num_tokens


def _gib(each: HeldLine) -> tuple[float, float]:
    printed = float(each.row["available_kv_gib"])
    assert each.flags_error is not None
    return printed, printed * (1 + each.flags_error)


def _frame(rows: pd.DataFrame, columns: tuple[str, str]) -> pd.DataFrame:
    found = [
        dict(zip(columns, key, strict=True))
        | of_all._asdict()
        | {f"{HELD_OUT}_{name}": value for name, value in held._asdict().items()}
        for key, of_all, held in errors_by(rows, columns)
    ]
    return pd.DataFrame(found)

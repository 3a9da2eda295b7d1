"""The public call that fits a machine to a table of measured kernels."""

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.api.held_file import beside, chosen_hardware
from kvbench.api.out import new_file, written
from kvbench.configuration.catalogue import own_file
from kvbench.configuration.composed import composed
from kvbench.configuration.errors import refusing
from kvbench.configuration.model import hardware_of
from kvbench.files import write_text

if TYPE_CHECKING:
    import pandas as pd

    from kvbench.model.hardware import Hardware

SUFFIX = ".yaml"
VERSION = re.compile(r"/(\d+(?:\.\d+)+\w*)/")


@dataclass(frozen=True)
class KernelCalibration:
    """A machine by measured kernels, and what they were held against.

    Args:
        hardware: with fits in `kernels`, for `kv.run(…, hardware=…)`.
        rows: that fitted nothing, beside ours; see `kv.validate`.
        not_told: rows that say nothing of the machine, and why.
    """

    hardware: "Hardware"
    rows: "pd.DataFrame"
    not_told: tuple[str, ...]

    @property
    def table(self) -> "pd.DataFrame":
        """A row an operation, group and region of the rows: how many there are, MAPE, bias and the worst error."""
        import pandas as pd

        from kvbench.calibration.validation.rows import errors_by

        keys = ("kind", "group", "region")
        return pd.DataFrame(
            [
                {**dict(zip(keys, key, strict=True)), "rows": own.number, "mape": own.mape, "bias": own.bias}
                | {"worst": own.worst}
                for key, own, _ in errors_by(self.rows, keys)
            ]
        )

    @property
    def text(self) -> str:
        """The table for a terminal, what is not told, and a last line of all rows."""
        from kvbench.calibration.validation.rows import errors_of
        from kvbench.charts.frame import TextColumn, terminal_table

        table, every = self.table, errors_of(self.rows)
        columns = [TextColumn(name, "", table[name].tolist(), is_number=False) for name in ("kind", "group", "region")]
        columns.append(TextColumn("rows", "", [f"{value:,}" for value in table["rows"]]))
        columns.append(TextColumn("MAPE", "%", [f"{100 * value:.1f}" for value in table["mape"]]))
        columns += [
            TextColumn(name, "%", [f"{100 * value:+.1f}" for value in table[name]]) for name in ("bias", "worst")
        ]
        summary = (
            f"{every.number:,} rows that fitted nothing: MAPE {100 * every.mape:.1f} %, bias {100 * every.bias:+.1f} %"
        )
        return "\n\n".join(
            [terminal_table(columns, 3), *(["\n".join(self.not_told)] if self.not_told else []), summary]
        )


def calibrate_from(
    table: str | PathLike[str],
    *,
    hardware: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
) -> KernelCalibration:
    """Fit a machine to a table of measured kernels, as `python -m kvbench calibrate from=TABLE out=FILE` does.

    Four in five shapes of the table fit, by a hash of each; the others judge.

    Args:
        table: a Parquet or CSV file, a row a kernel: op, dtype, seconds, and the columns of the operations that it has.
        hardware: that it was measured on, a name or a YAML file, whose peaks the fits are shares of; None: what the
            table's name says, as in h100_vllm.parquet, or FILE.yaml beside it.
        out: a new hardware file, whose name ends in .yaml: that of the hardware, with the fits; None: none is written.
    Returns:
        The `hardware`; a `table` of errors by operation, dtype and region on the shapes that fitted nothing; the same
        as `text`; and those `rows` one by one.
    Raises:
        ValueError: the table is broken, or says too little; it is not said of which hardware it is; nothing is written.
    """
    path, file = Path(table).expanduser(), None if out is None else new_file(out, SUFFIX)
    said = beside(path) | ({} if hardware is None else {"hardware": str(hardware)})
    chosen, engine = chosen_hardware(path, said)
    base = hardware_of(composed({"hardware": chosen}, ()))
    assert base is not None
    # Imported here, so that other calls come at once.
    from kvbench.calibration.kernels import fit_kernels
    from kvbench.calibration.kernels_file import with_kernels
    from kvbench.calibration.tables import read_kernels

    with refusing():
        frame = read_kernels(path)
    about = {"engine": engine, "version": _version(frame, engine), "source": _source(frame)}
    with refusing(f"{path}: "):
        fit = fit_kernels(frame, base, {key: value for key, value in about.items() if value})
    if file is not None:
        own = Path(chosen).expanduser() if chosen.endswith(SUFFIX) else own_file("hardware", chosen)
        with written(file):
            write_text(file, with_kernels(own.read_text(encoding="utf-8"), fit.hardware.kernels or {}))
    return KernelCalibration(fit.hardware, fit.rows, fit.not_told)


def _source(frame: "pd.DataFrame") -> str:
    """Repositories, each once."""
    return ", ".join(dict.fromkeys(text.partition(":")[0] for text in frame["source"] if text))


def _version(frame: "pd.DataFrame", engine: str) -> str:
    """Of the engine, that which most rows say in their source."""
    found = frame["source"][frame["source"].str.contains(engine, regex=False)].str.extract(VERSION)[0].dropna()
    return str(found.mode()[0]) if engine and len(found) else ""

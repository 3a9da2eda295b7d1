"""What a calibration gives: the machine, how far a model made of it is from what was measured, and both in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from kvbench.calibration.kernels import KernelFit
from kvbench.calibration.validate import Outcome
from kvbench.model.hardware import Hardware

MOST_ERROR = 0.15
"""The error that a model should not exceed."""
ABOUT = """error: distance of the modelled mean time a step from the measured one; noise: of a second measurement
from the first; of a step: the same of single steps, mean over them"""
SHARES = ("error", "noise", "step_error", "step_noise")


@dataclass(frozen=True)
class Calibration:
    """A machine that was measured, and its model held against runs that fitted nothing.

    Args:
        hardware: the machine, for `kv.run(…, hardware=…)`; with `settings={"cache_only": True}` its curves price the
            cache alone, without its kernels a whole model.
        outcomes: a strategy in a scenario each, at least one.
        left_out: strategies that the model's heads do not go into, and why.
        kernel_table: kernels that were timed, a row each, as `kv.calibrate_from` takes them.
        kernel_fit: what was fitted to them, beside rows that fitted nothing.
    """

    hardware: Hardware
    outcomes: Sequence[Outcome]
    left_out: Mapping[str, str]
    kernel_table: pd.DataFrame | None = None
    kernel_fit: KernelFit | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row a scenario and strategy: µs a step measured and modelled, and errors and noise as shares."""
        return pd.DataFrame([asdict(each) for each in self.outcomes]).rename(columns={"case": "scenario"})

    @property
    def is_exact(self) -> bool:
        """Whether bytes, slots and resizes were equal in every step."""
        return not any(each.differences for each in self.outcomes)

    @property
    def verdict(self) -> str:
        """Whether bytes agree, and whether mean errors are as small as they should be."""
        wrong = [each for each in self.outcomes if each.differences]
        differing = [f"{each.strategy} in {each.case}: {', '.join(each.differences)}" for each in wrong]
        agreed = f"NOT equal in every step: {'; '.join(differing)}" if differing else "equal in every step"
        lines = [f"bytes, slots and resizes: {agreed}"]
        for scenario, own in self.table.groupby("scenario", sort=False):
            error, noise = own["error"].mean(), own["noise"].mean()
            goal = f"goal of at most {100 * MOST_ERROR:.0f} %: {'met' if error <= MOST_ERROR else 'MISSED'}"
            lines.append(f"{scenario}: mean error {100 * error:.1f} %, noise {100 * noise:.1f} %; {goal}")
        return "\n".join(lines)

    @property
    def text(self) -> str:
        """The table, with the mean, what its columns are, and the verdict."""
        return f"{_table_text(self.table)}\n\n{ABOUT}\n{self.verdict}"


def _table_text(table: pd.DataFrame) -> str:
    names = ("scenario", "strategy", "measured", "modelled", "error", "noise", "of a step", "noise")
    units = ("", "", "ms a step", "ms a step", "%", "%", "%", "%")
    rows: list[Sequence[str]] = [names, units]
    for each in table.to_dict("records"):
        times = [f"{each[name] / 1000:,.3f}" for name in ("measured_us", "modelled_us")]
        rows.append([each["scenario"], each["strategy"], *times, *(f"{100 * each[name]:.1f}" for name in SHARES)])
    rows.append(["mean", "", "", "", *(f"{100 * table[name].mean():.1f}" for name in SHARES)])
    wide = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:<{wide}}  {row[1]:<10}" + "".join(f"{cell:>11}" for cell in row[2:]) for row in rows)

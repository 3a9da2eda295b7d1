"""A machine by a table of measured kernels: fits of all kinds of work, held against rows that fitted nothing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from kvbench.calibration.attention import OPS as ATTENTION_OPS
from kvbench.calibration.attention import fit_attention
from kvbench.calibration.products import fit_products
from kvbench.calibration.tables import is_held_out
from kvbench.calibration.validation.kernels import KINDS_OF, is_doubtful, judged_kernels
from kvbench.calibration.validation.rows import HELD_OUT, errors_by
from kvbench.model.hardware import Hardware
from kvbench.timing.doubt import LEAST, Doubt, quantiles_of
from kvbench.timing.kernels import Kernels, kernels_of

DIGITS = 3


class KernelFit(NamedTuple):
    """A machine whose file has fits, and what they were held against.

    Args:
        hardware: with `kernels`.
        rows: that fitted nothing, see `validation.rows.COLUMNS`.
        not_told: rows that say nothing, and why; a sentence each.
    """

    hardware: Hardware
    rows: pd.DataFrame
    not_told: tuple[str, ...]


def fit_kernels(frame: pd.DataFrame, hardware: Hardware, about: Mapping[str, str]) -> KernelFit:
    """Fit a machine's kernels to a table.

    Args:
        frame: from `tables.read_kernels`.
        hardware: that it was measured on: peaks of its data sheet.
        about: what the file is to say besides: `engine`, `version`, `source`.
    Raises:
        ValueError: the table has no rows that fit.
    """
    figures: dict[str, Any] = fit_products(frame, hardware)
    if (frame["op"].isin(ATTENTION_OPS.values()) & ~is_held_out(frame)).any():
        figures["attention"] = fit_attention(frame, hardware)
    if not figures:
        raise ValueError("the table has too few rows of every kind of work to fit any")
    fitted = replace(hardware, kernels={**about, **figures})
    kernels = kernels_of(fitted)
    judged = judged_kernels(frame, kernels)
    held = judged.rows[judged.rows[HELD_OUT]].reset_index(drop=True)
    told = {"residuals": residuals_of(frame, kernels), "errors": _errors(held)}
    return KernelFit(replace(fitted, kernels={**(fitted.kernels or {}), **told}), held, judged.not_told)


def residuals_of(frame: pd.DataFrame, kernels: Kernels) -> dict[str, list[float]]:
    """Quantiles of ln(measured ÷ ours) by kind of work, on rows of a table that are held out and not doubtful; those
    that judge intervals have no part in them, but where there are too few others."""
    believed = frame[is_held_out(frame) & ~is_doubtful(frame)]
    rows = judged_kernels(believed, kernels, Doubt({}, is_measured=True)).rows
    found = {}
    for kind, own in rows.groupby(rows["kind"].map(KINDS_OF), sort=False):
        others = own[~own["judges"]]
        told = others if len(others) >= LEAST else own
        if len(told) >= LEAST:
            found[str(kind)] = quantiles_of(told["published"].to_numpy(), told["ours"].to_numpy())
    return {kind: [round(value, DIGITS) + 0.0 for value in values] for kind, values in found.items()}


def _errors(held: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Rows, MAPE and bias by kind of work and group."""
    found: dict[str, dict[str, list[float]]] = {}
    for (kind, group), errors, _ in errors_by(held, ("kind", "group")):
        told = [errors.number, round(errors.mape, DIGITS), round(errors.bias, DIGITS)]
        found.setdefault(KINDS_OF[kind], {})[group] = told
    return found

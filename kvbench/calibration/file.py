"""A hardware file: the figures, one curve a line, and how far a model made of them was from what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mean

import yaml

from kvbench.backend.curves import CURVES
from kvbench.calibration.kernels_file import with_kernels
from kvbench.calibration.validate import Outcome
from kvbench.model.hardware import Hardware

DIGITS = 4
WIDE = 1 << 20


def validation_of(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """What a hardware file says of its model's errors, as shares of what was measured.

    Args:
        outcomes: a strategy in a case each, at least one.
    Returns:
        error: of a strategy's mean time a step, mean over strategies and scenarios; noise: the same of a second
        measurement; errors, noises: by strategy, mean over scenarios; scenarios: by scenario and strategy; exact:
        whether bytes, slots and resizes were equal in every step.
    """
    strategies = dict.fromkeys(each.strategy for each in outcomes)
    by_strategy = {name: [each for each in outcomes if each.strategy == name] for name in strategies}
    return {
        "scope": "cache",
        "error": _digits(mean(each.error for each in outcomes)),
        "noise": _digits(mean(each.noise for each in outcomes)),
        "errors": {name: _digits(mean(each.error for each in own)) for name, own in by_strategy.items()},
        "noises": {name: _digits(mean(each.noise for each in own)) for name, own in by_strategy.items()},
        "scenarios": _by_scenario(outcomes),
        "exact": not any(each.differences for each in outcomes),
    }


def _by_scenario(outcomes: Sequence[Outcome]) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for each in outcomes:
        figures = ("measured_us", "modelled_us", "error", "noise", "step_error", "step_noise")
        found.setdefault(each.case, {})[each.strategy] = {name: _digits(getattr(each, name)) for name in figures}
    return found


def file_text(hardware: Hardware) -> str:
    """A calibrated machine's file, as YAML."""
    figures = asdict(hardware)
    curves, calibrated_for, validation, kernels = (
        figures.pop(name) for name in ("curves", "calibrated_for", "validation", "kernels")
    )
    lines = ["# A machine that `python -m kvbench calibrate` measured.", _block(figures)]
    lines.append("curves: # [size, seconds] points")
    for name, points in curves.items():
        lines += [f"  # {CURVES[name]}"] if name in CURVES else []
        lines.append(f"  {name}: {_flow(points)}")
    lines += [_block({"calibrated_for": calibrated_for}), "# Shares of what was measured, on runs that fitted nothing."]
    text = "\n".join([*lines, _block({"validation": validation})]) + "\n"
    return with_kernels(text, kernels) if kernels else text


def _block(mapping: Mapping[str, object]) -> str:
    return yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=WIDE).rstrip()


def _flow(points: Sequence[Sequence[float]]) -> str:
    return yaml.safe_dump([list(point) for point in points], default_flow_style=True, width=WIDE).rstrip()


def _digits(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

"""A whole calibration: measure the machine between two runs of workloads that fit nothing, and hold its model against
them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from tqdm import tqdm

from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled, ModelledBackend
from kvbench.calibration.bench import BenchBackend
from kvbench.calibration.file import validation_of
from kvbench.calibration.kernels import fit_kernels
from kvbench.calibration.measure import (
    Grid,
    bench_for,
    free_for_probes,
    hardware_of,
    measured,
    num_probes,
    warmed_up,
)
from kvbench.calibration.own_kernels import timed_kernels
from kvbench.calibration.result import Calibration
from kvbench.calibration.validate import Outcome, ValidationCase, outcomes_of, steps_of
from kvbench.ledger import Limits
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.runner.run import limits_of
from kvbench.strategy.base import Strategy

BAR = {"disable": None, "leave": False}
"""Bars of progress: on a terminal only."""


def calibrated(
    geometry: KVGeometry,
    device: str,
    grid: Grid,
    strategies: Mapping[str, Strategy],
    cases: Sequence[ValidationCase],
    num_repetitions: int,
) -> Calibration:
    """Measure the machine, hold its model of the cache against the cases, and fit its kernels.

    What the model is made of is measured between the two runs that it is held against: a drift of the machine's speed
    falls on both sides alike.

    Args:
        geometry: of the model.
        device: auto, cpu or cuda.
        grid: at which sizes to measure.
        strategies: by name; those that the geometry's heads do not go into are left out.
        cases: workloads that fit nothing, at least one.
        num_repetitions: of each of their runs.
    Raises:
        ValueError: there is no such device, memory does not last, or the model cannot be measured.
    """
    strategies, left_out = fitting(geometry, strategies)
    bench, grid = bench_for(geometry, device, grid)
    size = num_probes(bench, grid)
    machine = BenchBackend(Conditions(geometry=geometry, device=device))
    budget_bytes = machine.memory_bytes()

    # A pool is as large in the model as it is here, whatever memory each has.
    fitted = [
        {name: strategy.fitted(known) for name, strategy in strategies.items()}
        for known in (limits_of(case.sessions, machine, case.max_concurrency, budget_bytes) for case in cases)
    ]

    def run_cases() -> list[pd.DataFrame]:
        tokens = sum(session.num_tokens for case in cases for session in case.sessions) * len(strategies)
        with tqdm(total=tokens * (1 + num_repetitions), unit="tok", **BAR) as bar:
            advance = _advancing(bar)
            return [
                steps_of(machine, own, case, budget_bytes, num_repetitions, advance)
                for own, case in zip(fitted, cases, strict=True)
            ]

    for _ in tqdm(warmed_up(bench, grid), "warming up", size, **BAR):
        pass
    first = run_cases()
    *_, samples = tqdm(measured(bench, grid), "measuring", size * grid.num_rounds, **BAR)
    launches = None
    if bench.is_accelerator:
        with bench.on_host():
            *_, launches = tqdm(measured(bench, grid), "launching", size * grid.num_rounds, **BAR)
    second = run_cases()
    hardware = hardware_of(bench, samples, launches)
    with tqdm(desc="kernels", unit="kernel", **BAR) as bar:
        table = timed_kernels(bench, grid.kernels, free_for_probes(bench.backend.device), bar.update)
    model = _model_of(hardware, geometry)
    outcomes: list[Outcome] = []
    for case, own, one, other in zip(cases, fitted, first, second, strict=True):
        outcomes += outcomes_of(case, strategies, one, other, steps_of(model, own, case, budget_bytes))
    about = {"engine": "torch", "version": str(torch.__version__), "source": hardware.source}
    fit = fit_kernels(table, replace(hardware, validation=validation_of(outcomes)), about)
    return Calibration(fit.hardware, outcomes, left_out, table, fit)


def fitting(geometry: KVGeometry, strategies: Mapping[str, Strategy]) -> tuple[dict[str, Strategy], dict[str, str]]:
    """The strategies whose areas the model's heads go into; and of the others, why not."""
    found, left_out = {}, {}
    for name, strategy in strategies.items():
        try:
            strategy.fitted(Limits(geometry=geometry, budget_bytes=None, live_tokens=(1,))).ledger(geometry)
        except ValueError as error:
            left_out[name] = str(error)
        else:
            found[name] = strategy
    return found, left_out


def _model_of(hardware: Hardware, geometry: KVGeometry) -> ModelledBackend:
    return Modelled(memory_fraction=1.0).made(Conditions(geometry=geometry, hardware=hardware, cache_only=True))


def _advancing(bar: tqdm) -> Callable[[str, int, int], None]:
    """A callback of `runner.run` that moves a bar."""

    def advance(strategy: str, repetition: int, num_tokens: int) -> None:
        bar.set_description(f"{strategy}, repetition {repetition}", refresh=False)
        bar.update(num_tokens)

    return advance

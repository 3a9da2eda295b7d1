"""Launches: what a decode step gives a device, strategy by strategy, counted without one."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

import pandas as pd

from kvbench.backend.base import Backend
from kvbench.backend.choice import Conditions
from kvbench.backend.launches import Launches, Uncomputed
from kvbench.charts.launches import launches_chart
from kvbench.charts.text import listed, number
from kvbench.checks import check_int
from kvbench.ledger import Limits
from kvbench.model.geometry import KVGeometry
from kvbench.results.front import row_of_most
from kvbench.runner.drive import SEQ, Driver, step
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.workload.request import Request, Session

COUNTS = ("launches", "device_bytes", "copies", "copied_bytes")
"""Columns of what is counted in a step, a layer each."""


@dataclass(frozen=True, kw_only=True)
class LaunchesExperiment(Experiment):
    """Count what one decode step gives a device in a layer: kernels, the bytes that they read and write, and copies.

    The strategies' own steps are carried out on tensors without data, in one layer and in two: the difference is a
    layer's part, the rest is what a step needs once. Each figure is the median over the decode steps; `most_launches`
    is the step of most, such as one that rounds a group or resizes. Attention is one call a piece of the cache, which
    is two kernels in bfloat16 (keys are split among the processors, and merged), and six to merge several pieces.

    A kernel is an operation of torch's: where its library launches several for one, as for a sort, one is counted. What
    torch has no operation for is not fused here. A gather of blocks writes a copy, so that paged moves three times what
    it holds. Packed codes are joined, unpacked, scaled and then read: 3.6 to 4.3 times what it holds in full precision,
    of which 2 are the restored copy, written and read; a kernel that attends over codes would read the codes alone.

    Args:
        strategies: by name.
        context_tokens: of the prompt before the steps that are counted, > 0.
        num_decode_tokens: steps that are counted, > 0.
    Raises:
        ValueError: a number is not a positive integer.
    Source: none.
    """

    strategies: Mapping[str, Strategy]
    context_tokens: int = 4000
    num_decode_tokens: int = 5
    repetitions: int = 1
    is_repeated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_int("context_tokens", self.context_tokens, 1)
        check_int("num_decode_tokens", self.num_decode_tokens, 1)

    @property
    def num_tokens(self) -> int:
        """None: nothing is computed."""
        return 0

    def header(self, setting: Setting) -> list[str]:
        """What is counted, of which model."""
        geometry = setting.backend.geometry
        return [
            f"a decode step after {self.context_tokens:,} tokens, counted, not run",
            f"a layer of {geometry.called}: {geometry.plain.num_heads} heads on {geometry.plain.num_kv_heads} of "
            f"{geometry.plain.head_dim}, {geometry.dtype}",
        ]

    def run(self, setting: Setting) -> Findings:
        """Count.

        Returns:
            A row a strategy: launches, device_bytes, copies, copied_bytes (a layer's), most_launches (likewise),
            launches_a_step (beside the layers'), bytes_per_needed (bytes read and written over those of the context).
        Raises:
            ValueError: the model has layers of another kind than attention over all tokens.
        """
        table = self.table(setting.backend)
        return Findings(
            summary=table,
            sentences=launches_sentences(table),
            charts={"launches": launches_chart(table, "; ".join(self.header(setting)))},
        )

    def table(self, backend: Backend) -> pd.DataFrame:
        """The rows; see `run`."""
        needed = backend.geometry.tensor_bytes_per_token * 2 * self.context_tokens * backend.num_rows
        rows = []
        for name, strategy in self.strategies.items():
            one, two = (
                self._steps(strategy, backend.geometry.reshaped(num_layers=num_layers), backend.num_rows)
                for num_layers in (1, 2)
            )
            layer = two - one
            middle = layer.median()
            rows.append(
                {"strategy": name}
                | {column: middle[column] for column in COUNTS}
                | {
                    "most_launches": layer["launches"].max(),
                    "launches_a_step": median(2 * one["launches"] - two["launches"]),
                    "bytes_per_needed": middle["device_bytes"] / needed,
                }
            )
        return pd.DataFrame(rows)

    def _steps(self, strategy: Strategy, geometry: KVGeometry, num_rows: int) -> pd.DataFrame:
        """A row a decode step, of all layers."""
        backend = Uncomputed(Conditions(geometry=geometry, num_rows=num_rows))
        total = self.context_tokens + self.num_decode_tokens
        backend.prepare(self.context_tokens, total)
        strategy = strategy.fitted(Limits(geometry=geometry, budget_bytes=None, live_tokens=(total,)))
        backend.begin_repetition(strategy.areas)
        driver = Driver(strategy, strategy.ledger(geometry, num_rows=num_rows), backend)
        driver.open(SEQ)
        session = Session(0, (Request(self.context_tokens, self.num_decode_tokens + 1),))
        rows = []
        with Launches():
            backend.step(driver.admit(SEQ, session), 0)
            for count in driver.steps(SEQ, self.context_tokens):
                step(driver, backend, count, 0)
        for done in range(self.context_tokens, total):
            with Launches() as counted:
                step(driver, backend, 1, done)
            rows.append((counted.num_launches, counted.num_bytes, counted.num_copies, counted.copied_bytes))
        backend.end_repetition()
        return pd.DataFrame(rows, columns=list(COUNTS))


def launches_sentences(table: pd.DataFrame) -> list[str]:
    """Which strategies launch least and most, and which move most bytes for what they hold.

    Args:
        table: from `LaunchesExperiment.run`.
    """
    least, most = table["launches"].min(), table["launches"].max()
    few = table.loc[table["launches"] == least, "strategy"]
    many = row_of_most(table, table["launches"])["strategy"]
    heavy = row_of_most(table, table["bytes_per_needed"])
    sentences = [
        f"Fewest kernels a decode step and layer, {number(least)}, launch {listed(list(few))}; most, {number(most)}, "
        f"{many}.",
        f"Most bytes are read and written by {heavy['strategy']}: {number(heavy['bytes_per_needed'])} times those of "
        "the context's keys and values.",
    ]
    copying = table.loc[table["copies"] > 0, "strategy"]
    if len(copying):
        sentences.append(f"Copies from the host's memory come on top in {listed(list(copying))}.")
    return sentences

"""The experiment that computes published results anew, and holds ours against what was printed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.reproduced import occupancy_chart, rates_chart, reproduced_chart
from kvbench.charts.text import number
from kvbench.charts.validation import ValidationChart
from kvbench.checks import check_number
from kvbench.messages import unknown
from kvbench.model.hardware import Hardware
from kvbench.results.provenance import model_notes, origin
from kvbench.studies.base import Experiment, Findings, NamedModel, Setting
from kvbench.studies.reproduce import end_to_end, figures, paged_attention
from kvbench.studies.reproduce.figures import PublishedFigure, figures_frame
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from kvbench.workload.scenario import Scenario
from kvbench.workload.trace import DEFAULT_FOLDER, FOLDER_VARIABLE, Trace, TraceMissing
from kvbench.workload.trace_columns import TraceColumns

RESULTS = ("paged_attention", "prefix_hit_rates", "kv_bytes", "static_waste", "end_to_end")
LENGTHS, PREFIXES = "sharegpt", "mooncake_synthetic"
SERVED = "opt_13b"


@dataclass(frozen=True, kw_only=True)
class Reproduce(Experiment):
    """Compute published results anew, each beside what was printed, with its source and the difference.

    A result whose trace is missing is listed with where the trace is to be had, one that needs what is not installed
    with how to install it; the others run.

    Args:
        results: which: paged_attention, prefix_hit_rates, kv_bytes, static_waste, end_to_end.
        scenarios: the traces sharegpt and mooncake_synthetic, by name.
        models: those whose bytes are checked, or which end-to-end measurements name, and opt_13b, by name.
        hardware: the machine of PagedAttention's figure.
        machines: those of end-to-end measurements, by name.
        rates_per_s: arrival rates at which memory's shares are shown, each > 0.
        judged_rate_per_s: that of them which is held against the paper.
    Raises:
        ValueError: a result is unknown, or the judged rate is none of the rates.
    Source: Kwon et al. 2023, arXiv:2309.06180; KVCache.AI, kvcache-simulator; Qin et al. 2025, Mooncake (FAST'25).
    Departs: what the papers leave open, and how it was chosen, stands in the report.
    """

    results: tuple[str, ...] = RESULTS
    scenarios: Mapping[str, Scenario]
    models: Mapping[str, NamedModel]
    hardware: Hardware
    machines: Mapping[str, Hardware]
    rates_per_s: tuple[float, ...] = (0.5, 1, 1.5, 2, 2.5, 3, 4)
    judged_rate_per_s: float = 2
    repetitions: int = 1
    attend: bool = False

    def __post_init__(self) -> None:
        for result in self.results:
            if result not in RESULTS:
                raise ValueError(unknown("result", result, RESULTS))
        for rate in self.rates_per_s:
            check_number("each of rates_per_s", rate, 0, above=True)
        if self.judged_rate_per_s not in self.rates_per_s:
            raise ValueError(f"judged_rate_per_s is one of rates_per_s, got {self.judged_rate_per_s!r}")

    @property
    def num_tokens(self) -> int:
        """None: nothing is appended to a cache of tensors."""
        return 0

    def run(self, setting: Setting) -> Findings:
        """Compute all results whose traces are there.

        Raises:
            ValueError: a trace is not of its format.
        """
        found: list[PublishedFigure] = []
        sentences: list[str] = []
        charts, files, subjects = {}, {}, []
        for result in self.results:
            try:
                match result:
                    case "paged_attention":
                        own, rates = self._paged_attention(setting.seed)
                        subjects.append(self._served)
                        at_rate = f"{self._served}; {self.judged_rate_per_s:g} requests/s"
                        charts["paged_attention"] = occupancy_chart(figures_frame(own), self._notes, at_rate)
                        charts["rates"] = rates_chart(rates, self._notes, self._served)
                        files["paged_attention_rates"] = rates
                        sentences += [_open_choices(self.judged_rate_per_s), _batches(rates)]
                    case "prefix_hit_rates":
                        own = list(figures.hit_rate_figures(self._trace(PREFIXES, setting.seed)))
                        subjects.append(f"prefixes: {PREFIXES}")
                        sentences.append(figures.DEFINITION)
                    case "kv_bytes":
                        own = list(figures.byte_figures({name: model.geometry for name, model in self.models.items()}))
                    case "end_to_end":
                        own, chart, rows, said = self._end_to_end()
                        charts |= chart
                        files |= rows
                        sentences += said
                    case _:
                        own = list(figures.waste_figures(setting))
                        subjects.append(f"static waste: {setting.backend.geometry.about}")
            except (ImportError, TraceMissing) as error:
                missing, name = _NEEDS[result]
                own = list(missing())
                is_trace = isinstance(error, TraceMissing)
                why = _where_to_get(self.scenarios[name]) if is_trace else " ".join(str(error).split())
                sentences.append(f"{own[0].result}: not run. {why}")
            found += own
        table, notes = figures_frame(found), self._notes if "paged_attention" in charts else []
        return Findings(
            summary=table.drop(columns="source"),
            sentences=[*_summed_up(table), *sentences, *notes],
            charts={"reproduced": reproduced_chart(table, notes, "; ".join(subjects)), **charts},
            tables={"sources": table[["result", "source"]].drop_duplicates(ignore_index=True)},
            files=files,
        )

    def _end_to_end(
        self,
    ) -> tuple[list[PublishedFigure], dict[str, Figure], dict[str, pd.DataFrame], list[str]]:
        """Figures, the chart and the rows of end-to-end measurements, and what is said of them."""
        path = end_to_end.table_path()
        if path is None:
            return list(end_to_end.missing_figures()), {}, {}, [f"{end_to_end.RESULT}: not run. {end_to_end.MISSING}"]
        models = {each.model.name: each.model for each in self.models.values() if each.model is not None}
        held = end_to_end.held(path, models, self.machines)
        chart = ValidationChart(rows=held.rows, subject=f"{end_to_end.RESULT}: {path.name}, simulated")
        said = [f"{end_to_end.RESULT}: {each}" for each in held.not_told]
        return list(end_to_end.figures(held.rows)), {"end_to_end": chart.figure()}, {"end_to_end": held.rows}, said

    @property
    def _notes(self) -> list[str]:
        """How far the modelled machine's times can be trusted."""
        return model_notes(pd.DataFrame([{"source": "modelled"} | origin(self.hardware, "model")]))

    @property
    def _served(self) -> str:
        """What PagedAttention's figure was computed of."""
        return f"PagedAttention: {LENGTHS}, {self.models[SERVED].geometry.about}, modelled ({self.hardware.name})"

    def _trace(self, name: str, seed: int) -> TraceColumns:
        """A trace whole; lengths without times keep theirs empty.

        Raises:
            TraceMissing: it is not there.
        """
        scenario = self.scenarios.get(name)
        if not isinstance(scenario, Trace):
            raise ValueError(f"scenarios: {name} is needed, and is a trace; got {', '.join(self.scenarios)}")
        return scenario.columns(np.random.default_rng(seed))

    def _paged_attention(self, seed: int) -> tuple[list[PublishedFigure], pd.DataFrame]:
        lengths = self._trace(LENGTHS, seed)
        if SERVED not in self.models:
            raise ValueError(f"models: {SERVED} is needed for PagedAttention's figure")
        model = self.models[SERVED]
        assert model.weights is not None, f"{SERVED}'s file says how many parameters it has"
        prices = prices_of(self.hardware, work_of_parameters(model.geometry, model.weights))
        by_rate = paged_attention.occupancies(lengths, self.rates_per_s, prices, model.geometry, seed)
        own = list(paged_attention.figures(by_rate[self.judged_rate_per_s]))
        return own, paged_attention.rates_frame(by_rate)


_NEEDS = {
    "paged_attention": (paged_attention.missing_figures, LENGTHS),
    "prefix_hit_rates": (figures.missing_hit_rates, PREFIXES),
}
"""Of a result that needs a trace: the printed figures alone, and which trace."""


def _where_to_get(trace: Scenario) -> str:
    assert isinstance(trace, Trace), "no other scenario misses a file"
    return (
        f"The trace file {trace.file} is missing; published: {trace.source}. Put it into the folder {DEFAULT_FOLDER}, "
        f"or into the one that the environment variable {FOLDER_VARIABLE} names."
    )


def _open_choices(judged_rate_per_s: float) -> str:
    return (
        "PagedAttention: shares are time-weighted over iterations in which a request waits for memory (over all, where "
        f"none ever waits), at {judged_rate_per_s:g} requests/s; the paper names no rate for its figure 2. 12 GB of "
        "cache are 12 GiB, the 15.7K slots of its table 1. What a buddy allocator rounds up counts as external. vLLM's "
        "mean batch depends on the step's time and the rate, and is shown, not judged; paged_attention_rates.csv has "
        "every rate."
    )


def _batches(rates: pd.DataFrame) -> str:
    """vLLM's mean batch at each rate, beside the one printed."""
    own = rates[rates["system"] == "vLLM"]
    shown = ", ".join(f"{row.mean_batch:.1f} at {row.rate_per_s:g}" for row in own.itertuples())
    return f"vLLM's mean batch, printed {paged_attention.BATCHES['vLLM']} at 2 requests/s: ours is {shown}."


def _summed_up(table: pd.DataFrame) -> list[str]:
    """How many figures of each result are within their goal, and what misses by how much."""
    sentences = []
    for result, rows in table.groupby("result", sort=False):
        judged = rows[rows["verdict"].isin(["reproduced", "missed"])]
        if judged.empty:
            continue
        num_held = int((judged["verdict"] == "reproduced").sum())
        missed = judged[judged["verdict"] == "missed"]
        named = "; ".join(
            f"{row['quantity']} by {number(row['difference'])} {row['unit']}" for row in missed.to_dict("records")
        )
        tail = f" Missed: {named}." if named else f" Differences: {number(judged['difference'].min())} to "
        if not named:
            tail += f"{number(judged['difference'].max())} {judged['unit'].iloc[0]}."
        sentences.append(f"{result}: {num_held} of {len(judged)} figures are within their goal.{tail}")
    return sentences

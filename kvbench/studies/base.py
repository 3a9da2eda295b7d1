"""What every experiment is, what it is given, and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from kvbench.backend.base import Backend
from kvbench.decide.sweep import Point, joined
from kvbench.model.geometry import KVGeometry
from kvbench.model.model import Model
from kvbench.model.parameters import ModelParameters
from kvbench.results.provenance import model_notes, origin
from kvbench.results.results import Results


class NamedModel(NamedTuple):
    """A model by its name: bytes of its cache, its parameters where they are known, and the whole of it."""

    geometry: KVGeometry
    weights: ModelParameters | None
    model: Model | None = None


class Advised(NamedTuple):
    """What is recommended: in words, all that was tried, and the number of the best; None: nothing is known to hold."""

    words: str
    rows: pd.DataFrame
    best: int | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a configuration gives an experiment.

    Args:
        backend: where plans are carried out, under the configured model.
        backend_of: makes a backend of the same kind for another geometry.
        num_repetitions: after warm-up, > 0.
        num_warmup: repetitions before those, >= 0.
        budget_bytes: what live requests may hold together; None for no limit.
        is_budget_given: whether that was configured, and does not come from the memory that happens to be free.
        seed: of all that is drawn.
        on_iteration: to be handed to `run`, for the progress bar.
        say: prints a line while it runs; None: nothing is said.
        name_or_path: of a real model to be loaded; None where the configured one is a shape without weights.
        device: auto, cpu or cuda, as configured.
        recommend: the public call that says what to deploy, of a scenario, strategies and keywords; None: nobody does.
    """

    backend: Backend
    backend_of: Callable[[KVGeometry], Backend]
    num_repetitions: int
    num_warmup: int
    budget_bytes: int | None
    seed: int
    on_iteration: Callable[[str, int, int], None] | None = None
    say: Callable[[str], None] | None = None
    is_budget_given: bool = False
    name_or_path: str | None = None
    device: str = "auto"
    recommend: Callable[..., Advised] | None = None

    def run(self, points: Sequence[Point], backend: Backend | None = None) -> Results:
        """Run a sweep's points, one after another, and join their rows.

        Args:
            points: the manifest.
            backend: where; None for the configured one.
        """
        jobs = [
            point.run(
                backend or self.backend,
                num_repetitions=self.num_repetitions,
                num_warmup=self.num_warmup,
                budget_bytes=self.budget_bytes,
                on_iteration=self.on_iteration,
            )
            for point in points
        ]
        return joined(jobs, [point.values for point in points])

    @property
    def subject(self) -> str:
        """What is run on what, under the titles of charts."""
        device = self.backend.describe()
        return f"{self.backend.geometry.about}; {device['device']} ({device['device_name']})"

    @property
    def notes(self) -> list[str]:
        """What modelled times are worth, for charts and reports; nothing where times are measured."""
        backend = self.backend
        rows = [{"source": backend.source} | origin(backend.hardware, backend.scope)]
        return model_notes(pd.DataFrame(rows))


@dataclass(frozen=True, kw_only=True)
class Findings(Results):
    """What an experiment found: results, what they show, and its drawings.

    A column's name says its unit: the terminal and the report show `…_bytes` in MiB, `…_us` and `…_s` in what keeps
    them short, and columns with `_low` and `_high` behind another's name as its ±.

    Args:
        sentences: what the tables show, plain text.
        charts: by name, in order.
    """

    sentences: list[str]
    charts: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The base of all experiments: a question with an answer of its own form, that one scenario does not give.

    Its YAML's keys are its constructor's parameters. Some are given there by name and arrive built: `scenarios`, a
    list of the project's scenarios, as a mapping from name to scenario; `strategies` (or a key that ends so), a mapping
    from the project's strategies to the parameters that differ from their YAMLs', as one from name to strategy (under
    a name of its own, a strategy is named among the parameters: `recent_window: {strategy: sinks, num_sinks: 0}`);
    `models`, a list of the project's models, as one from name to `NamedModel`; `hardware`, a machine's name;
    and `machines`, a list of such names.

    Args:
        repetitions: how often a measured run repeats it unless told otherwise, > 0.
        attend: whether steps attend unless told otherwise; without, the cache alone is timed.
    """

    repetitions: int = 5
    attend: bool = True
    is_repeated: ClassVar[bool] = True
    """Whether all that it does is repeated, as the setting says."""

    @property
    def num_tokens(self) -> int:
        """Tokens appended in one repetition, over all strategies; for the progress bar."""
        raise NotImplementedError

    def header(self, setting: Setting) -> list[str] | None:
        """What is run, on what, a line each; None where the configured model, backend and repetitions say it.

        Raises:
            ValueError: the setting does not allow it; nothing was run.
        """
        return None

    def run(self, setting: Setting) -> Findings:
        """Measure, and say what was found.

        Raises:
            ValueError: the setting does not allow it; nothing was run.
        """
        raise NotImplementedError

"""The model and the text that all cells share, and the measuring of those that no earlier run did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import kvbench
from kvbench.charts.text import duration
from kvbench.strategy.base import CapacityExceeded
from kvbench.studies.base import Setting
from kvbench.studies.quality.cells import (
    CAPACITY_EXCEEDED,
    COMPLETED,
    CONTINUED,
    NEEDLES,
    OUT_OF_MEMORY,
    PRIMED,
    STREAMING,
    Cell,
    CellFolder,
    CellResult,
    Contender,
    code_fingerprint,
    fingerprint_of_ids,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvbench.integrations.models import Loaded
    from kvbench.quality.model.needles import NeedleDialogue
    from kvbench.quality.model.perplexity import Reference
    from kvbench.quality.model.steps import CacheCounts
    from kvbench.quality.model.tokens import Encode, Tokens

PROBED_STEPS = 5
ANSWER_STEPS = 12
"""Tokens decoded in a dialogue, about."""
VERSIONS = ("torch", "transformers")
CODE = ("backend", "integrations", "ledger", "model", "plan", "quality", "strategy", "studies/quality")
"""Parts of the package that determine what is measured."""


@dataclass
class Subject:
    """A model and a text, as tokens, so that no tokenizer is needed but for facts.

    Args:
        model: in evaluation mode, its attention kvbench's.
        text: the tokens.
        encode: a piece of text to tokens.
        num_tokens: of the text that are fed; one more is predicted.
        prefill_tokens: of the second form.
        depths: of needles, as shares of a context.
        num_asked: dialogues a length and depth.
        seed: of needles.
        budget_bytes: the most that a strategy's cache may hold; None: no limit.
        on_tokens: told whose and how many tokens were fed.
    """

    model: "PreTrainedModel"
    text: "Tokens"
    encode: "Encode"
    num_tokens: int
    prefill_tokens: int
    depths: Sequence[float]
    num_asked: int
    seed: int
    budget_bytes: int | None
    on_tokens: Callable[[str, int], None]
    _reference: "Reference | None" = field(default=None, init=False)

    @property
    def ids(self) -> tuple[int, ...]:
        """The text that is fed, and the token after it."""
        return (*self.text.prefix, *self.text.ids)[: self.num_tokens + 1]

    def reference(self) -> "Reference":
        """What the full cache predicts; computed when it is asked for first."""
        from kvbench.quality.model.perplexity import reference_of

        if self._reference is None:
            self._reference = reference_of(self.model, self.ids)
        return self._reference

    def dialogues(self, context_tokens: int) -> "list[NeedleDialogue]":
        """The dialogues about needles in contexts of so many tokens.

        Raises:
            ValueError: the text is too short, or the contexts are.
        """
        from kvbench.quality.model.needles import dialogues

        return dialogues(
            self.text,
            self.encode,
            context_tokens=context_tokens,
            depths=self.depths,
            num_asked=self.num_asked,
            seed=self.seed + context_tokens,
        )

    def measure(self, cell: Cell) -> dict[str, object]:
        """A cell's figures; of one that was not completed, its outcome alone."""
        from kvbench.quality.model.steps import MEMORY_ERRORS

        try:
            return self._needles(cell) if cell.form == NEEDLES else self._predicted(cell)
        except MEMORY_ERRORS:
            return {"outcome": OUT_OF_MEMORY}
        except CapacityExceeded:
            return {"outcome": CAPACITY_EXCEEDED}

    def _cache(self, cell: Cell, num_tokens: int, num_prompt_tokens: int) -> "CacheCounts":
        from kvbench.quality.model.steps import cache_of

        holder = cell.contender.holder_of(num_tokens)
        return cache_of(self.model, holder, num_tokens, self.budget_bytes, num_prompt_tokens)

    def _predicted(self, cell: Cell) -> dict[str, object]:
        from kvbench.quality.model.perplexity import predict

        primed = min(PRIMED.get(str(cell.contender.holder), 0), cell.num_tokens // 2) if cell.form == STREAMING else 0
        prefill = self.prefill_tokens if cell.form == CONTINUED else primed
        counted = self._cache(cell, cell.num_tokens, prefill or 1)
        try:
            found = predict(
                self.model,
                counted,
                self.reference(),
                prefill_tokens=prefill,
                counts_prefill=primed > 0,
                on_tokens=lambda num_tokens: self.on_tokens(cell.contender.title, num_tokens),
            )
        finally:
            counted.close()
        named = ("perplexity", "kl_nats", "kl_parts", "agreement", "num_predicted")
        figures = {name: getattr(found, name) for name in named}
        return {"outcome": COMPLETED, "tokens_per_s": found.tokens_per_s} | figures | found.figures._asdict()

    def _needles(self, cell: Cell) -> dict[str, object]:
        from kvbench.quality.model.needles import found

        asked: list[list[object]] = []
        for dialogue in self.dialogues(cell.num_tokens):
            counted = self._cache(cell, dialogue.num_tokens, len(dialogue.first.prompt))
            try:
                first, later = found(self.model, counted, dialogue)
            finally:
                counted.close()
            asked += [[dialogue.first.depth, "first", bool(first)], [dialogue.later.depth, "later", bool(later)]]
            self.on_tokens(cell.contender.title, cell.num_fed // (len(self.depths) * self.num_asked))
        return {"outcome": COMPLETED, "asked": asked}

    def seconds(self, cells: Sequence[Cell]) -> float:
        """About how long cells take: by a prefill and a few steps of the full cache, half of the text behind them."""
        from transformers import DynamicCache

        from kvbench.quality.model.steps import timed_step

        ids, cache = self.ids, DynamicCache(config=self.model.config)
        half = max(min(len(ids) // 2, len(ids) - PROBED_STEPS - 1), 1)
        timed_step(self.model, DynamicCache(config=self.model.config), ids[:2])
        _, prefill_s = timed_step(self.model, cache, ids[:half])
        start = perf_counter()
        probed = ids[half : half + PROBED_STEPS]
        for token in probed:
            timed_step(self.model, cache, (token,))
        step_s, token_s = (perf_counter() - start) / max(len(probed), 1), prefill_s / half
        return sum(self._seconds_of(cell, step_s, token_s) for cell in cells)

    def _seconds_of(self, cell: Cell, step_s: float, token_s: float) -> float:
        if cell.form == NEEDLES:
            steps = ANSWER_STEPS * len(self.depths) * self.num_asked
            return (cell.num_fed - steps) * token_s + steps * step_s
        prefill = self.prefill_tokens if cell.form == CONTINUED else 0
        return prefill * token_s + (cell.num_tokens - prefill) * step_s


def num_fed(form: str, num_tokens: int, num_dialogues: int) -> int:
    """Tokens that a cell feeds, of needles about: contexts, what comes between the turns, questions and answers."""
    return num_tokens if form in (STREAMING, CONTINUED) else num_dialogues * (num_tokens + 100)


def common(loaded: "Loaded", subject: Subject, setting: Setting, parameters: Mapping[str, object]) -> dict[str, object]:
    """What determines every cell.

    Args:
        loaded: the model.
        subject: the text.
        setting: of the run; a budget that was not given is no part of it.
        parameters: of the experiment.
    """
    from kvbench.backend.device import device_name
    from kvbench.integrations.models import weights_fingerprint

    return {
        "model": loaded.name,
        "weights": weights_fingerprint(loaded.model),
        "dtype": str(loaded.model.dtype),
        "device": device_name(loaded.model.device),
        "text": fingerprint_of_ids((*subject.text.prefix, *subject.text.ids)),
        "seed": setting.seed,
        "budget_bytes": setting.budget_bytes if setting.is_budget_given else None,
        "kvbench": kvbench.__version__,
        "code": code_fingerprint(Path(kvbench.__file__).parent, CODE),
        **parameters,
        **{name: version(name) for name in VERSIONS},
    }


def available(rows: list[Contender], loaded: "Loaded") -> tuple[list[Contender], list[str]]:
    """The rows that can be measured here, and why others cannot."""
    from kvbench.integrations.peers import why_not

    present, missing = [], []
    for row in rows:
        reason = why_not(row.holder, loaded.model.config) if isinstance(row.holder, str) else None
        if reason is None:
            present.append(row)
        else:
            missing.append(f"Left out: {' '.join(reason.split()).removesuffix('.')}.")
    return present, missing


def measured(cells: list[Cell], kept: CellFolder, subject: Subject, setting: Setting) -> dict[Cell, CellResult]:
    """All cells, those of earlier runs first; what the others take is told before they are begun."""
    found = {cell: before for cell in cells if (before := kept.read(cell)) is not None}
    for cell in found:
        tell(setting, cell.contender.title, cell.num_fed)
    left = [cell for cell in cells if cell not in found]
    if left and setting.say is not None:
        setting.say(
            f"{len(found)} of {len(cells)} cells are there from before; the other {len(left)} take about "
            f"{duration(subject.seconds(left))} at the full cache's speed, and what caches do comes on top. Each is "
            "kept when it is finished: after an interruption, run the same again."
        )
    try:
        for cell in left:
            found[cell] = kept.write(cell, subject.measure(cell))
    except KeyboardInterrupt:
        if setting.say is not None:
            setting.say(f"{len(found)} of {len(cells)} cells are kept; the same again goes on from there")
        raise
    return {cell: found[cell] for cell in cells}


def tell(setting: Setting, title: str, num_tokens: int) -> None:
    """Move the progress bar."""
    if setting.on_iteration is not None:
        setting.on_iteration(title, 0, num_tokens)


def earlier(found: Mapping[Cell, CellResult]) -> list[str]:
    """How many cells earlier runs measured, and when."""
    times = sorted(each.measured_at for each in found.values() if each.is_earlier)
    if not times:
        return []
    when = times[0] if times[0] == times[-1] else f"between {times[0]} and {times[-1]}"
    return [
        f"{len(times)} of {len(found)} cells were measured by earlier runs of the same ({when}), their tokens a second "
        "too; experiment.resume=false measures all anew."
    ]

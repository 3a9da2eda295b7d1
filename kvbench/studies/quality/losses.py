"""What one strategy loses on few tokens of a real model: shipped, or measured once and kept by content, or unknown."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import kvbench
from kvbench.charts.text import percent
from kvbench.checks import check_int
from kvbench.results.intervals import half_width
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic
from kvbench.studies.quality.cells import (
    COMPLETED,
    CONTINUED,
    NEEDLES,
    Cell,
    CellFolder,
    Contender,
    code_fingerprint,
    described,
)
from kvbench.studies.quality.shipped import Shipped, shipped
from kvbench.studies.quality.subject import CODE, VERSIONS, Subject

if TYPE_CHECKING:
    from kvbench.integrations.text import Text

SHARES = (0.5, 0.2)
"""Of the tokens, that a strategy which evicts keeps where it is measured: the next below its share of a workload's."""
AMONG = 512, 1024
"""A budget, and tokens among which it is one: what a strategy with a budget is described by."""
DEPTHS = (0.1, 0.5, 0.9)
FULL = Contender("full", Dynamic())
MEASURE = "quality.measure=true measures it, in about half a minute on a CPU"


class LossUnknown(Exception):
    """What a strategy loses cannot be told: says why."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured.

    Args:
        text_tokens: of the text, > 1.
        predicted_tokens: of these, those at the end that come one by one, and whose predictions are compared, > 0.
        needle_tokens: of each context with needles; 0: none.
    Raises:
        ValueError: a number is out of its range.
    """

    text_tokens: int = 1024
    predicted_tokens: int = 128
    needle_tokens: int = 256

    def __post_init__(self) -> None:
        check_int("quality.text_tokens", self.text_tokens, 2)
        check_int("quality.predicted_tokens", self.predicted_tokens, 1, self.text_tokens - 1)
        check_int("quality.needle_tokens", self.needle_tokens, 0)

    @property
    def prefill_tokens(self) -> int:
        """Tokens that come at once."""
        return self.text_tokens - self.predicted_tokens


class Losing(NamedTuple):
    """What is judged.

    Args:
        strategy: a lossy one.
        kept_share: of the tokens, one of SHARES, that it keeps; None: it evicts none.
    """

    strategy: Strategy
    kept_share: float | None = None

    @classmethod
    def of(cls, strategy: Strategy, kept_share: float) -> "Losing":
        """A strategy that keeps such a share in a workload; of one that evicts, its budget is that share, whatever else
        it was.

        Raises:
            LossUnknown: it keeps less than the least that is measured.
        """
        bounded = strategy.within(*AMONG)
        if bounded is None or kept_share >= 1:
            return cls(strategy)
        share = next((each for each in SHARES if each <= kept_share), None)
        if share is None:
            raise LossUnknown(
                f"it keeps {percent(kept_share)} of the tokens here, and is measured from {percent(SHARES[-1])} on"
            )
        return cls(bounded, share)

    def contender(self, num_tokens: int) -> Contender:
        """The same among so many tokens."""
        budget = None if self.kept_share is None else max(round(self.kept_share * num_tokens), 1)
        return Contender(type(self.strategy).__name__, self.strategy, budget)


class Loss(NamedTuple):
    """What a strategy loses against the full cache of the same model.

    Args:
        kl_nats: KL(full || strategy) of the next token's distribution, mean over predictions.
        kl_low: an end of its interval, of the predictions' own spread.
        kl_high: the other.
        perplexity_ratio: perplexity over the full cache's.
        needle_share: needles found over those that the full cache finds; NaN where none were asked for.
        measured_on: model, text and sizes, in words.
    """

    kl_nats: float
    kl_low: float
    kl_high: float
    perplexity_ratio: float
    needle_share: float
    measured_on: str

    @property
    def figures(self) -> tuple[float, ...]:
        """All but the words."""
        return self[:5]


NOTHING_LOST = (0.0, 0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class LossBook:
    """Where losses are looked up, on one model and text.

    Args:
        name_or_path: the model's.
        dtype: that it computes in.
        device: auto, cpu or cuda.
        text: a file; None: prose that every Python carries.
        sizes: how much is measured.
        measures: whether what is not known is measured.
    """

    name_or_path: str
    dtype: str
    device: str = "auto"
    text: str | None = None
    sizes: Sizes = Sizes()
    measures: bool = False
    _found: dict[str, Loss] = field(default_factory=dict, init=False, repr=False, compare=False)

    def loss(self, losing: Losing) -> Loss:
        """What it loses.

        Raises:
            LossUnknown: it was not measured, or cannot be; says why.
        """
        key = str((described(losing.strategy), losing.kept_share))
        if key not in self._found:
            self._found[key] = self._shipped(losing) or self.measured(losing)
        return self._found[key]

    def _shipped(self, losing: Losing) -> Loss | None:
        own = shipped()
        asked = (self.name_or_path, self.dtype, self.text, vars(self.sizes))
        if asked != (own.name_or_path, own.dtype, None, own.sizes):
            return None
        figures = own.figures(losing.strategy, losing.kept_share)
        return None if figures is None else Loss(*figures, measured_on=self._words(own, losing))

    def measured(self, losing: Losing) -> Loss:
        """From cells that earlier runs kept, or that are measured now.

        Raises:
            LossUnknown: as `loss`.
        """
        cells = list(self._cells(losing))
        try:
            found = {cell: kept for cell in cells if (kept := self._folder.read(cell)) is not None}
            if len(found) < len(cells) and not self.measures:
                raise LossUnknown(f"not measured; {MEASURE}")
            for cell in cells:
                if cell not in found:
                    found[cell] = self._folder.write(cell, self._subject.measure(cell))
        except ValueError as error:  # no such model or text, or a budget that is less than it can do with
            raise LossUnknown(" ".join(str(error).split())) from error
        figures = [found[cell].figures for cell in cells]
        if failed := [each["outcome"] for each in figures if each["outcome"] != COMPLETED]:
            raise LossUnknown(f"it did not hold the text: {failed[0]}")
        half = len(cells) // 2
        return Loss(*_compared(figures[:half], figures[half:]), self._words(self, losing))

    def _cells(self, losing: Losing) -> Iterator[Cell]:
        """A text and needles, under the strategy and under the full cache."""
        text, needles = self.sizes.text_tokens, self.sizes.needle_tokens
        forms = [(CONTINUED, text), *([(NEEDLES, needles)] if needles else [])]
        for own in (losing.contender, lambda num_tokens: FULL):
            yield from (Cell(own(num_tokens), form, num_tokens, 0) for form, num_tokens in forms)

    def _words(self, on: "Shipped | LossBook", losing: Losing) -> str:
        sizes = self.sizes
        kept = "" if losing.kept_share is None else f", {percent(losing.kept_share)} of the tokens kept"
        needles = f", {2 * len(DEPTHS)} needles in {sizes.needle_tokens:,}" if sizes.needle_tokens else ""
        return (
            f"{on.model_name}, {sizes.predicted_tokens:,} predictions after {sizes.prefill_tokens:,} tokens of "
            f"{on.text_name}{needles}{kept}"
        )

    @property
    def model_name(self) -> str:
        """For people."""
        from kvbench.integrations.sources import source_of

        return source_of(self.name_or_path).name

    @property
    def text_name(self) -> str:
        """For people."""
        return self._text.name

    @cached_property
    def _text(self) -> "Text":
        from kvbench.integrations.text import text_of

        return text_of(self.text)

    @cached_property
    def _folder(self) -> CellFolder:
        """Of kept cells; named by what is on the disk, so that no model is loaded to look."""
        from kvbench.backend.device import device_name, find_device
        from kvbench.integrations.folders import cache_folder
        from kvbench.integrations.required import required
        from kvbench.integrations.sources import files_fingerprint, source_of
        from kvbench.quality.model.tokens import CHARACTERS_A_TOKEN

        required("quality of a real model")
        read = self._text.text[: CHARACTERS_A_TOKEN * (max(vars(self.sizes).values()) + 1)]
        about = {
            "model": files_fingerprint(source_of(self.name_or_path)),
            "dtype": self.dtype,
            "device": device_name(find_device(self.device)),
            "text": sha256(read.encode()).hexdigest(),
            "sizes": vars(self.sizes),
            "depths": DEPTHS,
            "kvbench": kvbench.__version__,
            "code": code_fingerprint(Path(kvbench.__file__).parent, CODE),
            **{name: version(name) for name in VERSIONS},
        }
        return CellFolder(cache_folder() / "quality", about, reads=True)

    @cached_property
    def _subject(self) -> Subject:
        from kvbench.integrations.models import load_model
        from kvbench.integrations.transformers import use_attention
        from kvbench.quality.model.tokens import encoder, tokens_of

        loaded = load_model(self.name_or_path, device=self.device, dtype=self.dtype)
        use_attention(loaded.model)
        text = tokens_of(loaded.tokenizer, self._text.text, max(self.sizes.text_tokens, self.sizes.needle_tokens) + 1)
        if len(text.ids) <= self.sizes.text_tokens:
            raise ValueError(f"{self._text.name} has {len(text.ids):,} tokens, not {self.sizes.text_tokens + 1:,}")
        return Subject(
            model=loaded.model,
            text=text,
            encode=encoder(loaded.tokenizer),
            num_tokens=self.sizes.text_tokens,
            prefill_tokens=self.sizes.prefill_tokens,
            depths=DEPTHS,
            num_asked=1,
            seed=0,
            budget_bytes=None,
            on_tokens=lambda title, num_tokens: None,
        )


def _compared(own: list[Mapping[str, Any]], full: list[Mapping[str, Any]]) -> tuple[float, float, float, float, float]:
    """The figures of a loss, from those of a strategy's cells and the full cache's."""
    kl_nats, half = max(own[0]["kl_nats"], 0.0), half_width(own[0]["kl_parts"])
    found, all_found = (sum(is_found for _, _, is_found in each[1]["asked"]) if each[1:] else 0 for each in (own, full))
    return (
        kl_nats,
        max(kl_nats - half, 0.0),
        kl_nats + half,
        own[0]["perplexity"] / full[0]["perplexity"],
        found / all_found if all_found else math.nan,
    )

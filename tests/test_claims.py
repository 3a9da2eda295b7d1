"""The article's claims: figures by hand, verdicts, and what the experiment refuses."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kvbench.api.study import experiment_of
from kvbench.backend.choice import Conditions
from kvbench.backend.counted import CountedBackend
from kvbench.backend.measured import MeasuredBackend
from kvbench.charts.claims import choices_chart, ranges_chart
from kvbench.model.geometry import KVGeometry
from kvbench.studies.base import Setting
from kvbench.studies.claims import choice, concurrency, counted, ranges, stream, tiers
from kvbench.studies.claims.bench import ClaimsBench, whole_peak_bytes
from kvbench.studies.claims.experiment import CLAIMS, ClaimsExperiment
from kvbench.studies.claims.finding import (
    ANY,
    COLUMNS,
    FAILS,
    HOLDS,
    NO_FIGURE,
    NOT_CLAIMED,
    PARTLY,
    UNDECIDED,
    Finding,
    by_claim,
    by_definition,
    combined,
    range_text,
    verdict,
)
from kvbench.studies.ranges import GROWTH
from tests.support.catalogue import TINY, node_of, scenario
from tests.support.drawing import words
from tests.support.fake import Fake
from tests.test_configuration import composed

ARTICLE = KVGeometry.uniform(num_layers=1, num_heads=32, num_kv_heads=32, head_dim=128, dtype="float32")
NODE = node_of("experiment", "claims")
LISTS = {name: scenario(name) for name in NODE["scenarios"]}


def setting(backend, **changed):
    made = Setting(
        backend=backend,
        backend_of=lambda geometry: backend,
        num_repetitions=2,
        num_warmup=0,
        budget_bytes=None,
        seed=0,
    )
    return replace(made, **changed)


def bench(backend=None):
    return ClaimsBench(
        setting(backend or CountedBackend(ARTICLE)), 1, {name: own.appends for name, own in LISTS.items()}
    )


def findings_of(cases, lists=None):
    own = bench()
    own.workloads = lists or own.workloads
    return counted.counted(cases)(own).findings


def experiment(*claims, **changed):
    node = NODE | {"claims": claims, "scenarios": LISTS} | changed
    node.pop("_target_")
    return ClaimsExperiment(**node)


def test_the_saving_on_100_to_500_by_each_meaning_of_memory():
    # Static holds 4000. Dynamic from 256 holds 100, 300, 600, 1000, 1500: 384, then each time just what is required.
    # In total 256 + 384 + 600 + 1000 + 1500 = 3740, so 6.5 % less. At the end 1500: 62.5 %. In the last resize both
    # buffers are 1000 + 1500: 37.5 %; with one tensor of two held twice 500 + 1500: 50 %. Over tokens
    # (100·256 + 200·384 + 300·600 + 400·1000 + 500·1500) / 1500 = 954.93: 76.13 %.
    case = next(counted.short_chat_saving({"short_chat": (100, 200, 300, 400, 500)}))
    saved = {finding.definition: finding.measured for finding in findings_of(lambda lists: [case])}
    by_column = {column: saved[definition] for column, definition in counted.MEMORY.items()}
    assert case.condition == "short_chat, dynamic(256, 1.5) against static(4000)"
    assert by_column["cumulative_bytes"] == pytest.approx(6.5)
    assert by_column["final_bytes"] == pytest.approx(62.5)
    assert by_column["whole_peak_bytes"] == pytest.approx(37.5)
    assert by_column["peak_bytes"] == pytest.approx(50.0)
    assert by_column["mean_allocated_bytes"] == pytest.approx(100 * (1 - 1_432_400 / 1500 / 4000))


def test_static_wastes_what_the_articles_table_says():
    findings = findings_of(counted.waste_table)
    assert [finding.measured for finding in findings] == [93.75, 87.5, 75.0, 50.0]
    assert {finding.verdict for finding in findings} == {HOLDS}


def test_what_static_cannot_hold_is_no_figure():
    findings = {each.condition: each for each in findings_of(counted.static_waste) if "end" in each.definition}
    assert len(findings) == 2 * 12
    without = {condition for condition, each in findings.items() if each.verdict == NO_FIGURE}
    too_long = ("long_document", "document_questions")  # 13,500 and 10,000 tokens
    assert without == {f"{name}, static(8192)" for name in too_long} | {
        f"{name}, static(4000)" for name in (*too_long, "mixed", "sudden_growth")
    }
    assert all(findings[condition].note for condition in without)


def test_resizes_on_short_chat_are_those_computed_by_hand():
    # From 200 slots: tests/test_golden.py has the capacities.
    lists = {"short_chat": LISTS["short_chat"].appends, "long_document": LISTS["long_document"].appends}
    found = {(each.definition, each.condition): each for each in findings_of(counted.fewer_resizes, lists)}
    for rule, note in (("append", "5 instead of 4"), ("total", "2 instead of 4")):
        both = "all lists that both hold, together"
        assert {found[counted.RULES[rule], name].note for name in ("short_chat", both)} == {note}
        too_long = found[counted.RULES[rule], "long_document"]
        assert (too_long.verdict, too_long.note) == (NO_FIGURE, "longer than the maximum of 8,192")
    assert found[counted.RULES["total"], "short_chat"].measured == 50


def test_a_verdict_is_whether_figures_lie_in_the_range():
    assert verdict([50.0, 95.0], 50, 95) == HOLDS  # both ends included
    assert verdict([49.9, 95.1], 50, 95) == FAILS
    assert verdict([49.9, 60.0], 50, 95) == PARTLY
    assert verdict([math.nan, 60.0], 50, 95) == HOLDS
    assert verdict([math.nan], 50, 95) == verdict([], 50, 95) == NO_FIGURE
    assert verdict([100 * (1 - 0.3)], 70, 90) == HOLDS  # 70 but for rounding
    assert verdict([1e9], 1, math.inf) == HOLDS


def test_verdicts_combine():
    assert combined([HOLDS, NO_FIGURE, NOT_CLAIMED]) == HOLDS
    assert combined([HOLDS, FAILS]) == combined([HOLDS, PARTLY]) == PARTLY
    assert combined([FAILS, FAILS]) == combined([FAILS, UNDECIDED]) == FAILS
    assert combined([HOLDS, UNDECIDED]) == combined([HOLDS, FAILS, UNDECIDED]) == PARTLY
    assert combined([UNDECIDED]) == UNDECIDED
    assert combined([NO_FIGURE, NOT_CLAIMED]) == NO_FIGURE


def test_tables_by_definition_and_by_claim():
    def row(definition, measured, claimed=(50, 95)):
        finding = Finding(condition="x", definition=definition, measured=measured, unit="%", claimed=claimed)
        return finding.row("C2", "words")

    table = pd.DataFrame([row("a", 60.0), row("a", 40.0), row("a", math.nan), row("b", 70.0), row("c", 7.0, ANY)])
    assert list(table.columns)[: len(COLUMNS)] == list(COLUMNS)
    shown = by_definition(table).set_index("definition")
    assert shown.loc["a", ["verdict", "least", "most", "num_hold", "num_figures"]].tolist() == [PARTLY, 40, 60, 1, 2]
    assert shown["verdict"].tolist() == [PARTLY, HOLDS, NOT_CLAIMED]
    claim = by_claim(table).iloc[0]
    assert claim[["verdict", "num_hold", "num_figures"]].tolist() == [PARTLY, 2, 3]


def test_a_range_as_text():
    assert range_text(50, 95) == "50 to 95"
    assert range_text(1, 1) == "1"
    assert range_text(1, math.inf) == "1 or more"
    assert range_text(-math.inf, 3) == "3 or less"
    assert range_text(*ANY) == "nothing"


def test_the_peak_with_both_whole_buffers():
    # 4 are reserved; 4 grow to 6, so that 10 are held; then nothing is; another 9 are reserved anew.
    steps = pd.DataFrame({"allocated_bytes": [4, 4, 6, 0, 9], "num_resizes": [0, 0, 1, 0, 0]})
    assert whole_peak_bytes(steps) == 10


def test_hierarchical_holds_the_fast_tier_and_nine_times_its_tokens():
    figures = {finding.definition: finding.measured for finding in tiers._counts(bench())}
    assert figures["longest document served, in fast tiers"] == 9  # (512 + 4096) / 512
    assert figures["peak on the device, in fast tier and staging buffers"] == 1
    assert figures["tokens evicted or changed"] == 0


def test_hierarchical_holds_the_very_tokens():
    backend = MeasuredBackend(Conditions(geometry=TINY, device="cpu"))
    elements, output = tiers._contents(bench(backend))
    assert (elements.measured, elements.verdict, output.verdict) == (0, HOLDS, HOLDS)
    assert [finding.verdict for finding in tiers._contents(bench())] == [NO_FIGURE, NO_FIGURE]


def test_streaming_holds_ten_windows_and_the_active_one():
    own = bench()
    steps = own.count_steps({"streaming": stream.streaming()}, stream.appending((100,) * 150))
    # 1024 in the active window, and 10 times 1024 - 128 retired.
    assert steps["allocated_bytes"].max() == (1024 + 10 * 896) * ARTICLE.bytes_per_token


def test_costs_of_growing_over_all_lengths_at_once():
    # In pieces of 256 from 512 by 4: at 768 tokens 2048 slots, the peak 2048 + 512 / 2, and 512 were copied.
    own = bench()
    peaks, copied = ranges._running_costs(own, 256, 4)
    last = ranges.FACTORS.index(4.0)
    assert peaks[last].tolist() == pytest.approx([512 / 256, 512 / 512, 2304 / 768, 2304 / 1024])
    assert copied[last].tolist() == pytest.approx([0, 0, 512 / 768, 512 / 1024])


def test_a_range_is_useful_where_its_values_are_and_others_are_not():
    factors = list(ranges.FACTORS)
    made = ranges._finding(GROWTH, "x", pd.Series(GROWTH.inside(factors), factors, float))
    assert (made.measured, made.verdict) == (100, HOLDS)
    assert ranges._finding(GROWTH, "x", pd.Series(1.0, factors)).verdict == FAILS


@pytest.mark.parametrize(("half", "on_front", "measured"), [(0.0, 10, 0.0), (1.0, 1, -20.0), (math.nan, 0, math.nan)])
def test_stalls_within_their_intervals_decide_nothing(half, on_front, measured):
    """Peaks fall from factor to factor as stalls rise; where all stalls are one, only the least peak is left."""
    numbers = np.arange(10.0)
    frame = pd.DataFrame({"growth_factor": ranges.FACTORS, "x": 10 - numbers, "y": 1 + numbers / 10, "y_half": half})
    finding = ranges._of_stalls(frame)
    assert finding.measured == pytest.approx(measured, nan_ok=True)
    assert ("one repetition" in finding.note) == math.isnan(half)
    curve = ranges._curve(GROWTH, "stalls", frame.assign(x_label="x", y_label="y"))
    assert len(ranges_chart(curve, "C7").axes[0].lines[0].get_xdata()) == on_front


def test_one_beats_another_beyond_what_repetitions_differ_by():
    exact = pd.DataFrame({"peak_bytes": [1.0, 2.0]}, index=["a", "b"])
    assert choice.beats(exact, "a", "b")
    assert not choice.beats(exact, "b", "a")
    assert not choice.beats(exact, "a", "a")
    timed = pd.DataFrame([[1.0, 1.1, 1.2], [2.0, 2.1, 2.3], [0.9, 1.2, 1.2]], index=["a", "b", "c"])
    assert choice.beats(timed, "a", "b")
    assert not choice.beats(timed, "a", "c")
    assert not choice.beats(timed[[0]], "a", "b")  # one repetition says nothing of how far apart they are


def test_what_repetitions_do_not_tell_apart_is_undecided():
    def found(*ratios):
        return concurrency._finding("x", "throughput", pd.Series(ratios, dtype=float), True)

    assert (found(1.2, 1.21, 1.22).verdict, found(0.8, 0.81, 0.82).verdict) == (HOLDS, FAILS)
    assert found(0.9, 1.2, 1.1).verdict == found(1.2).verdict == UNDECIDED
    assert found().verdict == NO_FIGURE
    assert "not to be told from 1" in found(0.9, 1.2, 1.1).note


def test_who_is_first_is_said():
    rows = [("a", 2, True), ("b", 1, True), ("c", 1, True)]
    curve = pd.DataFrame(rows, columns=["strategy", "rank", "fits"]).assign(
        kind="code", choice="a", definition="least x"
    )
    assert choice.winners(curve) == ["C9, code: a is first by nothing. Others are by least x (b, c)."]
    assert choice.winners(curve.assign(choice="b")) == ["C9, code: b is first by least x."]
    assert choice.winners(curve.assign(fits=False)) == ["C9, code: a cannot hold it."]


def test_what_is_ranked_stands_with_its_interval_where_it_was_timed():
    names = ["a", "b"]
    timed = choice._figures("least time in all", pd.DataFrame([[1.0, 3.0], [2.0, 2.0]], index=names))
    assert timed["value"].tolist() == [2.0, 2.0]
    assert timed["half"].tolist() == [pytest.approx(6.314, rel=1e-3), 0.0]  # t at 90 %, of two: 6.314 · √2 / √2
    score = choice._figures("highest efficiency (the article's score)", pd.DataFrame({"efficiency": [-0.5, -2.0]}))
    assert score["value"].tolist() == [0.5, 2.0]
    assert score["half"].isna().all()
    assert (timed["unit"].iloc[0], score["unit"].iloc[0]) == ("s", "")
    curve = pd.concat([timed, score]).assign(kind="code", choice="a", fits=True, rank=1, strategy=names * 2)
    shown = [each.get_text() for each in choices_chart(curve, "C9").axes[0].texts]
    assert shown == ["1", "2\n± 6.3", "1", "2\n± 0", "1", "0.5", "1", "2"]


def test_the_configuration_builds_all_claims():
    built = experiment_of(composed("+experiment=claims") | {"trusted": []})
    assert built == experiment(*CLAIMS)


def test_counted_claims_give_tables_sentences_and_a_chart_each():
    found = experiment("C1", "C5").run(setting(CountedBackend(ARTICLE)))
    assert list(found.charts) == ["c01", "c05"]
    for chart in found.charts.values():
        assert ARTICLE.about in words(chart)
    assert found.tables["verdicts"]["verdict"].tolist() == [HOLDS, PARTLY]
    assert list(found.files["figures"].columns) == list(COLUMNS)
    assert found.sentences[0].startswith("C1, holds: static waste")
    assert not len(found.requests)


def test_timed_claims_append_the_tokens_that_the_progress_bar_expects():
    appended = []
    own = experiment("C6", "C10", "C11")
    found = own.run(setting(Fake(), on_iteration=lambda name, repetition, tokens: appended.append(tokens)))
    assert sum(appended) == 2 * own.num_tokens
    assert set(found.steps["part"]) == {"C6", "C10 1 live", "C10 4 live", "C11"}


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        (("C12",), r"unknown claim 'C12'"),
        (("c1",), r"Did you mean 'C1'"),
        ((), r"claims is a list of at least one claim"),
        ("C1", r"claims is a list of at least one claim"),
        (("C1", "C1"), r"claims names each once"),
    ],
)
def test_claims_that_do_not_exist_are_refused(claims, message):
    with pytest.raises(ValueError, match=message):
        experiment() if claims == () else ClaimsExperiment(
            **{k: v for k, v in NODE.items() if k != "_target_"} | {"claims": claims, "scenarios": LISTS}
        )


def test_all_claims_are_there():
    assert list(CLAIMS) == NODE["claims"] == [f"C{number}" for number in range(1, 12)]
    with pytest.raises(ValueError, match="timed_heads is a positive integer"):
        experiment("C1", timed_heads=0)

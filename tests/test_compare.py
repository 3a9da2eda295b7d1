"""Runs held against each other: ratios, their intervals, what may be compared, and when a comparison fails."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import kvbench as kv
from kvbench.decide.ratios import BETTER, WORSE, ratio_of
from kvbench.results.columns import FROM
from kvbench.results.conditions import EQUAL, UNTOLD

KIND = {"source": "modelled", "scope": "model", "simulated_by": "fleet"}


def results_of(draws=None, environment=None, configuration="", **strategies):
    """Results with a row a strategy, of figures by column."""
    rows = [
        {"scenario": "made", "strategy": name, "num_requests": 10, **KIND, FROM: "residuals", **figures}
        for name, figures in strategies.items()
    ]
    replays = None
    if draws is not None:
        replays = pd.DataFrame(
            {"strategy": name, "replay": i, "ttft_p99_s": value}
            for name, values in draws.items()
            for i, value in enumerate(values)
        )
    about = {"device": "modelled", "device_name": "H100", "scenario": "made", "seed": 0, **(environment or {})}
    return kv.Results(summary=pd.DataFrame(rows), replays=replays, environment=about, configuration=configuration)


def ttft(value, low, high):
    return {"ttft_p99_s": value, "ttft_p99_s_low": low, "ttft_p99_s_high": high}


def test_what_runs_share_cancels_where_replays_are_paired():
    slow = np.linspace(0.5, 2, 32)  # what each replay's work takes, as a factor
    before = results_of({"paged": 1.0 * slow}, paged=ttft(1.0, 0.5, 2.0))
    after = results_of({"paged": 1.1 * slow}, paged=ttft(1.1, 0.55, 2.2))
    (row,) = kv.compare(before, after).rows.to_dict("records")
    assert (row["ratio"], row["verdict"]) == (pytest.approx(1.1), WORSE)
    assert (row["ratio_low"], row["ratio_high"]) == (pytest.approx(1.1), pytest.approx(1.1))
    other = results_of({"paged": 1.1 * slow}, {"device_name": "L40S"}, paged=ttft(1.1, 0.55, 2.2))
    (row,) = kv.compare(before, other, across=["machine"]).rows.to_dict("records")
    assert row["ratio_low"] < 0.5, "of different machines nothing cancels"
    assert row["ratio_high"] > 2
    assert row["verdict"] == UNTOLD


def test_repeated_measurements_add_as_squares_do():
    rows = [
        pd.DataFrame([{FROM: "repetitions", "source": "measured", "total_s": value, **around}])
        for value, around in (
            (10.0, {"total_s_low": 9.7, "total_s_high": 10.3}),
            (20.0, {"total_s_low": 19.2, "total_s_high": 20.8}),
        )
    ]
    found = ratio_of("total_s", *rows, is_paired=False)
    assert found.value == 2
    assert found.high == pytest.approx(2 * math.exp(0.05))  # 3 and 4 per cent
    assert found.low == pytest.approx(2 / math.exp(0.05))
    assert found.verdict("total_s", judged=True) == WORSE


@pytest.mark.parametrize(
    ("column", "before", "after", "verdict"),
    [
        ("peak_bytes", 10, 11, WORSE),
        ("peak_bytes", 10, 9, BETTER),
        ("utilization_mean", 0.5, 0.6, BETTER),
        ("num_resizes", 0, 0, EQUAL),
        ("num_resizes", 0, 3, WORSE),
        ("recomputed_tokens", 5, 10, "differs"),
    ],
)
def test_what_is_counted_is_exact_and_has_a_good_side(column, before, after, verdict):
    (row,) = kv.compare(results_of(a={column: before}), results_of(a={column: after})).rows.to_dict("records")
    assert row["verdict"] == verdict
    assert row["ratio"] == row["ratio_low"] == row["ratio_high"]


def test_rows_are_matched_by_strategy_and_one_of_each_as_they_are():
    before = results_of(a={"peak_bytes": 1}, b={"peak_bytes": 2})
    after = results_of(b={"peak_bytes": 4}, c={"peak_bytes": 9})
    assert kv.compare(before, after).rows[["strategy", "ratio"]].to_dict("records") == [{"strategy": "b", "ratio": 2.0}]
    only = kv.compare(results_of(a={"peak_bytes": 1}), results_of(c={"peak_bytes": 3})).rows
    assert only["ratio"].tolist() == [3.0]


def test_rows_of_sweeps_are_matched_by_what_was_swept_in_both():
    def swept(values, figures):
        found = results_of(a={"peak_bytes": 0})
        rows = pd.concat(
            [found.summary.assign(x=value, peak_bytes=f) for value, f in zip(values, figures, strict=True)]
        )
        return kv.Results(summary=rows, environment={**found.environment, "swept": ["x"]})

    found = kv.compare(swept([1, 2], [10, 20]), swept([2, 3], [30, 40])).rows
    assert found[["x", "ratio"]].to_dict("records") == [{"x": 2, "ratio": 1.5}]
    with pytest.raises(ValueError, match="several rows of a: the other run was not swept"):
        kv.compare(swept([1, 2], [10, 20]), results_of(a={"peak_bytes": 1}))


def test_runs_that_differ_where_they_may_not_are_refused():
    own = results_of(a={"peak_bytes": 1})
    measured = own.summary.assign(source="measured")
    with pytest.raises(ValueError, match=r"differ in their source: source is modelled and measured; across=source"):
        kv.compare(own, kv.Results(summary=measured, environment=own.environment))
    with pytest.raises(ValueError, match="workload: seed is 0 and 1; across=workload"):
        kv.compare(own, results_of(environment={"seed": 1}, a={"peak_bytes": 1}))
    yaml = "scenario:\n  max_requests: {}\n  path: {}/x.csv\nmodel:\n  name: m\n  kv_dtype: {}\n  num_layers: {}\n"
    before = results_of(configuration=yaml.format(3, "here", "fp8", 4), a={"peak_bytes": 1})
    kv.compare(before, results_of(configuration=yaml.format(3, "there", "null", 4), a={"peak_bytes": 1}))
    with pytest.raises(ValueError, match="max_requests is 3 and 4"):
        kv.compare(before, results_of(configuration=yaml.format(4, "here", "fp8", 4), a={"peak_bytes": 1}))
    with pytest.raises(ValueError, match="their model: num_layers is 4 and 5; across=model"):
        kv.compare(before, results_of(configuration=yaml.format(3, "here", "fp8", 5), a={"peak_bytes": 1}))


def test_a_condition_fails_with_its_whole_interval_only():
    slow = np.linspace(0.9, 1.1, 32)
    before = results_of({"a": np.ones(32)}, a=ttft(1, 1, 1) | {"peak_bytes": 10})
    after = results_of({"a": 1.15 * slow}, a=ttft(1.15, 1.03, 1.27) | {"peak_bytes": 12})
    found = kv.compare(before, after, fail_if="ttft_p99>1.1,a.peak_bytes>115%,peak>1.3")
    assert found.failed == ("a.peak_bytes>115%: a of run 2 has 1.2",)
    assert len(found.untold) == 1
    assert found.untold[0].startswith("ttft_p99>1.1: a of run 2 has 1.15 (1.0")
    with pytest.raises(ValueError, match="unknown strategy 'b'"):
        kv.compare(before, after, fail_if="b.peak>1")
    with pytest.raises(ValueError, match="no num_resizes in common"):
        kv.compare(before, after, fail_if="num_resizes>1")
    with pytest.raises(ValueError, match="a measure, a comparison and a number"):
        kv.compare(before, after, fail_if="peak")
    with pytest.raises(ValueError, match="Did you mean 'ttft_p99_s'"):
        kv.compare(before, after, fail_if="ttfp99>1")


def test_names_are_text_wherever_they_are_shown():
    name = "a|*b*\x1b[31m"
    found = kv.compare(results_of(**{name: {"peak_bytes": 1}}), results_of(**{name: {"peak_bytes": 2}}))
    assert "\x1b" not in found.text
    assert r"a\|\*b\*" in found.markdown
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["rows"][0]["ratio"] == 2


def test_a_busy_machine_is_told_beside_what_was_measured_on_it():
    about = {"device": "cpu", "device_name": "cpu", "cpu": "x", "others_share": 0.6}
    busy = results_of(environment=about, a={"peak_bytes": 1})
    quiet = results_of(environment=about | {"others_share": 0.0}, a={"peak_bytes": 1})
    found = kv.compare(quiet, busy)
    (said,) = found.cautions
    assert said == "run 2: The machine was busy: other programs took 60 % of the processors during the run."
    assert found.text.endswith(said)
    assert said in found.markdown
    assert found.as_dict()["cautions"] == [said]


def test_too_few_and_nothing_in_common():
    own = results_of(a={"peak_bytes": 1})
    with pytest.raises(ValueError, match="two runs at least"):
        kv.compare(own)
    with pytest.raises(ValueError, match="nothing to compare"):
        kv.compare(own, results_of(a={"num_resizes": 1}))
    with pytest.raises(ValueError, match="unknown aspect 'machin'"):
        kv.compare(own, own, across=["machin"])


def test_folders_by_the_command_line(tmp_path, capsys):
    from kvbench.cli.compare import main

    results_of(a={"peak_bytes": 1 << 20}).save(tmp_path / "one")
    results_of(a={"peak_bytes": 3 << 20}).save(tmp_path / "two")
    folders = [str(tmp_path / name) for name in ("one", "two")]
    assert main(folders) == 0
    assert "a         peak_bytes   1 MiB  3 MiB      3  worse" in capsys.readouterr().out
    assert main([*folders, "fail_if=peak>2", "format=markdown"]) == 1
    said = capsys.readouterr()
    assert "fails by peak>2: a of two has 3" in said.err
    assert "| a | peak\\_bytes | 1 MiB | 3 MiB | 3 | worse |" in said.out
    with pytest.raises(ValueError, match="unknown key 'fail_of'"):
        main([*folders, "fail_of=x"])
    with pytest.raises(ValueError, match="two folders"):
        main(folders[:1])
    with pytest.raises(ValueError, match="no finished results folder"):
        main([folders[0], str(tmp_path)])
    with pytest.raises(ValueError, match=r"run so:\n  python -m kvbench .*'strategy=\[static,dynamic\]'"):
        main(["static", "dynamic"])
    with pytest.raises(ValueError, match="different runs"):
        main([folders[0], folders[0]])

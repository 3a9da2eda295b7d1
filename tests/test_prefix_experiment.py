"""The experiment on prefix reuse: by hand on a small trace, its sentences and charts, and what it refuses."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from kvbench.__main__ import main
from kvbench.configuration.errors import UsageError
from kvbench.results.results import load
from kvbench.studies.prefix_sentences import sentences_of
from kvbench.workload.trace import read_trace
from kvbench.workload.trace_formats import FORMATS
from tests.test_experiments import experiment, setting
from tests.test_golden import TOKEN

pytestmark = pytest.mark.usefixtures("undrawn")
BLOCK = 512
TURNS = [("AB", 600), ("CD", 1024), ("AB", 600), ("CD", 1024), ("CD", 1024)]
"""Blocks and tokens of prompts; B is filled with 88."""
SMALL = {"device_blocks": [3], "warmup_share": 0.4}


def write(folder, prompts, name="mooncake_synthetic.jsonl"):
    rows = [
        {"timestamp": 1000 * at, "input_length": tokens, "output_length": 1, "hash_ids": [ord(x) for x in blocks]}
        for at, (blocks, tokens) in enumerate(prompts)
    ]
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The folder of traces, with TURNS as Mooncake's."""
    monkeypatch.setenv("KVBENCH_TRACES", str(tmp_path))
    write(tmp_path, TURNS)
    return tmp_path


def found(**changed):
    return experiment("prefix_reuse", **(SMALL | changed)).run(setting())


def rows_of(table, reuse="block_hash"):
    return table[table["reuse"] == reuse].set_index("policy")


@pytest.mark.parametrize(
    ("tokens", "whole", "vllm"),
    [(1536, 1536, 1024), (1537, 1537, 1536), (1535, 1535, 1024), (1024, 1024, 512), (513, 513, 512)],
)
@pytest.mark.parametrize("reuse", ["block_hash", "radix", "radix_trimmed"])
def test_two_equal_prompts_by_both_ways_of_counting(small, tokens, whole, vllm, reuse):
    write(small, [("ABCD"[: -(-tokens // BLOCK)], tokens)] * 2)
    findings = found(reuse=[reuse], warmup_share=0, device_blocks=[8])
    for row in (*findings.summary.itertuples(), *findings.tables["unlimited"].itertuples()):
        assert row.token_hit_rate == whole / (2 * tokens)
        assert row.vllm_token_hit_rate == vllm / (2 * tokens)
        assert row.vllm_block_hit_rate == vllm / BLOCK / (2 * -(-tokens // BLOCK))


def test_rates_by_hand(small):
    # Which blocks are reused: tests/test_prefix.py. The first two of five requests fill the cache; 2,648 tokens in six
    # blocks count.
    # fifo     of AB nothing, of CD nothing, then CD: 1,024 tokens, 2 blocks
    # lru      A, C, CD: 512 + 512 + 1,024 tokens, 4 blocks
    # optimal  AB, C, CD: 600 + 512 + 1,024 tokens, 5 blocks
    # unlimited: all; the trace has four blocks
    findings = found()
    rows = rows_of(findings.summary)
    assert rows["token_hit_rate"].to_dict() == {"fifo": 1024 / 2648, "lru": 2048 / 2648, "optimal": 2136 / 2648}
    assert rows["block_hit_rate"].to_dict() == {"fifo": 2 / 6, "lru": 4 / 6, "optimal": 5 / 6}
    # As vLLM counts: of AB, CD and CD the last block is computed again.
    assert rows["vllm_token_hit_rate"].to_dict() == {"fifo": 512 / 2648, "lru": 1536 / 2648, "optimal": 1536 / 2648}
    assert rows["vllm_block_hit_rate"].to_dict() == {"fifo": 1 / 6, "lru": 3 / 6, "optimal": 3 / 6}
    assert rows["device_bytes"].tolist() == [3 * BLOCK * TOKEN] * 3
    assert rows["filled_first"].tolist() == [True] * 3
    assert len(findings.summary) == 3 * 3
    (ceiling,) = findings.tables["unlimited"].to_dict("records")
    assert (ceiling["num_requests"], ceiling["num_counted"], ceiling["prompt_tokens"], ceiling["blocks"]) == (
        5,
        3,
        2648,
        6,
    )
    assert (ceiling["num_distinct"], ceiling["distinct_bytes"]) == (4, 4 * BLOCK * TOKEN)
    assert (ceiling["token_hit_rate"], ceiling["block_hit_rate"]) == (1.0, 1.0)
    assert not [column for column in findings.summary if column.startswith("from_") or column == "load_s"]
    assert list(findings.charts) == ["prefix_reuse"]


def test_tiers_by_hand(small):
    # AB, CD, AB with two blocks on the device and two in the host's memory: at the third request A and B come from the
    # host, two whole blocks, and C and D are stored there, as A and B were.
    write(small, TURNS[:3])
    rate = BLOCK * TOKEN  # a block a second
    findings = found(
        device_blocks=[2], host_blocks=2, host_bytes_per_s=rate, warmup_share=0, policies=["lru"], reuse=["block_hash"]
    )
    (row,) = findings.summary.to_dict("records")
    assert (row["from_device"], row["from_host"], row["token_hit_rate"]) == (0, 600 / 2224, 600 / 2224)
    assert (row["loaded_bytes"], row["stored_bytes"], row["load_s"]) == (2 * rate, 4 * rate, 2.0)
    device, host = findings.files["tiers"].to_dict("records")
    assert (device["tier"], device["hit_blocks"], device["loaded_bytes"]) == ("device", 0, 0)
    assert (host["tier"], host["tier_blocks"], host["hit_blocks"], host["hit_tokens"]) == ("host", 2, 2, 600)
    assert list(findings.charts) == ["prefix_reuse", "tiers"]
    said = " ".join(findings.sentences)
    assert (
        "with 2 blocks of host behind 2 of the device, lru with block_hash reuses 0 % from the device and 27 %" in said
    )
    assert "takes 2 s, 667 ms a request" in said
    assert "with 2 blocks of the device everything is held" in said


def test_a_disk_without_a_host(small):
    table = found(disk_blocks=1, disk_bytes_per_s=1.0).summary
    assert {"from_device", "from_disk"} <= set(table)
    assert "from_host" not in table
    assert np.allclose(table["from_device"] + table["from_disk"], table["token_hit_rate"])


def test_sentences_by_hand():
    # fifo 10, 30, 90 %; lru 20, 25, 90 %; optimal 60, 90, 90 % at 1, 2 and 4 blocks; the ceiling is 90 %.
    # lru is the best at 1, fifo at 2; at 4 they are equal. Of lru the gap to the optimum is 65 points at 2, and lru has
    # 90 % with 4. The best way is the first of those with the most wins, fifo: from 2 to 4 it gains 60 points.
    rates = {"fifo": (0.1, 0.3, 0.9), "lru": (0.2, 0.25, 0.9), "optimal": (0.6, 0.9, 0.9)}
    table = pd.DataFrame(
        {
            "scenario": "chat",
            "reuse": "block_hash",
            "device_blocks": size,
            "policy": policy,
            "device_bytes": size * 2**30,
            "token_hit_rate": own[at],
            "filled_first": size < 4,
        }
        for at, size in enumerate((1, 2, 4))
        for policy, own in rates.items()
    )
    ceiling = {"scenario": "chat", "num_requests": 8, "num_counted": 4, "prompt_tokens": 1000, "blocks": 10}
    ceiling |= {"block_tokens": 100, "num_distinct": 5, "distinct_bytes": 5 * 2**30}
    unlimited = pd.DataFrame([ceiling | {"token_hit_rate": 0.9, "block_hit_rate": 0.8, "vllm_token_hit_rate": 0.7}])
    counted, most, best, optimum, memory, full = sentences_of(table, unlimited, {})
    assert counted.startswith("chat: the last 4 of 8 requests count")
    assert "of their 1,000 prompt tokens, the block hit rate of their 10 blocks of 100 tokens" in counted
    assert "5 of them in 5 GiB, reuses 90 % of the tokens and 80 % of the blocks" in most
    assert "fifo with block_hash (at 1 of 3 sizes) and lru with block_hash (at 1 of 3 sizes)" in best
    assert "most at 1 blocks: 20 % by lru with block_hash, 10 % by fifo" in best
    assert (
        "up to 65 points below Belady's optimum: 25 % against 90 % at 2 blocks; it reuses as much as that with 4."
        in optimum
    )
    assert "fifo with block_hash: 10 % with 1 blocks (1 GiB), 90 % with 4 (4 GiB)" in memory
    assert "from 2 to 4, 60 points; the ceiling is within a point from 4 on" in memory
    assert "with 4 blocks of the device the cache was not full before the first request that counts" in full


def test_little_can_be_told(small):
    only = {"policies": ["optimal"], "reuse": ["radix"]}
    assert len(found(**only).sentences) == 2
    assert any("more memory, optimal with radix" in text for text in found(device_blocks=[1, 3], **only).sentences)
    ample = " ".join(found(device_blocks=[4]).sentences)
    assert "equal at each size" in ample
    assert "lru with block_hash, radix and radix_trimmed reuses as much as Belady's optimum" in ample


@pytest.mark.charts
def test_several_traces_and_the_charts(small):
    made = experiment("prefix_reuse", **SMALL, host_blocks=1)
    write(small, TURNS * 2, "other.jsonl")
    (trace,) = made.scenarios.values()
    other = type(trace)(**(vars(trace) | {"file": "other.jsonl"}))
    findings = type(made)(**(vars(made) | {"scenarios": {"one": trace, "two": other}})).run(setting())
    assert list(findings.charts) == ["prefix_reuse", "tiers_one", "tiers_two"]
    assert len(findings.tables["unlimited"]) == 2
    rates, tiers = findings.charts["prefix_reuse"], findings.charts["tiers_one"]
    assert [axes.get_title(loc="left") for axes in rates.axes][::3] == ["one: block_hash", "two: block_hash"]
    assert {axes.get_xscale() for axes in rates.axes} == {"log"}
    assert rates.axes[0].get_xlabel() == "Device (blocks of 16 MiB)"
    # Bars of lru with block_hash: device, then host on it, up to the hit rate.
    row = rows_of(findings.summary[findings.summary["scenario"] == "one"]).loc["lru"]
    device, host = tiers.axes[3].patches
    assert (device.get_height(), host.get_y()) == pytest.approx((100 * row["from_device"],) * 2)
    assert host.get_y() + host.get_height() == pytest.approx(100 * row["token_hit_rate"])
    assert tiers.axes[3].lines[0].get_ydata()[0] == 100


def test_the_curve_goes_through_the_rows_of_lru(small):
    findings = found(device_blocks=[1, 2, 3, 5], host_blocks=1)
    curve = findings.files["curve"].set_index("device_blocks")
    own = findings.summary.query("reuse == 'block_hash' and policy == 'lru'")
    assert curve.index.tolist() == [1, 2, 3, 4, 5]
    for rate in ("token_hit_rate", "block_hit_rate"):
        assert curve[rate][own["device_blocks"]].tolist() == own[rate].tolist()


def test_what_was_found_stays_under_lfu(small):
    # Of six blocks lru has lost AB to CD, EF and GH; lfu has kept it, since it was found once.
    write(small, [(blocks, 2 * BLOCK) for blocks in ("AB", "AB", "CD", "EF", "GH", "AB")])
    rows = found(policies=["lfu", "lru"], reuse=["block_hash"], warmup_share=0, device_blocks=[6]).summary
    assert dict(zip(rows["policy"], rows["block_hit_rate"], strict=True)) == {"lfu": 4 / 12, "lru": 2 / 12}


def test_a_size_given_twice_is_run_once(small):
    table = found(device_blocks=[3, 1, 3], policies=["lru", "lru"], reuse=["radix", "radix"]).summary
    assert table["device_blocks"].tolist() == [1, 3]


def test_formats_with_blocks_are_those_that_say_so(tmp_path):
    write(tmp_path, TURNS, "m")
    (tmp_path / "a").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    (tmp_path / "p").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n")
    (tmp_path / "s").write_text("num_prefill_tokens,num_decode_tokens\n1,1\n")
    for name in ("azure", "plain", "sharegpt", "mooncake"):
        shares = read_trace(tmp_path / name[0], name).contents is not None
        assert bool(FORMATS[name].shares) is shares


# Bad input.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"policies": ["lru", "lri"]}, r"experiment: unknown policy 'lri'\. Did you mean 'lru'"),
        ({"policies": []}, r"policies is a list of at least one policy, got \(\)"),
        ({"policies": "lru"}, "policies is a list of at least one policy, got 'lru'"),
        ({"reuse": ["radixes"]}, "unknown kind of reuse 'radixes'. Did you mean 'radix'"),
        ({"device_blocks": [1024, 0]}, "each of device_blocks is a positive integer, got 0"),
        ({"device_blocks": [1.5]}, "each of device_blocks is a positive integer, got 1.5"),
        ({"device_blocks": 1024}, "device_blocks is a list of at least one size, got 1024"),
        ({"host_blocks": -1}, "host_blocks is an integer of at least 0, got -1"),
        ({"disk_blocks": False}, "disk_blocks is an integer of at least 0, got False"),
        ({"host_bytes_per_s": 0}, "bytes_per_s of tier host is a number above 0, got 0"),
        ({"disk_bytes_per_s": "fast"}, "bytes_per_s of tier disk is a number above 0, got 'fast'"),
        ({"warmup_share": 1}, "warmup_share is a number of at least 0 and below 1, got 1"),
        ({"scenarios": ["azure_conv"]}, "azure_conv does not say which blocks.*a trace of the format azure"),
        (
            {"scenarios": ["short_chat"]},
            "short_chat does not say which blocks.*no trace.*of the format burstgpt, mooncake",
        ),
        ({"policies": ["lfu"]}, r"lfu is of the device alone and of block_hash: set reuse to \[block_hash\]"),
        ({"size": 5}, "unknown parameter 'size'"),
    ],
)
def test_what_is_wrong_is_said_before_it_runs(changed, message):
    with pytest.raises(UsageError, match=message):
        experiment("prefix_reuse", **changed)


def said(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["kvbench", "+experiment=prefix_reuse", "device=cpu", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr()


def test_a_missing_trace_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVBENCH_TRACES", str(tmp_path / "nowhere"))
    status, (_, complaints) = said(monkeypatch, capsys)
    assert status == 2
    first, message = complaints.split("\n", 1)
    assert first.startswith("kvbench: running: ")
    assert message.startswith("kvbench: mooncake_synthetic: trace file mooncake_synthetic.jsonl is missing.")
    assert "published: kvcache-ai/Mooncake on GitHub" in message
    assert (
        "put it into the folder traces, or into the one that the environment variable KVBENCH_TRACES names" in message
    )
    assert "scenario.path" not in message  # an experiment takes none
    assert len(message.splitlines()) <= 5
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_trace_is_one_message(small, monkeypatch, capsys):
    monkeypatch.chdir(small)
    (small / "mooncake_synthetic.jsonl").write_text('{"timestamp": 0}\n')
    status, (_, message) = said(monkeypatch, capsys)
    assert status == 2
    assert "line 1: unknown column 'input_length'" in message
    assert len(message.splitlines()) <= 5


def test_without_numba_it_says_what_to_install(small, monkeypatch, capsys):
    monkeypatch.chdir(small)
    for name in [name for name in sys.modules if name.startswith(("kvbench.fleet.prefix", "kvbench.compiled"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    status, (_, message) = said(monkeypatch, capsys)
    assert status == 2
    assert "need Numba" in message
    assert "python -m pip install numba" in message
    assert len(message.splitlines()) <= 5


def test_a_run_writes_its_folder(small, monkeypatch, capsys):
    monkeypatch.chdir(small)
    few = ["experiment.device_blocks=[1,2,3]", "experiment.warmup_share=0.4", "hydra.run.dir=out", "dtype=bfloat16"]
    status, (out, _) = said(monkeypatch, capsys, *few, "experiment.host_blocks=1")
    assert status == 0
    assert out.startswith("prefix_reuse: computed; nothing is carried out or timed\nArticle, 1 layer, bfloat16")
    results = load(small / "out")
    assert len(results.summary) == 3 * 3 * 3
    assert results.summary["device_bytes"].tolist()[:4:3] == [BLOCK * TOKEN // 2, 2 * BLOCK * TOKEN // 2]
    assert results.steps.empty
    assert results.requests.empty
    assert {path.name for path in (small / "out").glob("*.csv")} == {
        "summary.csv",
        "unlimited.csv",
        "tiers.csv",
        "curve.csv",
    }
    assert (small / "out" / "charts" / "tiers.svg").is_file()
    assert max(map(len, out.split("\n\nmooncake_synthetic: ")[0].splitlines())) <= 120

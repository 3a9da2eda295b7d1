"""Fleet runs through the command line: what is written, what is refused."""

import pandas as pd
import pytest

from kvbench.results.results import load
from kvbench.results.schema import SUMMARY, TIMELINE

FLEET = ["backend=fleet", "hardware=h100", "model=llama3_8b"]


@pytest.mark.charts
def test_a_run_writes_its_folder(kvbench, tmp_path):
    out = kvbench("+scenario=chat_poisson", "strategy=[paged,dynamic]", "backend.replicas=2", *FLEET)
    (folder,) = (tmp_path / "results" / "chat_poisson").iterdir()
    results = load(folder)
    assert list(results.summary["strategy"]) == ["paged", "dynamic"]
    assert list(results.summary.columns) == list(SUMMARY)
    assert set(results.summary["source"]) == {"modelled"}
    assert set(results.summary["scope"]) == {"model"}
    assert set(results.summary["simulated_by"]) == {"fleet"}
    assert list(results.timeline.columns) == list(TIMELINE)
    assert results.requests.groupby("strategy").size().to_dict() == {"paged": 12, "dynamic": 12}
    charts = {path.name for path in (folder / "charts").iterdir()}
    assert {"fleet_memory.png", "fleet_load.svg", "fleet_times.png", "fleet_service.png"} <= charts
    for words in (
        "12 requests",
        "2 replicas, routed by round_robin, each H100 SXM 80 GB",
        "from kernels that were measured there",
    ):
        assert words in out
    assert not list(tmp_path.rglob("*.partial"))


def test_a_trace_is_served_whole_unless_the_command_line_cuts_it(kvbench, tmp_path):
    rows = [f"{i * 0.1},{20 + i % 7},{5 + i % 3}" for i in range(120)]
    (tmp_path / "plain.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(rows))
    trace = ["+scenario=plain_trace", "scenario.path=plain.csv", "strategy=paged", *FLEET]
    assert "120 requests (120 of 120)" in kvbench(*trace)
    assert "30 requests (30 of 120)" in kvbench(*trace, "scenario.max_requests=30")
    assert "360 requests (120 of 120, 3 times)" in kvbench(*trace, "backend.repeats=3")


def test_arrivals_can_be_scaled(kvbench, tmp_path):
    for scale in (1, 4):
        kvbench("+scenario=chat_poisson", "strategy=paged", f"backend.rate_scale={scale}", *FLEET)
    slow, fast = (load(folder).requests for folder in sorted((tmp_path / "results" / "chat_poisson").iterdir()))
    assert fast["arrival_s"].to_numpy() == pytest.approx(slow["arrival_s"].to_numpy() / 4, abs=1e-8)


def test_a_pool_takes_all_of_the_budget(kvbench, tmp_path):
    """paged's own pool of 16,384 tokens would be 2 GiB; the first prompts alone are more here."""
    rows = "\n".join("0,8000,10" for _ in range(5))
    (tmp_path / "plain.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows)
    kvbench("+scenario=plain_trace", "scenario.path=plain.csv", "strategy=paged", *FLEET)
    (folder,) = (tmp_path / "results" / "plain_trace").iterdir()
    summary = load(folder).summary
    assert summary["num_preemptions"].tolist() == [0]
    assert summary["peak_bytes"].iloc[0] > 5 * 8000 * 131_072


def test_without_the_split_slack_is_not_told_apart(kvbench, tmp_path):
    kvbench("+scenario=chat_poisson", "strategy=static", "backend.split=false", *FLEET)
    (folder,) = (tmp_path / "results" / "chat_poisson").iterdir()
    results = load(folder)
    assert results.summary["waste_share"].isna().all()
    assert results.timeline["reserved_bytes"].isna().all()
    assert (results.timeline["allocated_bytes"] >= results.timeline["used_bytes"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strategy=predictive"], "strategy.predictive: Predictive decides by"),
        (["strategy=async"], "strategy.async: Ahead decides by"),
        (["backend.preemption=swop"], "unknown preemption 'swop'. Did you mean 'swap'?"),
        (["backend.routing=least"], "unknown routing 'least'. Did you mean 'least_loaded'?"),
        (["backend.space=budy"], "unknown space 'budy'. Did you mean 'buddy'?"),
        (["backend.keep=sumary"], "unknown keep 'sumary'. Did you mean 'summary'?"),
        (["backend.max_batch=0"], "max_batch is a positive integer and at most 1,048,576, got 0"),
        (["backend.rate_scale=-1"], "rate_scale is a number above 0, got -1"),
        (["backend.memory_fraction=0.1"], "nothing is left for caches"),
        (["backend.memory_fraction=2"], "memory_fraction is a number above 0 and at most 1, got 2"),
        (["backend.repeats=0"], "repeats is a positive integer, got 0"),
        (["budget_bytes=900000000000"], "budget_bytes is at most the 60,456,467,365 that H100 SXM 80 GB has"),
        (["model=article"], "model Article has no num_parameters"),
        (
            ["strategy=static", "backend.space=buddy", "model=gemma3_12b"],
            "40 window layers, 8 full layers: use counting",
        ),
        (["engine=vllm", "backend.max_batch=8"], "max_batch=8 says what engine=vllm decides: set engine.max_num_seqs"),
        (["parallel.tensor=3"], "parallel.tensor divides the 32 heads of Llama-3.1-8B, got 3"),
        (["hardware=h10"], "unknown hardware 'h10'. Did you mean 'h100'?"),
    ],
)
def test_bad_input_is_one_message(kvbench, tmp_path, arguments, message):
    said = kvbench("+scenario=chat_poisson", "strategy=paged", *FLEET, *arguments, status=2)
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "results").exists()


def test_conversations_find_their_history_in_the_cache(kvbench, tmp_path):
    kvbench("+scenario=multi_turn_chat", "strategy=paged", "strategy.paged.prefix_caching=true", *FLEET)
    (folder,) = (tmp_path / "results" / "multi_turn_chat").iterdir()
    results = load(folder)
    rows = results.requests.sort_values(["session", "turn"])
    later = rows[rows["turn"] > 0]
    assert len(later)
    # All that a turn's prompt has in common with the one before and its answer, in whole blocks.
    before = rows.groupby("session").shift()
    history = (before["prompt_tokens"] + before["output_tokens"] - 1)[rows["turn"] > 0]
    assert (later["hit_tokens"] == history // 16 * 16).all()
    assert (rows[rows["turn"] == 0]["hit_tokens"] == 0).all()
    assert results.summary["num_sessions"].tolist() == [rows["session"].nunique()]
    assert results.summary["hit_share"].iloc[0] == rows["hit_tokens"].sum() / rows["prompt_tokens"].sum()


def test_an_experiment_is_no_fleets(kvbench):
    said = kvbench("+experiment=recompute", *FLEET, status=2)
    assert "give it backend=measured or backend=modelled" in said


def test_a_sweep_over_replicas_is_one_frame(kvbench, tmp_path):
    kvbench("-m", "+scenario=chat_poisson", "strategy=[paged,exact]", "backend.replicas=1,2", *FLEET)
    (folder,) = (tmp_path / "results" / "chat_poisson").iterdir()
    summary = pd.read_csv(folder / "summary.csv")
    assert sorted(zip(summary["strategy"], summary["backend.replicas"], strict=True)) == [
        ("exact", 1),
        ("exact", 2),
        ("paged", 1),
        ("paged", 2),
    ]
    assert (folder / "charts" / "sweep.png").is_file()


def test_it_says_that_windows_blocks_are_kept(kvbench):
    command = ["+scenario=chat_poisson", "strategy=paged", "backend=fleet", "hardware=h100"]
    told = (
        "strategy.paged: blocks that windows have left are kept, as a fleet has it (window_blocks: null is keep here)"
    )
    assert told in kvbench(*command, "model=gpt_oss_20b")
    assert told not in kvbench(*command, "model=llama3_8b")

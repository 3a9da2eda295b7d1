"""Generated workloads and the scenarios' YAML files."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from kvbench.workload import arrivals, lengths
from kvbench.workload.agents import Agents
from kvbench.workload.columns import columns_of
from kvbench.workload.conversation import Conversations, ParallelSampling
from kvbench.workload.describe import concurrency, describe
from kvbench.workload.dialogue import Dialogue, count_tokens
from kvbench.workload.request import Request, Session
from kvbench.workload.trace import Trace

SCENARIOS = Path(__file__).parents[1] / "scenarios"

CHAT = Conversations(
    num_requests=30,
    arrivals=arrivals.Poisson(rate_per_s=2),
    prompts=lengths.Uniform(low=5, high=90),
    outputs=lengths.Uniform(low=1, high=40),
    turns=lengths.Uniform(low=1, high=4),
    think_s=3.0,
)
SAMPLES = ParallelSampling(
    num_prompts=5,
    num_samples=3,
    arrivals=arrivals.Poisson(rate_per_s=2),
    prompts=lengths.Uniform(low=5, high=90),
    outputs=lengths.Uniform(low=1, high=4000),
)
TALK = Dialogue(
    conversations=[
        [{"user": "Hello, you two!", "answer": "Hi."}, {"user": "x = f(y)", "answer": ""}],
        [{"user": "Once more", "answer": "No"}],
    ],
    arrivals=arrivals.ConstantRate(rate_per_s=1),
    think_s=2.0,
    tokens_per_word=1.5,
)


def requests(scenario, seed=3):
    return scenario.workload(np.random.default_rng(seed)).sessions


def arrivals_ns(scenario):
    return [request.arrival_ns for request in requests(scenario)]


def turns_of(scenario, name):
    return [[getattr(turn, name) for turn in request.turns] for request in requests(scenario)]


@pytest.mark.parametrize("scenario", [CHAT, SAMPLES, TALK])
def test_a_seed_gives_the_same_requests_and_another_gives_others(scenario):
    assert requests(scenario) == requests(scenario)
    assert requests(scenario) != requests(scenario, seed=4)


@pytest.mark.parametrize("scenario", [CHAT, SAMPLES, TALK])
def test_max_requests_takes_the_first(scenario):
    everything = scenario.workload(np.random.default_rng(3))
    cut = replace(scenario, max_requests=2).workload(np.random.default_rng(3))
    assert cut.sessions == everything.sessions[:2]
    assert cut.num_available == everything.num_available == len(everything.sessions)


def test_other_lengths_leave_all_else_as_it_was():
    other = replace(CHAT, outputs=lengths.ConstantLength(tokens=9), prompts=lengths.ConstantLength(tokens=8))
    assert arrivals_ns(other) == arrivals_ns(CHAT)
    assert turns_of(other, "think_ns") == turns_of(CHAT, "think_ns")
    assert turns_of(replace(CHAT, outputs=lengths.ConstantLength(tokens=9)), "num_append_tokens") == turns_of(
        CHAT, "num_append_tokens"
    )
    assert {count for counts in turns_of(other, "num_decode_tokens") for count in counts} == {9}


def test_other_arrivals_leave_the_lengths_as_they_were():
    other = replace(CHAT, arrivals=arrivals.AllAtOnce())
    assert [request.turns for request in requests(other)] == [request.turns for request in requests(CHAT)]


def test_turns_are_drawn_and_nobody_thinks_before_the_first():
    thinks = turns_of(replace(CHAT, num_requests=2000), "think_ns")
    assert {len(think) for think in thinks} == {1, 2, 3, 4}
    assert {think[0] for think in thinks} == {0}
    later = [ns / 1e9 for think in thinks for ns in think[1:]]
    assert np.mean(later) == pytest.approx(3.0, rel=0.08)
    assert np.std(later) == pytest.approx(3.0, rel=0.08)


def test_turns_may_be_a_number_and_thinking_none():
    thinks = turns_of(replace(CHAT, turns=2, think_s=0), "think_ns")
    assert thinks == [[0, 0]] * 30


def test_samples_of_a_prompt_share_arrival_prompt_and_group():
    everything = requests(SAMPLES)
    assert [request.group for request in everything] == [group for group in range(5) for _ in range(3)]
    for group in range(5):
        samples = everything[3 * group : 3 * group + 3]
        assert len({(request.arrival_ns, request.turns[0].num_append_tokens) for request in samples}) == 1
        assert len({request.num_decode_tokens for request in samples}) == 3


def test_dialogue_counts_by_hand_and_keeps_the_text():
    first, second = requests(TALK)
    # 3 words and 2 marks: round(4.5) + 2 = 6, halves to even; "Hi." is round(1.5) + 1; 3 words and 3 marks.
    assert [(turn.num_append_tokens, turn.num_decode_tokens) for turn in first.turns] == [(6, 3), (7, 0)]
    assert [turn.text for turn in first.turns] == ["Hello, you two!", "x = f(y)"]
    assert first.turns[0].think_ns == 0 < first.turns[1].think_ns
    assert second.arrival_ns == 1_000_000_000


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("  \n", 0), ("one", 1), ("def f(x):", 6), ("don't", 3), ("snake_case 1.5", 4), ("Größe?", 2)],
)
def test_count_tokens_with_one_token_a_word(text, tokens):
    assert count_tokens(text, 1.0) == tokens


def talk(*conversations):
    return {"conversations": list(conversations)}


GOOD = {"user": "a", "answer": "b"}
BAD = [
    (CHAT, {"num_requests": 0}, "num_requests is a positive integer and at most 1,000,000,000, got 0"),
    (CHAT, {"num_requests": 2.5}, "num_requests .* got 2.5"),
    (CHAT, {"arrivals": "poisson"}, "arrivals is an arrival process .*Poisson.* got 'poisson'"),
    (CHAT, {"arrivals": None}, "arrivals is an arrival process .* got None"),
    (CHAT, {"prompts": 100}, "prompts is a length distribution .*Lognormal.* got 100"),
    (CHAT, {"outputs": arrivals.AllAtOnce()}, "outputs is a length distribution .* got AllAtOnce"),
    (CHAT, {"turns": 0}, "turns is a positive integer and at most 100,000, got 0"),
    (CHAT, {"turns": "two"}, "turns is a length distribution .* got 'two'"),
    (CHAT, {"turns": True}, "turns .* got True"),
    (CHAT, {"think_s": -1}, "think_s is a number of at least 0 and at most 1000000, got -1"),
    (CHAT, {"max_requests": 0}, "max_requests is a positive integer"),
    (SAMPLES, {"num_prompts": 0}, "num_prompts .* got 0"),
    (SAMPLES, {"num_samples": -2}, "num_samples .* got -2"),
    (SAMPLES, {"arrivals": {}}, "arrivals is an arrival process"),
    (TALK, talk(), "conversations is a list of conversations, at least one; got"),
    (TALK, {"conversations": "Hello"}, "conversations is a list .* got 'Hello'"),
    (TALK, talk([GOOD], []), "conversation 2 is a list of turns, at least one; got"),
    (TALK, talk(["Hello"]), "conversation 1, turn 1 is {user: text, answer: text}, got 'Hello'"),
    (TALK, talk([GOOD, {"usr": "a", "answer": "b"}]), "conversation 1, turn 2: unknown key 'usr'. Did you mean 'user'"),
    (TALK, talk([{"user": "a"}]), "conversation 1, turn 1: answer is a text, got None"),
    (TALK, talk([{"user": 5, "answer": "b"}]), "user is a text, got 5"),
    (TALK, talk([{"user": " \n", "answer": "b"}]), "user is a text with at least one word"),
    (TALK, {"tokens_per_word": 0.5}, "tokens_per_word is a number of at least 1 and at most 10, got 0.5"),
    (TALK, {"think_s": "long"}, "think_s .* got 'long'"),
]


@pytest.mark.parametrize(("scenario", "changes", "message"), BAD)
def test_bad_parameters_are_refused(scenario, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(scenario, **changes)


# The article's lists, and the three of its test of static against dynamic.
ARTICLE = {
    "short_chat": "50 100 150 200 250 300",
    "long_document": "1000 1500 2000 2500 3000 3500",
    "streaming": "20 40 60 80 100 120 140 160 180 200",
    "bursty": "100 100 100 1000 100 100 1000 100 100",
    "stable_growth": "100 120 144 173 207 249 299 359 430 516",
    "sudden_growth": "100 100 100 100 800 850 900 950 1000 1050",
    "periodic": "200 400 200 400 200 400 200 400 200 400",
    "random_fluctuation": "150 280 120 390 210 180 420 310 160 380",
    "mixed": "200 1800 300 1500 600 1200 400 800",
    "short_chat_500": "100 200 300 400 500",
    "document_questions": "1000 1500 2000 2500 3000",
    "streaming_400": "50 100 150 200 250 300 350 400",
}


def load(name):
    return yaml.safe_load((SCENARIOS / f"{name}.yaml").read_text(encoding="utf-8"))


def build(node):
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    built = {key: build(value) for key, value in node.items()}
    if "_target_" not in built:
        return built
    module, name = built.pop("_target_").rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**built)


@pytest.mark.parametrize("name", ARTICLE)
def test_the_articles_lists_are_exact(name):
    wanted = [int(count) for count in ARTICLE[name].split()]
    assert load(name)["appends"] == wanted
    (request,) = requests(build(load(name)))
    assert [turn.num_append_tokens for turn in request.turns] == wanted
    assert request.num_decode_tokens == 0


NAMES = sorted(path.stem for path in SCENARIOS.glob("*.yaml"))


def test_the_scenarios_are_there():
    generated = "chat_poisson bursty_gamma diurnal multi_turn_chat code_completion parallel_sampling assistant_dialogue"
    generated += " agents shared_documents closed_loop"
    traces = "azure_conv mooncake_synthetic plain_trace sharegpt"
    assert {*ARTICLE, *generated.split(), *traces.split()} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_file_has_a_comment_and_builds(name):
    assert (SCENARIOS / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")
    assert build(load(name)).description


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_scenario_is_small_enough_for_a_processor(name):
    scenario = build(load(name))
    if not isinstance(scenario, Conversations | ParallelSampling | Dialogue):
        assert isinstance(scenario, Trace | Agents) or name in ARTICLE
        return
    for seed in range(5):
        facts = describe(scenario.columns(np.random.default_rng(seed)))
        assert facts["num_sessions"] <= 16
        assert facts["output_tokens_sum"] <= 1500
        assert facts["prompt_tokens_max"] <= 1000


def test_the_dialogue_holds_a_long_document_and_a_change_of_subject():
    texts = [[turn.text for turn in request.turns] for request in requests(build(load("assistant_dialogue")))]
    assert sum(sum(map(len, conversation)) > 2000 for conversation in texts) == 1
    assert "def " not in texts[3][0]
    assert "def " in texts[3][2]


HAND = [
    Session(0, (Request(10, 20), Request(5, 10, 1_000_000_000))),
    Session(1_000_000_000, (Request(7, 0),)),
    Session(4_000_000_000, (Request(100, 10),)),
]


def test_describe_by_hand():
    facts = describe(columns_of(HAND), 9)
    assert (facts["num_sessions"], facts["num_available"], facts["num_requests"]) == (3, 9, 4)
    assert facts["duration_s"] == 4
    assert facts["arrival_rate_per_s"] == 0.5
    assert facts["gap_cv"] == 0.5
    prompts = [facts[f"prompt_tokens_{name}"] for name in ("sum", "min", "median", "mean", "p90", "max")]
    assert prompts == pytest.approx([122, 7, 15, 122 / 3, 83, 100])
    assert (facts["output_tokens_sum"], facts["total_tokens_max"]) == (40, 110)
    # The second turn's prompt has the 30 tokens before it, of 152 in all.
    assert facts["whole_prompt_tokens"] == 152
    assert facts["repeated_prompt_share"] == pytest.approx(30 / 152)
    assert facts["shared_prefix_share"] == 0
    assert all(type(value) in (int, float) for value in facts.values())


def test_describe_has_no_rate_where_no_time_passes():
    facts = describe(columns_of([Session(5, (Request(1),))]))
    assert facts["arrival_rate_per_s"] is None
    assert facts["gap_cv"] is None


def test_concurrency_by_hand():
    times, live = concurrency(columns_of(HAND), tokens_per_s=10)
    # The first lives 3 s of decoding and 1 s of thought, the second not at all, the third 1 s from 4 s on.
    assert times.tolist() == [0, 1, 4, 5]
    assert live.tolist() == [1, 1, 1, 0]
    # With one place, the second of two like the first waits for it.
    two = columns_of(HAND[:1] * 2)
    times, live = concurrency(two, tokens_per_s=10, most=1)
    assert (times.tolist(), live.tolist()) == ([0, 4, 8], [1, 1, 0])


def test_nothing_to_describe_is_refused():
    with pytest.raises(ValueError, match="at least 1 session, got none"):
        describe(columns_of([]))
    with pytest.raises(ValueError, match="tokens_per_s is a number above 0, got 0"):
        concurrency(columns_of(HAND), 0)

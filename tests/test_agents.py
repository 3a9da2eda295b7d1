"""Agents: what follows what, by hand and for all draws; prefixes that sessions share."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.workload.agents import Agents
from kvbench.workload.arrivals import ClosedLoop, Poisson
from kvbench.workload.contents import NONE
from kvbench.workload.conversation import Conversations
from kvbench.workload.describe import concurrency, describe
from kvbench.workload.fan_out import tree_of
from kvbench.workload.lengths import ConstantLength, Uniform
from kvbench.workload.prefixes import SharedPrefixes
from kvbench.workload.request import NS_PER_S
from tests.test_columns import LENGTHS, conserved, drawn_twice

PREFIXES = st.one_of(
    st.none(),
    st.builds(
        SharedPrefixes,
        num_system_prompts=st.integers(1, 3),
        system_tokens=LENGTHS,
        tool_tokens=st.one_of(st.none(), LENGTHS),
        num_documents=st.integers(0, 5),
        document_exponent=st.sampled_from([0.0, 0.8, 3.0]),
        document_tokens=LENGTHS,
        num_tenants=st.integers(1, 3),
    ),
    st.just(SharedPrefixes(num_system_prompts=0, num_documents=3, num_tenants=2)),
)
AGENTS = st.builds(
    Agents,
    num_sessions=st.integers(1, 5),
    arrivals=st.sampled_from([Poisson(), ClosedLoop(concurrency=2)]),
    prefixes=PREFIXES,
    task_tokens=LENGTHS,
    num_turns=st.one_of(st.integers(1, 4), st.just(Uniform(low=1, high=6))),
    output_tokens=LENGTHS,
    tool_result_tokens=LENGTHS,
    tool_s=st.sampled_from([0.0, 3.0]),
    fan_out_share=st.sampled_from([0.0, 0.4, 1.0]),
    num_children=st.one_of(st.integers(1, 4), st.just(Uniform(low=1, high=3))),
    num_child_turns=st.one_of(st.integers(1, 4), st.just(Uniform(low=1, high=3))),
    child_task_tokens=LENGTHS,
    children_share_history=st.booleans(),
)
FEW = SharedPrefixes(
    num_system_prompts=2,
    system_tokens=ConstantLength(tokens=10),
    tool_tokens=ConstantLength(tokens=5),
    num_documents=3,
    document_tokens=ConstantLength(tokens=100),
    num_tenants=2,
)
WORKING = Agents(
    num_sessions=1,
    prefixes=SharedPrefixes(system_tokens=ConstantLength(tokens=10), tool_tokens=ConstantLength(tokens=5)),
    task_tokens=ConstantLength(tokens=7),
    num_turns=2,
    output_tokens=ConstantLength(tokens=3),
    tool_result_tokens=ConstantLength(tokens=4),
    fan_out_share=1.0,
    num_children=2,
    num_child_turns=2,
    child_task_tokens=ConstantLength(tokens=6),
)


def parents_of(columns):
    return [each.tolist() for each in np.split(columns.parents, columns.parent_offsets[1:-1])]


def test_a_fan_out_is_by_hand():
    """A task, two children of two turns each, and the parent's next turn with both answers."""
    columns = WORKING.columns(np.random.default_rng(0))
    assert parents_of(columns) == [[], [0], [1], [0], [3], [2, 4]]
    # 15 shared + 7; a child: 22 + 3 + 6, then + 3 + 4; the parent goes on from 25 with two answers of 3.
    assert columns.num_prompt_tokens.tolist() == [22, 31, 38, 31, 38, 31]
    assert columns.sessions.tolist() == [0] * 6
    assert columns.turns.tolist() == list(range(6))
    think = columns.think_ns.tolist()
    assert [bool(each) for each in think] == [False, False, True, False, True, False]
    of = columns.contents
    assert of.path(int(of.prompts[5])) == [0, 1, 2, int(of.prompts[5])]
    assert of.path(int(of.prompts[1]))[:3] == of.path(int(of.prompts[3]))[:3] == [0, 1, 2]
    apart = replace(WORKING, children_share_history=False).columns(np.random.default_rng(0))
    assert apart.num_prompt_tokens.tolist() == [22, 21, 28, 21, 28, 31]
    assert parents_of(apart) == parents_of(columns)
    assert apart.contents.path(int(apart.contents.prompts[1])) == [0, int(apart.contents.prompts[1])]


def test_rows_of_a_tree_by_hand():
    """Sessions of 3, 1 and 2 turns; one and two children after the first's two, one after the third's first."""
    tree = tree_of(np.array([3, 1, 2]), np.array([0, 1, 4]), np.array([1, 2, 1]), np.array([2, 1, 1, 3]))
    # Rows: 0 [1 2] 3 [4] [5] 6 | 7 | 8 [9 10 11] 12
    assert tree.counts.tolist() == [7, 1, 5]
    assert tree.firsts.tolist() == [0, 7, 8]
    assert (tree.begun.tolist(), tree.ended.tolist()) == ([1, 4, 5, 9], [2, 4, 5, 11])
    assert (tree.joins.tolist(), tree.fans.tolist()) == ([3, 6, 12], [0, 1, 1, 2])
    assert tree.after.tolist() == [NONE, 0, 1, 0, 3, 3, 3, NONE, NONE, 8, 9, 10, 8]
    assert tree.parents.tolist() == [0, 1, 2, 3, 3, 4, 5, 8, 9, 10, 11]
    assert tree.parent_offsets.tolist() == [0, 0, 1, 2, 3, 4, 5, 7, 7, 7, 8, 9, 10, 11]


@settings(max_examples=60, deadline=None)
@given(scenario=AGENTS, seed=st.integers(0, 99))
def test_agents_lose_nothing(scenario, seed):
    columns = scenario.columns(np.random.default_rng(seed))
    conserved(columns)
    of, follows = columns.contents, parents_of(columns)
    ends = columns.num_prompt_tokens + columns.num_output_tokens
    for row, parents in enumerate(follows):
        if len(parents) > 1:  # all their answers, after what the children were begun with
            new = columns.num_prompt_tokens[row] - of.ends[of.parents[of.prompts[row]]]
            assert (new, columns.think_ns[row]) == (columns.num_output_tokens[parents].sum(), 0)
        elif parents and of.passes(of.prompts[[row]], of.answers[parents])[0]:
            assert columns.num_prompt_tokens[row] > ends[parents[0]]
        elif parents:
            assert columns.think_ns[row] == 0
    # Of a session only the last turn is followed by none, and only its first follows none.
    lasts = np.flatnonzero(np.append(np.diff(columns.sessions) > 0, True))
    rows = np.arange(columns.num_requests)
    assert np.setdiff1d(rows, columns.parents).tolist() == lasts.tolist()
    assert [row for row in rows if not follows[row]] == np.flatnonzero(columns.turns == 0).tolist()


@settings(max_examples=30, deadline=None)
@given(scenario=AGENTS, seed=st.integers(0, 99), more=st.integers(1, 9))
def test_the_first_sessions_are_the_same_however_many_there_are(scenario, seed, more):
    few = scenario.columns(np.random.default_rng(seed))
    many = replace(scenario, num_sessions=scenario.num_sessions + more).columns(np.random.default_rng(seed))
    for name in ("arrival_ns", "num_prompt_tokens", "num_output_tokens", "sessions", "think_ns", "tenants"):
        if (wanted := getattr(few, name)) is not None:
            assert getattr(many, name)[: few.num_requests].tolist() == wanted.tolist(), name
    cut = replace(scenario, max_requests=1).columns(np.random.default_rng(seed))
    assert cut.num_requests == int((few.sessions == 0).sum())


@settings(max_examples=40, deadline=None)
@given(scenario=AGENTS, seed=st.integers(0, 99))
def test_agents_without_children_are_sessions_and_others_are_refused(scenario, seed):
    alone = replace(scenario, fan_out_share=0.0)
    sessions, columns = drawn_twice(alone, seed)
    assert len(sessions) == scenario.num_sessions
    assert sum(session.num_decode_tokens for session in sessions) == columns.num_output_tokens.sum()
    assert max(map(len, parents_of(columns))) <= 1
    if (columns := scenario.columns(np.random.default_rng(seed))).parents.size and columns.think_ns is not None:
        graph = np.bincount(columns.parents).max() > 1 or np.diff(columns.parent_offsets).max() > 1
        if graph:
            with pytest.raises(ValueError, match=r"turns that follow one another, .* request \d+ .*strategy=paged"):
                scenario.workload(np.random.default_rng(seed))


@settings(max_examples=60, deadline=None)
@given(prefixes=PREFIXES.filter(bool), turns=st.integers(1, 3), seed=st.integers(0, 99))
def test_conversations_share_what_they_begin_with_and_no_more(prefixes, turns, seed):
    scenario = Conversations(num_requests=20, turns=turns, prefixes=prefixes)
    sessions, columns = drawn_twice(scenario, seed)
    conserved(columns)
    bare, _ = drawn_twice(replace(scenario, prefixes=None), seed)
    of = columns.contents
    for row, (session, own) in enumerate(zip(sessions, bare, strict=True)):
        path = of.path(int(of.prompts[row * turns]))
        begun = int(of.ends[path[-2]])
        assert len(path) == 1 + bool(prefixes.num_system_prompts) + bool(prefixes.num_documents)
        assert session.turns[0].num_append_tokens == begun + own.turns[0].num_append_tokens
        assert session.turns[1:] == own.turns[1:]
    if columns.tenants is not None:  # a text belongs to one tenant
        firsts = [of.path(int(each))[0] for each in of.prompts]
        assert len(set(zip(firsts, columns.tenants.tolist(), strict=True))) == len(set(firsts))


def test_prefixes_are_few_and_documents_by_zipf():
    scenario = Conversations(num_requests=20_000, prefixes=FEW)
    columns = scenario.columns(np.random.default_rng(3))
    of = columns.contents
    texts = of.parents[of.prompts]  # the document's stretch; its parent is a system prompt's
    assert set(of.ends[texts].tolist()) == {115}
    assert np.unique(of.parents[texts]).size == 4
    assert np.unique(texts).size == 12
    shares = np.bincount(texts)[4:].reshape(4, 3) / 20_000  # each system prompt's documents in the order of their ranks
    wanted = np.arange(1, 4) ** -0.8
    assert shares == pytest.approx(np.tile(wanted / wanted.sum() / 4, (4, 1)), abs=0.012)
    apart = replace(scenario, num_requests=500, prefixes=replace(FEW, system_tokens=Uniform(low=1, high=900)))
    of = apart.columns(np.random.default_rng(3)).contents
    assert np.unique(of.begins[of.parents[of.prompts]]).size == 4
    assert set((of.ends - of.begins)[of.parents[of.prompts]].tolist()) == {100}
    assert np.bincount(columns.tenants) / 20_000 == pytest.approx([0.5, 0.5], abs=0.012)


def test_what_sessions_share_is_described():
    """By hand: of six prompts of 191 tokens, 22 begin the session, 6 and 4 are each child's, 6 their answers again."""
    facts = describe(WORKING.columns(np.random.default_rng(0)))
    assert (facts["num_sessions"], facts["num_requests"], facts["prompt_tokens_sum"]) == (1, 6, 22 + 2 * 10 + 6)
    assert facts["whole_prompt_tokens"] == 191
    assert facts["repeated_prompt_share"] == pytest.approx(1 - 48 / 191)
    assert facts["shared_prefix_share"] == 0
    # Two alike share the 15 tokens of the first prompt's 22 once more.
    both = describe(replace(WORKING, num_sessions=2).columns(np.random.default_rng(0)))
    assert both["shared_prefix_share"] == pytest.approx(15 / 44)
    assert both["repeated_prompt_share"] == pytest.approx(1 - (48 + 33) / 382)
    # The parent decodes 3 tokens, its children 3 twice with a tool between, and it 3 again: 4 in a row at 1 a second.
    columns = WORKING.columns(np.random.default_rng(0))
    times_s, live = concurrency(columns, tokens_per_s=1)
    tool_s = columns.think_ns.max() / NS_PER_S
    assert (live.tolist(), times_s.tolist()) == ([1, 0], pytest.approx([0, 12 + tool_s]))


def lengths_of(contents, stretches):
    return [
        int(contents.ends[own] - (contents.ends[before] if before != NONE else 0))
        for own, before in ((own, contents.parents[own]) for own in stretches)
    ]


@settings(max_examples=40, deadline=None)
@given(scenario=AGENTS, seed=st.integers(0, 99), most=st.integers(1, 9))
def test_shares_are_of_distinct_tokens(scenario, seed, most):
    columns = scenario.columns(np.random.default_rng(seed))
    facts = describe(columns)
    known, new, of = set(), 0, columns.contents
    for row in range(columns.num_requests):
        if of is None:
            new += int(columns.num_prompt_tokens[row])
            continue
        new += sum(lengths_of(of, set(of.path(int(of.prompts[row]))) - known))
        known |= set(of.path(int(of.answers[row])))
    assert facts["repeated_prompt_share"] == pytest.approx(1 - new / facts["whole_prompt_tokens"])
    cut = columns.first_sessions(most)
    rows = columns.session_numbers < most
    assert cut.num_prompt_tokens.tolist() == columns.num_prompt_tokens[rows].tolist()
    conserved(cut)


@pytest.mark.parametrize(
    ("scenario", "changes", "said"),
    [
        (FEW, {"num_documents": -1}, "num_documents is an integer of at least 0 and at most 10,000,000, got -1"),
        (FEW, {"num_documents": 0, "num_system_prompts": 0}, "at least 1 system prompt or 1 document, got none"),
        (FEW, {"num_documents": 9_000_000}, "num_documents × num_tenants is .* at most 10,000,000, got 18000000"),
        (FEW, {"document_exponent": -0.5}, "document_exponent is a number of at least 0"),
        (FEW, {"system_tokens": 10}, "system_tokens is a length distribution .* got 10"),
        (FEW, {"tool_tokens": "many"}, "tool_tokens is a length distribution .* got 'many'"),
        (FEW, {"num_tenants": 0}, "num_tenants is a positive integer"),
        (WORKING, {"prefixes": 3}, r"prefixes is what sessions begin with \(SharedPrefixes\), or null, got 3"),
        (WORKING, {"fan_out_share": 1.5}, "fan_out_share is a number of at least 0 and at most 1, got 1.5"),
        (WORKING, {"num_children": 0}, "num_children is a positive integer and at most 100,000, got 0"),
        (WORKING, {"num_turns": "few"}, "num_turns is a length distribution .* got 'few'"),
        (WORKING, {"tool_s": -1}, "tool_s is a number of at least 0"),
        (WORKING, {"task_tokens": 7}, "task_tokens is a length distribution"),
        (WORKING, {"children_share_history": 1}, "children_share_history is True or False, got 1"),
        (WORKING, {"num_sessions": 0}, "num_sessions is a positive integer"),
        (Conversations(), {"prefixes": []}, r"prefixes is what sessions begin with .* got \[\]"),
    ],
)
def test_bad_parameters_are_refused(scenario, changes, said):
    with pytest.raises(ValueError, match=said):
        replace(scenario, **changes)

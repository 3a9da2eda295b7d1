"""Sessions as columns and columns as sessions: nothing is lost, and both are the same draw."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.workload.arrivals import AllAtOnce, ClosedLoop, Poisson
from kvbench.workload.columns import columns_of, sessions_of
from kvbench.workload.contents import NONE
from kvbench.workload.conversation import Conversations, ParallelSampling
from kvbench.workload.dialogue import Dialogue
from kvbench.workload.lengths import Lognormal, Uniform
from kvbench.workload.request import Request, Session
from kvbench.workload.scenario import Appends, Scenario
from kvbench.workload.trace_columns import TraceColumns

LENGTHS = st.one_of(
    st.builds(lambda low, more: Uniform(low=low, high=low + more), st.integers(1, 9), st.integers(0, 9)),
    st.just(Lognormal(median=20, sigma=1.5)),
)
TURNS = st.builds(Request, st.integers(1, 9), st.integers(0, 9), st.just(0))
LATER = st.builds(Request, st.integers(1, 9), st.integers(0, 9), st.integers(0, 10**9))
SESSIONS = st.lists(
    st.tuples(st.integers(0, 99), TURNS, st.lists(LATER, max_size=5), st.sampled_from([None, None, 0, 1])),
    min_size=1,
    max_size=8,
)
CHATS = st.builds(
    Conversations,
    num_requests=st.integers(1, 30),
    arrivals=st.sampled_from([AllAtOnce(), Poisson(), ClosedLoop(concurrency=2)]),
    prompts=LENGTHS,
    outputs=LENGTHS,
    turns=st.one_of(st.integers(1, 5), LENGTHS),
    think_s=st.sampled_from([0.0, 3.0]),
)


def drawn_twice(scenario: Scenario, seed: int) -> tuple[tuple[Session, ...], TraceColumns]:
    """The same scenario and seed as sessions and as columns."""
    sessions, columns = (draw(np.random.default_rng(seed)) for draw in (scenario.workload, scenario.columns))
    return sessions.sessions, columns


def conserved(columns: TraceColumns) -> None:
    """What holds of all columns: parents precede, starts are in order, texts are as long as prompts and answers."""
    rows = np.arange(columns.num_requests)
    assert (columns.num_prompt_tokens >= 1).all()
    assert (np.diff(columns.arrivals_ns) >= 0).all()
    if columns.parents is not None:
        followed = np.repeat(rows, np.diff(columns.parent_offsets))
        assert (columns.parents < followed).all()
        assert (columns.sessions[columns.parents] == columns.sessions[followed]).all()
        for number in range(int(columns.sessions.max()) + 1):
            own = columns.turns[columns.sessions == number]
            assert own.tolist() == list(range(own.size))
    if (of := columns.contents) is not None:
        for row in rows.tolist():
            lengths = np.diff([0, *of.ends[of.path(int(of.answers[row]))].tolist()])
            assert (lengths > 0).all()
            assert lengths.sum() == columns.num_prompt_tokens[row] + columns.num_output_tokens[row]
            assert of.ends[of.prompts[row]] == columns.num_prompt_tokens[row]
            assert of.prompts[row] in of.path(int(of.answers[row]))


@settings(max_examples=80, deadline=None)
@given(given_sessions=SESSIONS)
def test_sessions_are_columns_and_back(given_sessions):
    prompts: dict[int, int] = {}
    sessions = []
    for start, first, later, group in sorted(given_sessions, key=lambda row: row[0]):
        if group is not None:  # samples of one prompt have its length
            first = replace(first, num_append_tokens=prompts.setdefault(group, first.num_append_tokens))
        sessions.append(Session(start, (first, *later), group))
    columns = columns_of(sessions)
    conserved(columns)
    assert sessions_of(columns) == tuple(replace(session, group=None) for session in sessions)
    turns = [turn for session in sessions for turn in session.turns]
    assert columns.num_output_tokens.tolist() == [turn.num_decode_tokens for turn in turns]
    history = 0
    for row, (turn, is_first) in enumerate(
        (turn, not place) for session in sessions for place, turn in enumerate(session.turns)
    ):
        history = 0 if is_first else history
        assert columns.num_prompt_tokens[row] == history + turn.num_append_tokens
        history += turn.num_tokens
    if columns.contents is not None:
        firsts = np.cumsum([0, *(len(session.turns) for session in sessions[:-1])])
        own = {session.group for session in sessions} - {None}
        for group in own:
            of = [first for first, session in zip(firsts, sessions, strict=True) if session.group == group]
            assert len(set(columns.contents.prompts[of].tolist())) == 1
        lone = [row for row, session in zip(firsts, sessions, strict=True) if session.group is None]
        assert len({columns.contents.path(int(columns.contents.answers[row]))[0] for row in lone}) == len(lone)


@settings(max_examples=60, deadline=None)
@given(scenario=CHATS, seed=st.integers(0, 99))
def test_conversations_are_one_draw_as_sessions_and_as_columns(scenario, seed):
    sessions, columns = drawn_twice(scenario, seed)
    conserved(columns)
    assert sessions_of(columns) == sessions
    again = columns_of(sessions, columns.num_clients)
    for name in ("arrival_ns", "num_prompt_tokens", "num_output_tokens", "num_clients", "sessions", "turns", "parents"):
        assert np.array_equal(getattr(again, name), getattr(columns, name)), name
    if columns.contents is not None:
        for name in ("parents", "ends", "prompts", "answers"):
            assert np.array_equal(getattr(again.contents, name), getattr(columns.contents, name)), name


@pytest.mark.parametrize("scenario", [ParallelSampling(num_prompts=4), Appends(), Dialogue()])
def test_every_scenario_has_columns(scenario):
    sessions, columns = drawn_twice(scenario, 5)
    conserved(columns)
    bare = [tuple(replace(turn, text=None) for turn in session.turns) for session in sessions]
    assert [session.turns for session in sessions_of(columns)] == bare


def test_samples_share_their_prompt_alone():
    of = ParallelSampling(num_prompts=2, num_samples=3).columns(np.random.default_rng(0)).contents
    assert of.prompts.tolist() == [0, 0, 0, 1, 1, 1]
    assert of.parents.tolist() == [NONE, NONE, 0, 0, 0, 1, 1, 1]
    assert of.answers.tolist() == [2, 3, 4, 5, 6, 7]


def test_a_history_is_by_hand():
    """Two turns and one alone: 10 + 5 tokens, then 3 more and 2 of answer; 4 and none."""
    sessions = [Session(7, (Request(10, 5), Request(3, 2, 20))), Session(9, (Request(4),))]
    columns = columns_of(sessions)
    assert columns.arrivals_ns.tolist() == [7, 7, 9]
    assert columns.num_prompt_tokens.tolist() == [10, 18, 4]
    assert columns.sessions.tolist() == [0, 0, 1]
    assert columns.turns.tolist() == [0, 1, 0]
    assert (columns.parents.tolist(), columns.parent_offsets.tolist()) == ([0], [0, 0, 1, 1])
    assert columns.think_ns.tolist() == [0, 20, 0]
    assert columns.contents.parents.tolist() == [NONE, 0, 1, 2, NONE]
    assert columns.contents.ends.tolist() == [10, 15, 18, 20, 4]
    assert columns.contents.block_keys(1, 6) == [(0, 0), (1, 1), (2, 2)]


def test_sessions_whose_turns_interleave_are_cut_whole():
    """Turns at 0, 2 and 3 of one session, at 1 of another: sorted, the last of the first follows request 2."""
    columns = columns_of([Session(0, (Request(9, 3), Request(5, 1), Request(2, 2))), Session(1, (Request(4, 4),))])
    sorted_ = replace(columns, arrival_ns=np.array([0, 2, 3, 1])).by_arrival()
    assert sorted_.sessions.tolist() == [0, 1, 0, 0]
    assert sorted_.parents.tolist() == [0, 2]
    cut = sorted_.first_sessions(1)
    assert cut.num_prompt_tokens.tolist() == [9, 17, 20]
    assert (cut.parents.tolist(), cut.parent_offsets.tolist()) == ([0, 1], [0, 0, 1, 2])
    assert sorted_.first_sessions(2) is sorted_


def test_requests_of_one_turn_need_no_more_than_lengths():
    columns = Conversations(num_requests=9).columns(np.random.default_rng(0))
    assert columns.contents is None
    assert columns.parents is None
    assert columns.sessions is None


CHAT = columns_of([Session(0, (Request(9, 3), Request(5, 1), Request(2, 2)))])
LOOSE = replace(CHAT, contents=None)
OTHERS = columns_of([Session(0, (Request(tokens, 1),), 0) for tokens in (9, 17, 20)]).contents


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (replace(CHAT, parents=np.array([0, 0])), "request 2 does not follow the one before it"),
        (replace(CHAT, parents=np.array([0, 1, 0]), parent_offsets=np.array([0, 0, 1, 3])), "request 2 follows 2 "),
        (replace(CHAT, arrival_ns=np.array([0, 4, 4])), "request 1 has a time of its own"),
        (replace(LOOSE, num_prompt_tokens=np.array([9, 12, 20])), "request 1 does not begin with the prompt"),
        (replace(CHAT, contents=OTHERS), "request 1 does not begin with the prompt"),
    ],
)
def test_what_is_no_chain_is_refused(columns, said):
    with pytest.raises(ValueError, match=f"turns that follow one another, .*{said}.*strategy=paged"):
        sessions_of(columns)

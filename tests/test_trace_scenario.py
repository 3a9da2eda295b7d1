"""The scenario of a trace: where its file is looked for, and which of its rows become requests, when."""

import gzip
from dataclasses import replace

import numpy as np
import pytest

from kvbench.workload.arrivals import ConstantRate, Poisson
from kvbench.workload.interning import Interning
from kvbench.workload.trace import Trace, TraceMissing
from kvbench.workload.trace_columns import TraceColumns
from tests.support.traces import LENGTHS_HEADER, PLAIN_HEADER, write


def scenario(**changes):
    return Trace(**({"file": "chat.csv", "format": "plain", "source": "the office shelf", "arrivals": None} | changes))


def replayed(trace):
    return trace.workload(np.random.default_rng(5))


def test_the_first_rows_by_arrival_become_requests(tmp_path):
    path = write(tmp_path, PLAIN_HEADER + "9,1,1\n7,2,0\n8,3,4\n")
    workload = replayed(scenario(path=str(path), max_requests=2))
    assert workload.num_available == 3
    assert [request.arrival_ns for request in workload.sessions] == [0, 1_000_000_000]
    turns = [request.turns[0] for request in workload.sessions]
    assert [(turn.num_append_tokens, turn.num_decode_tokens) for turn in turns] == [(2, 0), (3, 4)]


@pytest.mark.parametrize("name", ["chat.csv", "chat.csv.gz"])
def test_a_file_is_looked_for_in_the_named_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv("KVBENCH_TRACES", str(tmp_path))
    write(tmp_path, gzip.compress((PLAIN_HEADER + "1,2,3\n").encode()), name)
    assert len(replayed(scenario()).sessions) == 1


def test_a_file_is_looked_for_in_traces(tmp_path, monkeypatch):
    monkeypatch.delenv("KVBENCH_TRACES", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces").mkdir()
    write(tmp_path / "traces", PLAIN_HEADER + "1,2,3\n", "chat.csv")
    assert len(replayed(scenario()).sessions) == 1


def test_a_missing_file_says_where_it_was_looked_for_and_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("KVBENCH_TRACES", str(tmp_path))
    with pytest.raises(TraceMissing) as caught:
        replayed(scenario())
    assert isinstance(caught.value, FileNotFoundError)
    for part in (
        "chat.csv is missing",
        str(tmp_path / "chat.csv.gz"),
        "the office shelf",
        "scenario.path=",
        "KVBENCH_TRACES",
    ):
        assert part in str(caught.value)


def test_a_missing_path_is_not_looked_for_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("KVBENCH_TRACES", str(tmp_path))
    write(tmp_path, PLAIN_HEADER + "1,2,3\n", "chat.csv")
    with pytest.raises(TraceMissing, match=r"other\.csv is missing"):
        replayed(scenario(path=str(tmp_path / "other.csv")))


def test_lengths_take_their_arrivals_from_the_process(tmp_path):
    path = str(write(tmp_path, LENGTHS_HEADER + "5,1\n6,2\n7,3\n"))
    even = replayed(scenario(path=path, format="sharegpt", arrivals=ConstantRate(rate_per_s=2)))
    assert [request.arrival_ns for request in even.sessions] == [0, 500_000_000, 1_000_000_000]
    assert [request.turns[0].num_append_tokens for request in even.sessions] == [5, 6, 7]
    drawn = scenario(path=path, format="sharegpt", arrivals=Poisson(rate_per_s=2))
    assert replayed(drawn) == replayed(drawn)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "azur"}, "unknown trace format 'azur'. Did you mean 'azure'"),
        ({"file": "a/b.csv"}, "file is a name without folders, got 'a/b.csv'"),
        ({"file": ""}, "file is a name without folders, got ''"),
        (
            {"format": "sharegpt"},
            "arrivals of the format sharegpt, which has no times, is an arrival process.*got None",
        ),
        (
            {"arrivals": ConstantRate(rate_per_s=1)},
            "arrivals is null for the format plain, which has times; got ConstantRate",
        ),
        ({"max_requests": -1}, "max_requests is a positive integer"),
    ],
)
def test_bad_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        scenario(**changes)


def test_a_trace_repeated_begins_again_a_mean_gap_after_its_last_arrival():
    columns = TraceColumns(
        arrival_ns=np.array([0, 10, 40]),
        num_prompt_tokens=np.array([5, 6, 7]),
        num_output_tokens=np.array([1, 2, 3]),
        block_ids=np.array([8, 9, 8, 8]),
        block_offsets=np.array([0, 2, 3, 4]),
        block_tokens=4,
    )
    twice = columns.repeated(2)
    assert twice.arrival_ns.tolist() == [0, 10, 40, 60, 70, 100]
    assert twice.num_output_tokens.tolist() == [1, 2, 3, 1, 2, 3]
    assert twice.block_ids.tolist() == [8, 9, 8, 8, 8, 9, 8, 8]
    assert twice.block_offsets.tolist() == [0, 2, 3, 4, 6, 7, 8]
    cut = twice.first(4)
    assert (cut.block_ids.tolist(), cut.block_offsets.tolist()) == ([8, 9, 8, 8, 8, 9], [0, 2, 3, 4, 6])
    assert columns.repeated(3, 1_000).arrival_ns.tolist() == [0, 10, 40, 1_000, 1_010, 1_040, 2_000, 2_010, 2_040]


def test_a_trace_whose_name_cannot_be_is_missing():
    for path in ("x" * 5_000, "~nobody-of-that-name/x.csv"):
        with pytest.raises(TraceMissing):
            Trace(path=path, file="x", format="plain", source="nowhere").locate()


def graph():
    """Two sessions: 0 and 2 (which follows 0), and 1; 2 goes on from 0's prompt and answer."""
    texts = Interning()
    texts.add([np.array([7]), np.array([7, 8]), np.array([7])], 4, [4, 8, 4], [2, 1, 1], [-1, 0, -1])
    return TraceColumns(
        arrival_ns=np.array([0, 40, 10]),
        num_prompt_tokens=np.array([4, 8, 4]),
        num_output_tokens=np.array([2, 1, 1]),
        sessions=np.array([0, 0, 1]),
        turns=np.array([0, 1, 0]),
        parents=np.array([0]),
        parent_offsets=np.array([0, 0, 1, 1]),
        think_ns=np.array([0, 5, 0]),
        contents=texts.contents(),
    )


def followed(columns):
    ends = columns.parent_offsets
    return [columns.parents[ends[row] : ends[row + 1]].tolist() for row in range(columns.num_requests)]


def test_whom_a_request_follows_moves_with_sorting_and_stays_in_its_copy():
    columns = graph().by_arrival()
    assert (columns.arrival_ns.tolist(), followed(columns)) == ([0, 10, 40], [[], [], [0]])
    assert columns.sessions.tolist() == [0, 1, 0]
    keys = [columns.contents.block_keys(row, 4) for row in range(3)]
    twice = columns.repeated(2)
    assert followed(twice) == [[], [], [0], [], [], [3]]
    assert twice.sessions.tolist() == [0, 1, 0, 2, 3, 2]
    assert twice.turns.tolist() == [0, 0, 1] * 2
    num = columns.contents.parents.size
    for row in range(3):
        assert twice.contents.block_keys(row, 4) == keys[row]
        assert twice.contents.block_keys(3 + row, 4) == [(stretch + num, block) for stretch, block in keys[row]]
    assert twice.contents.parents.size == num  # the copy is not written out
    cut = twice.first(4)
    assert (followed(cut), cut.contents.prompts.size, cut.think_ns.tolist()) == ([[], [], [0], []], 4, [0, 0, 5, 0])
    part = twice.stretch(4, 6)
    assert (followed(part), part.arrival_ns.tolist()) == ([[], [3]], twice.arrival_ns[4:].tolist())
    assert part.contents.answers.tolist() == twice.contents.answers[4:].tolist()


def test_a_request_that_arrives_before_one_it_follows_is_refused():
    columns = replace(graph(), arrival_ns=np.array([50, 40, 10]))
    with pytest.raises(ValueError, match="request 1 arrives before request 0, which it follows"):
        columns.by_arrival()

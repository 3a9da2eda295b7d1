"""Agents' sessions: who follows whom, think times, what is shared, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from kvbench.workload.trace_agentic import read_agentic
from kvbench.workload.trace_file import TraceError

FOLDER = Path(os.environ.get("KVBENCH_TRACES") or "traces") / "agentic"


def call(t, tokens, output, ids, **changes):
    return {"t": t, "type": "n", "in": tokens, "out": output, "hash_ids": ids, "api_time": 2.0, **changes}


def subagent(t, duration_ms, requests, **changes):
    return {
        "t": t,
        "type": "subagent",
        "duration_ms": duration_ms,
        "status": "completed",
        "requests": requests,
        **changes,
    }


def written(folder, requests, name="one.json", **changes):
    session = {"id": "s", "block_size": 4, "hash_id_scope": "local", "requests": requests, **changes}
    path = folder / name
    path.write_text(json.dumps(session))
    return path


def followed(columns):
    ends = columns.parent_offsets
    return [columns.parents[ends[row] : ends[row + 1]].tolist() for row in range(columns.num_requests)]


def fanned_out():
    """A call, two subagents from 3 s and 4 s on at once, a call that waits for both, one more, one run beside."""
    return [
        call(0, 9, 2, [1, 2]),
        subagent(8, 5_000, [call(0, 8, 1, [7, 8]), call(3, 12, 1, [7, 8, 9], think_time=0.5)]),
        subagent(9, 5_000, [call(0, 8, 1, [7, 11])]),
        call(11, 16, 2, [1, 2, 3, 4], think_time=9),
        call(15, 20, 1, [1, 2, 3, 4, 5], think_time=1.5),
        subagent(16, None, [call(0, 4, 1, [7])], status="async_launched"),
        call(20, 24, 1, [1, 2, 3, 4, 5, 6]),
    ]


def test_calls_follow_one_another_and_wait_for_subagents(tmp_path):
    columns = read_agentic(written(tmp_path, fanned_out()))
    assert followed(columns) == [[], [0], [1], [0], [0, 2, 3], [4], [5], [5]]
    # The subagents began 1 s and 2 s after the first call's end, and the last of their calls ended at 8 s.
    assert [think / 1e9 for think in columns.think_ns] == [0, 1, 0.5, 2, 3, 1.5, 0, 3]
    assert columns.arrival_ns is None
    assert (columns.sessions.tolist(), columns.turns.tolist()) == ([0] * 8, list(range(8)))
    keys = [columns.contents.block_keys(row, 4) for row in range(8)]
    assert keys[4][:2] == keys[0][:2]
    assert keys[1][0] == keys[3][0] == keys[6][0]  # subagents begin alike
    assert keys[1][1] != keys[3][1]


def test_ids_mean_the_same_in_a_session_or_in_all_of_them(tmp_path):
    for scope, shared in (("local", False), ("global", True)):
        for name in ("a.json", "b.json"):
            written(tmp_path, [call(0, 8, 1, [1, 2]), call(3, 12, 1, [1, 2, 3])], name, hash_id_scope=scope)
        columns = read_agentic(tmp_path)
        assert columns.sessions.tolist() == [0, 0, 1, 1]
        keys = [columns.contents.block_keys(row, 4) for row in range(4)]
        assert (keys[1][:2] == keys[0], keys[3][:2] == keys[2]) == (True, True)
        assert (keys[2][:2] == keys[0]) is shared


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        (
            [call(0, 9, 2, [1])],
            r"one.json, requests\[0\], key hash_ids: got 1 ids; allowed is 2 ids of blocks of 4 tokens",
        ),
        ([call(0, 9, 2, [1, 2.5])], r"key hash_ids: got 2.5; allowed is integers from 0"),
        ([call(0, 9, 2, [1, -2])], r"key hash_ids: got -2; allowed"),
        ([call(0, 9, 2, [1, 2**64])], r"key hash_ids: got 18446744073709551616; allowed"),
        ([call(-1, 9, 2, [1, 2])], r"requests\[0\], key t: got -1; allowed is a number of seconds from 0"),
        (
            [call(5, 9, 2, [1, 2]), call(4, 9, 2, [1, 2])],
            r"requests\[1\], key t: got 4; allowed is a time that is not before",
        ),
        ([call(0, 0, 2, [])], r"key in: got 0; allowed is an integer from 1"),
        ([call(0, 9, "x\x1b", [1, 2])], r"key out: got 'x\\x1b'; allowed is an integer from 0"),
        ([{"t": 0, "type": "x"}], r"key type: got 'x'; allowed is n, s or subagent"),
        ([{"t": 0, "type": "n", "inn": 5}], r"unknown key 'in'. Did you mean 'inn'"),
        (
            [call(0, 9, 2, [1, 2]), subagent(1, 1, [])],
            r"requests\[1\], key requests: got \[\]; allowed is a list that is",
        ),
        ([subagent(1, 1, [call(0, 9, 2, [1, 2])])], r"key requests: got none of them"),
        ([7], r"requests\[0\]: got 7; allowed is a JSON object"),
    ],
)
def test_what_a_session_cannot_be_is_refused_with_its_place(tmp_path, requests, said):
    with pytest.raises(TraceError, match=said):
        read_agentic(written(tmp_path, requests))


def test_files_and_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(TraceError, match="has no file named"):
        read_agentic(tmp_path)
    written(tmp_path, [call(0, 9, 2, [1, 2])], "a.json")
    (tmp_path / "b.json").write_text('{"messages": []}')
    with pytest.raises(TraceError, match=r"b\.json is no agent's session, as others in its folder"):
        read_agentic(tmp_path)
    (tmp_path / "b.json").write_text('{"block_size": 4, ')
    with pytest.raises(TraceError, match=r"b\.json is not JSON"):
        read_agentic(tmp_path)
    for text, said in (
        ("[1,,2]", "key hash_ids: got what is none"),
        ("[1 2]", "what is none"),
        ("7", "a list of block"),
    ):
        damaged = (
            '{"block_size":4,"hash_id_scope":"local","requests":[{"t":0,"type":"n","in":9,"out":1,"hash_ids":%s}]}'
        )
        (tmp_path / "b.json").write_text(damaged % text)
        with pytest.raises(TraceError, match=said):
            read_agentic(tmp_path / "b.json")


@pytest.mark.skipif(not FOLDER.exists(), reason="the agentic traces are not here; KVBENCH_TRACES names their folder")
def test_published_sessions_are_read():
    columns = read_agentic(FOLDER)
    assert (columns.num_requests, int(columns.sessions[-1]) + 1) == (772, 22)
    # Three explorers run at once in trace_0277, which goes on when the last has ended.
    joins = [row for row, parents in enumerate(followed(columns)) if len(parents) > 2]
    assert [len(followed(columns)[row]) for row in joins] == [4, 3]
    assert columns.contents.parents.size < 3 * columns.num_requests

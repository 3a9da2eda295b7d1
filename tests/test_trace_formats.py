"""Formats of traces: recognised by their keys, and what each says of sessions, think times and shared texts."""

import json

import numpy as np
import pytest

from kvbench.workload.arrivals import ConstantRate
from kvbench.workload.request import Request, Session
from kvbench.workload.trace import Trace
from kvbench.workload.trace_file import TraceError, TraceMissing
from kvbench.workload.trace_formats import FORMATS, read_trace
from kvbench.workload.trace_recognised import recognised
from tests.support.trace_examples import EXAMPLES
from tests.support.traces import AZURE_HEADER, PLAIN_HEADER, write

BURST = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def lines(*rows):
    return "\n".join(map(json.dumps, rows))


def chat(number, parent, at, tokens, output, ids):
    return {
        "chat_id": number,
        "parent_chat_id": parent,
        "timestamp": at,
        "input_length": tokens,
        "output_length": output,
        "hash_ids": ids,
    }


def length(tokens, output, **more):
    return {"input_length": tokens, "output_length": output, **more}


def followed(columns):
    ends = columns.parent_offsets
    return [columns.parents[ends[row] : ends[row + 1]].tolist() for row in range(columns.num_requests)]


def seconds(times_ns):
    return [time / 1e9 for time in times_ns]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognised_by_its_keys(tmp_path, name):
    path = write(tmp_path, EXAMPLES[name], "no_name_that_says_it")
    assert recognised(path) == name
    assert read_trace(path, name).num_requests >= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TIMESTAMP,ContextTokens,Generated\n", "The nearest is azure; it lacks GeneratedTokens"),
        (lines({"timestamp": 1, "output_length": 2, "hash_ids": []}), "The nearest is mooncake; it lacks input_length"),
        (lines({"x\x1b": 1}), r"JSON has the keys x\\x1b"),
        (
            AZURE_HEADER[:-1] + ",arrived_at,num_prefill_tokens,num_decode_tokens\n",
            "may be azure or plain, by its keys",
        ),
        ("{\n", "is not JSON"),
        ("nothing at all", "there are: azure, burstgpt"),
        ("time,prompt\n", r"a CSV of your own has the columns arrived_at \(in seconds\), num_prefill_tokens"),
    ],
)
def test_what_fits_no_format_or_two_is_said(tmp_path, text, said):
    with pytest.raises(TraceError, match=said):
        recognised(write(tmp_path, text))


def test_chats_of_bailian_go_on_from_their_parents(tmp_path):
    rows = [
        chat(7, -1, 10, 20, 12, [1, 2]),
        chat(9, 7, 12.5, 50, 3, [1, 3, 4, 5]),
        chat(8, -1, 11, 16, 1, [1]),
        chat(5, 7, 13, 20, 3, [1, 2]),
    ]
    columns = read_trace(write(tmp_path, lines(*rows)), "bailian")
    assert (seconds(columns.arrival_ns), followed(columns)) == ([0, 1, 2.5, 3], [[], [], [0], [0]])
    assert (columns.sessions.tolist(), columns.turns.tolist()) == ([0, 1, 0, 0], [0, 0, 1, 2])
    keys = [columns.contents.block_keys(number, 16) for number in range(4)]
    assert keys[2][:2] == keys[0]  # its prompt is the first one's, with its answer
    assert keys[3][0] == keys[1][0] == keys[0][0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([chat(1, 5, 0, 5, 1, [1])], "line 1, key parent_chat_id: got 5, which is no line's chat_id"),
        ([chat(1, 2, 0, 5, 1, [1]), chat(2, 1, 0, 5, 1, [1])], "it follows the request of line .*in a circle|circle"),
        ([chat(1, -1, 3, 5, 1, [1]), chat(2, 1, 2, 5, 1, [1])], "line 2: it arrives before the request of line 1"),
        ([chat(1, -1, 3, 5, 1, [1]), chat(1, -1, 2, 5, 1, [1])], "line 2, key chat_id: got 1; allowed is one that no"),
        (
            [chat(1, -1, 3, 35, 1, [1])],
            "line 1, key hash_ids: got 1 ids; allowed is an id for each block of 16 tokens: 3",
        ),
        ([chat(1, -1, -3, 5, 1, [1])], "line 1, key timestamp: got -3; allowed is a number of seconds from 0"),
    ],
)
def test_what_chats_of_bailian_cannot_be_is_refused(tmp_path, rows, said):
    with pytest.raises(TraceError, match=said):
        read_trace(write(tmp_path, lines(*rows)), "bailian")


def test_sessions_of_burstgpt_think_between_answer_and_request(tmp_path):
    rows = (
        "5,s,12,m,472,18,490,c\n6,,,m,9,1,10,a\n45,s,9,m,1087,230,1317,c\n50,s,,m,100,1,101,c\n58,s,1,m,300,1,301,c\n"
    )
    columns = read_trace(write(tmp_path, BURST + rows), "burstgpt")
    assert followed(columns) == [[], [0], [1], [], [2]]
    assert seconds(columns.arrival_ns) == [0, 0, 0, 1, 53]  # it is not known how long the fourth's one before took
    assert seconds(columns.think_ns) == [0, 28, 0, 0, 0]
    assert columns.contents.block_keys(1, 10)[:49] == columns.contents.block_keys(0, 10)


def test_sessions_of_aiperf_wait_their_delay(tmp_path):
    rows = [
        length(10, 4, timestamp=1000, session_id="a"),
        length(7, 2, timestamp=1500),
        length(20, 1, delay=250, session_id="a"),
        {"input_tokens": 30, "delay_ms": 1, "created_time": 9000, "session_id": "a"},
    ]
    columns = read_trace(write(tmp_path, lines(*rows)), "aiperf")
    assert (seconds(columns.arrival_ns), seconds(columns.think_ns)) == ([0, 0, 0.5, 8], [0, 0.25, 0, 0.001])
    assert (followed(columns), columns.num_output_tokens.tolist()) == ([[], [0], [], [1]], [4, 1, 2, 1])
    new = read_trace(write(tmp_path, lines(*rows)), "aiperf", history="new")
    assert new.num_prompt_tokens.tolist() == [10, 34, 7, 65]


def test_requests_of_dynamo_wait_for_others(tmp_path):
    rows = [
        length(10, 1, request_id="b", wait_for=["a"], tool_wait_ms=5, delay=1),
        length(10, 1, request_id="a", timestamp=0),
        length(10, 1, request_id="c", wait_for=["a"]),
        length(10, 1, request_id="d", wait_for=["b", "c"]),
    ]
    columns = read_trace(write(tmp_path, lines(*rows)), "aiperf")
    assert (followed(columns), seconds(columns.think_ns)) == ([[], [0], [0], [1, 2]], [0, 0.006, 0, 0])
    rows[1]["wait_for"] = ["d"]
    with pytest.raises(TraceError, match="which follows it in turn, directly or by others"):
        read_trace(write(tmp_path, lines(*rows)), "aiperf")
    rows[1]["wait_for"] = ["e\x1b"]
    with pytest.raises(TraceError, match=r"line 2, key wait_for: got 'e\\\\x1b'; allowed is request_ids of this file"):
        read_trace(write(tmp_path, lines(*rows)), "aiperf")


@pytest.mark.parametrize(
    ("rows", "told", "said"),
    [
        (
            [length(5, 1, session_id="a"), length(5, 1, session_id="a")],
            {},
            "give history=whole where it has, history=new",
        ),
        ([length(5, 1, hash_ids=[1])], {}, "give block_tokens=512"),
        ([length(5, 1, hash_ids=[1]), length(5, 1)], {"block_tokens": 8}, "unknown key 'hash_ids'"),
        ([length(5, 1, timestamp=1), length(5, 1)], {}, "unknown key 'timestamp'"),
        ([length(5, 1, request_id="a"), length(5, 1, request_id="a")], {}, "line 2, key request_id: got 'a'; allowed"),
        ([{"schema": "dynamo.agentic_mooncake", "version": 2}], {}, "play_id and dependencies are not read"),
        ([length(5, 1, delay=-1)], {}, "key delay: got -1; allowed is a number of milliseconds"),
        ([{"text_input": "x", "input_length": None}], {}, "key input_length: got None"),
    ],
)
def test_what_rows_of_aiperf_leave_open_or_cannot_be_is_said(tmp_path, rows, told, said):
    with pytest.raises(TraceError, match=said):
        read_trace(write(tmp_path, lines(*rows)), "aiperf", **told)


SYSTEM = {"role": "system", "content": "x" * 40}


def talk(*texts):
    said = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return {"messages": [SYSTEM, *said]}


def test_conversations_have_their_history_and_share_what_the_system_says(tmp_path):
    rows = [talk("a" * 8, "b" * 4, "c" * 5), {"messages": []}, talk("d" * 12, "e" * 8)]
    path = write(tmp_path, json.dumps(rows))
    columns = read_trace(path, "conversations")
    assert columns.num_prompt_tokens.tolist() == [12, 15, 13]
    assert (columns.num_output_tokens.tolist(), followed(columns)) == ([1, 0, 2], [[], [0], []])
    assert columns.contents.block_keys(0, 5)[:2] == columns.contents.block_keys(2, 5)[:2]
    assert columns.notes == (
        "tokens of texts are their characters ÷ 4, rounded up: no tokenizer was named",
        "conversations that say nothing, left out: 1",
    )
    trace = Trace(path=str(path), arrivals=ConstantRate(rate_per_s=1))
    workload = trace.workload(np.random.default_rng(0))
    assert workload.sessions == (
        Session(0, (Request(12, 1), Request(2, 0))),
        Session(1_000_000_000, (Request(13, 2),)),
    )
    assert (workload.notes, trace.named("trace")) == (columns.notes, "trace.csv")


def test_sharegpt_says_the_same_in_other_words(tmp_path):
    said = [{"from": "human", "value": "a" * 8}, {"from": "gpt", "value": "b" * 4}]
    columns = read_trace(write(tmp_path, json.dumps([{"conversations": said}])), "conversations")
    assert (columns.num_prompt_tokens.tolist(), columns.num_output_tokens.tolist()) == ([2], [1])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([{"messages": "x"}], "conversation 0, key messages: got 'x'; allowed is a list of messages"),
        ([{"messages": [{"role": "user"}]}], r"messages\[0\]: unknown key 'content'"),
        ([{"messages": [{"role": "user", "content": 5}]}], r"key content: got 5; allowed is text, or a list of parts"),
        ([{"messages": []}], "has no conversation that says anything"),
        ([5], "conversation 0: got 5; allowed is a JSON object"),
    ],
)
def test_what_conversations_cannot_be_is_refused(tmp_path, document, said):
    with pytest.raises(TraceError, match=said):
        read_trace(write(tmp_path, json.dumps(document)), "conversations")


def test_tokens_are_counted_by_a_file_that_is_named(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    said = [{"role": "user", "content": "a b a"}, {"role": "assistant", "content": "b b"}]
    path = write(tmp_path, json.dumps([{"messages": said}]))
    for named in (tmp_path, tmp_path / "tokenizer.json"):
        columns = read_trace(path, "conversations", tokenizer=str(named))
        assert (columns.num_prompt_tokens[0], columns.num_output_tokens[0], columns.notes) == (3, 2, ())
    with pytest.raises(TraceMissing, match=r"tokenizer .* does not exist"):
        read_trace(path, "conversations", tokenizer=str(tmp_path / "none"))
    with pytest.raises(TraceError, match=r"is no tokenizer\.json"):
        read_trace(path, "conversations", tokenizer=str(path))


def test_a_file_without_times_needs_arrivals_and_one_with_them_keeps_them(tmp_path):
    path = write(tmp_path, EXAMPLES["conversations"])
    with pytest.raises(ValueError, match="of the format conversations, has no times: give its sessions arrivals"):
        Trace(path=str(path)).columns(np.random.default_rng(0))
    path = write(tmp_path, PLAIN_HEADER + "1,2,3\n4,2,3\n")
    timed = Trace(path=str(path), arrivals=ConstantRate(rate_per_s=1)).columns(np.random.default_rng(0))
    assert seconds(timed.arrival_ns) == [0, 3]
    same = Trace(path=str(path), format="plain", arrivals=ConstantRate(rate_per_s=1))
    assert seconds(same.columns(np.random.default_rng(0)).arrival_ns) == [0, 3]
    with pytest.raises(TraceMissing, match=r"no trace is named.*scenario\.path"):
        Trace().locate()
    with pytest.raises(ValueError, match="tokenizer: null for the format plain"):
        Trace(path=str(path), tokenizer="x").columns(np.random.default_rng(0))

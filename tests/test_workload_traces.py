"""Traces: what is read, in which order, and what each bad file is told."""

import gzip
import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.workload.trace import TraceError, read_trace
from kvbench.workload.trace_formats import FORMATS
from tests.support.traces import AZURE_HEADER, LENGTHS_HEADER, PLAIN_HEADER, row, write

CHECKOUT = Path(__file__).parents[1]


def trace_file(name):
    folders = [os.environ.get("KVBENCH_TRACES"), CHECKOUT.parent / "shared" / "traces"]
    for folder in filter(None, folders):
        if (Path(folder) / name).exists():
            return Path(folder) / name
    pytest.skip(f"no {name} in KVBENCH_TRACES or ../shared/traces")


def lists(columns):
    return [
        array.tolist()
        for array in (columns.arrival_ns, columns.num_prompt_tokens, columns.num_output_tokens)
        if array is not None
    ]


# The published files, where they are at hand. First rows and totals were taken from them by other means.


def test_the_published_azure_trace():
    columns = read_trace(trace_file("AzureLLMInferenceTrace_conv.csv"), "azure")
    assert columns.num_requests == 19_366
    assert [values[:3] for values in lists(columns)] == [
        [0, 4_314_579_000, 4_541_877_000],
        [374, 396, 879],
        [44, 109, 55],
    ]
    # From 18:15:46.6805900 to 19:14:08.4025270.
    assert columns.arrival_ns[-1] == 3_501_721_937_000
    assert (columns.num_prompt_tokens.max(), columns.num_output_tokens.max()) == (14_050, 1_000)


def test_the_published_mooncake_trace():
    columns = read_trace(trace_file("mooncake_synthetic.jsonl"), "mooncake")
    assert columns.num_requests == 3_993
    assert [values[:2] for values in lists(columns)] == [[0, 0], [40_160, 36_640], [6, 4]]
    assert columns.arrival_ns[-1] == 1_022_025_000_000
    assert columns.block_tokens == 512
    assert columns.block_ids[: columns.block_offsets[1]].tolist() == list(range(79))
    assert columns.block_ids.max() == 43_923


def test_the_published_lengths():
    columns = read_trace(trace_file("sharegpt_lengths.csv"), "sharegpt")
    assert columns.num_requests == 10_000
    assert columns.arrival_ns is None
    short = columns.num_prompt_tokens + columns.num_output_tokens <= 2048
    assert round(columns.num_prompt_tokens[short].mean()) == 154
    assert round(columns.num_output_tokens[short].mean()) == 321


# Small files, by hand.


def test_azure_by_hand(tmp_path):
    text = AZURE_HEADER.replace("\n", "\r\n") + "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:47,2,0"
    assert lists(read_trace(write(tmp_path, text), "azure")) == [[0, 319_410_000], [374, 2], [44, 0]]


def test_azure_with_a_zone_and_without_fractions(tmp_path):
    text = AZURE_HEADER + "2024-05-10 00:00:00+00:00,5,1\n2024-05-10 00:00:00.009930+00:00,6,2\n"
    assert lists(read_trace(write(tmp_path, text), "azure")) == [[0, 9_930_000], [5, 6], [1, 2]]


def test_plain_ignores_other_columns_blank_lines_and_a_byte_order_mark(tmp_path):
    text = "\ufeffnum_decode_tokens,id,arrived_at,num_prefill_tokens\n3,x,1.5,10\n\n0,y,2.000000001,20\n"
    assert lists(read_trace(write(tmp_path, text), "plain")) == [[0, 500_000_001], [10, 20], [3, 0]]


def test_seconds_since_1970_keep_their_nanoseconds(tmp_path):
    text = PLAIN_HEADER + "1700000000.000000001,1,1\n1700000000.000000002,1,1\n17e8,1,1\n"
    assert lists(read_trace(write(tmp_path, text), "plain"))[0] == [0, 1, 2]


def test_quoted_fields_over_several_lines(tmp_path):
    text = 'note,num_prefill_tokens,num_decode_tokens\n"a\nb",4,5\n"c, d",6,7\n'
    assert lists(read_trace(write(tmp_path, text), "sharegpt")) == [[4, 6], [5, 7]]


def test_mooncake_by_hand(tmp_path):
    text = "\n".join([row(40, 513, 7, [9, 8]), "", row(27.5, 512, 0, [3]), row(40, 1, 2, [2**40])])
    columns = read_trace(write(tmp_path, text), "mooncake", time_unit="ms")
    assert lists(columns) == [[0, 12_500_000, 12_500_000], [512, 513, 1], [0, 7, 2]]
    assert columns.block_ids.tolist() == [3, 9, 8, 2**40]
    assert columns.block_offsets.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_gzip_is_known_by_its_content(tmp_path, name):
    text = gzip.compress((PLAIN_HEADER + "1,2,3\n").encode())
    assert lists(read_trace(write(tmp_path, text, name), "plain")) == [[0], [2], [3]]


# Models.

entries = st.lists(
    st.tuples(st.integers(0, 10**12), st.integers(1, 5000), st.integers(0, 2**31 - 1)), min_size=1, max_size=40
)


@given(rows=entries, chunk=st.integers(1, 5))
def test_reading_is_a_stable_sort(tmp_path_factory, rows, chunk):
    # Microseconds, of few values: so that some are equal.
    rows = [(time % 50, prompt, output) for time, prompt, output in rows]
    text = PLAIN_HEADER + "".join(f"{time / 1e6:.6f},{prompt},{output}\n" for time, prompt, output in rows)
    path = write(tmp_path_factory.mktemp("traces"), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("kvbench.workload.trace_file"), "CHUNK_ROWS", chunk)
        columns = read_trace(path, "plain")
    wanted = sorted(rows, key=lambda entry: entry[0])
    first = wanted[0][0]
    assert lists(columns) == [
        [(time - first) * 1000 for time, _, _ in wanted],
        [prompt for _, prompt, _ in wanted],
        [output for _, _, output in wanted],
    ]


@given(rows=entries, chunk=st.integers(1, 5))
def test_blocks_move_with_their_requests(tmp_path_factory, rows, chunk):
    rows = [
        (time % 5, prompt, output, [output + block for block in range(-(-prompt // 512))])
        for time, prompt, output in rows
    ]
    path = write(tmp_path_factory.mktemp("traces"), "\n".join(row(*entry) for entry in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("kvbench.workload.trace_mooncake"), "CHUNK_ROWS", chunk)
        columns = read_trace(path, "mooncake", block_tokens=512, time_unit="ms")
    wanted = sorted(rows, key=lambda entry: entry[0])
    got = np.split(columns.block_ids, columns.block_offsets[1:-1])
    assert [ids.tolist() for ids in got] == [ids for *_, ids in wanted]
    assert columns.num_output_tokens.tolist() == [output for _, _, output, _ in wanted]


@given(ticks=st.lists(st.integers(0, 72_580_000_000_000_000), min_size=1, max_size=20))
def test_timestamps_keep_their_seventh_digit(tmp_path_factory, ticks):
    # A tick is 100 ns.
    moments = [str(np.datetime64(tick // 10**7, "s")).replace("T", " ") + f".{tick % 10**7:07d}" for tick in ticks]
    text = AZURE_HEADER + "".join(f"{moment},1,1\n" for moment in moments)
    columns = read_trace(write(tmp_path_factory.mktemp("traces"), text), "azure")
    assert columns.arrival_ns.tolist() == [(tick - min(ticks)) * 100 for tick in sorted(ticks)]


# Bad files. Each message names the file, the line, what was got and what is allowed.

MOMENT = "2023-11-16 18:15:46.6805900"
GOOD = row(1, 5, 1, [1])
PACKED = gzip.compress((LENGTHS_HEADER + "5,1\n" * 9).encode(), mtime=0)
WHOLE = "allowed is a whole number from"
BAD = [
    ("azure", "", "trace.csv is empty; allowed is a file with rows"),
    ("azure", AZURE_HEADER, "trace.csv has a header and no rows"),
    (
        "azure",
        "TIMESTAMP,ContextToken,GeneratedTokens\n",
        "line 1: unknown column 'ContextTokens'. Did you mean 'ContextToken'",
    ),
    ("azure", "\n\nTIMESTAMP\n", "line 3: unknown column 'ContextTokens'.*there are: TIMESTAMP"),
    ("azure", "TIMESTAMP,TIMESTAMP,ContextTokens,GeneratedTokens\n", "got column TIMESTAMP 2 times; allowed is once"),
    ("azure", AZURE_HEADER + f"{MOMENT},5,1\n{MOMENT},5\n", "line 3: got 2 fields; allowed are 3"),
    ("azure", AZURE_HEADER + f"{MOMENT},5,1,9\n", "line 2: got 4 fields; allowed are 3"),
    (
        "azure",
        AZURE_HEADER + "yesterday,5,1\n",
        "line 2, column TIMESTAMP: got 'yesterday'; allowed is a UTC time from",
    ),
    ("azure", AZURE_HEADER + f"{MOMENT},5,1\n2023-02-30 00:00:00,5,1\n", "line 3, column TIMESTAMP: got '2023-02-30"),
    ("azure", AZURE_HEADER + "2023-11-16 25:00:00,5,1\n", "line 2, column TIMESTAMP"),
    ("azure", AZURE_HEADER + "1677-01-01 00:00:00,5,1\n", "line 2, column TIMESTAMP.*from 1970 to 2199"),
    (
        "azure",
        AZURE_HEADER + "2023-11-16 18:15:46+02:00,5,1\n",
        "line 2, column TIMESTAMP: got .*allowed is a UTC time",
    ),
    ("azure", AZURE_HEADER + "NaT,5,1\n", "line 2, column TIMESTAMP: got 'NaT'"),
    ("azure", AZURE_HEADER + f"{MOMENT},0,1\n", f"line 2, column ContextTokens: got '0'; {WHOLE} 1 to 2147483647"),
    ("azure", AZURE_HEADER + f"{MOMENT},5,-4\n", f"line 2, column GeneratedTokens: got '-4'; {WHOLE} 0 to 2147483647"),
    ("azure", AZURE_HEADER + f"{MOMENT},,1\n", "column ContextTokens: got ''"),
    ("azure", AZURE_HEADER + f"{MOMENT},1.5,1\n", "column ContextTokens: got '1.5'"),
    ("azure", AZURE_HEADER + f"{MOMENT},1_0,1\n", "column ContextTokens: got '1_0'"),
    ("azure", AZURE_HEADER + f"{MOMENT},٣,1\n", "column ContextTokens: got '٣'"),
    ("azure", AZURE_HEADER + f"{MOMENT},{2**31},1\n", "column ContextTokens: got '2147483648'"),
    ("azure", AZURE_HEADER + f"{MOMENT},{'9' * 5000},1\n", r"column ContextTokens: got '9{59}\.\.\.; allowed"),
    ("azure", AZURE_HEADER + f'{MOMENT},"5,1\n', "line 2: got a row that is not CSV: unexpected end of data"),
    ("azure", AZURE_HEADER + f'{MOMENT},5,"1"x\n', "line 2: got a row that is not CSV"),
    ("plain", PLAIN_HEADER + "nan,5,1\n", "line 2, column arrived_at: got 'nan'; allowed is seconds from 0 to"),
    ("plain", PLAIN_HEADER + "1,5,1\ninf,5,1\n", "line 3, column arrived_at: got 'inf'"),
    ("plain", PLAIN_HEADER + "-0.5,5,1\n", "line 2, column arrived_at: got '-0.5'"),
    ("plain", PLAIN_HEADER + "9e9,5,1\n1e99,5,1\n", "line 3, column arrived_at: got '1e99'"),
    ("plain", PLAIN_HEADER + "1,nan,1\n", "column num_prefill_tokens: got 'nan'"),
    ("plain", PLAIN_HEADER + "1,5,inf\n", "column num_decode_tokens: got 'inf'"),
    ("plain", PLAIN_HEADER + '"1\n",5,1\n', r"line 2, column arrived_at: got '1\\n'"),
    ("plain", LENGTHS_HEADER + "5,1\n", "line 1: unknown column 'arrived_at'"),
    ("sharegpt", LENGTHS_HEADER + "\n\n0,1\n", "line 4, column num_prefill_tokens: got '0'"),
    ("sharegpt", "3742,284\n18,243\n", "line 1: unknown column 'num_prefill_tokens'.*there are: 284, 3742"),
    ("sharegpt", b"PAR1\x00\x15\x04", "trace.csv is a binary file, or UTF-16; allowed is UTF-8 text"),
    ("sharegpt", (LENGTHS_HEADER + "5,1\n").encode("utf-16"), "is a binary file, or UTF-16"),
    ("sharegpt", LENGTHS_HEADER.encode() + b"5,1\n5,\xe9\n", "line 3: got byte 0xe9; allowed is UTF-8 text"),
    ("sharegpt", gzip.compress((LENGTHS_HEADER + "5,1\n").encode())[:-9], "is a gzip file that is cut short"),
    ("sharegpt", gzip.compress((LENGTHS_HEADER + "5,1\n" * 9).encode())[:-8] + bytes(8), "is a damaged gzip file"),
    ("sharegpt", PACKED[:10] + b"\xff" + PACKED[11:], "is a damaged gzip file"),
    ("sharegpt", f'note,{LENGTHS_HEADER}"a\nb\nc",5,1\n\nd,5,x\n', "line 6, column num_decode_tokens: got 'x'"),
    ("sharegpt", gzip.compress(b""), "trace.csv is empty"),
    ("sharegpt", gzip.compress(LENGTHS_HEADER.encode() + b"5,\xff\n"), "line 2: got byte 0xff"),
    ("mooncake", "", "trace.csv is empty"),
    ("mooncake", "\n \n", "trace.csv has blank lines only"),
    ("mooncake", f"{GOOD}\n{GOOD[:-9]}", "line 2: got a line that is not JSON"),
    ("mooncake", GOOD.replace("{", '{"timestamp": 5, ', 1), "line 1.*not JSON: 'timestamp' stands twice"),
    ("mooncake", f'{GOOD[:-1]}, "x": {{"a": 1, "a": 2}}}}', "line 1.*not JSON: 'a' stands twice"),
    ("mooncake", f'{GOOD[:-1]}, "x": {"9" * 5_000}}}', "line 1: got a line that is not JSON"),
    ("mooncake", f"{GOOD}\n[1, 2]", "line 2: got a list; allowed is a JSON object"),
    ("mooncake", f"\n{GOOD}\n7", "line 3: got a int; allowed is a JSON object"),
    ("mooncake", "[" * 100_000, "line 1: got a line that is not JSON"),
    (
        "mooncake",
        '{"timestamp": 1, "input_lenght": 5}',
        "line 1: unknown column 'input_length'. Did you mean 'input_lenght'",
    ),
    ("mooncake", row(float("nan"), 5, 1, [1]), "line 1: got a line that is not JSON: NaN is no number"),
    ("mooncake", row(float("inf"), 5, 1, [1]), "line 1: got a line that is not JSON: Infinity is no number"),
    (
        "mooncake",
        GOOD.replace("1,", "1e999,", 1),
        "line 1, column timestamp: got inf; allowed is a number of milliseconds",
    ),
    ("mooncake", row(-1, 5, 1, [1]), "column timestamp: got -1"),
    ("mooncake", row("1", 5, 1, [1]), "column timestamp: got '1'"),
    ("mooncake", row(True, 5, 1, [1]), "column timestamp: got True"),
    ("mooncake", row(1, 5.0, 1, [1]), "column input_length: got 5.0; allowed is an integer from 1 to 2147483647"),
    ("mooncake", f"{GOOD}\n{row(1, 0, 1, [])}", "line 2, column input_length: got 0"),
    ("mooncake", row(1, 5, -1, [1]), "column output_length: got -1; allowed is an integer from 0"),
    ("mooncake", row(1, 10**30, 1, [1]), "column input_length: got 1000000000"),
    ("mooncake", row(1, 5, None, [1]), "column output_length: got None"),
    ("mooncake", row(1, 5, 1, "1"), "column hash_ids: got '1'; allowed is a list of block ids"),
    (
        "mooncake",
        f"{GOOD}\n{row(1, 513, 1, [1])}",
        "line 2, column hash_ids: got '1 ids'; allowed is one id for each block of 512 tokens: 2 for 513",
    ),
    ("mooncake", f"{GOOD}\n{row(1, 513, 1, [1, 'a'])}", "line 2, column hash_ids: got 'a'; allowed is an integer"),
    ("mooncake", row(1, 5, 1, [-1]), "column hash_ids: got -1"),
    ("mooncake", row(1, 5, 1, [2**63]), "column hash_ids: got 9223372036854775808"),
]


@pytest.mark.parametrize(("format_name", "content", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_told_what_is_wrong(tmp_path, format_name, content, message):
    path = write(tmp_path, content)
    with pytest.raises(TraceError, match=f"(?s){message}") as caught:
        read_trace(path, format_name)
    assert str(caught.value).startswith(str(path))
    assert isinstance(caught.value, ValueError)


def test_a_bad_row_far_down_is_found(tmp_path):
    text = PLAIN_HEADER + "".join(f"{second},1,1\n" for second in range(10_000)) + "10000,1,x\n"
    with pytest.raises(TraceError, match="line 10002, column num_decode_tokens: got 'x'"):
        read_trace(write(tmp_path, text), "plain")


def test_a_folder_is_no_trace(tmp_path):
    with pytest.raises(TraceError, match="cannot be read: Is a directory"):
        read_trace(tmp_path, "plain")


def test_an_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"unknown trace format 'mooncakes'\. Did you mean 'mooncake'"):
        read_trace(tmp_path, "mooncakes")


def test_a_pipe_and_a_device_are_no_traces(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (tmp_path / "pipe", "it is a pipe"),
        (Path("/dev/zero"), "device"),
    ):
        for name in FORMATS:
            with pytest.raises(TraceError, match=what):
                read_trace(path, name)

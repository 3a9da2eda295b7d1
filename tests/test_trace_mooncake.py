"""What a Mooncake file leaves open: how many tokens a block has, and the unit of its times."""

import pytest

from kvbench.workload.trace import TraceError, read_trace
from tests.support.traces import row, write


def second(number, tokens, num_ids):
    return row(number, tokens, 1, list(range(num_ids)))


SHORT = [second(0, 300, 1), second(1000, 20, 1)]
"""Rows that blocks of 512 tokens and up have one id for."""


@pytest.mark.parametrize(
    ("rows", "told", "words"),
    [
        (SHORT, {}, "prompts of at most 300 tokens fit blocks of 512 or 1024 or 2048 or more; give block_tokens=512"),
        ([second(0, 5, 1)], {}, "fit blocks of 8 or 16 or 32 or more"),
        (
            [second(0, 300, 19)],
            {},
            "got '19 ids'; .*512 tokens: 1 for 300 tokens; all rows fit blocks of 16: ",
        ),
        ([*SHORT, second(2000, 700, 3)], {}, "line 3.*got '3 ids'; allowed is one id for each block of 512 tokens: 2"),
        ([second(0, 300, 19)], {"block_tokens": 8}, "one id for each block of 8 tokens: 38"),
        ([second(at, 600, 2) for at in (0, 1, 2)], {}, "3 requests in 0.002 s, more than 100 a second.*time_unit=s"),
        ([second(at, 600, 2) for at in (3, 3, 3, 32)], {}, "give time_unit=ms where they are, time_unit=s"),
        ([second(0, 600, 2), second(10**10, 600, 2)], {"time_unit": "s"}, "more than 9000000000 s with time_unit=s"),
    ],
)
def test_what_a_mooncake_file_leaves_open_is_asked_for(tmp_path, rows, told, words):
    with pytest.raises(TraceError, match=words):
        read_trace(write(tmp_path, "\n".join(rows)), "mooncake", **told)


def test_what_a_mooncake_file_leaves_open_can_be_said(tmp_path):
    columns = read_trace(write(tmp_path, "\n".join(SHORT)), "mooncake", block_tokens=512)
    assert (columns.block_tokens, columns.arrival_ns.tolist()) == (512, [0, 10**9])
    path = write(tmp_path, "\n".join([second(0, 300, 19), second(1.5, 20, 2)]))
    columns = read_trace(path, "mooncake", block_tokens=16, time_unit="s")
    assert (columns.block_tokens, columns.arrival_ns.tolist()) == (16, [0, 1_500_000_000])
    same = read_trace(write(tmp_path, "\n".join([second(7, 600, 2)] * 9)), "mooncake")  # at once, in any unit
    assert (same.block_tokens, same.arrival_ns.tolist()) == (512, [0] * 9)


def test_ids_of_blocks_are_what_64_bits_hold(tmp_path):
    ids = [0, 2**63 - 1]
    columns = read_trace(write(tmp_path, row(0, 600, 1, ids)), "mooncake", block_tokens=512)
    assert columns.block_ids.tolist() == ids
    for number in (2**63, -1):
        with pytest.raises(TraceError, match=f"hash_ids: got {number}; allowed is an integer from 0 to {2**63 - 1}$"):
            read_trace(write(tmp_path, row(0, 600, 1, [0, number])), "mooncake", block_tokens=512)

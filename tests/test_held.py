"""What strategies hold of one sequence, by hand: 2 layers of 2 heads of 64 in 16 bits, 1,024 bytes a token."""

import pytest

import kvbench as kv
from kvbench.decide.held import Held, held_by
from kvbench.model.geometry import KVGeometry
from kvbench.strategy.recompute import Recompute

SMALL = KVGeometry.uniform(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64, dtype="bfloat16")
TOKEN = 1_024
INT8 = 679_936
"""Of a prompt of 999 tokens 27 groups of 32 leave a ring of 160 for 7 chunks of 128: 4 × (2 × 896 × 64 of codes + 4
bytes for each of 896 ÷ 32 × 64 groups of K and 896 × 2 of V)."""


@pytest.mark.parametrize(
    ("strategy", "num_tokens", "held"),
    [
        (kv.Static(), 1_000, 4_096 * TOKEN),
        (kv.Static(max_seq_len=1_500), 1_000, 1_500 * TOKEN),
        (kv.Dynamic(), 2_000, 2_998 * TOKEN),
        (kv.Dynamic(), 500, 512 * TOKEN),
        (kv.Paged(), 1_000, 1_008 * TOKEN),
        (kv.Sinks(), 4_000, 1_024 * TOKEN),
        (kv.Quantized(bits=8), 1_000, INT8),
    ],
)
def test_bytes_of_a_sequence(strategy, num_tokens, held):
    assert held_by(strategy, SMALL, num_tokens, longest=4_096).sequence_bytes == held


def test_an_answer_grows_step_by_step():
    assert (
        held_by(kv.Dynamic(), SMALL, 2_000, 4_096, num_output_tokens=1_500).sequence_bytes == 2_592 * TOKEN
    )  # 512 × 1.5⁴


def test_what_is_not_served_or_not_held_is_none():
    assert held_by(kv.Paged(), SMALL, 5_000, longest=4_096) is None
    assert held_by(kv.Static(max_seq_len=100), SMALL, 101, longest=4_096) is None


def test_requests_leave_room_for_reading():
    assert Held(sequence_bytes=100, reading_bytes=50).requests(449) == 3
    assert Held(sequence_bytes=100, reading_bytes=50).requests(40) == 0
    assert held_by(Recompute(), SMALL, 1_000).requests(10**9) is None

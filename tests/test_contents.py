"""Contents: a tree of stretches, and the names of blocks in it."""

import numpy as np
import pytest

from kvbench.workload.contents import NONE, Contents


def _contents(parents: list[int], ends: list[int], prompts: list[int], answers: list[int]) -> Contents:
    columns = {"parents": parents, "ends": ends, "prompts": prompts, "answers": answers}
    return Contents(**{name: np.array(values, dtype=np.int64) for name, values in columns.items()})


def test_requests_share_the_blocks_of_what_they_share() -> None:
    """Two prompts of 40 and 50 tokens share 24, and each has an answer of 10: blocks of 16 tokens, by hand."""
    contents = _contents([NONE, 0, 0, 1, 2], [24, 40, 50, 50, 60], [1, 2], [3, 4])
    assert contents.block_keys(0, 16) == [(0, 0), (1, 1), (3, 2)]
    assert contents.block_keys(1, 16) == [(0, 0), (2, 1), (2, 2)]
    assert contents.block_keys(0, 8) == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (3, 5)]


def test_a_stretch_shorter_than_a_block_names_none() -> None:
    """Stretches of 5 tokens: a block of 16 is named by the one that completes it."""
    contents = _contents([NONE, 0, 1, 2], [5, 10, 15, 20], [3], [3])
    assert contents.block_keys(0, 16) == [(3, 0)]


def test_texts_of_which_no_two_begin_alike() -> None:
    """Three requests, one of them without an answer: no name is there twice, and each text has all of its blocks."""
    contents = Contents.unshared(np.array([40, 20, 33]), np.array([10, 0, 31]))
    keys = [contents.block_keys(number, 16) for number in range(3)]
    assert [len(each) for each in keys] == [3, 1, 4]
    assert len({key for each in keys for key in each}) == 8
    assert contents.answers.tolist() == [3, 1, 4]


@pytest.mark.parametrize(
    ("parents", "ends", "said"),
    [([1, NONE], [5, 3], "comes before its parent 1"), ([NONE, 0], [5, 5], "ends at 5 tokens")],
)
def test_what_is_no_tree_is_refused(parents: list[int], ends: list[int], said: str) -> None:
    """A parent that comes later, a stretch without tokens."""
    with pytest.raises(ValueError, match=said):
        _contents(parents, ends, [0], [0])

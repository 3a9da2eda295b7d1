"""Ids of blocks become contents: what any two texts share is what their ids, and who goes on from whom, say."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.workload.contents import NONE, Contents
from kvbench.workload.interning import Interning, fits


def interned(block_tokens, requests, histories=None):
    """Contents of (ids, prompt tokens, output tokens)."""
    texts = Interning()
    ids, prompts, outputs = zip(*requests, strict=True)
    texts.add([np.array(of, np.int64) for of in ids], block_tokens, prompts, outputs, histories)
    return texts.contents()


def shared_tokens(contents: Contents, one: int, other: int) -> int:
    """Tokens that two texts share, by their paths."""
    common = 0
    paths = [contents.path(int(contents.answers[request])) for request in (one, other)]
    for mine, theirs in zip(*paths, strict=False):
        if mine != theirs:
            break
        common = int(contents.ends[mine])
    return common


def told(block_tokens, requests, histories):
    """The same by brute force: what every two share by their ids, or since one goes on from the other; and then what
    they share through a third one."""
    num = len(requests)
    shared = np.zeros((num, num), np.int64)
    for one, (ids, prompt, output) in enumerate(requests):
        for other, (their_ids, their_prompt, _) in enumerate(requests):
            equal = 0
            while equal < min(len(ids), len(their_ids)) and ids[equal] == their_ids[equal]:
                equal += 1
            shared[one, other] = min(equal * block_tokens, prompt, their_prompt)
        shared[one, one] = prompt + output
    heirs = {}
    for request, before in enumerate(histories):
        if before == NONE:
            continue
        ids, prompt, _ = requests[request]
        their_ids, their_prompt, their_output = requests[before]
        both, full = their_prompt + their_output, their_prompt // block_tokens
        if prompt <= both or ids[:full] != their_ids[:full]:
            continue
        heir = heirs.setdefault(before, request)
        if ids[: both // block_tokens] == requests[heir][0][: both // block_tokens]:
            shared[request, before] = shared[before, request] = max(both, shared[request, before])
    for third in range(num):
        shared = np.maximum(shared, np.minimum(shared[:, third, None], shared[None, third, :]))
    return shared


@st.composite
def workloads(draw):
    """Requests whose ids often go on from others', with or without an id of a last block filled in part."""
    block_tokens = draw(st.integers(1, 4))
    partial = draw(st.booleans())
    requests, histories = [], []
    for number in range(draw(st.integers(1, 7))):
        before = draw(st.integers(-1, number - 1))
        kept = list(requests[before][0]) if before != NONE else []
        kept = kept[: draw(st.integers(0, len(kept)))] if draw(st.booleans()) else kept
        ids = kept + draw(st.lists(st.integers(0, 2), max_size=3))
        spare = draw(st.integers(0, block_tokens - 1))
        prompt = len(ids) * block_tokens + (-spare if partial else spare)
        if prompt < 1:
            ids, prompt = ([0] if partial else []), 1
            ids = ids if partial or block_tokens > 1 else [0]
        requests.append((ids, prompt, draw(st.integers(0, 5))))
        histories.append(before if draw(st.booleans()) else NONE)
    return block_tokens, requests, histories


@given(workloads())
@settings(max_examples=400, deadline=None)
def test_two_texts_share_what_their_ids_and_histories_say(workload):
    block_tokens, requests, histories = workload
    assert all(fits(len(ids), prompt, block_tokens) for ids, prompt, _ in requests)
    contents = interned(block_tokens, requests, histories)
    assert contents.ends[contents.prompts].tolist() == [prompt for _, prompt, _ in requests]
    assert contents.ends[contents.answers].tolist() == [prompt + output for _, prompt, output in requests]
    shared = told(block_tokens, requests, histories)
    for one in range(len(requests)):
        assert [shared_tokens(contents, one, other) for other in range(len(requests))] == shared[one].tolist()


@given(workloads())
@settings(max_examples=100, deadline=None)
def test_a_tree_is_split_where_texts_part_or_end_and_nowhere_else(workload):
    contents = interned(*workload)
    children = np.bincount(contents.parents[contents.parents != NONE], minlength=contents.ends.size)
    ending = np.isin(np.arange(contents.ends.size), [contents.prompts, contents.answers])
    assert (ending | (children > 1)).all()
    for prompt, answer in zip(contents.prompts, contents.answers, strict=True):
        assert prompt in contents.path(int(answer))


def test_a_later_turn_says_what_an_answer_was():
    """Blocks of 4: a prompt of 6 and an answer of 3; one of 12 goes on from both, one of 8 from no more than 4."""
    contents = interned(4, [([1], 6, 3), ([1, 2, 3], 12, 1), ([1, 5], 8, 0)], [NONE, 0, 0])
    assert contents.ends.tolist() == [4, 6, 8, 9, 12, 13]
    assert contents.path(int(contents.answers[1])) == [0, 1, 3, 4, 5]
    assert contents.path(int(contents.answers[0])) == [0, 1, 3]
    assert contents.path(int(contents.answers[2])) == [0, 2]


def test_equal_ids_of_two_scopes_are_not_the_same():
    texts = Interning()
    for _ in range(2):
        texts.add([np.array([1, 2])], 4, [8], [2])
    assert texts.contents().parents.tolist() == [NONE, 0, NONE, 2]
    assert texts.contents().answers.tolist() == [1, 3]

"""Workloads that recordings of engines are made of: what their prompts share, and that a recording gives them back."""

from itertools import pairwise

import pytest

from benchmarks.record_workload import Asked, Shape, drawn, interned, recorded

BLOCK = 4


def rows_of(asked):
    return [
        {
            "arrival_step": request.arrival_step,
            "prompt_tokens": len(request.prompt),
            "output_tokens": len(request.answer),
            "block_ids": ids,
        }
        for request, ids in zip(asked, interned(asked, BLOCK), strict=True)
    ]


def test_equal_ids_are_equal_prefixes():
    asked = [
        Asked(0, (1, 2, 3, 4, 5, 6, 7), (8, 9)),
        Asked(0, (1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3)),
        Asked(1, (5, 6, 7, 8), (1,)),
    ]
    assert interned(asked, BLOCK) == [[1, 2], [1, 2], [3]]


def test_a_recording_gives_its_workload_back():
    asked = drawn(Shape(requests=40, prompt_tokens=(2, 30), output_tokens=(1, 9), shared_tokens=(3, 12)))
    rows = rows_of(asked)
    assert rows_of(recorded(rows, BLOCK)) == rows


def test_prompts_share_repeat_and_go_on():
    shape = Shape(
        requests=80, prompt_tokens=(2, 30), output_tokens=(1, 9), shared_tokens=(8, 8), repeat=0.3, follow=0.3
    )
    asked = drawn(shape)
    prompts = [request.prompt for request in asked]
    assert len(set(prompts)) < len(prompts)
    whole = [request.prompt + request.answer for request in asked]
    assert any(prompt[: len(text)] == text for i, text in enumerate(whole) for prompt in prompts[i + 1 :])
    assert all(a.arrival_step <= b.arrival_step for a, b in pairwise(asked))
    assert drawn(shape) == asked


def test_no_prompt_and_answer_are_longer_than_allowed():
    shape = Shape(requests=300, prompt_tokens=(2, 20), output_tokens=(1, 40), repeat=0.5, follow=0.4, max_tokens=64)
    assert max(len(request.prompt) + len(request.answer) for request in drawn(shape)) <= 64


def test_bursts_and_whole_blocks():
    asked = drawn(Shape(requests=12, burst=3, every=5, multiple=BLOCK, share=0.5, repeat=0.5, follow=0))
    assert all(len(request.prompt) % BLOCK == 0 for request in asked)
    assert [len({request.arrival_step for request in asked[i : i + 3]}) for i in range(0, 12, 3)] == [1] * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"burst": 0}, "burst is at least 1, got 0"),
        ({"prompt_tokens": (1, 2040)}, r"up to 2,120 tokens, more than the 2,048 allowed"),
        ({"repeat": 0.6, "follow": 0.6}, "at most 1 together"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(ValueError, match=message):
        Shape(**given)

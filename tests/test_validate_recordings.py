"""Recordings of an engine's own scheduler: read, served again, and equal in every step, or the first that differs."""

import gzip
import json
from pathlib import Path

import pytest

from kvbench.api.validating import validate
from kvbench.calibration.validation.recordings import Step, recording_of
from kvbench.calibration.validation.replayed import by_fleet, first_difference, replayed
from kvbench.configuration.errors import UsageError
from tests.support.measurements import measurement

NUM_STEPS = {
    "block32": 901,
    "roomy": 819,
    "thrash": 1_842,
    "tight": 1_322,
    "hybrid_roomy": 652,
    "hybrid_tight": 1_087,
}


def document(**changed):
    """Two requests that begin alike, in a pool of 5 blocks of 4; and by hand what vLLM's rules make of them.

    The first has a prompt of 6 and 4 tokens of answer, the second the same first block and one of 5, and 3 tokens.
    Both fit while the first holds 2 blocks. In step 3 the first holds 9 tokens, in 3 blocks, and the second 7, in 2.
    """
    asked = [
        {"arrival_step": 1, "prompt_tokens": 6, "output_tokens": 4, "block_ids": [1, 2]},
        {"arrival_step": 2, "prompt_tokens": 5, "output_tokens": 3, "block_ids": [1, 3]},
    ]
    steps = [
        [[], [], 5],
        [[[0, 6]], [], 3],
        [[[0, 1], [1, 1]], [], 2],  # the second's first block is there; its last token is computed
        [[[0, 1], [1, 1]], [], 2],
        [[[0, 1], [1, 1]], [], 5],  # the first's third block, and both end: 3 and 2 are free, of which one is shared
    ]
    said = {
        "engine": "vllm",
        "version": "0.33.0",
        "num_blocks": 6,
        "block_size": 4,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 8,
        "max_model_len": 64,
        "window": 0,
        "prefix_caching": True,
        "queried_tokens": 11,
        "hit_tokens": 4,
        "requests": asked,
        "steps": steps,
    }
    return said | changed


def written(folder, said, name="recorded.json.gz"):
    path = folder / name
    data = json.dumps(said).encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    return path


@pytest.mark.parametrize("serve", [replayed, by_fleet])
def test_a_recording_by_hand_is_equal_in_every_step(serve):
    recording = recording_of(document())
    ours = serve(recording)
    assert first_difference(recording.steps, ours.steps) is None
    assert (ours.queried_tokens, ours.hit_tokens) == (11, 4)


@pytest.mark.parametrize("name", NUM_STEPS)
def test_a_schedulers_recorded_steps_are_equal_in_runner_and_fleet(name):
    found = validate(measurement(f"schedulers/vllm_{name}.json.gz"), fail_if="worst>0")
    assert found.failed == ()
    assert f"runner: equal, {NUM_STEPS[name]:,} steps" in found.text
    assert f"fleet: equal, {NUM_STEPS[name]:,} steps" in found.text


def test_a_schedulers_steps_are_equal_where_what_was_lost_is_one_with_the_rest_of_a_prompt():
    # Request 3 gave way within its prompt: in step 24 there is no block for both, and nothing of it is computed.
    found = validate(Path(__file__).parent / "recordings" / "vllm_resumed.json.gz", fail_if="worst>0")
    assert found.failed == ()
    assert found.text.count("equal, 245 steps") == 2


@pytest.mark.parametrize(("name", "num_steps"), [("some_windows", 409), ("narrow_windows", 155)])
def test_a_schedulers_steps_are_equal_where_it_keeps_some_of_windows(name, num_steps):
    # In the narrow one a block is evicted in a step in which, later, one without a name comes free.
    path = Path(__file__).parent / "recordings" / f"vllm_{name}.json.gz"
    found = validate(path, fail_if="worst>0")
    assert found.failed == ()
    assert found.text.count(f"equal, {num_steps} steps") == 2
    kept = json.loads(gzip.decompress(path.read_bytes())) | {"window_interval": 1}
    assert recording_of(kept).sizes["window_interval"] == 1
    assert first_difference(recording_of(kept).steps, replayed(recording_of(kept)).steps) is not None


@pytest.mark.parametrize("name", ["recorded.json.gz", "recorded.json"])
def test_the_first_step_that_differs_is_shown(tmp_path, name):
    said = document()
    said["steps"][2] = [[[0, 1], [1, 5]], [], 1]
    found = validate(written(tmp_path, said, name), fail_if="equal_steps.worst>0")
    assert (
        "runner: step 2 differs: scheduled [(0, 1), (1, 5)], ours [(0, 1), (1, 1)]; free blocks 1, ours 2" in found.text
    )
    assert len(found.failed) == 1
    assert found.rows["ours"].tolist()[0] == 2


def test_steps_that_are_lacking_differ():
    step = Step((), (), 1)
    assert str(first_difference((step,), ())) == "step 0 is missing here"
    assert str(first_difference((), (step,))) == "step 0 is none of the recorded"


BROKEN = {
    "block_size is a positive integer": {"block_size": 0},
    "prefix_caching is True or False": {"prefix_caching": 1},
    "requests is a list": {"requests": {}},
    "1 request or more": {"requests": []},
    "request 0: prompt_tokens": {"requests": [{"arrival_step": 0, "prompt_tokens": 0}]},
    "request 0: block_ids is a list of its 2 full blocks, got 1": {
        "requests": [{"arrival_step": 0, "prompt_tokens": 6, "output_tokens": 4, "block_ids": [1]}]
    },
    "block 2 stands behind two others": {
        "requests": [
            {"arrival_step": 0, "prompt_tokens": 8, "output_tokens": 1, "block_ids": [1, 2]},
            {"arrival_step": 0, "prompt_tokens": 8, "output_tokens": 1, "block_ids": [3, 2]},
        ]
    },
    "in order of arrival_step": {"requests": document()["requests"][::-1]},
    "step 1: ": {"steps": [[[], [], 5], [[0, 6], [], 3]]},
    "step 0: requests are numbers below 2, got 7": {"steps": [[[[7, 1]], [], 5]]},
    "judged of engine vllm, got 'other'": {"engine": "other"},
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_recording_is_refused_with_its_place(tmp_path, message):
    path = written(tmp_path, document(**BROKEN[message]))
    with pytest.raises(UsageError, match=message) as error:
        validate(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = written(tmp_path, document())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match="cannot be read"):
        validate(path)

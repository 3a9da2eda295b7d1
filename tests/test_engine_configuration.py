"""An engine and degrees of parallelism, as the command line, files and calls choose them."""

from dataclasses import fields

import pytest

import kvbench as kv
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys, composed
from kvbench.configuration.composed import composed as called
from kvbench.configuration.engine import engine_of, parallel_of
from kvbench.configuration.errors import UsageError
from kvbench.configuration.parts import check_numbers

RUN = ["+scenario=short_chat"]


def from_line(*words):
    with read([*RUN, *words]) as command:
        check(command)
        check_keys(command)
        return composed(command)


def from_call(settings=None, **chosen):
    return called({"scenario": "short_chat", **chosen}, None, settings)


def test_none_is_chosen_where_none_is_named():
    for config in (from_line(), from_call()):
        assert engine_of(config) is None
        assert parallel_of(config) == kv.Parallel()


def test_an_engine_is_chosen_by_name_and_has_its_own_flags():
    expected = kv.VLLM(block_size=32, max_num_seqs=64)
    assert engine_of(from_line("engine=vllm", "engine.block_size=32", "engine.max_num_seqs=64")) == expected
    assert engine_of(from_call({"engine.block_size": 32, "engine.max_num_seqs": 64}, engine="vllm")) == expected
    assert engine_of(from_call(engine=expected)) is expected


@pytest.mark.parametrize("made", [kv.VLLM, kv.SGLang, kv.TensorRTLLM, kv.Ideal])
def test_each_has_a_name_of_the_catalogue(made):
    assert engine_of(from_line(f"engine={made.name}")) == made()


def test_degrees_are_said_apart():
    expected = kv.Parallel(tensor=8, decode_context=4)
    assert parallel_of(from_line("parallel.tensor=8", "parallel.decode_context=4")) == expected
    assert parallel_of(from_call(parallel={"tensor": 8, "decode_context": 4})) == expected
    assert parallel_of(from_call({"parallel.decode_context": 4}, parallel={"tensor": 8})) == expected
    assert parallel_of(from_call(parallel=expected)) == expected
    assert set(from_line()["parallel"]) == {field.name for field in fields(kv.Parallel)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engine=vlm"], r"unknown engine 'vlm'. Did you mean 'vllm'"),
        (["engine=vllm", "engine.blok_size=1"], r"'blok_size'. Did you mean 'block_size'"),
        (["engine.block_size=1"], r"no engine is chosen; there are: ideal, sglang, trtllm, vllm"),
        (["engine=vllm", "engine.block_size=0"], r"engine: engine.block_size is a positive integer, got 0"),
        (["parallel.tenser=2"], r"'tenser'. Did you mean 'tensor'"),
        (["parallel.tensor=0"], r"parallel.tensor is a positive integer.*got 0"),
        (["parallel.tensor=2", "parallel.decode_context=4"], r"decode_context divides parallel.tensor \(2\), got 4"),
        (["parallel=2"], r"parallel is a mapping of degrees, such as tensor: 2, got 2"),
    ],
)
def test_what_is_wrong_on_the_line_is_told(words, message):
    with pytest.raises(UsageError, match=message):
        check_numbers(from_line(*words))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"engine": "vlm"}, r"Did you mean 'vllm'"),
        ({"engine": 5}, r"engine is vllm, sglang, trtllm or ideal, or the keys of one, got 5"),
        ({"engine": {"block_size": 1}}, r"it has no _target_"),
        ({"engine": {"_target_": "kvbench.strategy.static.Static"}}, r"unknown target"),
        ({"parallel": {"tenser": 2}}, r"unknown degree 'tenser'. Did you mean 'tensor'"),
        ({"parallel": 2}, r"parallel is a mapping of degrees"),
        ({"settings": {"engine": "vllm"}}, r"engine is no setting: it is chosen by an argument of its own"),
        ({"settings": {"parallel": 2}}, r"parallel is no setting"),
    ],
)
def test_what_is_wrong_in_a_call_is_told(chosen, message):
    with pytest.raises(UsageError, match=message):
        check_numbers(from_call(**chosen))

"""Lines that engines printed, beside what is said here: rules on planted lines, and the real table."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kvbench as kv
from kvbench.api.printed_lines import PrintedLines
from kvbench.calibration.printed.held import held
from kvbench.calibration.printed.named import accelerator_of, model_of, weights_dtype_of
from kvbench.calibration.printed.rows import COLUMNS, read_rows
from kvbench.cli.validate import main
from kvbench.model.accelerator import Accelerator
from tests.support.engine_models import plain
from tests.support.measurements import measurement

# 3.81 GiB are 1,950 blocks of 16 tokens of 131,072 bytes: 31,200 tokens, 1.56 sequences of 20,000.
RIGHT = {
    "id": "p1",
    "engine": "vLLM",
    "version": "0.6.4",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "hardware": "RTX 3090",
    "gpu_memory_gib": "23.58",
    "tensor_parallel": "1",
    "memory_fraction": "0.9",
    "weights_dtype": "bfloat16",
    "max_model_len": "20000",
    "available_kv_gib": "3.81",
    "num_tokens": "31232",
    "max_concurrency": "1.56",
    "config_bytes_per_token": "131072",
    "circular": "no",
    "kind": "dense",
}
MORE = ("config_bytes_per_token", "kind", "explanation")


def table(folder, *rows, columns=(*COLUMNS, *MORE)):
    path = folder / "lines.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(dict.fromkeys(columns, "") | row for row in rows)
    return path


def test_a_right_line_agrees_and_a_wrong_one_is_counted(tmp_path):
    wrong = RIGHT | {"id": "p2", "num_tokens": "35000"}
    unsure = RIGHT | {"id": "p3", "num_tokens": "35000", "circular": "yes"}
    found = kv.validate(table(tmp_path, RIGHT, wrong, unsure))
    assert [each.agrees for each in found.lines] == [True, False, False]
    assert found.lines[0].told.pool.num_blocks == 1_950
    assert [each.name for each in found.agreement.off] == ["p2"]
    assert found.as_dict()["counts"]["judged"] == 2
    assert "Given the cache: 1 of 2 agree" in found.text.splitlines()[-1]
    assert "off, given the cache: p2" in found.text


def test_half_a_digit_of_the_gib_is_allowed_and_no_more(tmp_path):
    """Of 0.24 GiB half a digit is 2 %: 40 of 1,960 tokens."""
    few = RIGHT | {"available_kv_gib": "0.24", "max_concurrency": ""}
    inside, outside = few | {"num_tokens": "1984"}, few | {"num_tokens": "2048"}
    assert [each.agrees for each in kv.validate(table(tmp_path, inside, outside)).lines] == [True, False]


def test_lines_that_say_why_they_disagree_are_excused(tmp_path):
    other = RIGHT | {"num_tokens": "31000", "max_concurrency": "", "explanation": "the smallest over four ranks"}
    windows = RIGHT | {"id": "p2", "model": "openai/gpt-oss-20b", "version": "0.26", "config_bytes_per_token": ""}
    stated = windows | {"id": "p3", "max_num_batched_tokens": "8192"}
    found = kv.validate(table(tmp_path, other, windows, stated))
    assert [each.excuse for each in found.lines] == ["another rank", "flag not stated", None]
    assert [each.name for each in found.agreement.off] == ["p3"]
    assert "2 excused" in found.text.splitlines()[-1]


def test_layers_that_are_alike_need_no_more_than_their_bytes(tmp_path):
    unknown = RIGHT | {"model": "acme/Anvil-9B", "tensor_parallel": "4"}
    mixed = unknown | {"id": "p2", "kind": "sliding window hybrid"}
    found = kv.validate(table(tmp_path, unknown, mixed))
    assert [each.agrees for each in found.lines] == [True, False]
    assert "p2 is not told: the shape of acme/Anvil-9B is not known here" in found.text
    assert kv.validate(table(tmp_path, unknown, columns=COLUMNS)).lines[0].error is None


def configured(folder):
    """The table's folder, with a configuration of Llama-3.1-8B beside it."""
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    home = folder / "configs" / "meta-llama--Llama-3.1-8B"
    home.mkdir(parents=True)
    (home / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_gib_from_configuration_and_flags_and_what_is_missing(tmp_path):
    far = RIGHT | {"id": "p2", "available_kv_gib": "9.0"}
    bare = RIGHT | {"id": "p3", "memory_fraction": "", "version": "~ 2026", "weights_dtype": "", "gpu_memory_gib": ""}
    found = kv.validate(table(configured(tmp_path), RIGHT, far, bare))
    near, off, unknown = found.lines
    assert near.model == "meta-llama--Llama-3.1-8B"
    assert near.flags_error == pytest.approx(0.042, abs=0.002)
    assert near.flags_agree
    assert not off.flags_agree
    assert unknown.missing == "gpu_memory_gib, weights_dtype, memory_fraction"
    assert [each.name for each in found.agreement.flags_off] == ["p2"]
    assert "off, from flags: p2" in found.text
    own = kv.validate(table(tmp_path, RIGHT), configs=tmp_path).lines[0]
    assert (own.model, own.flags_bytes) == ("Llama-3.1-8B", near.flags_bytes)
    unnamed = RIGHT | {"model": "acme/Anvil-9B"}
    assert kv.validate(table(tmp_path, unnamed)).lines[0].missing == "configuration"


def test_a_configuration_that_cannot_be_read_is_told(tmp_path):
    home = configured(tmp_path) / "configs" / "broken"
    home.mkdir()
    (home / "config.json").write_text("{", encoding="utf-8")
    assert "broken cannot be read: " in kv.validate(table(tmp_path, RIGHT)).text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"available_kv_gib": "many"}, r"line 2: available_kv_gib is a number above -.*, or empty, got 'many'"),
        ({"num_tokens": "1.5"}, r"line 2: num_tokens is a whole number of at least 0, or empty, got '1\.5'"),
        ({"max_concurrency": "nan"}, r"line 2: max_concurrency is a number above -1 .*, got 'nan'"),
        ({"memory_fraction": "1.2"}, r"line 2: memory_fraction is a number above 0 and at most 1, .*, got '1\.2'"),
        ({"gpu_memory_gib": "0"}, r"line 2: gpu_memory_gib is a number above 0 .*, got '0'"),
        ({"config_bytes_per_token": "-1"}, r"line 2: config_bytes_per_token is a number above 0 .*, got '-1'"),
        ({"circular": "perhaps"}, r"line 2: circular is yes, no or empty, got 'perhaps'"),
    ],
)
def test_a_broken_number_is_one_message(tmp_path, changed, words):
    with pytest.raises(ValueError, match=words):
        kv.validate(table(tmp_path, RIGHT | changed))


TEXTS_OF_ANYTHING = ["", "0", "1", "3", "7.5", "-1", "999999999999", "x", "fp8", "yes", "openai/gpt-oss-20b", "~ 2026"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=st.dictionaries(st.sampled_from([*COLUMNS, *MORE]), st.sampled_from(TEXTS_OF_ANYTHING), max_size=5))
def test_any_line_is_held_or_refused(tmp_path, changed):
    path = table(tmp_path, RIGHT | changed)
    try:
        rows = read_rows(path)
    except ValueError:
        with pytest.raises(ValueError, match="line 2: "):
            read_rows(path)
        return
    found = PrintedLines(lines=tuple(held(rows, {"Llama-3.1-8B": plain(32, 32, 8, 128)}, {})), unread={})
    assert found.text.count("\n")
    assert len(found.as_dict()["lines"]) == 1


def test_another_table_is_one_message(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"none of the forms that are read: .*; it has a, b"):
        kv.validate(other)
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("engine,num_tokens,available_kv_gib\n1,2,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a table of printed lines has the columns id, version"):
        kv.validate(lacking)
    with pytest.raises(ValueError, match="it has no lines beside its head"):
        kv.validate(table(tmp_path))
    with pytest.raises(ValueError, match="it cannot be read: No such file"):
        kv.validate(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"configs=.*: there is no such folder"):
        kv.validate(table(tmp_path, RIGHT), configs=tmp_path / "none")
    ragged = tmp_path / "ragged.csv"
    ragged.write_text(",".join(COLUMNS) + "\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: it has more or fewer values"):
        kv.validate(ragged)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "takes files of measurements, got none"),
        (["a.csv", "form=json"], "Did you mean 'format'"),
        (["a.csv", "format=xml"], "format is table or json, got 'xml'"),
    ],
)
def test_bad_arguments_are_one_message(arguments, words):
    with pytest.raises(ValueError, match=words):
        main(arguments)


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    path = table(tmp_path, RIGHT)
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines()[:-1])) <= 120
    assert main([str(path), "format=json"]) == 0
    line = json.loads(capsys.readouterr().out)["lines"][0]
    assert line["told"]["tokens"] == 31_200
    assert line["verdict"] == "agrees"


def test_words_of_precisions():
    named = {"bfloat16": "bfloat16", "fp8 (blockwise)": "fp8", "awq (marlin)": "int4", "int8 w8a8": "int8"}
    assert {text: weights_dtype_of(text) for text in named} == named
    assert weights_dtype_of("mxfp4 experts, fp8 dense") is None
    assert weights_dtype_of("") is None


def test_a_line_names_a_model_and_an_accelerator(tmp_path):
    line = read_rows(table(tmp_path, RIGHT | {"gpu_memory_gib": "", "hardware": "H100 80 GB"}))[0]
    models = {"Llama-3.1-8B": plain(32, 32, 8, 128), "Llama-3.1-8B-Mini": plain(16, 32, 8, 128)}
    assert model_of(line, models)[0] == "Llama-3.1-8B"
    assert model_of(line, {"Llama-3.1-8B": plain(16, 32, 8, 128)}) is None  # half of the bytes that the table states
    gib = {"h100": 79.18, "h200": 139.8, "a100_80": 79.25, "rtx_4090": 23.52}
    machines = {name: Accelerator(name=name, memory_bytes=int(size * 2**30)) for name, size in gib.items()}
    assert accelerator_of(line, machines).name == "h100"
    assert accelerator_of(line | {"hardware": "A100 80 GB"}, machines).name == "a100_80"
    for unknown in ("H200 class", "H100 94 GB", "RTX 4090 48GB", "RTX 3090", "A100"):
        assert accelerator_of(line | {"hardware": unknown}, machines) is None
    told = accelerator_of(line | {"hardware": "RTX 3090", "gpu_memory_gib": "23.58"}, machines)
    assert told.memory_bytes == int(23.58 * 2**30)


def test_the_real_table():
    found = kv.validate(measurement("capacity.csv"))
    agreement = found.agreement
    assert not agreement.off, [(each.name, each.error) for each in agreement.off]
    assert len(agreement.judged) + len(agreement.not_told) == 37
    assert sum(each.agrees for each in agreement.judged) >= 34
    assert not agreement.flags_off
    errors = sorted(abs(each.flags_error) for each in agreement.of_flags)
    assert len(errors) >= 14
    assert errors[len(errors) // 2] <= 0.05

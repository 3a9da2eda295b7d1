"""YAML that means one thing to every reader becomes plain values; all else is refused, at once."""

import math
import os

import pytest
import yaml

from kvbench.configuration.errors import UsageError
from kvbench.configuration.yaml_file import MOST_BYTES, MOST_DEPTH, MOST_VALUES, read_yaml

VALUES = {
    "1": 1,
    "+5": 5,
    "-0": 0,
    "0x1f": 31,
    "1e5": 1e5,
    "1.5e-6": 1.5e-6,
    ".5": 0.5,
    "5.": 5.0,
    "-.inf": -math.inf,
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    "'1:30'": "1:30",
    '"010"': "010",
    "1_a": "1_a",
    "_": "_",
    "2023-11-16": "2023-11-16",
    "y": "y",
    str(2**63 - 1): 2**63 - 1,
    str(-(2**63)): -(2**63),
    "&x [1, &y {b: 2}]": [1, {"b": 2}],
}

REFUSED = [
    # text, words of the message
    *((f"a: {text}", f"{text} is read differently") for text in ("1:30", "-1:30", "1:30.5", "12:30:45", "0:01")),
    *((f"a: {text}", f"{text} is read differently") for text in ("010", "09", "-010", "0b11", "0o17", "0x_1f")),
    *((f"a: {text}", f"{text} is read differently") for text in ("1_0", "1_000.5", "1.0_1", "1_0e3")),
    *((f"a: {text}", f"{text} is read differently") for text in ("yes", "No", "ON", "off")),
    ("010: 1", "010 is read differently"),
    ("a: " + "9" * 5_000, "an integer is from"),
    ("a: 0x" + "f" * 5_000, "an integer is from"),
    (f"a: {2**63}", "an integer is from"),
    ("a: 1e999", "a number is at most"),
    ("a: " + "9" * 5_000 + ".5", "a number is at most"),
    ("a: 1\nb: {c: 1, d: 2, c: 3}", "line 2: key 'c' stands twice"),
    ("a: &x [*x]", r"\*x stands for a value that it is itself in"),
    ("&x {a: {b: [*x]}}", r"\*x stands for a value that it is itself in"),
    ("a: *x", "there is no &x"),
    ("a: !!set {b, c}", "a tag, 'tag:yaml.org,2002:set'"),
    ("a: !!python/object/apply:os.system [ls]", "a tag"),
    ("a: !mine 3", "a tag, '!mine'"),
    ("%TAG ! tag:x,2000:\n---\na: !y 1", "a tag"),
    ("null: 1", "a key is text, got None"),
    ("1: 1", "a key is text, got 1"),
    ("true: 1", "a key is text, got True"),
    ("? [a]\n: 1", "a key is text"),
    ("a: 1\n---\nb: 2", "a second document"),
    ("a: {<<: 3}", "<< merges a mapping"),
    ('a: "\\0"', "no file or name"),
    ("[" * 500, "at most 32 deep"),
    ("[" * 500_000, "at most 32 deep"),
    ("{a: " * 500, "at most 32 deep"),
    ("- " * 500, "at most 32 deep"),
    ("a: [1", "malformed YAML"),
    ("a: \x1b[2J", "malformed YAML"),
    ("a: '" + "x" * MOST_BYTES + "'", "at most 1,048,576 bytes"),
    ("a: [" + "1," * MOST_VALUES + "]", "at most 5,000 values"),
]


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return read_yaml(path, "mine.yaml")[0]

    return read


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_a_scalar_means_what_it_means_to_every_reader(text, value, read):
    assert repr(read(f"a: {text}")) == repr({"a": value})


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=lambda text: text[:40])
def test_what_means_two_things_or_too_much_is_refused(text, words, read):
    with pytest.raises(UsageError, match=words) as refused:
        read(text)
    assert str(refused.value).startswith("mine.yaml")


def test_aliases_are_followed_once_however_often_they_stand(read):
    nine = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for number in range(1, 10):
        nine += f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n"
    with pytest.raises(UsageError, match="line 4: a configuration file has at most 5,000 values, aliases followed"):
        read(nine)
    deep = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, MOST_DEPTH))
    with pytest.raises(UsageError, match="at most 32 deep"):
        read(deep)


def test_mappings_are_merged_as_yaml_does(read):
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 5}\nd:\n  <<: *a\n  w: 1\n"
    assert read(text) == yaml.safe_load(text)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, words in (
        (tmp_path / "pipe.yaml", "a pipe"),
        (tmp_path, "Is a directory"),
        (tmp_path / "no.yaml", "No such"),
    ):
        with pytest.raises(UsageError, match=words):
            read_yaml(path, path)

"""Docstrings taken apart, and those of every strategy."""

import inspect

import pytest

from kvbench.configuration.docstring import parse
from tests.support.catalogue import STRATEGIES, strategy

WHOLE = """Keep sinks and a window.

Memory is constant;
the middle is forgotten.

A second paragraph: with a colon.

Args:
    num_sinks: tokens kept at the start, >= 0.
    rule: "a" does one thing, and "b":
        another, over
        three lines.
Raises:
    ValueError: window is not positive.
Source: Xiao et al. 2023,
    arXiv:2309.17453.
Departs: none.
"""


def test_a_docstring_falls_into_its_parts():
    doc = parse(WHOLE)
    assert doc.summary == "Keep sinks and a window."
    assert doc.description == ("Memory is constant; the middle is forgotten.", "A second paragraph: with a colon.")
    assert doc.entries == {
        "Args": {
            "num_sinks": "tokens kept at the start, >= 0.",
            "rule": '"a" does one thing, and "b": another, over three lines.',
        },
        "Raises": {"ValueError": "window is not positive."},
    }
    assert doc.prose == {"Source": "Xiao et al. 2023, arXiv:2309.17453.", "Departs": "none."}


def test_a_summary_alone_is_enough():
    doc = parse("Do nothing.")
    assert (doc.summary, doc.description, doc.prose, doc.entries) == ("Do nothing.", (), {}, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A.\n\nSource: one\ntwo", "a line of section Source is indented, got 'two'"),
        ("A.\n\nSource: one\nSource: two", "section Source stands twice"),
        ("A.\n\nArgs:\n    no colon here", "Args has 'name: text'"),
        ("A.\n\nArgs:\n    one: 1\n    and more", "Args has 'name: text'"),
    ],
)
def test_a_malformed_docstring_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategys_docstring_has_its_source_and_every_parameter(name):
    made = type(strategy(name))
    doc = parse(inspect.getdoc(made))
    assert doc.summary.endswith(".")
    assert doc.prose["Source"]
    assert doc.prose["Departs"]
    assert sorted(doc.entries.get("Args", {})) == sorted(inspect.signature(made).parameters)

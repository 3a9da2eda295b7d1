"""Texts: the default's prose, and files of the user's with what is refused of them."""

import platform
import sys

import pytest

from kvbench.integrations.text import TOPICS, default_text, text_of


def test_the_default_is_prose_that_this_python_carries():
    text = default_text()
    assert text == default_text() == text_of(None)
    assert text.name.startswith(f"Python {platform.python_version()} language reference")
    assert all(topic in text.name for topic in TOPICS)
    assert text.licence == "Python Software Foundation License"
    assert len(text.text) > 100_000
    # Lines are joined: a paragraph is one line, and no two blanks follow each other.
    assert "  " not in text.text
    assert "A class can implement certain operations that are invoked by special syntax" in text.text


def test_no_chapter_of_the_default_is_part_of_another():
    paragraphs = [part for part in default_text().text.split("\n\n") if len(part) > 200]
    assert len(set(paragraphs)) > 0.98 * len(paragraphs)


@pytest.mark.parametrize("topics", [None, {}])
def test_without_help_texts_a_file_is_asked_for(monkeypatch, topics):
    if topics is None:
        monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    else:
        monkeypatch.setattr("pydoc_data.topics.topics", topics)
    with pytest.raises(ValueError, match=r"comes without its help texts .* give a text file"):
        default_text()


def test_a_file_of_the_users(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffZwei Zeilen,\r\näöü".encode())
    text = text_of(str(path))
    assert (text.name, text.text) == (str(path), "Zwei Zeilen,\näöü")
    assert "own" in text.licence


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ab\0cd", "expected is a text file, got binary data"),
        (b"abc\xffdef", "expected is text in UTF-8, got byte 3 of another kind"),
        (b" \n\t", "it is empty"),
        (b"", "it is empty"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as raised:
        text_of(str(path))
    assert str(raised.value).startswith(f"text={path}: ")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="it cannot be read"):
            text_of(str(path))

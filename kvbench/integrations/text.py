"""Real text to judge quality by: prose that every Python carries, or a file of the user's."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from kvbench.files import check_regular

TOPICS = ("specialnames", "compound", "types", "execmodel", "import")
"""Chapters of Python's language reference, the longest first; none is part of another."""
PARAGRAPHS = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Text:
    """A text.

    Args:
        name: for people: what it is, exactly enough to be found again.
        licence: under which it may be used.
        text: the text itself.
    """

    name: str
    licence: str
    text: str


def default_text() -> Text:
    """Chapters of Python's language reference as `help()` shows them, each paragraph's lines joined.

    Raises:
        ValueError: this Python comes without them.
    """
    try:
        from pydoc_data.topics import topics

        chapters = [topics[name] for name in TOPICS]
    except (ImportError, KeyError) as error:
        raise ValueError(
            f"this Python comes without its help texts ({error!r}), which are the text by default; give a text file"
        ) from error
    paragraphs = [" ".join(part.split()) for chapter in chapters for part in PARAGRAPHS.split(chapter)]
    name = f"Python {platform.python_version()} language reference ({', '.join(TOPICS)})"
    return Text(name, "Python Software Foundation License", "\n\n".join(filter(None, paragraphs)))


def text_of(path: str | None) -> Text:
    """A text file's text; the default where none is given.

    Args:
        path: a file in UTF-8, or None.
    Raises:
        ValueError: it is missing, a folder, empty, or no text.
    """
    if path is None:
        return default_text()
    try:
        file = Path(path).expanduser()
        check_regular(file)
        data = file.read_bytes()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"text={path}: it cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if b"\0" in data:
        raise ValueError(f"text={path}: expected is a text file, got binary data")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"text={path}: expected is text in UTF-8, got byte {error.start:,} of another kind") from error
    if not text.strip():
        raise ValueError(f"text={path}: it is empty")
    return Text(str(path), "the user's own", text.replace("\r\n", "\n"))

"""Text from outside as it may be shown: no character that a terminal would obey, and no more than can be read."""

import re

MOST_NAME = 80
MOST_LINE = 700
MOST_LINES = 40
_LONG_WORD = re.compile(rf"\S{{{3 * MOST_NAME},}}")


def printable(text: object) -> str:
    """Text with each character that is not printed, line breaks too, as its escape, such as \\x1b."""
    text = str(text)
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str) -> str:
    """The same of each line of a text."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def cut(text: object, most: int = MOST_NAME) -> str:
    """Text of at most so many characters, with an ellipsis where it was longer."""
    text = str(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def bounded(message: str) -> str:
    """A message with each long word, and each long line, cut in its middle, and without the lines beyond the most."""
    lines = message.split("\n")
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], "…"]
    return "\n".join(_without_middle(_LONG_WORD.sub(_shortened, line), MOST_LINE) for line in lines)


def _shortened(word: re.Match[str]) -> str:
    return _without_middle(word[0], 2 * MOST_NAME)


def _without_middle(text: str, most: int) -> str:
    kept = (most - 1) // 2
    return text if len(text) <= most else f"{text[:kept]}…{text[-kept:]}"


def _shown(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")

"""README.md and docs/*.md, taken apart: blocks of code, commands, links and headings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^# ([\w.]+)\n")
_INLINE = re.compile(r"`(python -m kvbench [^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block.

    Args:
        page: where it stands.
        marker: of the comment right above it, or "".
        language: such as sh.
        text: between the fences.
    """

    page: Path
    marker: str
    language: str
    text: str


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[Block]:
    found = _BLOCK.findall(text_of(page))
    return [Block(page, marker, kind, text) for marker, kind, text in found if kind == language]


def files() -> dict[str, str]:
    """Files that pages show, their first line a comment with the name."""
    shown = [block.text for page in PAGES for kind in ("yaml", "python") for block in blocks(page, kind)]
    return {found[1]: text for text in shown if (found := _FILE.match(text))}


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each of a block's commands."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            yield words[: words.index("&&")]
            words = words[words.index("&&") + 1 :]
        if words:
            yield words


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The words of each command within a line, and of those in the README's table of questions."""
    prose = _BLOCK.sub("", text_of(page))
    for command in _INLINE.findall(prose):
        yield shlex.split(command)
    if page == README:
        for row in prose.partition("| `python -m kvbench …` |")[2].split("\n\n")[0].splitlines()[2:]:
            for shown in re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1]):
                yield ["python", "-m", "kvbench", *shlex.split(shown)]


def links(page: Path) -> list[str]:
    return _LINK.findall(_BLOCK.sub("", text_of(page)))


def anchors(page: Path) -> set[str]:
    """What a link may name after #, as GitHub makes it of a heading."""
    found = _HEADING.findall(_BLOCK.sub("", text_of(page)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}

"""Take a docstring apart: summary, description and sections."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

SECTIONS = ("Args", "Returns", "Raises", "Source", "Departs")
_HEAD = re.compile(rf"({'|'.join(SECTIONS)}):(?:\s+(.*))?")
_ENTRY = re.compile(r"(\w+(?:, \w+)*):\s+(.*)")


@dataclass(frozen=True)
class Docstring:
    """A docstring's parts.

    Args:
        summary: its first line.
        description: the paragraphs between the summary and the first section, each on one line.
        prose: of Returns, Source and Departs, the text on one line.
        entries: of Args and Raises, what is said of each name.
    """

    summary: str
    description: tuple[str, ...]
    prose: Mapping[str, str]
    entries: Mapping[str, Mapping[str, str]]


def parse(text: str) -> Docstring:
    """Take a docstring apart.

    Args:
        text: with its indentation removed, as `inspect.getdoc` gives it.
    Raises:
        ValueError: a section stands twice, or a line of it is neither an entry nor indented behind one.
    """
    summary, *lines = text.strip().splitlines()
    blocks: dict[str, list[str]] = {"": []}
    section = ""
    for line in lines:
        head = _HEAD.fullmatch(line.rstrip())
        if head:
            section, inline = head.groups()
            if section in blocks:
                raise ValueError(f"docstring {summary!r}: section {section} stands twice")
            blocks[section] = [inline] if inline else []
        elif section and line.strip() and not line.startswith(" "):
            raise ValueError(f"docstring {summary!r}: a line of section {section} is indented, got {line!r}")
        else:
            blocks[section].append(line)
    description = blocks.pop("")
    listed: dict[str, dict[str, str]] = {
        name: _entries(summary, name, blocks.pop(name)) for name in ("Args", "Raises") if name in blocks
    }
    return Docstring(
        summary,
        tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n".join(description)) if part.strip()),
        {name: " ".join(" ".join(block).split()) for name, block in blocks.items()},
        listed,
    )


def _entries(summary: str, section: str, lines: list[str]) -> dict[str, str]:
    """Of `name: text` lines, further indented where they go on, the text by name."""
    written = [line for line in lines if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in written), default=0)
    entries: dict[str, str] = {}
    name = ""
    for line in written:
        entry = _ENTRY.fullmatch(line[margin:].rstrip())
        if entry:
            name, entries[entry[1]] = entry.groups()
        elif name and line[margin] == " ":
            entries[name] += f" {line.strip()}"
        else:
            raise ValueError(
                f"docstring {summary!r}: {section} has 'name: text' or a line indented behind, got {line!r}"
            )
    return entries

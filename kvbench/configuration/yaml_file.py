"""Read a configuration file into plain values: of YAML, what means the same to every reader.

Values are built from the parser's events, each once: no tag makes an object, and nothing recurses.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from kvbench.configuration.errors import UsageError
from kvbench.files import check_regular

MOST_BYTES = 2**20
MOST_DEPTH = 32
MOST_VALUES = 5_000
"""Those behind an alias counted at each of its uses. Hydra takes a millisecond a value to compose and copy them."""

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = object()
_NO_KEY = object()
_UNFINISHED = object()


def read_yaml(path: Path, shown: object) -> tuple[object, str]:
    """Read one configuration file.

    Args:
        path: the file, at most 1 MiB of UTF-8.
        shown: what messages call it.
    Returns:
        Its value, of dict, list, str, int, float, bool and None; and its text.
    Raises:
        UsageError: it cannot be read, is no YAML, or has something that is not one thing to every reader: a number such
            as 1:30 or 010, a key that stands twice, a tag, an alias of what it stands in.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{shown}: a configuration file has at most {MOST_BYTES:,} bytes, and this one has more")
    try:
        return _value(text), text
    except yaml.YAMLError as error:
        raise UsageError(f"{shown}: malformed YAML: {' '.join(str(error).split())}") from error
    except Refused as error:
        raise UsageError(f"{shown}: malformed YAML, {error}") from error


@dataclass(frozen=True)
class _Part:
    """A value with the number of values in it, and how deep they go."""

    value: object
    size: int = 1
    depth: int = 0


@dataclass
class _Collection:
    """A sequence or a mapping that has not ended."""

    value: list[object] | dict[str, object]
    anchor: str | None
    key: object = _NO_KEY
    size: int = 1
    depth: int = 0
    merged: list[dict[str, object]] = field(default_factory=list)

    def add(self, part: _Part, event: yaml.Event) -> None:
        """Take in an item, a key or a key's value."""
        self.size += part.size
        self.depth = max(self.depth, part.depth + 1)
        if isinstance(self.value, list):
            self.value.append(part.value)
        elif self.key is _NO_KEY:
            self.key = self._checked_key(part.value, event)
        else:
            if self.key is _MERGE:
                self.merged += _mappings(part.value, event)
            else:
                self.value[str(self.key)] = part.value
            self.key = _NO_KEY

    def _checked_key(self, key: object, event: yaml.Event) -> object:
        if isinstance(event, yaml.ScalarEvent) and not event.style and key == "<<":
            return _MERGE
        if not isinstance(key, str):
            raise Refused(event, f"a key is text, got {key!r}; quote it")
        if key in self.value:
            raise Refused(event, f"key {key!r} stands twice, and which to compose with is not said")
        return key

    def finished(self) -> _Part:
        """The whole, with what was merged into it."""
        for mapping in self.merged:
            assert isinstance(self.value, dict)
            for key, value in mapping.items():
                self.value.setdefault(key, value)
        return _Part(self.value, self.size, self.depth)


def _mappings(value: object, event: yaml.Event) -> list[dict[str, object]]:
    given = value if isinstance(value, list) else [value]
    found = [each for each in given if isinstance(each, dict)]
    if len(found) < len(given):
        raise Refused(event, "<< merges a mapping, or a list of them")
    return found


def _value(text: str) -> object:
    """The value of a text that is one document."""
    values: list[object] = []
    open_collections = [_Collection(values, None)]
    anchors: dict[str | None, object] = {}
    for event in _events(text):
        match event:
            case yaml.AliasEvent():
                part, anchor = _behind(event, anchors), None
            case yaml.ScalarEvent():
                part, anchor = _Part(scalar(event)), event.anchor
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                empty: list[object] | dict[str, object] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
                open_collections.append(_Collection(empty, event.anchor))
                anchors[event.anchor] = _UNFINISHED
                part, anchor = _Part(None), None
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                ended = open_collections.pop()
                part, anchor = ended.finished(), ended.anchor
            case _:
                continue
        if len(open_collections) + part.depth > MOST_DEPTH:
            raise Refused(event, f"values stand at most {MOST_DEPTH} deep in each other")
        if isinstance(event, yaml.CollectionStartEvent):
            continue
        anchors[anchor] = part
        open_collections[-1].add(part, event)
        if sum(each.size for each in open_collections) > MOST_VALUES:
            raise Refused(event, f"a configuration file has at most {MOST_VALUES:,} values, aliases followed")
    return values[0] if values else None


def _events(text: str) -> Iterator[yaml.Event]:
    num_documents = 0
    for event in yaml.parse(text, Loader=_PARSER):
        num_documents += isinstance(event, yaml.DocumentStartEvent)
        if num_documents > 1:
            raise Refused(event, "a second document begins; a configuration file is one")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise Refused(event, f"a tag, {tag!r}: configuration has plain values only")
        yield event


def _behind(event: yaml.AliasEvent, anchors: dict[str | None, object]) -> _Part:
    part = anchors.get(event.anchor)
    if isinstance(part, _Part):
        return part
    if part is None:
        raise Refused(event, f"*{event.anchor} stands for nothing: there is no &{event.anchor} before it")
    raise Refused(event, f"*{event.anchor} stands for a value that it is itself in")


_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_AMBIGUOUS = re.compile(
    r"(?=.*[0-9])(?:[-+]?0[0-9_]+"  # octal to some
    r"|[-+]?0[bo][0-7_]+"
    r"|[-+]?0x[0-9a-fA-F_]+"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"  # to the base of 60
    r"|[-+]?[0-9]*_[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9]*\.[0-9_]+(?:[eE][-+]?[0-9]+)?)"
    r"|(?:yes|no|on|off|Yes|No|On|Off|YES|NO|ON|OFF)"
)


class Refused(Exception):
    """What is wrong, and on which line."""

    def __init__(self, event: yaml.Event, what: str) -> None:
        line = event.start_mark.line if event.start_mark else 0
        super().__init__(f"line {line + 1}: {what}")


def scalar(event: yaml.ScalarEvent) -> object:
    """The value: text where it is quoted, or else null, true, false, a number or text.

    Raises:
        Refused: the number or word means two things, or is out of range.
    """
    text = event.value
    if event.style:
        if "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
            raise Refused(event, "a text with a character that no file or name can have")
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return _whole(text, event)
    if _FLOAT.fullmatch(text):
        return _finite(text, event)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    if _AMBIGUOUS.fullmatch(text):
        raise Refused(
            event, f"{text} is read differently by YAML 1.1 and 1.2: write a plain number, true, false or '{text}'"
        )
    return text


def _whole(text: str, event: yaml.ScalarEvent) -> int:
    number = int(text, 0) if len(text) <= len(str(-(2**63))) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise Refused(event, f"an integer is from -2^63 to 2^63 - 1, got {text}; write 1e20 for a larger number")
    return number


def _finite(text: str, event: yaml.ScalarEvent) -> float:
    number = float(text)
    if math.isinf(number):
        raise Refused(event, f"a number is at most 1.8e308, got {text}")
    return number

"""What a scalar of YAML stands for; one that versions of YAML read differently is refused."""

import math
import re

import yaml

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
        super().__init__(f"line {event.start_mark.line + 1}: {what}")


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

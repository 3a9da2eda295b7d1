"""Fits of kernels as a part of a hardware file."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

WIDTH = 118
INDENT = "  "
KEY = "kernels"
_OWN = re.compile(rf"^{KEY}:.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
ABOUT = {
    "products": "by dtype; shares are of the peaks above, corrections in hundredths of a logarithm",
    "experts": "the same, of routed experts",
    "all_reduce": "[bytes, seconds] by accelerators",
    "residuals": "quantiles of ln(measured / ours), on shapes that fitted nothing",
    "errors": "of the same: [rows, mean size of relative errors, mean of relative errors]",
}


def with_kernels(text: str, kernels: Mapping[str, Any]) -> str:
    """A hardware file's text with these fits, in the place of those that it has.

    Args:
        text: of the file.
        kernels: plain values.
    """
    return f"{_OWN.sub('', text).rstrip()}\n{KEY}:\n" + "".join(f"{line}\n" for line in _lines(kernels, INDENT))


def _lines(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Mappings of mappings key by key, all others as they fit in lines."""
    for key, value in values.items():
        about = f" # {ABOUT[key]}" if indent == INDENT and key in ABOUT else ""
        if isinstance(value, Mapping) and any(isinstance(each, Mapping) for each in value.values()):
            yield f"{indent}{_flow(key)}:{about}"
            yield from _lines(value, indent + INDENT)
        elif isinstance(value, Mapping):
            yield f"{indent}{_flow(key)}:{about}"
            text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=WIDTH)
            yield from (f"{indent}{INDENT}{line.strip()}" for line in text.splitlines())
        else:
            yield f"{indent}{_flow(key)}: {_flow(value)}{about}"


def _flow(value: object) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return text.removesuffix("...\n").strip()

"""Configuration files are input: what one may hold is checked here, before anything is done with it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvbench.configuration.errors import UsageError
from kvbench.configuration.published import is_published, published_node
from kvbench.configuration.targets import check_target
from kvbench.configuration.yaml_file import read_yaml

_DIRECTIVE = re.compile(r"\s*#+\s*@\s*package\b(.*)")
_REFERENCE = re.compile(r"\$\{\.*\w+(?:\.\w+|\[\w+\])*\}")
MOST_REFERENCES = 4
"""In a file; references to references may grow without end."""

MOST_REFERRING = 1_000
"""Letters of a text with a reference; Hydra's parser takes a second for 20,000."""


def vet_file(path: Path, group: str, trusted: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """Check one configuration file.

    Args:
        path: the file; of a model also a published configuration, or the folder of one.
        group: the group that it is in.
        trusted: packages that the user named.
    Returns:
        What it holds, and other files of the same group that it builds on.
    Raises:
        UsageError: what is wrong with it.
    """
    is_yaml = group != "model" or not is_published(path)
    node, text = read_yaml(path, path) if is_yaml else (published_node(path), "")
    if not isinstance(node, dict):
        raise UsageError(f"{path}: a {group} file is a mapping of keys to values, got {type(node).__name__}")
    _vet_package(path, text, group)
    if "hydra" in node:
        raise UsageError(f"{path}: a {group} file may not set hydra.*; give such settings on the command line")
    _vet_targets(node, path, group, trusted)
    vet_interpolations(node, path)
    return node, _bases(node.get("defaults", ["_self_"]), path, group)


def _vet_package(path: Path, text: str, group: str) -> None:
    own = f"strategy.{path.stem}" if group == "strategy" else group
    directives = [found.group(1).strip() for line in text.splitlines() if (found := _DIRECTIVE.match(line))]
    for package in directives:
        if package != own:
            raise UsageError(f"{path}: a {group} file's package is {own}, got '# @package {package}'")
    if group == "strategy" and not directives:
        raise UsageError(f"{path}: a strategy file begins with '# @package {own}'")


def _vet_targets(node: object, path: Path, group: str, trusted: tuple[str, ...], key: str = "") -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "_target_":
                check_target(value, group, f"{path}{key}", trusted, is_part=bool(key))
            _vet_targets(value, path, group, trusted, f"{key}: {name}")
    elif isinstance(node, list):
        for item in node:
            _vet_targets(item, path, group, trusted, key)


def _bases(defaults: object, path: Path, group: str) -> list[str]:
    """Names in a defaults list; only plain ones, of the same group."""
    bases = []
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if entry == "_self_":
            continue
        if group == "strategy" or not isinstance(entry, str) or not entry.isidentifier():
            raise UsageError(
                f"{path}: the defaults list of a {group} file may name files of the same group only "
                f"(a strategy file none), got {entry!r}"
            )
        bases.append(entry)
    return bases


def vet_interpolations(node: object, path: Path) -> None:
    """Let a file point at other keys, and call nothing: `${oc.env:NAME}` would put a secret among the results.

    Raises:
        UsageError: something else begins with `${`, or there are too many.
    """
    texts = [text for text in _texts(node) if "${" in text]
    for text in texts:
        if len(text) > MOST_REFERRING:
            raise UsageError(
                f"{path}: a text that refers to another key has at most {MOST_REFERRING:,} letters, got {len(text):,}"
            )
        if "${" in _REFERENCE.sub("", text):
            raise UsageError(
                f"{path}: a configuration file may refer to another key, as ${{seed}}, and to nothing else, got "
                f"{text!r}; an environment variable is given on the command line: KEY='${{oc.env:NAME}}'"
            )
    if sum(text.count("${") for text in texts) > MOST_REFERENCES:
        raise UsageError(f"{path}: a configuration file refers to other keys at most {MOST_REFERENCES} times")


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _texts(value)

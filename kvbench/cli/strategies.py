"""`kvbench strategies [NAME | --markdown | trusted=[PACKAGE] PACKAGE.Class]`: what there is to compare."""

import json
import re
import textwrap

from kvbench.configuration.entry import Entry, entries
from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown

WIDTH = 100
INDENT = " " * 4
TRUSTED = "trusted="
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def main(arguments: list[str]) -> int:
    """Print the catalogue, one strategy in full (of a package of yours too), or docs/strategies.md's table.

    Raises:
        UsageError: no such strategy, or too many arguments.
    """
    if any(word.startswith(TRUSTED) or "." in word for word in arguments):
        print(in_full(_outside(arguments)))
        return 0
    if len(arguments) > 1 or any(word.startswith("-") and word != "--markdown" for word in arguments):
        raise UsageError(f"strategies takes a strategy's name, --markdown or nothing, got {' '.join(arguments)}")
    if not arguments:
        print(listing(entries()))
    elif arguments == ["--markdown"]:
        print(markdown_table(entries()))
    else:
        by_name = {entry.name: entry for entry in entries()}
        if arguments[0] not in by_name:
            raise UsageError(unknown("strategy", arguments[0], by_name))
        print(in_full(by_name[arguments[0]]))
    return 0


def _outside(arguments: list[str]) -> Entry:
    from kvbench.configuration.entry import outside_entry

    trusted = [word.removeprefix(TRUSTED).strip("[]").split(",") for word in arguments if word.startswith(TRUSTED)]
    target, *given = [word for word in arguments if not word.startswith(TRUSTED)] or [""]
    if len(trusted) > 1 or "." not in target or "=" in target:
        raise UsageError(f"expected trusted=[PACKAGE] PACKAGE.Class, then parameters, got {' '.join(arguments)}")
    return outside_entry(target, given, [name.strip() for names in trusted for name in names])


def listing(catalogue: list[Entry]) -> str:
    """The catalogue for a terminal, some lines a strategy."""
    parts = []
    for entry in catalogue:
        rows = {
            "needs": ", ".join(entry.signals),
            "source": entry.doc.prose.get("Source", ""),
            "parameters": ", ".join(f"{key}={_shown(value)}" for key, value in entry.parameters.items()),
        }
        told = [_wrapped(f"{label:<12}{text}", INDENT, 12) for label, text in rows.items() if text]
        parts.append("\n".join([f"{entry.title}: {entry.loss}", _wrapped(entry.what, INDENT), *told]))
    parts.append(
        "(default): compared where none is named. (reference): knows the future, or is there to compare\n"
        "with: shown, never chosen. `kvbench strategies NAME` prints one in full;\n"
        "`python -m kvbench +scenario=SCENARIO strategy=NAME` runs it."
    )
    return "\n\n".join(parts)


def in_full(entry: Entry) -> str:
    """All that one strategy says of itself."""
    told = dict.fromkeys([entry.what, entry.doc.summary, *entry.doc.description])
    parts = [f"{entry.title}: {entry.loss}, {entry.target}", *(_wrapped(text) for text in told)]
    if entry.signals:
        parts.append(f"needs of the backend\n{_wrapped(', '.join(entry.signals), INDENT)}")
    if entry.parameters:
        meanings = entry.doc.entries.get("Args", {})
        rows = [
            f"{_wrapped(f'{key}={_shown(value)}', INDENT)}\n{_wrapped(meanings.get(key, ''), INDENT * 2)}".rstrip()
            for key, value in entry.parameters.items()
        ]
        parts.append("\n".join(["parameters, with their defaults", *rows]))
    parts += [f"{name.lower()}\n{_wrapped(text, INDENT)}" for name, text in entry.doc.prose.items()]
    return "\n\n".join(parts)


def markdown_table(catalogue: list[Entry]) -> str:
    """The catalogue as docs/strategies.md's table."""
    rows = ["| strategy | what it does | lossless | source |", "| --- | --- | --- | --- |"]
    for entry in catalogue:
        title = f"`{entry.name}`{entry.title.removeprefix(entry.name)}"
        source = _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", entry.doc.prose.get("Source", ""))
        cells = (title, entry.what.removesuffix("."), "yes" if entry.is_lossless else "no", source.removesuffix("."))
        rows.append(f"| {' | '.join(_cell(text) for text in cells)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(value: object) -> str:
    match value:
        case str():
            return value
        case {"_target_": str(target), **parameters}:
            told = (f"{key}={_shown(own)}" for key, own in parameters.items())
            return f"{target.rpartition('.')[2]}({', '.join(told)})"
        case list():
            return f"[{', '.join(map(_shown, value))}]"
        case _:
            return json.dumps(value)


def _wrapped(text: str, indent: str = "", hanging: int = 0) -> str:
    later = indent + " " * hanging
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )

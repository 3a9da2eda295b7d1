"""What pages say that commands print. `python -m tests.support.printed` runs the commands and writes it anew."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.pages import PAGES, ROOT, files

BLOCK = re.compile(r"^<!-- printed -->\n```sh\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEASUREMENTS = "KVBENCH_MEASUREMENTS"
ENDS = ("charts: ", "report: ", "Unlimited", "kvbench: ")
"""What begins the rest, if there is any, which pages leave out."""


def cases() -> Iterator[tuple[Path, str, str]]:
    """Each marked block: its page, its command, and what that is said to print."""
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield page, found[1], found[2]


def write_files(folder: Path) -> None:
    """Write the files that pages show, for their commands, and link to published measurements where there are any."""
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")
    for path in Path(os.environ.get(MEASUREMENTS, "/nowhere")).glob("*"):
        (folder / path.name).symlink_to(path)


def arguments(script: str) -> list[list[str]]:
    """What each of a script's commands gives kvbench; the last one's output is shown."""
    found = [shlex.split(line) for line in script.splitlines()]
    assert all(words[:3] == ["python", "-m", "kvbench"] for words in found), script
    return [words[3:] for words in found]


def shown_of(printed: str, before: str) -> str:
    """The part of an output that a page shows: from the line that begins as before, up to the rest."""
    lines = printed.splitlines()
    word = before.split()[0]
    start = next(number for number, line in enumerate(lines) if line.startswith(word))
    ends = (number for number, line in enumerate(lines) if number > start and line.startswith(ENDS))
    end = next(ends, len(lines))
    return "\n".join(lines[start:end]).rstrip("\n") + "\n"


def rewritten(page: Path, run: Callable[[list[str]], str]) -> str:
    """A page with what its commands print now."""

    def anew(found: re.Match[str]) -> str:
        *_, printed = map(run, arguments(found[1]))
        return found[0].replace(found[2], shown_of(printed, found[2]))

    return BLOCK.sub(anew, page.read_text(encoding="utf-8"))


def main() -> None:
    """Write all pages anew."""
    for page in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder))

            def run(words: list[str], folder: str = folder) -> str:
                command = [sys.executable, "-m", "kvbench", *words]
                given = os.environ | {"PYTHONPATH": str(ROOT)}
                return subprocess.run(
                    command, cwd=folder, env=given, check=True, stdout=subprocess.PIPE, text=True
                ).stdout

            page.write_text(rewritten(page, run), encoding="utf-8")


if __name__ == "__main__":
    main()

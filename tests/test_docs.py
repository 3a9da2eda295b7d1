"""docs/adding-a-strategy.md, followed to the letter: its files, its commands, and what they print."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvbench.configuration.catalogue import names
from tests.support.undrawn import SITE

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "adding-a-strategy.md").read_text(encoding="utf-8")
OUTSIDE, INSIDE = PAGE.split("## Its file")
FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
TREE = ("kvbench", "conf", "scenarios", "tests", "pyproject.toml")
EIGHT = 8  # name, outcome, and the columns that no clock decides


def follow(script, folder):
    """Run a block of commands with this Python, in a folder of its own or a copy of the checkout."""
    kept = {key: value for key, value in os.environ.items() if key != "KVBENCH_TRACES"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    package = str(folder if (folder / "kvbench").exists() else ROOT)
    environment = kept | {"PATH": path, "PYTHONPATH": os.pathsep.join([SITE, package]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["sh", "-ec", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Each block of commands: script, what the page says that it prints, and the process."""
    outside, inside = tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("checkout")
    for name in TREE:
        copy = shutil.copy if (ROOT / name).is_file() else shutil.copytree
        more = {"ignore": shutil.ignore_patterns("__pycache__")} if copy is shutil.copytree else {}
        copy(ROOT / name, inside / name, **more)
    blocks = []
    for part, folder in ((OUTSIDE, outside), (INSIDE, inside)):
        for path, content in FILE.findall(part):
            assert not (folder / path).exists(), f"the page would overwrite {path}"
            (folder / path).write_text(content, encoding="utf-8")
        blocks += [(script, shown, folder) for script, shown in COMMANDS.findall(part)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        done = pool.map(lambda block: follow(block[0], block[2]), blocks)
        return [(script, shown, process) for (script, shown, _), process in zip(blocks, done, strict=True)]


def test_every_block_of_the_page_is_followed():
    blocks = COMMANDS.findall(PAGE)
    num_followed = len(FILE.findall(PAGE)) + len(blocks) + sum(bool(shown) for _, shown in blocks)
    assert PAGE.count("\n```") == 2 * num_followed


def test_its_strategy_is_not_yet_in_the_catalogue():
    assert "stepped" not in names("strategy")


def test_its_commands_succeed(followed):
    for script, _, process in followed:
        assert process.returncode == 0, f"{script}\n{process.stdout}\n{process.stderr}"


def test_its_commands_print_what_the_page_shows(followed):
    compared = 0
    for script, shown, process in followed:
        if not shown:
            continue
        printed = process.stdout
        if "+scenario=" in script:
            printed, shown = figures(printed), figures(shown)
            assert any(row[0] == "stepped" for row in shown)
        assert printed == shown, script
        compared += 1
    assert compared == 3


def figures(text):
    """Of a run's table, what no clock decides: rows begin with a strategy and how its requests ended."""
    return [line.split()[:EIGHT] for line in text.splitlines() if line.split()[1:2] == ["completed"]]

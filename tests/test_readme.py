"""The README is true: its table of metrics, its commands, and the figures of its table that no clock decides."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kvbench.charts.table import table_text
from kvbench.cli import VERBS
from kvbench.cli.command_line import check, read
from kvbench.cli.entry import entries
from kvbench.cli.keys import check_keys
from kvbench.cli.strategies import markdown_table as strategies_table
from kvbench.configuration.catalogue import names
from kvbench.results.schema import markdown_table
from kvbench.results.summary import summary_frame
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from tests.support.catalogue import scenario, strategy
from tests.support.fake import Fake
from tests.test_metrics import ARTICLE, TOKEN

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python -m kvbench") and line.split()[3] not in VERBS
]
SEVEN = 7  # name, outcome, and the columns that no clock decides


def test_the_table_of_metrics_is_the_schemas():
    shown = README.split("<!-- metrics -->")[1].split("<!-- /metrics -->")[0]
    assert shown.strip() == markdown_table()


def test_the_table_of_strategies_is_the_catalogues():
    shown = README.split("<!-- strategies -->")[1].split("<!-- /strategies -->")[0]
    assert shown.strip() == strategies_table(entries()), "paste what `python -m kvbench strategies --markdown` prints"


@pytest.mark.parametrize("command", [c for c in COMMANDS if "./mine.yaml" not in c])
def test_its_commands_are_accepted(command):
    with read(shlex.split(command)[3:]) as line:
        check(line)
        check_keys(line)


def test_it_names_every_model_and_strategy():
    for name in [*names("model"), *names("strategy")]:
        assert name in README


def test_its_table_has_the_figures_of_a_run():
    requests = scenario("short_chat").workload(None).sessions
    ((chosen, longest),) = re.findall(
        r"\+scenario=short_chat 'strategy=\[(.*?)\]' strategy.static.max_seq_len=(\d+)", README
    )
    given = {"static": {"max_seq_len": int(longest)}}
    strategies = {name: strategy(name, **given.get(name, {})) for name in chosen.split(",")}
    once = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
    recorder = run(strategies, requests, Fake(ARTICLE), **once)
    steps = steps_frame(recorder)
    about = {"scenario": "short_chat", "source": "measured", "scope": "cache", "slot_bytes": TOKEN}
    by_request = requests_frame(recorder, steps, requests)
    summary = summary_frame(steps, by_request, copy_bandwidth_bytes_per_s=1e10, **about)
    ours = [line.split()[:SEVEN] for line in table_text(summary).splitlines()[2:]]
    table = README.split("```text\n")[1].split("```")[0]
    shown = [line.split()[:SEVEN] for line in table.splitlines() if line.split()[:1] and line.split()[0] in strategies]
    assert shown == ours


def test_its_pictures_exist():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()


def test_its_asyncio_program_runs(tmp_path):
    (program,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "# caches.py" in code]
    path = tmp_path / "caches.py"
    path.write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.stdout == "200 tokens\n", done.stderr

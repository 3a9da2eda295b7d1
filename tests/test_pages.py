"""README.md and docs/*.md are true: links, generated parts, programs and commands. What these print: test_printed."""

import json
import re
import subprocess
import sys
from importlib import import_module

import pytest

from kvbench.api.study import experiment_of
from kvbench.charts.table import table_text
from kvbench.cli import VERBS
from kvbench.cli.arguments import key_values
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import check_keys, composed
from kvbench.configuration.catalogue import file_of, names
from kvbench.results.summary import summary_frame
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from tests.support.catalogue import scenario, strategy
from tests.support.fake import Fake
from tests.support.generated import DATED, rewritten
from tests.support.measurements import measurement
from tests.support.pages import PAGES, README, ROOT, anchors, blocks, commands, files, inline_commands, links, text_of
from tests.support.published import LLAMA
from tests.test_metrics import ARTICLE, TOKEN

FOLLOWED = ROOT / "docs" / "adding-a-strategy.md"  # tests/test_docs.py
PYTHON = ["python", "-m", "kvbench"]
SHOWN = {
    tuple(words)
    for page in PAGES
    if page != FOLLOWED
    for found in ([words for block in blocks(page, "sh") for words in commands(block)], inline_commands(page))
    for words in found
}
ASKED = sorted(
    words[3:] for words in SHOWN if list(words[:3]) == PYTHON and not re.search("NAME|…|^$", " ".join(words[3:]))
)
LISTS = [words for words in ASKED if words[0] in ("scenarios", "strategies", "metrics", "--help")]
MAKERS = {"record": ("model",), "calibrate": ("out",), "train": ("trace", "out")}
"""Verbs that take long, and the keys that each needs."""
MADE = [words for words in ASKED if words[0] in MAKERS]
FITTED = [words for words in ASKED if words[0] == "capacity" and len(words) > 1]
HELD = [words for words in ASKED if words[0] == "validate" and "rows=0" not in words]  # test_printed has those
OF_RESULTS = ("compare", "rate", "tune", "recommend", "work", "resume", "collect", "rerun")
"""Verbs that need runs that are there, or make many."""
ANSWERS = ("capacity", "validate", *OF_RESULTS)
RUNS = [words for words in ASKED if words[0] not in ANSWERS and words not in LISTS and words not in MADE]
SEVEN = 7  # name, outcome, and the columns that no clock decides
LINES = 165


def told(words):
    return " ".join(words)


@pytest.fixture
def shown_files(tmp_path, monkeypatch):
    """An empty folder with the files that pages show, a machine's and a published configuration."""
    for name, content in files().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "machine.yaml").write_bytes(file_of("hardware", "h100").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_readme_is_short():
    assert len(text_of(README).splitlines()) <= LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        if path.startswith("https://"):
            continue
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_has_every_page():
    index = ROOT / "docs" / "index.md"
    assert {*links(index)} == {page.name for page in PAGES if page not in (README, index)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_generated_is_as_it_would_be_now(page):
    assert text_of(page) == rewritten(page), "python -m tests.support.generated writes it anew"


def test_every_model_and_strategy_is_named():
    text = "".join(map(text_of, PAGES))
    for name in [*names("model"), *names("strategy"), *names("hardware")]:
        assert name in text


def test_every_package_is_described():
    packages = {path.parent.name for path in (ROOT / "kvbench").glob("*/__init__.py")}
    described = re.findall(r"^\*\*`(\w+)`\*\*", text_of(ROOT / "docs" / "built.md"), re.MULTILINE)
    assert sorted(described) == sorted(packages)


@pytest.mark.parametrize("words", RUNS, ids=told)
def test_its_runs_are_accepted(words, shown_files):
    if words[0] == "-m":  # of a sweep, the first point
        words = [re.sub(r"=([\w.]+),.*", r"=\1", word).replace("glob(*chat*)", "short_chat") for word in words[1:]]
        words = [word for word in words if not word.startswith("workers=")]
    with read(words) as line:
        check(line)
        check_keys(line)
        if line.choices("experiment"):
            experiment_of(composed(line))


@pytest.mark.parametrize("words", MADE, ids=told)
def test_its_verbs_are_accepted(words):
    made = import_module(VERBS[words[0]])
    key_values(words[1:], made.KEYS, MAKERS[words[0]], made.USAGE, getattr(made, "DEFAULTS", {}))


@pytest.mark.parametrize("verb", OF_RESULTS)
def test_verbs_that_take_results_are_there(verb):
    assert import_module(VERBS[verb]).USAGE.startswith(f"python -m kvbench {verb} ")


@pytest.mark.parametrize("words", FITTED, ids=told)
def test_what_fits_is_answered(words, kvbench, shown_files):
    assert kvbench(*words)


@pytest.mark.parametrize("words", HELD, ids=told)
def test_what_was_printed_is_held_against_rules(words, kvbench):
    assert kvbench("validate", str(measurement(words[1])), *words[2:])


@pytest.mark.parametrize("words", LISTS, ids=told)
def test_its_lists_are_printed(words, kvbench):
    assert kvbench(*words)


def test_its_other_commands_are_there():
    for words in SHOWN:
        if list(words[:3]) == PYTHON or words[:4] == ("python", "-m", "pip", "install") or words[0] == "sbatch":
            continue
        _, *given = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if words[0] == "make" or "make" in words:
            assert f"\n{given[-1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), words
        elif given[0] == "-m":
            assert given[1] in ("pytest", "tests.support.generated", "tests.support.printed", "benchmarks.mutants")
        else:
            assert (ROOT / given[0]).is_file(), words


def test_what_is_printed_is_checked_or_of_a_day():
    for page in (page for page in PAGES if page != FOLLOWED):
        shown = re.findall(r"^(?:<!-- ([^\n]+) -->\n)?```sh\n(?:[^`]*)```\n\n```text\n", text_of(page), re.MULTILINE)
        assert len(shown) == len(blocks(page, "text"))
        assert all(marker == "printed" or DATED.fullmatch(marker) for marker in shown), page.name


def test_the_readmes_strategy_runs_on_its_workload(kvbench, shown_files):
    (words,) = [words for words in RUNS if "trusted=[mypackage]" in words]
    printed = kvbench(*words, "hardware=h100", "model=llama3_8b", "scenario.max_requests=2")
    assert re.search(r"^mine +completed", printed, re.MULTILINE)


def program(page):
    (code,) = [block.text for block in blocks(page, "python") if block.text.startswith("import kvbench")]
    return compile(code, page.name, "exec")


def test_the_readmes_program_runs(shown_files, capsys):
    exec(program(README), {})
    assert re.search(r"^int8 +completed", capsys.readouterr().out, re.MULTILINE)


def test_the_apis_program_runs(shown_files, capsys):
    (program,) = [
        block.text for block in blocks(ROOT / "docs" / "api.md", "python") if block.text.startswith("import kvbench")
    ]
    exec(compile(program, "docs/api.md", "exec"), {})
    assert re.search(r"^window +completed", capsys.readouterr().out, re.MULTILINE)


def test_the_asyncio_program_runs(shown_files):
    done = subprocess.run([sys.executable, "caches.py"], capture_output=True, text=True, check=False)
    assert done.stdout == "200 tokens\n", done.stderr


def test_a_measured_table_has_the_figures_of_a_run():
    (block,) = [block for block in blocks(ROOT / "docs" / "start.md", "sh") if DATED.fullmatch(block.marker)]
    ((chosen, longest),) = re.findall(r"'strategy=\[(.*?)\]' strategy.static.max_seq_len=(\d+)", block.text)
    requests = scenario("short_chat").workload(None).sessions
    given = {"static": {"max_seq_len": int(longest)}}
    strategies = {name: strategy(name, **given.get(name, {})) for name in chosen.split(",")}
    once = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
    recorder = run(strategies, requests, Fake(ARTICLE), **once)
    steps = steps_frame(recorder)
    about = {"scenario": "short_chat", "source": "measured", "scope": "cache", "slot_bytes": TOKEN}
    by_request = requests_frame(recorder, steps, requests)
    summary = summary_frame(steps, by_request, copy_bandwidth_bytes_per_s=1e10, **about)
    ours = [line.split()[:SEVEN] for line in table_text(summary).splitlines()[2:]]
    (table,) = [block.text for block in blocks(ROOT / "docs" / "start.md", "text")]
    shown = [line.split()[:SEVEN] for line in table.splitlines() if line.split()[:1] and line.split()[0] in strategies]
    assert shown == ours

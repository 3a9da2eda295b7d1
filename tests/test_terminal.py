"""What is printed moves no cursor and can be read whole, whatever came in."""

import ast
import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kvbench
from kvbench.cli.help import unknown_verb
from kvbench.cli.terminal import Shown, complain, say, shown, unsaid
from kvbench.messages import MOST_LINE, MOST_LINES, NUM_NEIGHBOURS, bounded, cut, printable, unknown, unknown_key
from kvbench.results.results import load
from tests.support.undrawn import SITE

ESCAPES = {
    "\x1b[31mred": "\\x1b[31mred",
    "a\rb": "a\\rb",
    "\x9b2J": "\\x9b2J",
    "a\u202eb": "a\\u202eb",
    "a\u2028b": "a\\u2028b",
    "\udcff": "\\udcff",
    "a\x00\x07\x08\x7f": "a\\x00\\x07\\x08\\x7f",
    "a\nb": "a\\nb",
    "± … → µs": "± … → µs",
}
EVIL = "\x1b]0;owned\x07\x9b31m\u202e"
SCENARIO = "_target_: kvbench.workload.scenario.Appends\ndescription: mine\nappends: [3]\n"


@pytest.mark.parametrize(("text", "seen"), ESCAPES.items())
def test_control_characters_are_shown_as_text(text, seen):
    assert printable(text) == seen


def test_a_stream_lets_lines_and_a_progress_bars_return_through():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    seen = Shown(stream)
    assert seen.write("\r50 % \x1b[A") == 9
    seen.writelines(["a\n", "b\rc ± 1\n"])
    seen.flush()
    assert stream.buffer.getvalue() == b"\r50 % \\x1b[Aa\nb\\rc +- 1\n"
    assert not seen.isatty()


@pytest.mark.parametrize(
    ("encoding", "seen"),
    [("ascii", b"281 +- 9 us -> 2x... \\u65e5"), ("latin-1", b"281 \xb1 9 \xb5s -> 2\xd7... \\u65e5"), ("utf-8", None)],
)
def test_letters_that_an_encoding_lacks_are_told_in_others(encoding, seen):
    text = "281 ± 9 µs → 2×… 日"
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print(text, end="", file=Shown(stream), flush=True)
    assert stream.buffer.getvalue() == (text.encode() if seen is None else seen)


class Failing(io.StringIO):
    """A stream that takes one line."""

    def __init__(self, error):
        super().__init__()
        self.failure = error

    def write(self, text):
        if self.getvalue():
            raise self.failure
        return super().write(text)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),
        (OSError(errno.ENOSPC, "No space left on device"), "not all could be printed: No space left on device"),
        (ValueError("I/O operation on closed file"), "not all could be printed: I/O operation on closed file"),
    ],
)
def test_a_stream_that_fails_ends_nothing(failure, why, monkeypatch):
    stream = Failing(failure)
    monkeypatch.setattr(sys, "stdout", stream)
    with shown():
        for line in ("one", "two", "three"):
            print(line, flush=True)
        assert unsaid() == why
    assert stream.getvalue() == "one"


STREAMS = {  # how a shell would start it, its exit status, and what it complains of where anybody can hear it
    "full stdout": (">/dev/full", 1, "kvbench: not all could be printed: No space left on device"),
    "a reader that leaves, ascii": ("| head -1", 0, ""),
}
MORE_STREAMS = {
    "all closed": ("<&- >&- 2>&-", 0, None),
    "closed stdout": (">&-", 0, ""),
    "closed stderr": ("2>&-", 0, None),
    "full stderr": ("2>/dev/full", 0, None),
    "ascii": (">out", 0, ""),
}


@pytest.mark.parametrize("name", [*STREAMS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_STREAMS)])
def test_results_are_written_whatever_becomes_of_the_streams(name, tmp_path):
    redirection, status, complaint = (STREAMS | MORE_STREAMS)[name]
    asked = "+scenario=short_chat strategy=exact model.num_heads=2 model.num_kv_heads=1 model.head_dim=8 repetitions=1"
    command = f"set -o pipefail; {sys.executable} -m kvbench {asked} hydra.run.dir=one {redirection}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([SITE, str(Path(kvbench.__file__).parent.parent)])}
    environment |= {"PYTHONIOENCODING": "ascii"} if "ascii" in name else {}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert load(tmp_path / "one").summary["outcome"].tolist() == ["completed"]
    assert (tmp_path / "one" / "report.md").is_file()
    assert "Traceback" not in done.stderr
    assert "cannot write" not in done.stderr
    if complaint is not None:
        assert complaint in done.stderr


def test_a_closed_stream_stays_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with shown():
        print("nothing")
    assert sys.stdout is None


def test_a_message_of_any_size_can_be_read(capsys):
    complain(f"file.yaml: a is 1 or 2, got {'x' * 5_000_000}; allowed is y")
    complain("\n".join(map(str, range(10_000))))
    complain("a " * 100_000)
    said = capsys.readouterr().err
    assert len(said) < 5_000
    assert "got xxx" in said
    assert "…" in said
    assert "xxx; allowed is y" in said
    short = "kvbench: as it is, in\n  two lines"
    assert bounded(short) == short
    assert len(bounded("a " * 9_999)) == MOST_LINE - 1
    assert len(bounded("\n" * 9_999).split("\n")) == MOST_LINES + 1
    assert cut("x" * 100, 10) == "xxxxxxxxx…"


def test_a_line_that_is_said_is_one_line(capsys):
    say(["a model\nkvbench: done", "two"])
    assert capsys.readouterr().out == "a model\\nkvbench: done\ntwo\n"


def test_of_many_names_the_nearest_are_told():
    message = unknown("column", "num_tokens_99" + "x" * 5_000_000, [f"num_tokens_{n}" for n in range(100_000)])
    assert len(message) < 500
    message = unknown("column", "num_tokens_99", [f"num_tokens_{n}" for n in range(1_000) if n != 99])
    assert message.count("num_tokens_") == 2 + NUM_NEIGHBOURS
    assert "(999 in all)" in message
    assert "there are: x, y" in unknown("column", "z", ["y", "x"])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("tensor", "'parallel.tensor'"),
        ("tensr", "'parallel.tensor'"),
        ("paralel.tensor", "'parallel.tensor'"),
        ("windw", "'strategy.sinks.window' or 'strategy.snapkv.window'"),
        ("atend", "'attend'"),
        ("hardwar", "'hardware'"),
        ("window_of_nothing", None),
        ("_target_", None),
    ],
)
def test_a_key_that_stands_below_another_is_found(key, meant):
    settings = {
        "attend": True,
        "parallel": {"_target_": "x", "tensor": 1},
        "strategy": {"sinks": {"window": 3}, "snapkv": {"window": 3, "pooling": "max"}},
    }
    message = unknown_key(key, settings, ["hardware"])
    assert message.split("\n")[0] == f"unknown key {key!r}." + (f" Did you mean {meant}?" if meant else "")
    assert "there are: attend, hardware, parallel, strategy" in message


def test_no_module_writes_past_the_one_place():
    wrong = []
    for path in Path(kvbench.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if names & {"sys.__stdout__", "sys.__stderr__", "sys.stdout.buffer", "sys.stderr.buffer", "os.write"}:
            wrong.append(path)
    assert not wrong


def seen_of(kvbench, *arguments, status):
    said = kvbench(*arguments, status=status)
    assert said.replace("\n", "").replace("\r", "").isprintable(), repr(said)
    return said


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([f"+scenario={EVIL}"], 2),
        ([f"+scenario=./{EVIL}.yaml"], 2),
        ([EVIL], 2),
        ([f"x{EVIL}"], 2),
        ([f"--{EVIL}"], 2),
        (["+scenario=plain_trace", f"scenario.path={EVIL}.csv"], 2),
        (["+scenario=plain_trace", "scenario.path=evil.csv"], 2),
        (["+scenario=./evil.yaml", f"hydra.run.dir='{EVIL}'", "strategy=static", "hardware=./machine.yaml"], 0),
        (["+scenario=./evil.yaml", "--cfg=job", "--resolve"], 0),
        (["+scenario=./evil.yaml", "model=article", f"+model.{EVIL}=1"], 2),
        (["+scenario=./evil.yaml", f"model.name='{EVIL}'", "strategy=static"], 0),
        (["scenarios", "./evil.yaml"], 0),
        (["train", f"trace={EVIL}", "out=x.safetensors"], 2),
    ],
)
def test_nothing_from_outside_reaches_the_terminal_as_it_is(arguments, status, kvbench, tmp_path):
    (tmp_path / "evil.csv").write_text(f"arrived_at{EVIL},num_prefill_tokens{EVIL}\n1,2\n", encoding="utf-8")
    (tmp_path / "evil.yaml").write_text(SCENARIO.replace("mine", '"\\e[31m\\x9b2J\\u202e"'))
    (tmp_path / "machine.yaml").write_text('defaults: [h100, _self_]\nname: "H\\e[31m\\x9b2J\\u202e"\n')
    more = (
        ["backend=modelled", "cache_only=true"]
        if "hardware=./machine.yaml" in arguments
        else ["model.num_layers=1", "repetitions=1"]
    )
    seen_of(kvbench, *arguments, *(more if status == 0 and arguments[0] != "scenarios" else []), status=status)
    for report in tmp_path.rglob("report.md"):
        assert report.read_text(encoding="utf-8").replace("\n", "").isprintable()


MEANT = {
    "short_chat": "python -m kvbench +scenario=short_chat",
    "shortchat strategy=paged": "python -m kvbench +scenario=short_chat strategy=paged",
    "help": "python -m kvbench --help",
    "version": "python -m kvbench --version",
    "list": "python -m kvbench scenarios",
    "simulate llama3_8b h100": "python -m kvbench +scenario=short_chat model=llama3_8b backend=modelled hardware=h100",
    "comprehensive": "python -m kvbench +experiment=comprehensive",
    "fleet": "python -m kvbench +scenario=short_chat backend=fleet",
    "scenarois short_chat": "python -m kvbench scenarios short_chat",
    "mine.yaml": "python -m kvbench +scenario=mine.yaml",
    "zzz": "python -m kvbench --help",
}


@pytest.mark.parametrize(("typed", "meant"), MEANT.items())
def test_a_word_that_is_no_verb_is_told_what_to_type(typed, meant):
    assert f"\n  {meant}" in unknown_verb(typed.split())


def test_a_bare_word_among_overrides_is_told_the_same(kvbench):
    assert "+scenario=short_chat" in kvbench("-m", "short_chat", "seed=1,2", status=2)

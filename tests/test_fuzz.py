"""Whatever text comes in as a scenario, a machine or a trace, the answer is rows or one message."""

import gzip
import resource
import signal
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.cli.command_line import check, read
from kvbench.cli.keys import composed
from kvbench.configuration.catalogue import file_of, names
from kvbench.configuration.errors import UsageError
from kvbench.configuration.parts import parts_of
from kvbench.configuration.vet import vet_file
from kvbench.messages import bounded, printable_lines
from kvbench.runner.run import run
from kvbench.workload.trace_file import TraceError
from kvbench.workload.trace_formats import FORMATS, read_trace
from kvbench.workload.trace_recognised import recognised

MOST_CPU_S, MOST_MORE_KIB = 10, 2**20
MOST_STEPS = 2_000
"""A run of more is skipped: it takes its time by right."""

NASTY = """
1 0 -1 1.5 1e-300 1e300 1e999 .inf .nan 9223372036854775807 99999999999999999999 0x10 1:30 010 1_0 ~ null true yes
[] {} [1] [[[1]]] {a: 1} ??? *x &x !!set !x '' "" "\\e[31m" "\\0" ${seed} ${scenario} ${oc.env:HOME} ${ ${a: os.system
{_target_:os.system,command:id} {_target_:builtins.open,file:touched,mode:w} kvbench.workload.lengths.Fixed
/etc/passwd /dev/zero nowhere.csv - : ? | > % @ ` #
""".split()  # noqa: SIM905, as they would stand in a file
WORDS = ["defaults", "_target_", "_args_", "hydra", "trusted", "<<", "name", "arrivals", "lengths", "\n", "\n  "]
POWERS = st.one_of(st.floats(-9, 21), st.floats(-320, 308)).map(lambda power: 10.0**power)
NUMBERS = st.one_of(POWERS, POWERS, st.floats(), st.integers(0, 200), st.integers(-(2**70), 2**70)).map(repr)
EVENTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect", "shutil")
_called: list[str] = []
_is_watched = [False]


def _watch(event, arguments):
    if _is_watched[0] and event.startswith(EVENTS):
        _called.append(event)


sys.addaudithook(_watch)


class Slow(Exception):
    """An answer that took too long."""


@pytest.fixture(autouse=True)
def bounds():
    """No example may call out, take 10 s of the processor, or a GiB."""

    def too_long(*_):
        raise Slow

    before_kib, handler = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, signal.signal(signal.SIGVTALRM, too_long)
    _is_watched[0] = True
    yield
    _is_watched[0] = False
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, handler)
    assert not _called
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < MOST_MORE_KIB


def fuzzed(num_examples):
    """The same examples in each run."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    calm = {"deadline": None, "database": None, "suppress_health_check": quiet}
    return settings(max_examples=num_examples, derandomize=True, **calm)


@pytest.fixture(scope="module")
def config():
    modelled = ["backend=modelled", "hardware=h100", "cache_only=true", "model.num_layers=1"]
    with read(["+scenario=short_chat", "strategy=[static,dynamic]", *modelled]) as command:
        check(command)
        return composed(command)


def lines_of(group):
    return [file_of(group, name).read_text(encoding="utf-8").splitlines() for name in names(group)]


@st.composite
def yaml_texts(draw, group):
    """A file of the group with some values or lines replaced; or words that mean something to YAML or Hydra."""
    if draw(st.integers(0, 4)) == 0:
        return " ".join(draw(st.lists(st.sampled_from([*NASTY, *WORDS]), max_size=12)))
    lines = list(draw(st.sampled_from(lines_of(group))))
    places = [place for place, line in enumerate(lines) if ": " in line and not line.startswith("#")]
    for place in draw(st.lists(st.sampled_from(places), min_size=1, max_size=2, unique=True)):
        key, _, before = lines[place].partition(":")
        value = draw(st.one_of(NUMBERS, NUMBERS, st.just(before), st.sampled_from(NASTY), st.text(max_size=12)))
        lines[place] = f"{key}: {value}"
    if draw(st.integers(0, 9)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([*WORDS, *NASTY])) + ": 1")
    return "\n".join(lines)


def answered(config, tmp_path, group, text):
    """Rows of a run with the file, or nothing where it is refused in one message."""
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
    try:
        node, bases = vet_file(path, group, ())
        for base in bases:
            if base not in names(group):
                return
            node = vet_file(file_of(group, base), group, ())[0] | node
        node.pop("defaults", None)
        defaults = {"max_requests": 2, "max_concurrency": 1, "repetitions": 1} if group == "scenario" else {}
        parts = parts_of(config | {group: defaults | node})
        sessions = parts.workload.sessions[:3]
        if sum(len(session.turns) + session.num_decode_tokens for session in sessions) > MOST_STEPS:
            return
        limits = {"max_concurrency": parts.max_concurrency, "budget_bytes": parts.budget_bytes}
        recorder = run(parts.strategies, sessions, parts.backend, num_repetitions=1, num_warmup=0, **limits)
        assert recorder.num_steps
    except (UsageError, FileNotFoundError) as error:
        message = printable_lines(bounded(str(error)))
        assert message.strip()
        assert len(message) < 5_000
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@fuzzed(150)
@given(text=yaml_texts("scenario"))
def test_any_scenario_file_is_run_or_refused(text, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answered(config, tmp_path, "scenario", text)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml"}


@fuzzed(200)
@given(text=yaml_texts("hardware"))
def test_any_machine_file_is_run_or_refused(text, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answered(config, tmp_path, "hardware", text)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml"}


VALID = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n",
    "plain": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,374,44\n",
    "sharegpt": "num_prefill_tokens,num_decode_tokens\n374,44\n",
    "burstgpt": "Timestamp,Session ID,Elapsed time,Request tokens,Response tokens\n5,7,1.5,374,44\n",
    "bailian": '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 1, "input_length": 5, "output_length": 2, '
    '"hash_ids": [1]}\n',
    "aiperf": '{"session_id": "a", "delay": 1, "timestamp": 1, "input_length": 5, "output_length": 2}\n',
    "agentic": '{"block_size": 4, "hash_id_scope": "local", "requests": '
    '[{"t": 0, "type": "n", "in": 5, "out": 2, "hash_ids": [1], "api_time": 1.5, "think_time": 0}]}\n',
    "conversations": '{"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}\n',
    "mooncake": '{"timestamp": 1, "input_length": 5, "output_length": 2, "hash_ids": [1]}\n',
}
PIECES = [b"1e999", b"-1", b"NaN", b"1e400", b"9" * 5_000, b"\xff", b"\0", b'"', b",", b"\n", b"\r", b"[" * 3_000]
PIECES += [b"1_0", b" 1", b"", b"{}", b"null", b"1.0", b"true", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b'"timestamp": 2, ']


@st.composite
def traces(draw):
    """A trace of some rows, with pieces put in or in place of others; some of them packed, and cut."""
    name = draw(st.sampled_from(sorted(VALID)))
    data = VALID[name].encode() + VALID[name].encode().splitlines(keepends=True)[-1] * draw(st.integers(0, 2))
    for _ in range(draw(st.integers(0, 3))):
        start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        data = data[:start] + draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4))) + data[start + length :]
    if draw(st.integers(0, 3)) == 0:
        data = gzip.compress(data, mtime=0)
        data = data[: draw(st.integers(len(data) - 9, len(data)))]
    return name, data


@fuzzed(400)
@given(trace=traces())
def test_any_trace_is_columns_or_refused(trace, tmp_path):
    name, data = trace
    path = tmp_path / "trace"
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
    try:
        with suppress(TraceError):
            assert recognised(path) in FORMATS
        columns = read_trace(path, name)
    except TraceError:
        return
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert columns.num_requests > 0
    assert (columns.num_prompt_tokens >= 1).all()
    assert (columns.num_output_tokens >= 0).all()
    if columns.arrival_ns is not None:
        assert columns.arrival_ns[0] == 0
        assert (np.diff(columns.arrival_ns) >= 0).all()


def test_every_format_is_tried():
    assert set(VALID) == set(FORMATS)

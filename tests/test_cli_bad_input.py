"""Bad input on the command line and in configuration files: one message, no traceback, nothing run or imported."""

import sys

import pytest

from kvbench.__main__ import main
from kvbench.cli.command_line import check, read
from kvbench.cli.keys import composed

HYDRA_CALLBACK = """# @package _global_
hydra:
  callbacks:
    evil:
      _target_: evil.Callback
"""

COMMANDS = [
    # what was typed, words of the message
    ([], ["what to run?", "+scenario=NAME", "short_chat", "recompute"]),
    (["repetitions=2"], ["what to run?"]),
    (["+scenario=short_chatt"], ["unknown scenario 'short_chatt'", "Did you mean 'short_chat'?", "long_document"]),
    (["scenario=nothing_like_it"], ["unknown scenario 'nothing_like_it'", "short_chat"]),
    (["+experiment=recomput"], ["unknown experiment 'recomput'", "'recompute'"]),
    (["+scenario=short_chat", "strategy=dynamc"], ["unknown strategy 'dynamc'", "'dynamic'"]),
    (["+scenario=short_chat", "strategy=[static,dinamic]"], ["unknown strategy 'dinamic'", "'dynamic'"]),
    (["+scenario=short_chat", "model=llama3_8"], ["unknown model 'llama3_8'", "llama3_8b"]),
    (["+scenario=short_chat", "backend=mesured"], ["unknown backend 'mesured'", "'measured'"]),
    (["+scenario=short_chat", "hardware=h10"], ["unknown hardware 'h10'", "'h100'", "mi300x"]),
    (["+scenario=short_chat", "+hardware=h10"], ["unknown hardware 'h10'", "'h100'"]),
    (["+scenario=short_chat", "hardware=./not_here.yaml"], ["no hardware file", "not_here.yaml"]),
    (
        ["+scenario=short_chat", "hardware.launch_s=1"],
        ["hardware.launch_s: no hardware is chosen", "there are: a10, a100_40", "h100"],
    ),
    (["+scenario=short_chat", "hardware=h100", "hardware.lunch_s=1"], ["'lunch_s'", "'launch_s'"]),
    (
        ["+scenario=short_chat", "hardware=h100", "~hardware.host_bytes_per_s"],
        ["hardware H100 SXM 80 GB: missing host_bytes_per_s; it takes name"],
    ),
    (["+scenario=short_chat", "hardware=h100", "hardware.launch_s=x"], ["hardware.launch_s is a number", "'x'"]),
    (
        ["+scenario=short_chat", "model=llama3_8b", "model.name_or_path=/models/mine"],
        ["model.name_or_path=/models/mine: nothing loads that model here", "those of Llama-3.1-8B", "record"],
    ),
    (["+scenario=short_chat", "backend=fleet", "++model.name_or_path=mine"], ["nothing loads that model here"]),
    (["-m", "+scenario=short_chat", "model.name_or_path=a,b"], ["nothing loads that model here"]),
    (["+experiment=claims", "model=smollm2", "model.name_or_path=mine"], ["nothing loads that model here"]),
    (["+scenario=short_chat", "~model.head_dim"], ["model: missing head_dim; it takes"]),
    (["+scenario=short_chat", f"model.head_dim={10**30}"], ["model.head_dim is at most 2,147,483,647, got 1,000,"]),
    (
        ["+scenario=short_chat", "model.num_layers=60000", "model.head_dim=100000000"],
        ["a token's K and V have at most 1,099,511,627,776 bytes over all layers, got"],
    ),
    (["+scenario=short_chat", "model.dtype=[float32]"], ["unknown dtype \"['float32']\"", "bfloat16"]),
    (["+scenario=short_chat", "dtype=[]"], ["unknown dtype '[]'", "bfloat16"]),
    (["+scenario=short_chat", "model=[]"], ["model=[]: one model is chosen", "-m model=A,B sweeps"]),
    (["+scenario=short_chat", "model=[article,llama3_8b]"], ["one model is chosen, and a list names several"]),
    (["-m", "+scenario=short_chat", "hardware=[h100],[h200,a10g]"], ["one hardware is chosen"]),
    (["scenario=[short_chat,mixed]"], ["one scenario is chosen", "-m +scenario=A,B sweeps"]),
    ([f"+scenario={'x' * 9_999}"], ["unknown scenario 'xxx", "short_chat"]),
    (["+scenario=short_chat", f"strategy={'x' * 300}"], ["unknown strategy 'xxx", "dynamic"]),
    (["+scenario=short_chat", "--resolve"], ["--resolve is said of what --cfg prints"]),
    (["+scenario=short_chat", "-p", "model"], ["--package is said of what --cfg prints"]),
    (["+scenario=short_chat", "model.num_parameters=2.5"], ["model.num_parameters is a positive integer, got 2.5"]),
    (
        ["+scenario=short_chat", "model=deepseek_v3", "strategy=heavy_hitters"],
        ["heavy_hitters needs attention to tell it: mass", "none (of latents", "61 latent layers"],
    ),
    (
        ["+scenario=short_chat", "model=deepseek_v3", "strategy=fp8"],
        ["fp8: latents are held as they come, and area main holds them in fp8_e4m3", "61 latent layers"],
    ),
    (["+scenario=short_chat", "model=deepseek_v3", "strategy=sinks"], ["quality=false leaves the probe out"]),
    (["+scenarioz=short_chat"], ["what to run?"]),
    (["+scenario=short_chat", "+scenarioz=foo"], ["unknown key 'scenarioz'", "'scenario'"]),
    (["+scenario=short_chat", "strategy.dynamic.growth_facto=2"], ["unknown parameter", "'growth_factor'"]),
    (
        ["+scenario=short_chat", "+strategy.dynamic.typo=1"],
        ["strategy.dynamic", "unknown parameter 'typo'", "growth_factor"],
    ),
    (
        ["+scenario=short_chat", "strategy.dynamik.growth_factor=2"],
        ["unknown parameter of strategy 'dynamik'", "'dynamic'"],
    ),
    (
        ["+scenario=short_chat", "strategy=static", "strategy.dynamic.growth_factor=2"],
        ["unknown parameter of strategy"],
    ),
    (["+scenario=short_chat", "scenario.appendz=[1]"], ["unknown parameter of scenario 'appendz'", "'appends'"]),
    (["+scenario=short_chat", "+scenario.colour=red"], ["scenario", "unknown parameter 'colour'"]),
    (["+scenario=short_chat", "repetition=3"], ["unknown key 'repetition'", "'repetitions'"]),
    (["+scenario=short_chat", "tensor=2"], ["unknown key 'tensor'", "Did you mean 'parallel.tensor'?"]),
    (["+scenario=short_chat", "model.num_layer=2"], ["unknown parameter of model 'num_layer'", "'num_layers'"]),
    (["+scenario=short_chat", "+evil=1"], ["unknown key 'evil'"]),
    (["+experiment=recompute", "+/scenario=short_chat"], ["cannot read '+/scenario=short_chat'"]),
    (["+scenario=short_chat", "hydrant.a=1"], ["unknown key 'hydrant.a'"]),
    (["+scenario=short_chat", "strategy.dynamic.growth_factor=1"], ["growth_factor is a number above 1", "got 1"]),
    (["+scenario=short_chat", "strategy.dynamic.growth_factor=fast"], ["growth_factor is a number", "'fast'"]),
    (
        ["+scenario=short_chat", "strategy.dynamic.initial_capacity=0"],
        ["initial_capacity is a positive integer, got 0"],
    ),
    (
        ["+scenario=short_chat", "strategy.dynamic.initial_capacity=9000", "strategy.dynamic.max_capacity=8192"],
        ["at most max_capacity (8192), got 9000"],
    ),
    (["+scenario=short_chat", "strategy.static.max_seq_len=-5"], ["max_seq_len is a positive integer, got -5"]),
    (["+scenario=short_chat", "strategy.static.max_seq_len=1.5"], ["max_seq_len is a positive integer, got 1.5"]),
    (["+scenario=short_chat", "strategy.predictive.rule=guess"], ["unknown rule 'guess'", "append, total"]),
    (["+scenario=short_chat", "strategy.predictive.history_window=0"], ["history_window is a positive integer"]),
    (["+scenario=short_chat", "strategy.exact.round_to=0"], ["round_to is a positive integer"]),
    (["+scenario=short_chat", "strategy=heavy_hitters", "attend=false"], ["heavy_hitters", "mass", "attend=false"]),
    (["+scenario=short_chat", "strategy=int4", "model.head_dim=48"], ["strategy.int4", "head_dim", "got 48"]),
    (["+scenario=short_chat", "strategy=sinks", "strategy.sinks.window=0"], ["window is a positive integer, got 0"]),
    (["+scenario=short_chat", "strategy=paged", "strategy.paged.block_size=7"], ["block_size divides 1024, got 7"]),
    (
        ["+scenario=short_chat", "strategy=hierarchical", "strategy.hierarchical.eviction=acces"],
        ["unknown eviction 'acces'", "'access'"],
    ),
    (["+scenario=short_chat", "strategy=int8", "strategy.int8.bits=3"], ["unknown bits '3'", "there are: 2, 4, 8"]),
    (["+scenario=short_chat", "strategy=compressed", "strategy.compressed.kept_fraction=1.5"], ["above 0", "got 1.5"]),
    (["+scenario=short_chat", "repetitions=0"], ["repetitions is a positive integer, got 0"]),
    (["+scenario=short_chat", "repetitions=many"], ["repetitions is a positive integer, got 'many'"]),
    (["+scenario=short_chat", "warmup=-1"], ["warmup is an integer of at least 0, got -1"]),
    (["+scenario=short_chat", "seed=-1"], ["seed is an integer of at least 0", "got -1"]),
    (["+scenario=short_chat", "attend=maybe"], ["attend is true or false, got 'maybe'"]),
    (["+scenario=short_chat", "dtype=float8"], ["unknown dtype 'float8'", "float32"]),
    (["+scenario=short_chat", "device=gpu"], ["unknown device 'gpu'", "auto, cpu, cuda"]),
    (["+scenario=short_chat", "budget_bytes=0"], ["budget_bytes is a positive integer, got 0"]),
    (["+scenario=short_chat", "model.num_layers=0"], ["model.num_layers is a positive integer, got 0"]),
    (["+scenario=short_chat", "model.num_kv_heads=5"], ["num_heads is a multiple of num_kv_heads"]),
    (["+scenario=short_chat", "scenario.appends=[]"], ["at least one token count"]),
    (["+scenario=short_chat", "scenario.appends=[10,x]"], ["is a positive integer", "got 'x'"]),
    (["+scenario=short_chat", "scenario.max_requests=0"], ["max_requests is a positive integer", "got 0"]),
    (["+scenario=short_chat", "scenario.max_concurrency=0"], ["max_concurrency is a positive integer", "got 0"]),
    (["+scenario=chat_poisson", "scenario.arrivals.rate_per_s=-2"], ["rate_per_s", "-2"]),
    (["+scenario=azure_conv", "scenario.path=nowhere.csv"], ["nowhere.csv"]),
    (["+scenario=short_chat", "strategy.dynamic._target_=os.system"], ["unknown target 'os.system'"]),
    (["+scenario=short_chat", "+strategy.x={_target_: kvbench.cli.run.os.system}"], ["unknown target"]),
    (
        ["+scenario=short_chat", "+strategy.x={_target_: kvbench.strategy.base.Strategy}"],
        ["unknown target", "there are:"],
    ),
    (
        ["+scenario=short_chat", "scenario._target_=kvbench.workload.request.Request"],
        ["unknown target", "request.Request"],
    ),
    (["+scenario=short_chat", "strategy=[]"], ["no strategy to run"]),
    (["+scenario=short_chat", "scenario.max_concurrency=1.5"], ["max_concurrency is a positive integer", "got 1.5"]),
    (["+scenario=short_chat", "scenario.max_requests=abc"], ["max_requests is a positive integer", "'abc'"]),
    (["+scenario=short_chat", "scenario.appends=5"], ["appends is a list", "got 5"]),
    (["+scenario=short_chat", "seed=99999999999999999999999"], ["seed is an integer", "at most"]),
    (["+scenario=azure_conv", "scenario.path=5"], ["path", "5"]),
    (["+scenario=short_chat", "trusted=null"], ["trusted is a list", "trusted=null"]),
    (["+scenario=short_chat", "trusted=5"], ["trusted is a list", "trusted=5"]),
    (["+scenario=short_chat", "~seed"], ["a whole seed cannot be taken away"]),
    (["+scenario=short_chat", "~strategy"], ["a whole strategy cannot be taken away"]),
    (["+scenario=short_chat", "hydra.searchpath=null"], ["list of file://FOLDER entries"]),
    (["+scenario=short_chat", "hydra.searchpath=file:///tmp"], ["list of file://FOLDER entries, got 'file:///tmp'"]),
    (["+scenario=short_chat", "hydra.run.dir=/proc/x"], ["cannot write to /proc/x"]),
    (["+scenario=short_chat", "+hydra.callbacks.x={_target_: evil.Callback}"], ["callbacks and targets", "refused"]),
    (["+scenario=short_chat", "hydra/callbacks=ev"], ["callbacks and targets", "refused"]),
    (["+scenario=short_chat", "hydra.launcher._target_=evil.X"], ["callbacks and targets", "refused"]),
    (["+scenario=short_chat", "model=article.yaml"], ["no model file 'article.yaml'"]),
    (["+scenario=../strategy/dynamic"], ["unknown scenario"]),
    (["+experiment=recompute", "+scenario=short_chat"], ["an experiment brings its own requests"]),
    (["+experiment=recompute", "strategy=static"], ["an experiment brings its own requests and strategies"]),
    (["+experiment=recompute", "repetitions=abc"], ["repetitions is a positive integer", "'abc'"]),
    (["+experiment=recompute", "budget_bytes=0"], ["budget_bytes is a positive integer, got 0"]),
    (["+experiment=recompute", "experiment.context_tokens=5"], ["context_tokens is a list", "got 5"]),
    (
        ["-m", "+scenario=short_chat", "strategy=dynamic,static", "strategy.dynamic.growth_factor=2"],
        ["strategy.dynamic"],
    ),
    (["-m", "+scenario=glob(nothing*)"], ["matches nothing", "short_chat"]),
    (["--exp=x.pickle"], ["--experimental-rerun is refused"]),
    (["--info", "all", "--experimental-rerun", "x.pickle"], ["--experimental-rerun is refused"]),
    (["--config-na=evil", "+scenario=short_chat"], ["--config-name is refused"]),
    (["+scenario=short_chat", "+strategy.x={growth_factor: 2}"], ["strategy.x: it has no _target_"]),
    (["+scenario=short_chat", "+strategy.x=3"], ["strategy.x is a mapping", "got 3"]),
    (["+scenario=short_chat", "strategy.dynamic.growth_factor=1.2,1.5"], ["several values", "-m"]),
    (["+scenario=short_chat", "+scenario@_global_=short_chat"], ["only a strategy takes a package"]),
    (["+scenario=short_chat", "+strategy@elsewhere=dynamic"], ["it is strategy.NAME, got 'elsewhere'"]),
    (["+scenario=short_chat", "a=[1"], ["cannot read 'a=[1'"]),
    (["+scenario=./not_here.yaml"], ["no scenario file", "not_here.yaml"]),
    (["--experimental-rerun", "x.pickle"], ["--experimental-rerun is refused", "unpickles"]),
    (["--config-name=evil", "+scenario=short_chat"], ["--config-name is refused"]),
    (["-cp", "/tmp", "+scenario=short_chat"], ["--config-path is refused"]),
    (["hydra.searchpath=[pkg://evil]", "+scenario=short_chat"], ["file://FOLDER", "pkg://evil"]),
    (["+scenario=short_chat", "seed=" + "9" * 5_000], ["cannot read 'seed=999", "…"]),
    (["+scenario=short_chat", "text=" + "[" * 500], ["cannot read 'text=[[["]),
    (["+scenario=short_chat", "text=${nowhere}", "strategy=static"], ["'nowhere' not found"]),
    (["+scenario=short_chat", "device=${oc.env:NO_SUCH}", "strategy=static"], ["'NO_SUCH' not found"]),
    (["+scenario=short_chat", "+null=1"], ["unknown key 'null'"]),
    (["+scenario=short_chat", "=3"], ["unknown key ''"]),
    (["+scenario=short_chat", f"model.num_layers={10**30}"], ["model.num_layers is at most 65,536"]),
    (["+scenario=short_chat", "dtype={a: 1}"], ["unknown dtype \"{'a': 1}\""]),
    (["+scenario=short_chat", "-m", "--cfg=job"], ["--multirun and --cfg do not go together"]),
    (["+scenario=~nobody-of-that-name/x.yaml"], ["no scenario file"]),
    (["+scenario=" + "x" * 300 + ".yaml"], ["no scenario file"]),
    (["+scenario=short_chat", "-sc"], ["--shell-completion is refused"]),
    (["+scenario=short_chat", "--nope"], ["unrecognized arguments: --nope"]),
    (["scenarios", "short_chat", "seed=x"], ["seed is an integer"]),
    (["scenarois"], ["unknown verb 'scenarois'", "'scenarios'"]),
    (["scenarios", "short_chatt"], ["unknown scenario 'short_chatt'", "'short_chat'"]),
]

FILES = [
    # content of mine.yaml, words of the message
    ("appends: [1, 2]", ["scenario: it has no _target_", "kvbench.workload"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: [1", ["mine.yaml", "malformed YAML", "line"]),
    ("- 1\n- 2", ["mine.yaml", "mapping", "list"]),
    ("", ["mine.yaml", "mapping"]),
    ("_target_: kvbench.workload.scenario.Apends\nappends: [1]", ["mine.yaml", "unknown target", "Appends"]),
    (
        "_target_: subprocess.run\nargs: [touch, evil]",
        ["mine.yaml", "unknown target 'subprocess.run'", "trusted=[subprocess]"],
    ),
    ("_target_: kvbench.workload.trace.np.load\nfile: x", ["mine.yaml", "unknown target"]),
    ("_target_: kvbench.strategy.dynamic.Dynamic", ["mine.yaml", "unknown target"]),
    ("_target_: ${oc.env:HOME}", ["mine.yaml", "dotted name"]),
    (f"description: '{'$' * 1_000}${{seed}}'", ["mine.yaml: a text that refers to another key", "got 1,007"]),
    ("_target_: [1]", ["mine.yaml", "dotted name"]),
    (
        "_target_: kvbench.workload.scenario.Appends\nappends: {_target_: os.system, command: x}",
        ["unknown target 'os.system'"],
    ),
    ("_target_: kvbench.workload.scenario.Appends\nappends: [{_target_: os.system}]", ["unknown target 'os.system'"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: [1]\nhydra: {a: 1}", ["may not set hydra"]),
    (HYDRA_CALLBACK, ["a scenario file's package is scenario", "_global_"]),
    ("#@ package _global_\na: 1", ["a scenario file's package is scenario"]),
    ("defaults:\n  - override /hydra/launcher: joblib\n", ["defaults list", "same group"]),
    ("defaults:\n  - /strategy: evil\n", ["defaults list"]),
    ("defaults:\n  - short_chat@_global_\n", ["defaults list", "'short_chat@_global_'"]),
    ("defaults:\n  - mine\n", ["comes back to itself"]),
    ("# @foo bar\u2028# @package hydra.callbacks\nx: 1", ["a scenario file's package is scenario"]),
    ("# @foo bar\u0085# @package _global_\nx: 1", ["a scenario file's package is scenario"]),
    ("defaults:\n  - nowhere\n", ["unknown scenario 'nowhere'"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: !!python/object/apply:os.system [ls]", ["malformed YAML"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: [1]\nappends: [2]", ["compose", "appends"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: ${nowhere}", ["nowhere"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: [1]\nnull: 1", ["a key is text, got None"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: !!set {a, b}", ["a tag"]),
    ("_target_: kvbench.workload.scenario.Appends\nappends: [1]\ndescription: ${scenario}", ["nterpolation"]),
    (b"\xff\xfe\x00bad", ["mine.yaml", "not UTF-8"]),
]


def said(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["kvbench", *arguments])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr().err


def check_message(status, message, words):
    assert status in (1, 2)
    for word in words:
        assert word in message
    assert "Traceback" not in message
    assert message.startswith("kvbench: ")
    assert len(message.splitlines()) <= 5


@pytest.mark.parametrize(("arguments", "words"), COMMANDS, ids=lambda value: " ".join(value)[:60])
def test_a_bad_command_line_is_explained(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check_message(*said(monkeypatch, capsys, arguments), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "words"), FILES)
def test_a_bad_scenario_file_is_explained(content, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    check_message(*said(monkeypatch, capsys, ["+scenario=./mine.yaml"]), words)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


HARDWARE_FILES = [
    ("name: Mine", ["hardware Mine: missing memory_bytes, memory_bytes_per_s", "it takes name"]),
    ("defaults: [h100, _self_]\nmemory_bytes: many", ["hardware.memory_bytes is a positive integer, got 'many'"]),
    ("defaults: [h100, _self_]\nbandwidth: 3", ["unknown figure 'bandwidth'", "there are:"]),
    ("defaults: [h10]", ["unknown hardware 'h10'", "'h100'"]),
    ("defaults:\n  - /strategy: evil", ["mine.yaml: the defaults list of a hardware file"]),
    ("_target_: os.system\nname: x", ["mine.yaml: no _target_ may stand here, got 'os.system'"]),
    ("name: [1", ["mine.yaml", "malformed YAML"]),
    ("# @package _global_\nname: x", ["a hardware file's package is hardware"]),
]


@pytest.mark.parametrize(("content", "words"), HARDWARE_FILES)
def test_a_bad_hardware_file_is_explained(content, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(content)
    check_message(*said(monkeypatch, capsys, ["+scenario=short_chat", "hardware=./mine.yaml"]), words)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


STRATEGY_FILES = [
    ("_target_: kvbench.strategy.dynamic.Dynamic", ["begins with '# @package strategy.evil'"]),
    ("# @package _global_\nhydra: {callbacks: {x: {_target_: evil.X}}}", ["package is strategy.evil"]),
    ("# @package strategy.evil\n_target_: evil.Cache", ["unknown target 'evil.Cache'", "trusted=[evil]"]),
    ("# @package strategy.evil\n_target_: kvbench.strategy.dynamic.CapacityExceeded", ["unknown target"]),
    ("# @package strategy.evil\ndefaults: [dynamic]", ["defaults list"]),
    ("# @package strategy.dynamic\n_target_: kvbench.strategy.dynamic.Dynamic", ["package is strategy.evil"]),
]


@pytest.mark.parametrize(("content", "words"), STRATEGY_FILES)
def test_a_bad_strategy_file_is_refused_before_anything_is_imported(content, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more" / "strategy").mkdir(parents=True)
    (tmp_path / "more" / "strategy" / "evil.yaml").write_text(content)
    (tmp_path / "evil.py").write_text("open('touched', 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--config-dir", "more", "+scenario=short_chat", "strategy=evil"]
    check_message(*said(monkeypatch, capsys, arguments), words)
    assert not (tmp_path / "touched").exists()


def test_full_error_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["kvbench", "+scenario=nope"])
    with pytest.raises(Exception, match="unknown scenario"):
        main()


def test_a_model_file_names_no_class(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more" / "model").mkdir(parents=True)
    (tmp_path / "more" / "model" / "ev.yaml").write_text("_target_: evil.Model\n")
    arguments = ["--config-dir", "more", "+scenario=short_chat", "model=ev"]
    check_message(*said(monkeypatch, capsys, arguments), ["no _target_ may stand here", "evil.Model"])


def test_a_configuration_folder_brings_no_launcher(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more" / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "more" / "hydra" / "launcher" / "ev.yaml").write_text("_target_: evil.Launcher\n")
    arguments = ["--config-dir", "more", "+scenario=short_chat", "hydra/launcher=ev"]
    check_message(*said(monkeypatch, capsys, arguments), ["taken from Hydra and its plugins only"])


def test_a_folder_that_holds_results_is_not_written_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "summary.csv").write_text("precious")
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        arguments = [*(["-m"] if "sweep" in key else []), "+scenario=short_chat", f"{key}=kept"]
        check_message(*said(monkeypatch, capsys, arguments), ["the folder is not empty"])
    assert (tmp_path / "kept" / "summary.csv").read_text() == "precious"


NAMES = [
    "a,b.yaml",
    "X.YAML",
    "x.Yml",
    "with space.yaml",
    "é.yaml",
    ".yaml",
    "null.yaml",
    "short_chat.yaml",
    "a,b.yaml,c.yaml",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_file_is_found_whatever_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("_target_: kvbench.workload.scenario.Appends\nappends: [7]\n")
    for value in (name, f"'{tmp_path / name}'"):
        with read([f"+scenario={value}"]) as command:
            check(command)
            assert composed(command)["scenario"]["appends"] == [7]
    with read(["-m", f"+scenario=short_chat,{name},mixed"]) as command:
        assert len(command.choices("scenario")) == 3


@pytest.mark.parametrize("chosen", ["h100,h200", "[h100,h200]", "[ h100 , h200 ]"])
def test_machines_are_named_with_or_without_brackets(chosen):
    with read(["-m", "+scenario=short_chat", f"hardware={chosen}"]) as command:
        assert command.choices("hardware") == ["h100", "h200"]
        check(command)


def test_an_error_of_a_job_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def broken(*_, **__):
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr("kvbench.cli.job.run_job", broken)
    status, message = said(monkeypatch, capsys, ["+scenario=short_chat"])
    check_message(status, message, ["unexpected RuntimeError: nobody expected this", "HYDRA_FULL_ERROR=1"])
    assert status == 1


def test_a_working_directory_that_is_gone_is_told(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for arguments in (["scenarios"], ["+scenario=short_chat"]):
        check_message(*said(monkeypatch, capsys, arguments), ["the working directory is gone"])
    monkeypatch.chdir(tmp_path)

"""Every configuration file composes and builds; a parameter's default has one home, the signature."""

from dataclasses import is_dataclass

import pytest
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from kvbench.cli.files import Files, vet_choice
from kvbench.cli.source import initialized
from kvbench.configuration.catalogue import CONF, GROUPS, default_strategies, file_of, names
from kvbench.configuration.chosen import strategies_of, workload_of
from kvbench.configuration.errors import UsageError
from kvbench.configuration.parts import geometry_of
from kvbench.configuration.targets import MOVED, build, check_target, own_classes
from tests.support import defaults
from tests.support.catalogue import node_of, strategy

BYTES_A_TOKEN = {
    "article": 32_768,
    "deepseek_v3": 70_272,
    "deepseek_v32": 78_324,
    "gemma3_12b": 393_216,
    "gemma3_1b": 26_624,
    "gemma3_27b": 507_904,
    "gemma3_4b": 139_264,
    "gemma4_31b": 901_120,
    "gpt_oss_120b": 73_728,
    "gpt_oss_20b": 49_152,
    "kimi_k2_5": 70_272,
    "llama2_7b": 524_288,
    "llama3_2_3b": 114_688,
    "llama3_405b": 516_096,
    "llama3_70b": 327_680,
    "llama3_8b": 131_072,
    "llama4_scout": 196_608,
    "minimax_m2_5": 253_952,
    "mistral_7b": 131_072,
    "mixtral_8x7b": 131_072,
    "nemotron_h_56b": 40_960,
    "opt_13b": 819_200,
    "phi_4": 204_800,
    "qwen2_5_0_5b": 12_288,
    "qwen2_5_14b": 196_608,
    "qwen2_5_1_5b": 28_672,
    "qwen2_5_3b": 36_864,
    "qwen2_5_7b": 57_344,
    "qwen3_0_6b": 114_688,
    "qwen3_14b": 163_840,
    "qwen3_235b_a22b": 192_512,
    "qwen3_30b_a3b": 98_304,
    "qwen3_32b": 262_144,
    "qwen3_5_27b": 65_536,
    "qwen3_8b": 147_456,
    "qwen3_next_80b_a3b": 24_576,
    "smollm2": 46_080,
}


def composed(*overrides):
    with initialized():
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in names(group)])
def test_every_file_composes_and_passes_its_own_check(group, name):
    vet_choice(group, name, Files(), ())
    config = composed(f"{'+' if group in ('scenario', 'experiment') else ''}{group}={name}")
    assert config[group]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in defaults.GROUPS for name in names(group)])
def test_a_files_keys_and_defaults_are_those_of_its_class(group, name):
    text = file_of(group, name).read_text(encoding="utf-8")
    assert defaults.written(group, name, text) == text
    if group == "strategy":
        assert list(strategies_of(composed(f"strategy={name}"))) == [name]
        made = strategy(name)
        assert not (is_dataclass(made) and defaults.is_own(group, name)) or made == type(made)()


def test_which_files_have_the_signatures_defaults():
    own = {group: [name for name in names(group) if defaults.is_own(group, name)] for group in defaults.GROUPS}
    assert {"dynamic", "hierarchical", "async", "predictive", "predictive_quantile"} <= set(own["strategy"])
    assert not {"int4", "sinks_int4", "hierarchical_disk", "predictive_article"} & set(own["strategy"])
    assert own["backend"] == names("backend")
    assert own["experiment"] == names("experiment")
    assert own["scenario"] == []


@pytest.mark.parametrize(
    ("group", "name", "found", "planted"),
    [
        ("strategy", "sinks", "window: 1020\n", ""),
        ("strategy", "sinks", "window: 1020\n", "window: 1020\nwidow: [1, 2]\n"),
        ("strategy", "hierarchical", "read_ahead: false #", "read_ahead: true #"),
        ("strategy", "adaptive", "  kept_fraction: 0.8\n", "  kept_fraction: 0.9\n"),
        ("strategy", "sinks_int4", "    window: 4092\n", "    window: 4092\n    least:\n      one: 1\n"),
        ("backend", "fleet", "keep: requests #", "keep: summary #"),
        ("experiment", "recompute", "attend: true\n", ""),
        ("scenario", "chat_poisson", "  rate_per_s: 2.0\n", "  rate_per_s: 2.0\n  rate: 3\n"),
    ],
)
def test_a_file_is_written_as_its_class_is(group, name, found, planted):
    text = file_of(group, name).read_text(encoding="utf-8")
    assert text.count(found) == 1
    assert defaults.written(group, name, text.replace(found, planted)) == text


def test_a_key_that_is_wanting_comes_last_with_its_default():
    text = file_of("strategy", "int4").read_text(encoding="utf-8")
    wanting = text.replace("group_size: 32\n", "")
    assert defaults.written("strategy", "int4", wanting) == wanting + "group_size: 32\n"


def test_names_that_classes_had_are_still_taken():
    for old, new in MOVED.items():
        assert defaults.class_named(new).__name__ == new.rpartition(".")[2]
        assert old not in own_classes("scenario", is_part=True) + own_classes("strategy", is_part=False)
    node = node_of("scenario", "code_completion")
    now = build(node, "scenario", "scenario")
    node["arrivals"]["_target_"] = "kvbench.workload.arrivals.Constant"
    assert build(node, "scenario", "scenario") == now


@pytest.mark.parametrize("name", names("scenario"))
def test_a_scenario_says_what_it_is(name):
    assert node_of("scenario", name)["description"]


@pytest.mark.parametrize(("name", "num_bytes"), BYTES_A_TOKEN.items())
def test_bytes_of_a_token(name, num_bytes):
    assert geometry_of(composed(f"model={name}")).bytes_per_token == num_bytes


@pytest.mark.parametrize(("name", "num_global", "tensor_bytes"), [("gemma3_12b", 8, 4096), ("gemma3_27b", 10, 4096)])
def test_bytes_behind_a_window_are_those_of_the_global_layers(name, num_global, tensor_bytes):
    geometry = geometry_of(composed(f"model={name}"))
    assert geometry.held_bytes(8192) - geometry.held_bytes(8191) == 2 * num_global * tensor_bytes
    assert geometry.held_bytes(1024) == 1024 * geometry.bytes_per_token
    assert geometry.num_layers // 6 == num_global  # every sixth


def test_every_model_is_checked():
    assert sorted(BYTES_A_TOKEN) == names("model")


def test_a_models_dtype_and_layers_can_be_changed():
    geometry = geometry_of(composed("model=llama3_8b", "dtype=float32", "model.num_layers=1"))
    assert geometry.bytes_per_token == 2 * 8 * 128 * 4


def test_the_defaults_compared():
    assert default_strategies() == ["concat", "static", "dynamic", "predictive", "paged", "exact"]


def test_a_scenario_draws_the_same_requests_from_the_same_seed():
    first, same, other = (workload_of(composed("+scenario=multi_turn_chat", f"seed={seed}"))[1] for seed in (3, 3, 4))
    assert first == same != other


def test_no_configuration_file_names_a_class_that_is_not_its_groups():
    for group in ("strategy", "scenario", "backend", "experiment"):
        for name in names(group):
            check_target(node_of(group, name)["_target_"], group, name)
    with pytest.raises(UsageError, match="unknown target"):
        check_target("kvbench.strategy.dynamic.Dynamic", "scenario", "here")


def test_a_trusted_name_admits_that_package_alone():
    check_target("mine.Cache", "strategy", "here", trusted=("mine",))
    for target in ("mine2.Cache", "os.system", "kvbench.cli.run.main"):
        with pytest.raises(UsageError, match="unknown target"):
            check_target(target, "strategy", "here", trusted=("mine", "kvbench"))


def test_what_a_constructor_refuses_names_its_key():
    with pytest.raises(UsageError, match=r"strategy\.static: max_seq_len is a positive integer"):
        build(node_of("strategy", "static") | {"max_seq_len": 0}, "strategy", "strategy.static")


def test_a_scenario_is_found_beside_the_other_groups():
    assert file_of("scenario", "short_chat") == CONF.parent / "scenarios" / "short_chat.yaml"
    assert file_of("model", "article") == CONF / "model" / "article.yaml"
    with initialized():
        loader = GlobalHydra.instance().config_loader()
        assert loader.get_group_options("scenario") == names("scenario")
        assert loader.get_group_options("scenario/short_chat") == []
        assert "scenario" in loader.list_groups("")


def test_own_scenarios_come_before_those_of_another_folder(tmp_path):
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "short_chat.yaml").write_text("description: another\n")
    config = composed("+scenario=short_chat", f"hydra.searchpath=[file://{tmp_path}]")
    assert config["scenario"]["description"] != "another"
    assert file_of("scenario", "short_chat", (tmp_path,)) == file_of("scenario", "short_chat")

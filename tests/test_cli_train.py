"""`kvbench train`: weights and a table, or one message."""

import pytest
import yaml

import kvbench as kv
from kvbench.cli.train import main as train_verb
from kvbench.configuration.errors import UsageError
from kvbench.predictor.weights import load_weights
from tests.support.catalogue import node_of

TRACE = "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(
    f"{index},{30 + index % 7},{40 + index % 5}\n" for index in range(80)
)


def test_the_verb_trains_on_a_file_and_on_a_scenario_and_writes_whole(tmp_path, capsys):
    (tmp_path / "mine.csv").write_text(TRACE)
    out = tmp_path / "new" / "mine.safetensors"
    assert train_verb([f"trace={tmp_path / 'mine.csv'}", "format=plain", f"out={out}", "quantile=0.5", "seed=3"]) == 0
    said = capsys.readouterr().out
    assert "mine.csv: 80 requests by arrival: 48 train, 16 choose, 16 are not seen" in said
    names = [line.split()[0] for line in said.splitlines()[5:10]]
    assert names == ["learned", "quantile", "average", "training", "training"]
    about = load_weights(out).about
    assert (about["trace"], about["quantile"], about["seed"]) == ("mine.csv", 0.5, 3)
    assert about["unseen"]["num_requests"] == 16
    assert [path.name for path in out.parent.iterdir()] == ["mine.safetensors"]
    with pytest.raises(UsageError, match="it exists already"):
        train_verb([f"trace={tmp_path / 'mine.csv'}", "format=plain", f"out={out}"])
    chat = yaml.safe_dump(node_of("scenario", "chat_poisson") | {"num_requests": 60, "max_requests": 12})
    (tmp_path / "chat.yaml").write_text(chat)
    assert train_verb([f"trace={tmp_path / 'chat.yaml'}", f"out={tmp_path / 'chat.safetensors'}"]) == 0
    about = load_weights(tmp_path / "chat.safetensors").about
    assert (about["trace"], about["source"], about["split"]["unseen"]) == ("chat", "generated", [48, 60])


def test_the_call_makes_what_the_verb_writes_and_writes_only_when_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(TRACE)
    trained = kv.train("mine.csv", format="plain", seed=3)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]
    assert trained.comparison[0]["predictor"] == "learned"
    train_verb(["trace=mine.csv", "format=plain", "out=mine.safetensors", "seed=3"])
    assert (tmp_path / "mine.safetensors").read_bytes() == trained.weights.to_bytes()
    with pytest.raises(ValueError, match="seed is an integer of at least 0"):
        kv.train("mine.csv", format="plain", seed=-1)
    with pytest.raises(ValueError, match="quantile is a number above 0 and below 1, got True"):
        kv.train("mine.csv", format="plain", quantile=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], r"trace=… is missing; for example: python -m kvbench train"),
        (["trace=azure_conv"], "out=… is missing"),
        (["azure_conv"], "expected key=value, got 'azure_conv'"),
        (["tracee=azure_conv"], r"unknown key 'tracee'\. Did you mean 'trace'"),
        (["trace=azure_con", "out=a.safetensors"], r"unknown scenario 'azure_con'\. Did you mean 'azure_conv'"),
        (["trace=a.csv", "out=a.safetensors"], "a trace file needs format=azure"),
        (["trace=none.csv", "format=azure", "out=a.safetensors"], "trace file none.csv is missing"),
        (["trace=a.csv", "format=azur", "out=a.safetensors"], "unknown trace format 'azur'"),
        (["trace=azure_conv", "out=a.pt"], r"ends in \.safetensors, got 'a\.pt'"),
        (["trace=azure_conv", "out=a.safetensors", "quantile=1"], "quantile is a number above 0 and below 1, got 1.0"),
        (["trace=azure_conv", "out=a.safetensors", "quantile=x"], "got 'x'"),
        (["trace=azure_conv", "out=a.safetensors", "seed=-1"], "seed is an integer of at least 0"),
        (["trace=azure_conv", "out=a.safetensors", f"seed={2**63}"], "and at most 9,223,372,036,854,775,807, got"),
        (["trace=short_chat", "out=a.safetensors"], "trace=short_chat: training needs at least 50 requests, got 1"),
    ],
)
def test_the_verb_refuses_and_writes_nothing(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        train_verb(arguments)
    assert list(tmp_path.iterdir()) == []

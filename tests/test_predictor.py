"""Predictors of a request's further tokens: figures by hand, honest training, weights that are checked."""

import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from kvbench.configuration.errors import UsageError
from kvbench.predictor.compare import compare, rate
from kvbench.predictor.features import KNOTS, features, inputs
from kvbench.predictor.learned import Learned
from kvbench.predictor.network import Network, new_network, pinball
from kvbench.predictor.past import ExponentialAverage, PastQuantile
from kvbench.predictor.recent import Recent, rank
from kvbench.predictor.replay import examples_of, predictions
from kvbench.predictor.train import split, train
from kvbench.predictor.weights import KEY, WeightsError, find_weights, load_weights, shipped_names
from kvbench.workload.request import NS_PER_S, Request, Session
from kvbench.workload.trace import TraceMissing
from tests.support.catalogue import scenario, strategy


def told(predictor, *further):
    for num_tokens in further:
        predictor.learn(10, num_tokens)
    return predictor.predict(10)


def test_exponential_average_by_hand():
    # 100 is the first average; 100 + 0.25 · (200 - 100) = 125; 125 + 0.25 · (0 - 125) = 93.75, rounded up.
    average = ExponentialAverage(alpha=0.25)
    assert told(average) is None
    assert told(average, 100) == 100
    assert told(average, 200) == 125
    assert told(average, 0) == 94
    average.forget()
    assert told(average) is None
    assert told(ExponentialAverage(alpha=1), 5, 7) == 7  # all weight on the newest


def test_quantile_by_hand():
    # 0.9 of one is the first of one; of two, 1.8, the second; of ten, 9.0, the ninth in order of size.
    assert told(PastQuantile(quantile=0.9, history_window=10)) is None
    assert told(PastQuantile(quantile=0.9, history_window=10), 70) == 70
    assert told(PastQuantile(quantile=0.9, history_window=10), 70, 30) == 70
    assert told(PastQuantile(quantile=0.5, history_window=10), 70, 30) == 30
    assert told(PastQuantile(quantile=0.9, history_window=10), *range(100, 0, -10)) == 90
    assert told(PastQuantile(quantile=0.9, history_window=3), 1000, 5, 7, 6) == 7  # the 1000 is beyond the window
    assert told(PastQuantile(quantile=1, history_window=3), 5, 5, 5, 4) == 5
    assert rank(0.55, 100) == 55
    assert rank(1e-6, 3) == 1


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: ExponentialAverage(alpha=0), "alpha is a number above 0 and at most 1, got 0"),
        (lambda: ExponentialAverage(alpha=math.nan), "alpha is a number"),
        (lambda: PastQuantile(quantile=1.5, history_window=4), "quantile is a number above 0 and at most 1, got 1.5"),
        (lambda: PastQuantile(quantile=0.5, history_window=0), "history_window is a positive integer, got 0"),
    ],
)
def test_a_predictor_refuses_what_is_out_of_range(made, words):
    with pytest.raises(ValueError, match=words):
        made()


def test_the_window_agrees_with_a_plain_list():
    rng, recent, kept = np.random.default_rng(3), Recent(5), []
    for num_tokens in rng.integers(0, 9, 60).tolist():
        recent.add(num_tokens)
        kept = [*kept, num_tokens][-5:]
        assert (len(recent), recent.mean()) == (len(kept), np.mean(kept))
        assert recent.deviation() == pytest.approx(np.std(kept))
        assert recent.quantile(0.5) == np.quantile(kept, 0.5, method="inverted_cdf")


def test_features_by_hand():
    recent = Recent(64)
    assert features(8, recent)[0] == 3
    assert np.isnan(features(8, recent)[1:]).all()
    recent.add(1)
    recent.add(5)
    # Mean 3, median (the first of two) 1, p90 5; deviation 2 over mean 3.
    assert features(1024, recent) == pytest.approx([10, 2, 1, math.log2(6), 2 / 3])
    # Unknown is the mean; 12 is held to the most seen, 10.25, half way between two knots.
    one = np.ones(5)
    row = inputs(np.array([[12.0, *[math.nan] * 4]]), 0 * one, 10.25 * one, one, one)[0]
    assert row[:5].tolist() == [9.25, 0, 0, 0, 0]
    assert {float(KNOTS[i]): row[5 + i] for i in np.flatnonzero(row[5:])} == {10.0: 0.5, 10.5: 0.5}


def test_pinball_and_rates_by_hand():
    # 10 short at 0.9 each, then 20 too many at 0.1 each: (9 + 2) / 2.
    actual, predicted = np.array([30, 30]), np.array([20, 50])
    assert pinball(actual, predicted, 0.9) == pytest.approx(5.5)
    figures = {"num_requests": 2, "pinball_tokens": 5.5, "coverage": 0.5, "waste_tokens": 10, "short_tokens": 5}
    assert rate(actual, predicted, 0.9) == pytest.approx(figures)


def test_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(1)
    network, x, y = new_network(4, 3, 0.5, rng), rng.normal(size=(20, 4)), rng.normal(size=20)
    for parameter, gradient in zip(network.parameters, network.gradients(x, y, 0.8), strict=True):
        for place in np.ndindex(parameter.shape):
            losses = []
            for step in (1e-6, -2e-6):
                parameter[place] += step
                losses.append(pinball(y, network(x), 0.8))
            parameter[place] += 1e-6
            assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-5)


def synthetic(num=600, seed=5):
    """Short prompts are answered at length, long ones in brief: only who looks at the prompt can know."""
    rng = np.random.default_rng(seed)
    prompts = np.where(rng.random(num) < 0.5, rng.integers(20, 40, num), rng.integers(500, 900, num))
    answers = np.where(prompts < 100, rng.integers(300, 400, num), rng.integers(10, 30, num))
    return examples_of(
        [
            Session(index * NS_PER_S, (Request(int(prompt), int(answer)),))
            for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]
    )


def test_what_is_learned_beats_the_others_on_requests_that_it_has_not_seen():
    examples = synthetic()
    rows = {row["predictor"]: row for row in compare(train(examples, 0.9, 0, "synthetic", "made here"), examples)}
    assert {row["num_requests"] for row in rows.values()} == {120}
    learned = rows.pop("learned")
    assert all(learned["pinball_tokens"] < row["pinball_tokens"] / 2 for row in rows.values())
    assert 0.75 < learned["coverage"] < 1


def test_training_twice_gives_the_same_bytes_and_another_seed_others():
    first, again, other = (train(synthetic(), 0.9, seed, "synthetic", "made here").to_bytes() for seed in (0, 0, 1))
    assert first == again != other


def test_training_looks_at_no_request_of_the_unseen_part():
    examples = synthetic()
    further = examples.num_further_tokens.copy()
    further[split(len(examples))[2]] = 9999
    changed = replace(examples, num_further_tokens=further)
    assert train(examples, 0.9, 0, "a", "b").to_bytes() == train(changed, 0.9, 0, "a", "b").to_bytes()


def test_training_refuses():
    assert [(part.start, part.stop) for part in split(50)] == [(0, 30), (30, 40), (40, 50)]
    with pytest.raises(ValueError, match="at least 50 requests, got 49"):
        train(synthetic(49), 0.9, 0, "a", "b")
    with pytest.raises(ValueError, match=r"quantile is a number above 0 and below 1, got 1\.0"):
        train(synthetic(), 1.0, 0, "a", "b")


def test_a_request_is_known_once_it_has_ended_and_not_before():
    # Arrivals at 0, 1, 2 and 3 s; at 20 tokens a second they end at 2, 1.5, 7 and 3.25 s.
    requests = [Session(s * NS_PER_S, (Request(9, tokens),)) for s, tokens in enumerate((40, 10, 100, 5))]
    examples = examples_of(requests)
    assert (examples.end_ns / NS_PER_S).tolist() == [2, 1.5, 7, 3.25]
    assert predictions(PastQuantile(quantile=1, history_window=9), examples, slice(0, 4)).tolist() == [0, 0, 39, 39]
    assert predictions(ExponentialAverage(alpha=1), examples, slice(2, 4)).tolist() == [39, 39]
    spoken = examples_of([Session(0, (Request(7, 20), Request(5, 40, think_ns=NS_PER_S)))])
    assert (spoken.num_prompt_tokens[0], spoken.num_further_tokens[0], spoken.end_ns[0]) == (7, 64, 4 * NS_PER_S)
    assert len(examples_of([])) == 0


def test_the_shipped_weights_are_what_they_say():
    assert shipped_names() == ["azure_conv"]
    path = find_weights("azure_conv")
    about = load_weights(path).about
    assert path.stat().st_size < 8192
    assert (about["trace"], about["quantile"], about["seed"]) == ("azure_conv", 0.9, 0)
    assert "CC-BY 4.0; Patel et al." in about["source"]
    assert [about["split"][name] for name in ("train", "choose", "unseen")] == [
        [part.start, part.stop] for part in split(19_366)
    ]


def test_the_shipped_weights_come_out_of_training_and_rate_as_they_say(traces):
    try:
        whole = scenario("azure_conv", max_requests=None).workload(np.random.default_rng(0))
    except TraceMissing as missing:
        pytest.skip(str(missing))
    examples, shipped = examples_of(whole.sessions), load_weights(find_weights("azure_conv"))
    about = shipped.about
    again = train(examples, about["quantile"], about["seed"], about["trace"], about["source"])
    assert {**again.about, "unseen": about["unseen"]} == about
    # Another processor may add in another order.
    for ours, theirs in zip(again.network.parameters, shipped.network.parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    rows = {row["predictor"]: row for row in compare(shipped, examples)}
    for name, value in about["unseen"].items():
        assert rows["learned"][name] == pytest.approx(value, rel=1e-3)
    assert rows["learned"]["pinball_tokens"] < 0.6 * min(
        row["pinball_tokens"] for name, row in rows.items() if name != "learned"
    )


def changed_file(**changes):
    """A file of weights with some of its tensors or its text replaced."""
    content = train(synthetic(60), 0.9, 0, "a", "b")
    about = dict(content.about) | changes.pop("about", {})
    tensors = load(content.to_bytes()) | changes
    return save({name: array for name, array in tensors.items() if array is not None}, {KEY: json.dumps(about)})


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("it was run",))


F32 = np.float32
BROKEN = {
    "empty": (lambda: b"", "header"),
    "no safetensors": (lambda: b"\xff" * 400, "header"),
    "a pickle": (lambda: pickle.dumps(Evil()), "header"),
    "cut short": (lambda: changed_file()[:-9], "incomplete"),
    "too large": (lambda: b"\0" * (2**20 + 1), "at most 1,048,576 are allowed"),
    "no metadata": (lambda: save({"low": np.zeros(5, F32)}), "no entry kvbench_predictor"),
    "no JSON": (lambda: save({"low": np.zeros(5, F32)}, {KEY: "{"}), "is no JSON"),
    "deep JSON": (lambda: save({"low": np.zeros(5, F32)}, {KEY: "[" * 99_999}), "is no JSON"),
    "no mapping": (lambda: save({"low": np.zeros(5, F32)}, {KEY: "[]"}), "quantile"),
    "another version": (lambda: changed_file(about={"version": 2}), "version is 2, this version reads 1"),
    "other features": (lambda: changed_file(about={"features": ["age"]}), r"features is \['age'\]"),
    "no quantile": (lambda: changed_file(about={"quantile": 2.0}), "between 0 and 1, got 2.0"),
    "a tensor too few": (lambda: changed_file(low=None), "no tensor low"),
    "a tensor too many": (lambda: changed_file(extra=np.zeros(1, F32)), "not of the kind: extra"),
    "another dtype": (lambda: changed_file(low=np.zeros(5)), "low is of dtype F32, got F64"),
    "another shape": (lambda: changed_file(low=np.zeros((5, 1), F32)), r"low has shape \(5,\), got \(5, 1\)"),
    "another width": (lambda: changed_file(hidden_bias=np.zeros(3, F32)), r"hidden_weight has shape \(36, 3\)"),
    "far too wide": (lambda: changed_file(hidden_bias=np.zeros(999, F32)), r"hidden_weight has shape \(36, 256\)"),
    "NaN": (lambda: changed_file(scale=np.array([math.nan], F32)), "scale is finite throughout"),
    "no scale": (lambda: changed_file(scale=np.zeros(1, F32)), "scale are above 0"),
    "a range upside down": (lambda: changed_file(low=np.full(5, 1e9, F32)), "low is at most high"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_or_foreign_file_gets_one_message(tmp_path, case):
    make, words = BROKEN[case]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(make())
    with pytest.raises(WeightsError, match=words) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert "expected is a .safetensors file that `python -m kvbench train` wrote (version 1)" in str(caught.value)
    with pytest.raises(UsageError, match=r"strategy\.predictive_learned: .*broken\.safetensors"):
        strategy("predictive_learned", weights=str(path))


def test_weights_that_are_nowhere_name_what_there_is(tmp_path):
    with pytest.raises(UsageError, match=r"unknown weights 'azure_cnv'\. Did you mean 'azure_conv'\?"):
        strategy("predictive_learned", weights="azure_cnv")
    with pytest.raises(UsageError, match="unknown weights '3'"):
        strategy("predictive_learned", weights=3)
    with pytest.raises(UsageError, match=r"none\.safetensors: there is no such file"):
        strategy("predictive_learned", weights=str(tmp_path / "none.safetensors"))


def test_what_was_saved_is_what_is_read(tmp_path):
    weights = train(synthetic(), 0.75, 2, "synthetic", "made here")
    path = tmp_path / "mine.safetensors"
    path.write_bytes(weights.to_bytes())
    read, values = load_weights(path), np.array([[5.0, 7, 7, 7, 1], [9.5, *[math.nan] * 4]])
    assert read.about == weights.about
    assert read.quantile == 0.75
    assert read.predict(values).tolist() == weights.predict(values).tolist()
    strategy("predictive_learned", weights=str(path))


def test_a_learned_prediction_is_whole_and_never_negative():
    weights = train(synthetic(60), 0.9, 0, "a", "b")
    zero = [np.zeros_like(parameter) for parameter in weights.network.parameters[:3]]
    # The network says 0.1, and the scale makes tokens of it; below nothing is nothing.
    for output, tokens in ((0.1, math.ceil(0.1 * weights.scale)), (-0.1, 0)):
        constant = replace(weights, network=Network(*zero, np.array([output])))
        assert Learned(weights=constant).predict(1) == tokens

"""The learned predictor's weights: numbers and text in a safetensors file, and every check that it is one of ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kvbench.messages import unknown
from kvbench.predictor.features import FEATURES, NUM_INPUTS, WINDOW, inputs
from kvbench.predictor.network import Network

Matrix = NDArray[np.float64]

VERSION = 1
SUFFIX = ".safetensors"
KEY = "kvbench_predictor"
MAX_BYTES = 1 << 20
MAX_WIDTH = 256
SHIPPED = Path(__file__).resolve().parent
_RANGE = ("low", "high", "mean", "std")
_NETWORK = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")
EXPECTED = f"expected is a {SUFFIX} file that `python -m kvbench train` wrote (version {VERSION})"


class WeightsError(ValueError):
    """A file that holds no weights of a learned predictor: says which, what is wrong and what is expected."""


@dataclass(frozen=True, eq=False)
class PredictorWeights:
    """A trained network, and what turns features into its inputs and its outputs into tokens.

    Args:
        low: [num_features], the least of each feature in training.
        high: [num_features], the most.
        mean: [num_features].
        std: [num_features], > 0.
        network: predicts further tokens ÷ scale.
        scale: tokens, > 0.
        about: version, features, window and quantile; and for people: trace, source, split, seed.
    """

    low: Matrix
    high: Matrix
    mean: Matrix
    std: Matrix
    network: Network
    scale: float
    about: Mapping[str, Any]

    @property
    def quantile(self) -> float:
        """Which quantile of the further tokens it was trained to predict."""
        quantile: float = self.about["quantile"]
        return quantile

    def predict(self, values: Matrix) -> Matrix:
        """Further tokens of each request, as the network has them: fractions, and below 0 too.

        Args:
            values: features, [num_requests, num_features], NaN where unknown.
        Returns:
            [num_requests].
        """
        return self.network(inputs(values, self.low, self.high, self.mean, self.std)) * self.scale

    def to_bytes(self) -> bytes:
        """The whole file, as float32; the same weights give the same bytes."""
        arrays = {name: getattr(self, name) for name in _RANGE}
        arrays |= {name: getattr(self.network, name) for name in _NETWORK} | {"scale": np.array([self.scale])}
        tensors = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
        # One entry of text: safetensors keeps several in no particular order.
        return save(tensors, {KEY: json.dumps(dict(self.about), sort_keys=True)})


def described(quantile: float, **more: object) -> dict[str, object]:
    """What a file says of itself: what this version checks, and more for people."""
    return {"version": VERSION, "features": list(FEATURES), "window": WINDOW, "quantile": quantile} | more


def shipped_names() -> list[str]:
    """Names of the weights that come with kvbench."""
    return sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}"))


def find_weights(name: str) -> Path:
    """The file of shipped weights, or a path as it is given.

    Raises:
        ValueError: it is neither a shipped name nor a path that ends in .safetensors.
    """
    if isinstance(name, str) and name in shipped_names():
        return SHIPPED / f"{name}{SUFFIX}"
    if isinstance(name, str) and name.endswith(SUFFIX):
        return Path(name).expanduser()
    raise ValueError(f"{unknown('weights', name, shipped_names())}\n  or a path that ends in {SUFFIX}")


def load_weights(path: Path) -> PredictorWeights:
    """Read a file of weights. Nothing in it can run.

    Raises:
        WeightsError: it is missing, broken, or not of this kind.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file; {EXPECTED}")
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{path}: {path.stat().st_size:,} bytes, at most {MAX_BYTES:,} are allowed; {EXPECTED}")
    try:
        with safe_open(path, framework="numpy") as file:
            about = _about(path, file.metadata() or {})
            arrays = {name: _array(path, file, name) for name in (*_RANGE, *_NETWORK, "scale")}
            foreign = set(file.keys()) - set(arrays)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: {error}; {EXPECTED}") from error
    if foreign:
        raise WeightsError(f"{path}: it has tensors that are not of the kind: {', '.join(sorted(foreign))}; {EXPECTED}")
    _check_arrays(path, arrays)
    network = Network(*(arrays[name] for name in _NETWORK))
    low, high, mean, std = (arrays[name] for name in _RANGE)
    return PredictorWeights(low, high, mean, std, network, float(arrays["scale"][0]), about)


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, object]:
    if KEY not in metadata:
        raise WeightsError(f"{path}: its metadata has no entry {KEY}; {EXPECTED}")
    try:
        about: object = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata {KEY} is no JSON; {EXPECTED}") from error
    quantile = about.get("quantile") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(quantile, float) or not 0 < quantile < 1:
        raise WeightsError(f"{path}: its quantile is a number between 0 and 1, got {quantile!r}; {EXPECTED}")
    for key, value in described(quantile).items():
        if about.get(key) != value:
            raise WeightsError(f"{path}: its {key} is {about.get(key)!r}, this version reads {value!r}; {EXPECTED}")
    return about


def _array(path: Path, file: safe_open, name: str) -> Matrix:
    if name not in file.keys():  # noqa: SIM118, the file is no mapping
        raise WeightsError(f"{path}: it has no tensor {name}; {EXPECTED}")
    dtype = file.get_slice(name).get_dtype()
    if dtype != "F32":
        raise WeightsError(f"{path}: {name} is of dtype F32, got {dtype}; {EXPECTED}")
    tensor: NDArray[np.float32] = file.get_tensor(name)
    return tensor.astype(np.float64)


def _check_arrays(path: Path, arrays: Mapping[str, Matrix]) -> None:
    width = min(max(arrays["hidden_bias"].size, 1), MAX_WIDTH)
    shapes: dict[str, tuple[int, ...]] = {name: (len(FEATURES),) for name in _RANGE}
    shapes |= {"hidden_weight": (NUM_INPUTS, width), "hidden_bias": (width,), "output_weight": (width,)}
    shapes |= {"output_bias": (1,), "scale": (1,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise WeightsError(f"{path}: {name} has shape {shape}, got {arrays[name].shape}; {EXPECTED}")
        if not np.isfinite(arrays[name]).all():
            raise WeightsError(f"{path}: {name} is finite throughout, got NaN or infinity; {EXPECTED}")
    if (arrays["std"] <= 0).any() or (arrays["scale"] <= 0).any() or (arrays["low"] > arrays["high"]).any():
        raise WeightsError(f"{path}: std and scale are above 0 and low is at most high, which is not so; {EXPECTED}")

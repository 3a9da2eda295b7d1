"""Products, experts, traffic and exchanges: one form for machines that were measured and those that were not."""

import numpy as np
import pytest

from kvbench.timing.corrections import Corrections
from kvbench.timing.exchanges import share_of
from kvbench.timing.experts import KNOTS as EXPERT_KNOTS
from kvbench.timing.experts import ExpertFigures
from kvbench.timing.kernels import kernels_of
from kvbench.timing.memory import TrafficFigures
from kvbench.timing.products import KNOTS, ProductFigures, at_share
from kvbench.timing.shapes import ExpertShape
from tests.support.machines import machine

FIGURES = ProductFigures(floor_s=4e-6, cache_share=0.9, cache_bytes=1.0, share=0.9)._asdict()
PEAKS = {"memory_bytes_per_s": 2e12, "flops_per_s": 5e14, "flops_8bit_per_s": 1e15}
SHAPE = ExpertShape(num_experts=8, top_k=2, hidden=4096, intermediate=8192, dtype="bfloat16")
NONE = " ".join("0" * int(np.prod([len(axis) for axis in KNOTS])))


def fitted(**kernels):
    return kernels_of(machine(**PEAKS, launch_s=2e-6, memory_efficiency=0.8, kernels=kernels or None))


def test_a_product_is_its_bytes_or_its_operations_and_a_floor():
    ours = fitted(products={"bfloat16": FIGURES})
    reading = ours.product_s(1, 65536, 16384, "bfloat16")
    assert reading == pytest.approx(4e-6 + 2 * 65536 * 16384 / (0.9 * 2e12), rel=0.01)
    computing = ours.product_s(65536, 65536, 16384, "bfloat16")
    assert computing == pytest.approx(2 * 65536 * 65536 * 16384 / (0.8 * 5e14), rel=0.02)
    assert ours.product_s(0, 4096, 4096, "bfloat16") > 0


def test_an_engine_may_compute_at_a_share_of_fitted_rates():
    whole = machine(**PEAKS, kernels={"products": {"bfloat16": FIGURES, "fp8": FIGURES}, "experts": {}})
    ours, half = (kernels_of(each) for each in (whole, at_share(whole, 0.5)))
    large, small = (65536, 65536, 16384), (1, 65536, 16384)
    assert half.product_s(*large, "bfloat16") == pytest.approx(2 * ours.product_s(*large, "bfloat16"), rel=0.02)
    assert half.product_s(*small, "bfloat16") == pytest.approx(ours.product_s(*small, "bfloat16"), rel=0.01)
    assert half.product_s(*large, "fp8") == ours.product_s(*large, "fp8")
    assert at_share(whole, 1.0) is whole
    sheet = machine(**PEAKS)
    assert at_share(sheet, 0.5) is sheet
    for broken in ({"products": 3}, {"products": {"bfloat16": 3}}, {"products": {"nonsense": FIGURES}}):
        with pytest.raises(ValueError, match=r"hardware\.kernels\.products"):
            kernels_of(at_share(machine(**PEAKS, kernels=broken), 0.5))


def test_corrections_multiply_and_are_held_beyond_their_ends():
    hundredths = np.zeros([len(axis) for axis in KNOTS])
    hundredths[-1, 0, 0], hundredths[-2, 0, 0] = 20, 40
    text = " ".join(map(str, hundredths.astype(int).ravel()))
    plain = fitted(products={"bfloat16": FIGURES | {"corrections": NONE}})
    ours = fitted(products={"bfloat16": FIGURES | {"corrections": text}})
    m = np.array([1, 4096, 8192, 16384, 1e6])
    ratio = ours.product_s(m, 256, 256, "bfloat16") / plain.product_s(m, 256, 256, "bfloat16")
    assert np.log(ratio) == pytest.approx([0, 0.4, 0.3, 0.2, 0.2])
    assert ours.product_s(16384, 64, 64, "bfloat16") > plain.product_s(16384, 64, 64, "bfloat16")
    assert ours.product_s(16384, 1024, 256, "bfloat16") == plain.product_s(16384, 1024, 256, "bfloat16")


def test_a_grid_is_straight_between_its_knots():
    grid = Corrections(((1.0, 4.0), (10.0, 1000.0)), (0, 100, 200, 300))
    assert np.log(grid.factor(2, 100)) == pytest.approx(1.5)
    assert np.log(grid.factor([1, 4, 9], [[10], [1000]])) == pytest.approx(np.array([[0, 2, 2], [1, 3, 3]]))
    with pytest.raises(ValueError, match="corrections are 4 numbers, got 3"):
        Corrections(((1.0, 4.0), (10.0, 1000.0)), (0, 100, 200))


@pytest.mark.parametrize("kernels", [{}, {"products": {"bfloat16": FIGURES}}])
def test_more_of_anything_takes_no_less(kernels):
    ours = fitted(**kernels)
    tokens = np.unique(np.geomspace(1, 1e6, 200).round())
    for dtype in ("bfloat16", "float16", "float32", "fp8", "fp8_block", "w4a16_mxfp4", "nvfp4", "int8", "mxfp8"):
        for times in (
            ours.product_s(tokens, 4096, 4096, dtype),
            ours.product_s(64, tokens, 4096, dtype),
            ours.product_s(64, 4096, tokens, dtype),
            ours.experts_s(tokens, SHAPE._replace(dtype=dtype)),
        ):
            assert (times > 0).all()
            assert (np.diff(times) >= -1e-9 * times[1:]).all()


def test_fewer_bits_are_faster_where_weights_are_read_and_where_the_machine_has_a_rate():
    ours = fitted()
    few = [float(ours.product_s(1, 16384, 16384, dtype)) for dtype in ("float32", "bfloat16", "fp8", "w4a16_mxfp4")]
    assert few == sorted(few, reverse=True)
    many = {dtype: float(ours.product_s(16384, 16384, 16384, dtype)) for dtype in ("bfloat16", "fp8", "w4a16_mxfp4")}
    assert many["fp8"] < 0.6 * many["bfloat16"]
    assert many["w4a16_mxfp4"] == pytest.approx(many["bfloat16"], rel=0.1)


def test_a_model_converts_in_the_kernel_before():
    ours = fitted(products={"fp8": FIGURES | {"convert_share": 0.5}})
    alone, within = (ours.product_s(4096, 4096, 4096, "fp8", converts=value) for value in (True, False))
    assert alone - within == pytest.approx(4096 * 4096 * 3 / (0.5 * 2e12))
    assert ours.product_s(8, 512, 512, "bfloat16", converts=False) == ours.product_s(8, 512, 512, "bfloat16")


def test_a_dtype_that_was_not_measured_takes_the_nearest():
    ours = fitted(products={"bfloat16": FIGURES | {"floor_s": 1e-3}})
    assert float(ours.product_s(1, 256, 256, "fp8_block")) > 1e-3
    assert ours.product_s(8, 512, 512, "float16") == ours.product_s(8, 512, 512, "bfloat16")


def test_experts_that_are_touched_are_read():
    figures = ExpertFigures(floor_s=3e-5, share=1.0, cache_share=1.0, cache_bytes=1.0, sharpness=9.0)._asdict()
    ours = fitted(experts={"bfloat16": figures})
    expert_s = 3 * 4096 * 8192 * 2 / 2e12
    assert ours.experts_s(1, SHAPE) == pytest.approx(3e-5 + 2 * expert_s, rel=0.01)
    assert ours.experts_s(2, SHAPE) == pytest.approx(3e-5 + 8 * (1 - 0.75**2) * expert_s, rel=0.01)
    assert ours.touched_experts_s(2, 4, SHAPE) == pytest.approx(3e-5 + 4 * expert_s, rel=0.01)
    assert len(EXPERT_KNOTS) == 3


def test_traffic_is_a_floor_and_bytes():
    figures = TrafficFigures(floor_s=1e-6, share=0.5, cache_share=2.0, cache_bytes=1e7)._asdict()
    ours = fitted(traffic=figures)
    assert ours.traffic_s([1e9, 1e5]) == pytest.approx([1e-6 + 1e9 / 1e12, 1e-6 + 1e5 / 4e12], rel=1e-3)


POINTS = [[1024, 5e-6], [4096, 6e-6], [1048576, 1e-4]]


def test_exchanges_follow_measured_sums():
    ours = fitted(all_reduce={"2": POINTS, 8: [[1024, 1e-5], [1048576, 2e-4]]})
    assert ours.exchange_s("all_reduce", [1, 1024, 2048, 1048576], 2) == pytest.approx(
        [5e-6, 5e-6, np.sqrt(5e-6 * 6e-6), 1e-4]
    )
    further = (1e-4 - 6e-6) / (1048576 - 4096)
    assert ours.exchange_s("all_reduce", 2097152, 2) == pytest.approx(1e-4 + 1048576 * further)
    # Of the same latency and bandwidth: half of what a sum of two passes through each link.
    assert ours.exchange_s("all_gather", 1048576, 2) == pytest.approx(5e-6 + (1e-4 - 5e-6) / 2)
    assert ours.exchange_s("all_reduce", 1048576, 16) == pytest.approx(
        1e-5 + (2e-4 - 1e-5) * share_of("all_reduce", 16) / share_of("all_reduce", 8)
    )


def test_exchanges_of_a_data_sheet_are_its_links():
    ours = kernels_of(machine(link_s=4e-6, link_bytes_per_s=1e11))
    assert ours.exchange_s("all_reduce", 1e9, 4) == pytest.approx(4e-6 + 1.5 * 1e9 / 1e11)
    assert ours.exchange_s("send", 1e9, 2) == pytest.approx(4e-6 + 1e9 / 1e11)
    with pytest.raises(ValueError, match=r"states no hardware\.link_s"):
        kernels_of(machine()).exchange_s("send", 1, 2)


REFUSED = [
    ({"product": {}}, r"hardware\.kernels: unknown key 'product'\. Did you mean 'products'"),
    ({"products": [1]}, r"hardware\.kernels\.products is a mapping, got \[1\]"),
    ({"products": {"bf16": FIGURES}}, r"kernels\.products: unknown dtype 'bf16'"),
    ({"products": {"fp8": {**FIGURES, "shar": 1}}}, r"products\.fp8: unknown figure 'shar'\. Did you mean 'share'"),
    ({"products": {"fp8": {**FIGURES, "share": -1}}}, r"products\.fp8\.share is a number above 0.*, got -1"),
    ({"products": {"fp8": {"share": 0.8}}}, r"products\.fp8: missing floor_s, cache_share"),
    ({"products": {"fp8": {**FIGURES, "corrections": "1 2"}}}, r"products\.fp8: corrections are 252 numbers, got 2"),
    ({"products": {"fp8": {**FIGURES, "corrections": "1 x"}}}, r"corrections: whole numbers .*, got 'x'"),
    ({"experts": {"fp8": FIGURES}}, r"experts\.fp8: unknown figure 'write_weight'"),
    ({"traffic": {"floor_s": 1e-6}}, r"kernels\.traffic: missing share"),
    ({"all_reduce": {"1": POINTS}}, r"all_reduce: a number of accelerators is at least 2, got '1'"),
    ({"all_reduce": {"2": POINTS[::-1]}}, r"all_reduce\.2: from point to point sizes grow"),
    ({"all_reduce": [POINTS]}, r"kernels\.all_reduce is a mapping"),
]


@pytest.mark.parametrize(("kernels", "message"), REFUSED)
def test_bad_figures_are_refused(kernels, message):
    with pytest.raises(ValueError, match=message):
        fitted(**kernels)

"""Tables of measured kernels: what is read, what is refused, and which rows judge."""

import numpy as np
import pandas as pd
import pytest

from kvbench.calibration.tables import NEEDED, is_held_out, is_held_out_by, named_of, read_kernels
from tests.support.measurements import measurement


def products(num=40, **columns):
    m = np.arange(1, num + 1)
    return pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": m, "n": 128, "k": 256, "seconds": m * 1e-6, **columns})


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_table_is_read_from_either_form(tmp_path, suffix):
    path = tmp_path / f"mine_vllm.{suffix}"
    frame = products(m=pd.array([1, 2, 3, *[4] * 37], dtype="Int64"), top_k=pd.array([None] * 40, dtype="Int64"))
    frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
    found = read_kernels(path)
    assert list(found["m"][:4]) == [1, 2, 3, 4]
    assert found["m"].dtype == np.int64
    assert set(found["top_k"]) == set(found["window"]) == {0}
    assert set(found["detail"]) == {""}
    assert found["seconds"][2] == 3e-6


def test_a_name_says_what_was_measured(tmp_path):
    assert named_of(tmp_path / "a100_80_vllm.parquet") == ("a100_80", "vllm")
    assert named_of(tmp_path / "mine.csv") is None


def broken(path):
    path.write_bytes(b"PAR1 no more")


REFUSED = [
    ({"seconds": -1.0}, "row 1: seconds is above 0, got -1"),
    ({"seconds": [1.0, *["soon"] * 39]}, "row 2: seconds is above 0, got nan"),
    ({"m": 1.5}, "row 1: m is a whole number of at least 0, got 1.5"),
    ({"n": np.nan}, "row 1: n is a whole number of at least 0, got nan"),
    ({"op": "gemms"}, "Did you mean 'gemm'"),
    ({"op": "decode_attention"}, "rows of decode_attention, but no column batch, new_tokens"),
]


@pytest.mark.parametrize(("columns", "message"), REFUSED)
def test_what_is_no_table_is_refused(tmp_path, columns, message):
    path = tmp_path / "mine_vllm.csv"
    products(**columns).to_csv(path, index=False)
    with pytest.raises(ValueError, match="mine_vllm") as caught:
        read_kernels(path)
    assert message in str(caught.value)


def test_what_cannot_be_read_is_refused(tmp_path):
    for name, make, message in [
        ("no.parquet", lambda path: None, "cannot be read: No such file"),
        ("broken.parquet", broken, "cannot be read"),
        ("empty.csv", lambda path: path.write_text(""), "cannot be read as a csv file"),
        ("none.csv", lambda path: products(0).to_csv(path), "has no rows"),
        ("other.csv", lambda path: path.write_text("a,op\n1,2\n"), "lacks dtype, seconds; it has a, op"),
        ("table.xlsx", lambda path: None, "unknown kind of table '.xlsx'"),
    ]:
        make(tmp_path / name)
        with pytest.raises(ValueError, match=name) as caught:
            read_kernels(tmp_path / name)
        assert message in str(caught.value)


def test_a_fifth_of_the_shapes_judges_whatever_else_a_row_says():
    frame = products(2000).assign(**dict.fromkeys(set(NEEDED["all_reduce"]), 0))
    held = is_held_out(frame)
    assert 0.17 < held.mean() < 0.23
    other = frame.assign(dtype="fp8", seconds=1.0, bytes=7)[::-1]
    assert (is_held_out(other)[::-1] == held).all()
    assert is_held_out_by(frame, ("op", "m", "n", "k"))[20:22].all()  # sha256("gemm,21,128,256") begins c063d6e1


def test_published_tables_are_read():
    found = read_kernels(measurement("kernels/h100_vllm.parquet"))
    assert len(found) == 27_824
    assert 0.19 < is_held_out(found).mean() < 0.21

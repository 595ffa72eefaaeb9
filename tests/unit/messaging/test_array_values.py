"""NumPy arrays and scalars, and Arrow buffers: same dtype, shape, order and bytes, without pickle."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext, encode

from rainband.errors import ValueRefused, WireError
from rainband.messaging import values
from rainband.messaging.values import check_value, decode_rows, encode_rows


def there_and_back(value: object) -> Any:
    ((back,),) = decode_rows(encode_rows([(value,)]))
    return back


def test_numpy_arrays_keep_dtype_shape_and_order() -> None:
    np = pytest.importorskip("numpy")
    arrays = [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(20)[::3],
        np.array(3.5),
        np.zeros((0, 4), dtype=bool),
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.array(["2020-01-01", "NaT"], dtype="M8[ns]"),
        np.array([1 + 2j], dtype=np.complex64),
        np.arange(100_000),
    ]
    for array in arrays:
        assert check_value(array) is None
        for back in (there_and_back(array), there_and_back({"a": (array,)})["a"][0]):
            assert type(back) is np.ndarray
            assert (back.dtype.str, back.shape) == (array.dtype.str, array.shape)
            assert back.flags.f_contiguous or not array.flags.f_contiguous
            assert back.tobytes() == array.tobytes()
            assert not back.flags.writeable


def test_numpy_scalars_keep_their_type() -> None:
    np = pytest.importorskip("numpy")
    numbers = [np.int8(-3), np.uint64(2**64 - 1), np.float32(0.1), np.float64("nan"), np.complex128(1j), np.True_]
    others = [np.str_("é"), np.str_(""), np.bytes_(b"a"), np.datetime64("2020-01-01"), np.timedelta64(5, "s")]
    for scalar in numbers + others:
        back = there_and_back(scalar)
        assert type(back) is type(scalar)
        assert back.dtype == scalar.dtype
        assert back.tobytes() == scalar.tobytes()


def test_numpy_values_that_need_pickle_are_refused() -> None:
    np = pytest.importorskip("numpy")
    for value in [
        np.array([object()]),
        np.zeros(2, dtype=[("a", int)]),
        np.ma.array([1]),
        np.dtype(int),
        np.rec.array([1]),
    ]:
        assert "does not travel" in (check_value(value) or "")
        with pytest.raises(ValueRefused, match="does not travel"):
            encode_rows([([value],)])


@given(
    st.sampled_from(["<i8", "|b1", "<U3", "O", "|O8", "V8", "<i8,<i8", "(2,)<i8", "<M8[ns]", "x", "<i999999999"]),
    st.sampled_from(["C", "F", "", "K", "x"]),
    st.lists(st.one_of(st.integers(-1, 4), st.integers(2**62, 2**63)), max_size=40),
    st.binary(max_size=40),
)
def test_array_headers_that_do_not_fit_raise_wire_error(dtype: str, order: str, shape: list[int], data: bytes) -> None:
    pytest.importorskip("numpy")
    header = encode((dtype, order, shape))
    frame = encode([1, [Ext(values.ARRAY, struct.pack("<I", len(header)) + header + data)]])
    try:
        ((value,),) = decode_rows(frame)
    except WireError:
        return
    assert value.tobytes(order or "C") == data


def test_arrow_buffers_travel_as_their_bytes() -> None:
    arrow = pytest.importorskip("pyarrow")
    for size in (0, 5, 200_000):
        value = arrow.py_buffer(b"x" * size)
        assert check_value(value) is None
        assert there_and_back([value])[0].equals(value)
    assert check_value(arrow.array([1])) is not None

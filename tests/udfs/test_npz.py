import io
import struct
import zipfile

import numpy as np
import pytest

from schemas.errors import InputError
from udfs.npz import array_names, read_npz


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def with_member(name, payload, claimed=None):
    """A zip with one member, whose directory may lie about its size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, payload)
    data = bytearray(buffer.getvalue())
    if claimed is not None:
        at = data.rfind(b"PK\x01\x02")
        data[at + 24 : at + 28] = struct.pack("<I", claimed)
    return bytes(data)


def header(shape, descr="<f8"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_arrays_come_back_as_numpy_reads_them():
    arrays = {
        "c": np.arange(12.0).reshape(3, 4),
        "f": np.asfortranarray(np.arange(12, dtype=">i4").reshape(3, 4)),
        "text": np.array("male"),
        "bytes": np.array(b"male"),
        "none": np.empty((0, 3)),
    }
    data = npz(**arrays)
    expected = np.load(io.BytesIO(data), allow_pickle=False)
    found = read_npz(data, "x.npz", arrays)
    assert sorted(array_names(data, "x.npz")) == sorted(arrays)
    for name in arrays:
        assert (found[name] == expected[name]).all()
        assert found[name].dtype == expected[name].dtype
        assert found[name].shape == expected[name].shape


def test_only_what_is_wanted_is_read():
    data = npz(a=np.ones(3), secret=np.array([{"x": 1}], dtype=object))
    assert list(read_npz(data, "x.npz", ["a", "b"])) == ["a"]


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_a_pickle_in_an_array_is_refused_and_not_run():
    with pytest.raises(InputError, match=r"x\.npz: array 'a' holds Python objects"):
        read_npz(npz(a=np.array([Payload()], dtype=object)), "x.npz", ["a"])


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(share):
    data = npz(a=np.random.default_rng(0).normal(size=(500, 20)))
    with pytest.raises(InputError, match=r"x\.npz"):
        read_npz(data[: int(share * len(data))], "x.npz", ["a"])


def test_a_damaged_byte_is_noticed():
    data = bytearray(npz(a=np.random.default_rng(0).normal(size=(500, 20))))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InputError, match=r"x\.npz"):
        read_npz(bytes(data), "x.npz", ["a"])


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = with_member("a.npy", header((10**6,)) + b"\0" * 1000, claimed=0xFFFFFF00)
    with pytest.raises(InputError, match=r"x\.npz"):
        read_npz(bomb, "x.npz", ["a"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a.npy", "b.npy"):
            archive.writestr(name, b"")
    data = bytearray(buffer.getvalue())
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFF00)
    with pytest.raises(InputError, match="more than 4 GiB"):
        read_npz(bytes(data), "x.npz", ["a", "b"])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        header((10**12, 10**9)),
        header((-1, 3)),
        header((10, 10)) + b"\0" * 100,
        header((2,), descr="<f8").replace(b"shape", b"shapo"),
        b"\x93NUMPY\x09\x00" + b"\0" * 100,
    ],
)
def test_a_header_that_lies_is_refused(payload):
    with pytest.raises(InputError, match=r"x\.npz"):
        read_npz(with_member("a.npy", payload), "x.npz", ["a"])


def test_what_is_no_zip_is_refused():
    for data in (b"", b"PK\x03\x04", b"\x80\x04\x95pickle", b"0" * 1000):
        with pytest.raises(InputError, match="not a whole npz"):
            read_npz(data, "x.npz", ["a"])
        with pytest.raises(InputError, match="not a whole npz"):
            array_names(data, "x.npz")

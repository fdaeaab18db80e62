"""NumPy archives of unknown origin: nothing in them is run, and nothing large is read unasked."""

import io
import math
import zipfile
import zlib
from collections.abc import Collection

import numpy as np

from schemas.errors import InputError

MAX_BYTES = 4 * 2**30
"""Largest array that is read: 4 GiB hold three million AMASS frames."""


def read_npz(data: bytes, path: str, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The wanted arrays that an npz holds; the others are not touched.

    Sizes are checked against the archive's directory and the array's header before anything is
    decompressed, and object arrays, which are pickles, are refused. Raises InputError, naming `path`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            found = {name: members[name] for name in wanted if name in members}
            if sum(m.file_size for m in found.values()) > MAX_BYTES:
                raise InputError(f"{path}: its arrays unpack to more than 4 GiB; split the file")
            return {name: _read_array(archive, m, f"{path}: array {name!r}") for name, m in found.items()}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise InputError(f"{path}: not a whole npz file ({error}); copy or download it again") from error


def array_names(data: bytes, path: str) -> list[str]:
    """Names of the arrays in an npz."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [n.removesuffix(".npy") for n in archive.namelist()]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole npz file ({error}); copy or download it again") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(file)
        except (ValueError, KeyError) as error:
            raise InputError(f"{where} has no readable header ({error})") from error
        if dtype.hasobject:
            raise InputError(
                f"{where} holds Python objects, which are never loaded; save it as plain numbers"
            )
        size = math.prod(shape) * dtype.itemsize
        if any(n < 0 for n in shape) or size > member.file_size:
            raise InputError(
                f"{where} claims shape {shape}, but the file holds {member.file_size} bytes of it"
            )
        payload = file.read(size)
    if len(payload) < size:
        raise InputError(f"{where} is cut short: {len(payload)} of {size} bytes")
    return np.frombuffer(payload, dtype).reshape(shape, order="F" if fortran else "C")

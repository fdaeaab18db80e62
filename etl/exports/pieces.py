"""What all formats share: an export is steps, a step is pieces, a piece is a run of rows and its files."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from etl.exports.folder import Folder
from etl.lake import Lake
from etl.query import Release
from schemas.errors import LakeError
from schemas.ids import hex_id

_THREADS = 8
_AHEAD = 32
"""Images that wait in memory at the most."""


@dataclass
class Piece:
    """Consecutive rows of an export; its files are finished together.

    Attributes:
        index: place among the pieces of its step, from 0.
        count: their number.
        schema: of its rows.
        tables: its rows in blocks, to be gone through once.
        digests: SHA-256 of what was written, by path.
    """

    index: int
    count: int
    schema: pa.Schema
    tables: Iterator[pa.Table]
    folder: Folder
    release: Release
    digests: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def file(self, path: str, sha256: str | None = None) -> Iterator[Path]:
        """A place to write the file `path` of the export at; sha256: where it is known already."""
        with self.folder.file(path) as aside:
            yield aside
            if sha256 is None:
                with aside.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.digests[path] = sha256

    def images(self, rows: pa.Table) -> Iterator[bytes]:
        """Image files of the rows in their order, byte for byte, each checked against its SHA-256.

        Raises LakeError, naming the first that is damaged or missing.
        """
        paths, digests = (rows.column(c).to_pylist() for c in ("image_path", "image_sha256"))
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(_THREADS) as threads:
            for path, digest in zip(paths, digests, strict=True):
                waiting.append(threads.submit(_read, self.release.lake, path, digest))
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
            yield from (read.result() for read in waiting)


@dataclass(frozen=True)
class Step:
    """One kind of files, made of all rows in the release's order.

    Attributes:
        name: of the step.
        columns: what it reads; None: all columns of the release.
        write: writes the files of a piece and goes through all its tables.
        rows: of a piece; None puts all into one.
        sized: whether a piece is a file, so that its rows are the user's to choose.
        block: rows of a table.
        needs: package of the extra `export`.
    """

    name: str
    columns: Sequence[str] | None
    write: Callable[[Piece], None]
    rows: int | None = 1000
    sized: bool = False
    block: int = 100
    needs: str | None = None


def image_names(rows: pa.Table) -> list[str]:
    """File names of the rows' images: the id, in one of 256 folders, with the suffix it has in the lake."""
    paths = rows.column("image_path").to_pylist()
    return [
        f"{key[:2]}/{key}{PurePosixPath(path).suffix}" for key, path in zip(keys(rows), paths, strict=True)
    ]


def keys(rows: pa.Table) -> list[str]:
    """Image ids as 16 hexadecimal digits."""
    return [hex_id(i) for i in rows.column("image_id").to_pylist()]


def _copy(piece: Piece) -> None:
    for rows in piece.tables:
        digests = rows.column("image_sha256").to_pylist()
        for name, digest, data in zip(image_names(rows), digests, piece.images(rows), strict=True):
            with piece.file(f"images/{name}", digest) as path:
                path.write_bytes(data)


IMAGES = Step("images", ("image_id", "image_path", "image_sha256"), _copy)
"""Copies the images to `images/`."""


def arrays(rows: pa.Table) -> dict[str, np.ndarray]:
    """The label arrays of N rows in the shape of what they hold: `joints_3d` (N, 127, 3); NULL is NaN."""
    return {f.name: _array(f.name, rows.column(f.name)) for f in rows.schema if pa.types.is_nested(f.type)}


def scalars(rows: pa.Table) -> list[dict[str, Any]]:
    """The single values of N rows as JSON has them.

    A float32 becomes the shortest decimal that reads back to it: 0.9 and not 0.8999999761581421.
    """
    names = [f.name for f in rows.schema if not pa.types.is_nested(f.type)]
    return pa.table({name: short(rows.column(name)) for name in names}).to_pylist()


def short(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Float32 values as the float64 of their shortest decimal; others as they are."""
    return values.cast(pa.string()).cast(pa.float64()) if pa.types.is_float32(values.type) else values


def _array(name: str, column: pa.ChunkedArray) -> np.ndarray:
    length = column.type.list_size
    parts = []
    for chunk in column.chunks:
        # Slots of NULL rows are there, and hold anything.
        flat = chunk.values.slice(chunk.offset * length, len(chunk) * length)
        part = flat.to_numpy(zero_copy_only=False).reshape(-1, length)
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        parts.append(part if valid.all() else np.where(valid[:, None], part, np.nan).astype(part.dtype))
    point = 2 if name.endswith("_2d") else 3 if name.endswith("_3d") or name == "keypoints" else None
    shape = (length,) if point is None else (length // point, point)
    return np.concatenate(parts).reshape(-1, *shape)


def _read(lake: Lake, path: str, sha256: str) -> bytes:
    try:
        data = lake.store.read(path)
    except FileNotFoundError as error:
        raise LakeError(f"the lake {lake.url} has lost {path}; the export cannot go on") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise LakeError(
            f"{path} of the lake {lake.url} is damaged: its SHA-256 is not the published one; the export "
            "cannot go on"
        )
    return data

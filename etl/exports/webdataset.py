"""WebDataset: tar files of samples that a training reads from end to end.

Of each image there are `ID.jpg` (or `ID.png`, as it lies in the lake), `ID.json` with the caption and all
other single values, and `ID.npz` with the label arrays: `joints_3d` (127, 3), `body_pose` (63,) and so on,
without those that could not be measured. Rows keep the release's order, by source and the best first, so
a training shuffles: the shards, and samples in a buffer.
"""

import io
import json
import tarfile
from pathlib import PurePosixPath

import numpy as np

from etl.exports.pieces import Piece, Step, arrays, keys, scalars


def _write(piece: Piece) -> None:
    with (
        piece.file(f"shard-{piece.index:06d}.tar") as path,
        tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for rows in piece.tables:
            labels = arrays(rows)
            valid = {name: rows.column(name).is_valid().to_numpy() for name in labels}
            facts = zip(keys(rows), scalars(rows), piece.images(rows), strict=True)
            for i, (key, values, image) in enumerate(facts):
                found = {name: array[i] for name, array in labels.items() if valid[name][i]}
                _add(tar, f"{key}{PurePosixPath(values['image_path']).suffix}", image)
                _add(tar, f"{key}.json", json.dumps(values, ensure_ascii=False).encode())
                _add(tar, f"{key}.npz", _npz(found))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # of 1970 and nobody, so that the same rows are the same bytes
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _npz(found: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **found)
    return buffer.getvalue()


STEPS = (Step("shards", None, _write, sized=True),)

"""One HDF5 file an image, in the layout of the reference implementation of the paper.

`labels/00/ID.h5` has the datasets, float32 where nothing else is said:

    betas (1, 10), global_orient (1, 3), body_pose (1, 63), left_hand_pose (15, 3), right_hand_pose (15, 3),
    jaw_pose (1, 3), leye_pose (1, 3), reye_pose (1, 3), expression (1, 10), transl (1, 3)
    focal (1, 2), princpt (1, 2), bbox (4,): x, y, width, height, img_shape (2,) int64: width, height
    joints_3d (127, 3), joints_2d (127, 2), markers_3d (80, 3), markers_2d (80, 2)

and the attributes image_id, image (its path in the export), gender, caption and flat_hand_mean. Two things
are as they are in this project and not in the reference: hand poses are absolute (load smplx with
`flat_hand_mean=True`), and joints and markers in 3D have `transl` in them.
"""

import numpy as np
import pyarrow as pa

from etl.exports.pieces import IMAGES, Piece, Step, arrays, image_names, keys
from schemas.smplx_params import SMPLX_PARAMS

_HANDS = ("left_hand_pose", "right_hand_pose")
_POINTS = ("joints_3d", "joints_2d", "markers_3d", "markers_2d")
_COLUMNS = (
    "image_id",
    "image_path",
    "gender",
    "caption",
    "image_height",
    "image_width",
    *SMPLX_PARAMS,
    "focal",
    "princpt",
    "bbox",
    *_POINTS,
)


def _write(piece: Piece) -> None:
    import h5py

    for rows in piece.tables:
        labels = _labels(rows)
        texts = zip(keys(rows), image_names(rows), *_texts(rows), strict=True)
        for i, (key, name, gender, caption) in enumerate(texts):
            with piece.file(f"labels/{key[:2]}/{key}.h5") as path, h5py.File(path, "w") as file:
                for label, array in labels.items():
                    file.create_dataset(label, data=array[i])
                facts = {"image_id": key, "image": f"images/{name}", "gender": gender, "caption": caption}
                file.attrs.update({**facts, "flat_hand_mean": True})


def _labels(rows: pa.Table) -> dict[str, np.ndarray]:
    """Arrays of N rows in the reference's order and shapes."""
    found = arrays(rows)
    size = np.stack([rows.column(c).to_numpy() for c in ("image_width", "image_height")], axis=1)
    return {
        **{name: found[name].reshape(-1, *((15, 3) if name in _HANDS else (1, n)))
           for name, n in SMPLX_PARAMS.items()},
        "focal": found["focal"][:, None],
        "princpt": found["princpt"][:, None],
        "bbox": found["bbox"],
        "img_shape": size.astype(np.int64),
        **{name: found[name] for name in _POINTS},
    }  # fmt: skip


def _texts(rows: pa.Table) -> list[list[str]]:
    return [rows.column(name).to_pylist() for name in ("gender", "caption")]


STEPS = (IMAGES, Step("labels", _COLUMNS, _write, needs="h5py"))

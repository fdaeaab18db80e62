"""Arrays for the training of mesh recovery in the layout of BEDLAM, whose readers many models share.

Files `labels-00000.npz` ... hold N rows each, float32 where nothing else is said:

    imgname    (N,) text      image, relative to `images/`
    center     (N, 2)         of the person's box, pixels
    scale      (N,)           longer side of the box times 1.2, divided by 200 pixels
    pose_cam   (N, 165)       axis angles in camera space: global_orient 3, body 63, jaw 3, left eye 3,
                              right eye 3, left hand 45, right hand 45 (absolute, flat_hand_mean=True)
    shape      (N, 10)        betas; BEDLAM's own files have 11, its readers fill up with zeros
    trans_cam  (N, 3)         transl in camera space, metres
    cam_int    (N, 3, 3)      intrinsics, pixels
    cam_ext    (N, 4, 4)      identity: camera space is world space here
    pose_world, trans_world   the same as pose_cam and trans_cam
    gtkps      (N, 127, 3)    smplx's joints in pixels, and 1 as their confidence
    gender     (N,) text      m, f or neutral, of the body that was posed
    sub        (N,) text      sequence that the pose comes from
    expression (N, 10), image_id (N,) int64   not in BEDLAM: what gives the joints exactly, and the row

The box is BEDLAM's: around those of the first 22 joints that are inside the image. Where they are fewer
than 12, rows that BEDLAM leaves out, it is the label's `bbox`. `proj_verts` is left out, since it takes a
licensed file, and readers do without. Readers that take the image's centre for the principal point, as
BEDLAM's trainer does, want samples without a crop (no `camera.margin` in the plan).
"""

import numpy as np
import pyarrow as pa

from etl.exports.pieces import IMAGES, Piece, Step, arrays, image_names
from schemas.smplx_params import SMPLX_PARAMS

_BODY_JOINTS = 22
_FEWEST = 12
_GROWN = 1.2
_POSE = (
    "global_orient",
    "body_pose",
    "jaw_pose",
    "leye_pose",
    "reye_pose",
    "left_hand_pose",
    "right_hand_pose",
)
_GENDERS = {"male": "m", "female": "f", "neutral": "neutral"}
_COLUMNS = (
    "image_id",
    "image_path",
    "image_height",
    "image_width",
    "sequence",
    "gender",
    *SMPLX_PARAMS,
    "focal",
    "princpt",
    "bbox",
    "joints_2d",
)


def _write(piece: Piece) -> None:
    rows = pa.concat_tables(piece.tables)
    labels = arrays(rows)
    n = rows.num_rows
    pose = np.concatenate([labels[name] for name in _POSE], axis=1)
    intrinsics = np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    intrinsics[:, [0, 1], [0, 1]] = labels["focal"]
    intrinsics[:, :2, 2] = labels["princpt"]
    size = np.stack([rows.column(c).to_numpy() for c in ("image_width", "image_height")], axis=1)
    center, scale = person_boxes(labels["joints_2d"], labels["bbox"], size)
    found: dict[str, np.ndarray] = {
        "imgname": np.array(image_names(rows)),
        "center": center,
        "scale": scale,
        "pose_cam": pose,
        "pose_world": pose,
        "shape": labels["betas"],
        "trans_cam": labels["transl"],
        "trans_world": labels["transl"],
        "gtkps": np.insert(labels["joints_2d"], 2, 1, axis=2),
        "cam_int": intrinsics,
        "cam_ext": np.tile(np.eye(4, dtype=np.float32), (n, 1, 1)),
        "gender": np.array([_GENDERS[g] for g in rows.column("gender").to_pylist()]),
        "sub": np.array(rows.column("sequence").to_pylist()),
        "expression": labels["expression"],
        "image_id": rows.column("image_id").to_numpy(),
    }
    with piece.file(f"labels-{piece.index:05d}.npz") as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, **found)


def person_boxes(joints: np.ndarray, bbox: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (N, 2) and scale (N,) of BEDLAM's boxes.

    Args:
        joints: (N, 127, 2) float32, pixels.
        bbox: (N, 4) float32, x, y, width, height.
        size: (N, 2), width and height of the image.
    """
    body = joints[:, :_BODY_JOINTS]
    inside = np.all((body >= 0) & (body <= size[:, None]), axis=2)
    low = np.where(inside[..., None], body, np.inf).min(axis=1)
    high = np.where(inside[..., None], body, -np.inf).max(axis=1)
    few = inside.sum(axis=1)[:, None] < _FEWEST
    low = np.where(few, bbox[:, :2], low)
    high = np.where(few, bbox[:, :2] + bbox[:, 2:], high)
    return ((low + high) / 2).astype(np.float32), ((high - low).max(axis=1) * _GROWN / 200).astype(np.float32)


_ROWS = 10_000
STEPS = (IMAGES, Step("labels", _COLUMNS, _write, rows=_ROWS, sized=True))

"""Reading pose files: AMASS in both layouts, SMPL-X archives, and Parquet of our own schema.

All become rows of `poses`: y up, rotations of at most pi, 10 shape and 10 expression coefficients. A file
that cannot be understood raises InputError; a frame that cannot be used is refused alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.errors import InputError
from schemas.ids import content_ids
from schemas.smplx_params import POSE_PARAMS, SMPLX_PARAMS
from schemas.source import PoseSource, Rejection
from schemas.tables import POSES
from udfs.columns import list_column
from udfs.npz import array_names, read_npz
from udfs.pose_layouts import AMASS_KEYS, NPZ_KEYS, Frames, read_amass, read_parquet, read_smplx
from udfs.rotations import compose, matrix_from_rotvec, rotvec_from_matrix, wrap_rotvec

MAX_ANGLE = 100.0
"""Radians. Fits do produce angles beyond 2 pi, but this many turns are degrees or garbage."""
MAX_METRES = 10_000.0
MAX_COEFFICIENT = 100.0

_TURNS: Mapping[str, np.ndarray] = {
    "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "-y": np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]),
}
"""Rotation that turns a world with this axis up into one with y up."""


@dataclass(frozen=True)
class PoseFile:
    """What a pose file gave: rows of POSES, the frames refused, and what was found and changed."""

    poses: pa.Table
    rejected: tuple[Rejection, ...]
    kind: str
    facts: Mapping[str, object]


def read_pose_file(data: bytes, path: str, source: PoseSource) -> PoseFile:
    """Reads a pose file.

    Args:
        data: its bytes.
        path: below the source's folder, with `/`. Without its suffix it is the name of the sequence.
        source: name, kind, choice of frames, conversions.

    `transl` turns with the world: the pelvis keeps its way through space up to a constant offset, which
    depends on the body's shape and which every camera here is placed relative to.

    Raises InputError when the whole file is of no use.
    """
    kind = _kind(data, path, source)
    facts: dict[str, object] = {}
    if kind == "parquet":
        frames = read_parquet(data, path, source, facts)
    else:
        arrays = read_npz(data, path, NPZ_KEYS)
        read = read_amass if kind == "amass" else read_smplx
        frames = read(arrays, path, source, facts)
    return _finish(frames, kind, source, facts)


def _kind(data: bytes, path: str, source: PoseSource) -> str:
    if source.kind != "auto":
        return source.kind
    if data[:4] == b"PAR1":
        return "parquet"
    if data[:2] == b"PK":
        names = set(array_names(data, path))
        if names & AMASS_KEYS:
            return "amass"
        if "body_pose" in names:
            return "smplx"
        listed = ", ".join(sorted(names)[:12])
        raise InputError(
            f"{path}: no pose layout known here. AMASS has `poses` or `root_orient` and `pose_body`, SMPL-X "
            f"archives have `body_pose`; this file has {listed or 'nothing'}"
        )
    raise InputError(f"{path}: neither npz nor Parquet; pickles and other formats are not read, convert it")


def _finish(frames: Frames, kind: str, source: PoseSource, facts: dict[str, object]) -> PoseFile:
    """Refuses what is no number or out of range, converts the rest and gives it its identity."""
    n = len(frames.row)
    facts["selected"] = n
    missing = [name for name in SMPLX_PARAMS if name not in frames.params]
    if missing:
        facts["missing_set_to_zero"] = missing
    params = {name: frames.params.get(name, np.zeros((n, SMPLX_PARAMS[name]))) for name in SMPLX_PARAMS}
    for name, kept in (("betas", SMPLX_PARAMS["betas"]), ("expression", source.num_expression)):
        if name in missing:
            continue
        params[name] = _resize(params[name], SMPLX_PARAMS[name], kept, name, facts)

    wrong = _find_wrong(params)
    rejected = [
        Rejection(int(frames.row[i]), InputError.code, f"frame {frames.row[i]}: {what}")
        for i, what in sorted(wrong.items())
    ]
    good = np.array([i for i in range(n) if i not in wrong], np.int64)
    params = {name: array[good] for name, array in params.items()}

    wrapped = 0
    for name, width in POSE_PARAMS.items():
        joints = params[name].reshape(len(good), width // 3, 3)
        wrapped += int(np.count_nonzero(np.linalg.norm(joints, axis=-1) > np.pi))
        params[name] = wrap_rotvec(joints).reshape(len(good), width)
    if wrapped:
        facts["rotations_wrapped"] = wrapped
    up = _up(frames.orients, kind, source, facts)
    if up != "y":
        turn = _TURNS[up]
        params["global_orient"] = compose(rotvec_from_matrix(turn), params["global_orient"])
        params["transl"] = params["transl"] @ turn.T
    poses = _table(frames, good, params, source) if len(good) else POSES.empty_table()
    first = _first_of_each(poses["pose_id"].to_numpy())
    if len(first) < len(poses):
        facts["repeated_rows"] = len(poses) - len(first)
        poses = poses.take(first)
    order = sorted([*frames.rejected, *rejected], key=lambda r: (r.row is not None, r.row or 0))
    return PoseFile(poses, tuple(order), kind, facts)


def _find_wrong(params: Mapping[str, np.ndarray]) -> dict[int, str]:
    """What is wrong with each bad row, by row: the first parameter that is no number or out of range."""
    wrong: dict[int, str] = {}
    for name, array in params.items():
        for i in np.flatnonzero(~np.isfinite(array).all(1)):
            wrong.setdefault(int(i), f"`{name}` holds NaN or infinity")
        if name in POSE_PARAMS:
            size = np.linalg.norm(array.reshape(len(array), POSE_PARAMS[name] // 3, 3), axis=-1).max(
                1, initial=0
            )
            limit, unit = MAX_ANGLE, "rad: are these degrees?"
        elif name == "transl":
            size, limit, unit = np.abs(array).max(1, initial=0), MAX_METRES, "m: are these millimetres?"
        else:
            size, limit, unit = np.abs(array).max(1, initial=0), MAX_COEFFICIENT, "standard deviations"
        with np.errstate(invalid="ignore"):
            for i in np.flatnonzero(size > limit):
                wrong.setdefault(int(i), f"`{name}` reaches {size[i]:.4g} {unit}")
    return wrong


def _up(orients: np.ndarray, kind: str, source: PoseSource, facts: dict[str, object]) -> str:
    """The world's up axis: as the source says, else z for AMASS, y for Parquet, and measured for SMPL-X.

    SMPL-X archives come from motion capture and from fits to photographs, whose cameras look down their
    z with y down. Most people are upright, so the axis along which the bodies point on average tells.
    `orients` are those of all frames in the file: the choice of frames must not turn the world.
    """
    up: str = source.up
    if up == "auto" and kind == "amass":
        up = "z"
    elif up == "auto" and (kind == "parquet" or not len(orients)):
        up = "y"
    elif up == "auto":
        ups = matrix_from_rotvec(orients)[..., 1].mean(0)
        scores = {"y": ups[1], "z": ups[2], "-y": -ups[1]}
        best = max(scores, key=lambda axis: scores[axis])
        # Too even to tell: leave the file as it is.
        up = best if scores[best] > 0.5 else "y"
        facts["up_measured"] = [round(float(v), 3) for v in ups]
    facts["up"] = up
    return up


def _resize(array: np.ndarray, length: int, kept: int, name: str, facts: dict[str, object]) -> np.ndarray:
    """(N, length) of (N, any): the first `kept` coefficients, then zeros; a change is recorded."""
    given = array.shape[1]
    if given > kept:
        facts[name] = f"{given} coefficients cut to {kept}"
    elif given < length:
        facts[name] = f"{given} coefficients filled up with zeros to {length}"
    resized = np.zeros((len(array), length))
    resized[:, : min(given, kept)] = array[:, : min(given, kept)]
    return resized


def _table(
    frames: Frames, good: np.ndarray, params: Mapping[str, np.ndarray], source: PoseSource
) -> pa.Table:
    sequence = [frames.sequence[i] for i in good]
    gender = [frames.gender[i] for i in good]
    frame = frames.frame[good]
    # Adding zero makes a minus zero a zero: the same pose must not get two ids.
    rounded = {name: params[name].astype(np.float32) + np.float32(0) for name in SMPLX_PARAMS}
    names = [source.name] * len(good)
    pose_id, digest = content_ids("pose", [names, sequence, gender], [frame, *rounded.values()])
    columns: dict[str, object] = {
        "pose_id": pose_id, "digest": digest, "source": names, "sequence": sequence, "frame": frame,
        "gender": gender,
    }  # fmt: skip
    columns |= {name: list_column(array, POSES.field(name).type) for name, array in rounded.items()}
    return pa.table({name: columns[name] for name in POSES.names}, schema=POSES)


def _first_of_each(ids: np.ndarray) -> np.ndarray:
    return np.sort(np.unique(ids, return_index=True)[1])

"""The layouts that pose files come in: what is where in them, and which frames are taken."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from schemas.errors import InputError
from schemas.ids import mix
from schemas.smplx_params import GENDERS, POSE_PARAMS, SMPLX_PARAMS
from schemas.source import PoseSource, Rejection
from udfs.npz import MAX_BYTES

AMASS_KEYS = {"poses", "root_orient", "pose_body"}
NPZ_KEYS = (
    *AMASS_KEYS, "pose_hand", "pose_jaw", "pose_eye", "trans", "betas", "gender", "mocap_framerate",
    "mocap_frame_rate", *SMPLX_PARAMS,
)  # fmt: skip


@dataclass
class Frames:
    """The chosen frames of one sequence, as the file has them: arrays (N, ...) by SMPL-X name."""

    sequence: list[str]
    frame: np.ndarray
    gender: list[str]
    params: dict[str, np.ndarray]
    row: np.ndarray
    rejected: list[Rejection]
    orients: np.ndarray
    """(M, 3) rotations of the root in all frames of the file, where they are finite."""


def read_amass(
    arrays: Mapping[str, np.ndarray], path: str, source: PoseSource, facts: dict[str, object]
) -> Frames:
    parts: dict[str, np.ndarray] = {}
    if "root_orient" in arrays or "pose_body" in arrays:
        facts["layout"] = "AMASS SMPL-X"
        root = _numbers(arrays, "root_orient", path, 3)
        n = len(root)
        parts = {"global_orient": root, "body_pose": _numbers(arrays, "pose_body", path, 63, n)}
        if "pose_hand" in arrays:
            hands = _numbers(arrays, "pose_hand", path, 90, n)
            parts |= {"left_hand_pose": hands[:, :45], "right_hand_pose": hands[:, 45:]}
        if "pose_jaw" in arrays:
            parts["jaw_pose"] = _numbers(arrays, "pose_jaw", path, 3, n)
        if "pose_eye" in arrays:
            eyes = _numbers(arrays, "pose_eye", path, 6, n)
            parts |= {"leye_pose": eyes[:, :3], "reye_pose": eyes[:, 3:]}
    else:
        poses = _numbers(arrays, "poses", path)
        n, width = poses.shape
        layouts = {156: "AMASS SMPL-H", 165: "AMASS SMPL-X"}
        if width not in layouts:
            hint = "; 72 values are SMPL, which has no hands: convert it" if width == 72 else ""
            raise InputError(
                f"{path}: `poses` is {poses.shape}, expected (N, 156) for SMPL-H or (N, 165) for SMPL-X{hint}"
            )
        facts["layout"] = layouts[width]
        names = ["global_orient", "body_pose", "left_hand_pose", "right_hand_pose"]
        if width == 165:
            names[2:2] = ["jaw_pose", "leye_pose", "reye_pose"]
        ends = np.cumsum([POSE_PARAMS[name] for name in names])
        parts = dict(zip(names, np.split(poses, ends[:-1], axis=1), strict=True))
    if "trans" in arrays:
        parts["transl"] = _numbers(arrays, "trans", path, 3, n)
    if "betas" in arrays:
        parts["betas"] = _constant_or_per_frame(arrays, "betas", path, n)
    fps = _frame_rate(arrays, path)
    if fps is not None:
        facts["fps"] = fps
    return _select(parts, n, fps, arrays, path, source, facts)


def read_smplx(
    arrays: Mapping[str, np.ndarray], path: str, source: PoseSource, facts: dict[str, object]
) -> Frames:
    facts["layout"] = "SMPL-X"
    body = _numbers(arrays, "body_pose", path, 63)
    n = len(body)
    parts = {"body_pose": body}
    for name, width in SMPLX_PARAMS.items():
        if name in arrays and name in ("betas", "expression"):
            parts[name] = _constant_or_per_frame(arrays, name, path, n)
        elif name in arrays and name != "body_pose":
            parts[name] = _numbers(arrays, name, path, width, n)
    return _select(parts, n, _frame_rate(arrays, path), arrays, path, source, facts)


def read_parquet(data: bytes, path: str, source: PoseSource, facts: dict[str, object]) -> Frames:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MAX_BYTES:
            raise InputError(f"{path}: it unpacks to more than 4 GiB; split the file")
        known = [c for c in ("sequence", "frame", "gender", *SMPLX_PARAMS) if c in file.schema_arrow.names]
        table = file.read(columns=known).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file ({error}); copy or write it again") from error
    facts["layout"] = "Parquet"
    if "body_pose" not in known:
        raise InputError(f"{path}: no column `body_pose`; the columns are those of the table `poses`")
    n = len(table)
    sequences = table["sequence"].to_pylist() if "sequence" in known else [_sequence(path)] * n
    numbers = table["frame"].to_pylist() if "frame" in known else list(range(n))
    genders = table["gender"].to_pylist() if "gender" in known else ["neutral"] * n
    params = {}
    wrong: dict[int, str] = {}
    for i in range(n):
        if not isinstance(sequences[i], str) or not sequences[i]:
            wrong[i] = f"`sequence` is {sequences[i]!r}"
        elif not isinstance(numbers[i], int) or numbers[i] < 0:
            wrong[i] = f"`frame` is {numbers[i]!r}"
        elif genders[i] not in GENDERS and source.gender is None:
            wrong[i] = f"`gender` is {genders[i]!r}, expected one of {', '.join(GENDERS)}"
    for name in [c for c in known if c in SMPLX_PARAMS]:
        params[name] = _list_rows(table[name].combine_chunks(), name, SMPLX_PARAMS[name], path, wrong)
    facts["frames"] = n
    good = np.array([i for i in range(n) if i not in wrong], np.int64)
    chosen: list[int] = []
    if source.target_fps is not None:
        raise InputError(f"{path}: Parquet has no frame rate for `target_fps`; use `every`")
    of_sequence: dict[str, list[int]] = {}
    for i in good:
        of_sequence.setdefault(sequences[i], []).append(i)
    for sequence, rows in of_sequence.items():
        chosen += [rows[k] for k in select_frames(len(rows), sequence, source, None)]
    row = np.array(sorted(chosen), np.int64)
    return Frames(
        [sequences[i] for i in row],
        np.array([numbers[i] for i in row], np.int64),
        [source.gender or genders[i] for i in row],
        {name: array[row] for name, array in params.items()},
        row,
        [Rejection(i, InputError.code, f"row {i}: {what}") for i, what in sorted(wrong.items())],
        np.empty((0, 3)),
    )


def _list_rows(column: pa.Array, name: str, width: int, path: str, wrong: dict[int, str]) -> np.ndarray:
    """(N, width) float64 of a list column; rows that are NULL or of another length are zero and noted."""
    kind = column.type
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise InputError(f"{path}: column `{name}` is {kind}, expected lists of {width} numbers")
    lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    good = lengths == width
    for i in np.flatnonzero(~good):
        what = "NULL" if lengths[i] < 0 else f"{lengths[i]} values"
        wrong.setdefault(int(i), f"`{name}` is {what}, expected {width} values")
    values = np.zeros((len(column), width))
    flat = column.filter(pa.array(good)).flatten().cast(pa.float64())
    # NULL elements become NaN, which the frame is refused for.
    values[good] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return values


def select_frames(n: int, sequence: str, source: PoseSource, fps: float | None) -> np.ndarray:
    """Indices of the frames to keep of `n`, ascending.

    Random ones depend on the sequence's name, the source's seed and nothing else.
    """
    if source.frames_per_sequence is not None and source.frames_per_sequence < n:
        order = np.argsort(mix(np.arange(n), "frame", source.seed, sequence), kind="stable")
        return np.sort(order[: source.frames_per_sequence])
    if source.target_fps is not None and fps is not None and source.target_fps < fps:
        return np.floor(np.arange(0, n, fps / source.target_fps) + 1e-9).astype(np.int64)
    return np.arange(0, n, source.every)


def _select(
    parts: dict[str, np.ndarray], n: int, fps: float | None, arrays: Mapping[str, np.ndarray], path: str,
    source: PoseSource, facts: dict[str, object],
) -> Frames:  # fmt: skip
    sequence = _sequence(path)
    if source.target_fps is not None and fps is None:
        raise InputError(f"{path}: it states no frame rate for `target_fps`; use `every`")
    facts["frames"] = n
    row = select_frames(n, sequence, source, fps)
    gender = source.gender or _gender(arrays.get("gender"), facts)
    params = {name: np.asarray(array[row], np.float64) for name, array in parts.items()}
    orients = np.asarray(parts.get("global_orient", np.zeros((n, 3))), np.float64)
    orients = orients[np.isfinite(orients).all(1)]
    return Frames([sequence] * len(row), row, [gender] * len(row), params, row, [], orients)


def _sequence(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _numbers(
    arrays: Mapping[str, np.ndarray], name: str, path: str, width: int | None = None, rows: int | None = None
) -> np.ndarray:
    """A two-dimensional array of numbers of the expected shape, as it is in the file."""
    expected = f"({'N' if rows is None else rows}, {'k' if width is None else width})"
    if name not in arrays:
        raise InputError(f"{path}: array `{name}` {expected} is missing")
    array = arrays[name]
    if array.ndim == 3 and array.shape[2] == 3:
        array = array.reshape(len(array), -1)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: array `{name}` is of type {array.dtype}, expected floating-point numbers")
    if (
        array.ndim != 2
        or (width is not None and array.shape[1] != width)
        or (rows is not None and len(array) != rows)
    ):
        raise InputError(f"{path}: array `{name}` is {array.shape}, expected {expected}")
    return array


def _constant_or_per_frame(arrays: Mapping[str, np.ndarray], name: str, path: str, n: int) -> np.ndarray:
    """Coefficients (k,) or (1, k) for the whole sequence, or (N, k): as (N, k)."""
    array = arrays[name]
    if array.ndim == 1:
        array = array[None]
    array = _numbers({name: array}, name, path)
    if len(array) not in (1, n):
        raise InputError(f"{path}: array `{name}` is {arrays[name].shape}, expected (k,) or ({n}, k)")
    return np.broadcast_to(array, (n, array.shape[1]))


def _frame_rate(arrays: Mapping[str, np.ndarray], path: str) -> float | None:
    for name in ("mocap_framerate", "mocap_frame_rate"):
        if name in arrays:
            value = arrays[name]
            if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < float(value.ravel()[0]) < 1e5:
                raise InputError(f"{path}: `{name}` is no frame rate")
            return float(value.ravel()[0])
    return None


def _gender(value: np.ndarray | None, facts: dict[str, object]) -> str:
    """Gender of a bytes or text scalar; what is not known is neutral, and that is recorded."""
    if value is None or value.size != 1 or value.dtype.kind not in "SU":
        facts["gender"] = "not stated as one word, taken as neutral"
        return "neutral"
    said = value.ravel()[0]
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
    # Some converters stored the text of a bytes literal: "b'male'".
    text = text.strip().lower().removeprefix("b'").removesuffix("'")
    if text not in GENDERS:
        facts["gender"] = f"{text[:40]!r} taken as neutral"
        return "neutral"
    return text

"""What a pose looks like from a camera, as numbers that a regressor learns from.

Everything comes from an average skeleton in a camera that is far away (parallel rays): neither the body's
mesh nor the distance of the camera plays a part, and a million poses take a minute.
"""

import math
from collections.abc import Mapping

import numba
import numpy as np

from schemas.coco import KEYPOINT_NAMES
from schemas.errors import InputError
from schemas.smplx_params import SMPLX_PARAMS
from udfs.rotations import matrix_from_rotvec
from udfs.skeleton import JOINTS, upright_joints
from udfs.stances import PARENTS
from udfs.standin_skeleton import BODY_JOINTS
from udfs.threads import each

PARAMS = ("global_orient", "body_pose", "betas")
"""The parameters that shape the features. Hands and faces don't: COCO's keypoints have neither, and with
them predictions for new poses got no better and took longer."""

_CHUNK = 1024
"""Poses at once: what they need along the way is 10 MB."""

_POINTS = {
    "nose": (15, (0.0, 0.0, 0.117)), "left_eye": (15, (0.032, 0.036, 0.086)),
    "right_eye": (15, (-0.032, 0.036, 0.086)), "left_ear": (15, (0.084, 0.019, -0.006)),
    "right_ear": (15, (-0.084, 0.019, -0.006)), "skull": (15, (0.0, 0.015, 0.005)),
    "crown": (15, (0.0, 0.08, -0.01)), "left_fingers": (20, (0.15, -0.01, 0.0)),
    "right_fingers": (21, (-0.15, -0.01, 0.0)), "left_waist": (0, (0.065, -0.04, -0.01)),
    "right_waist": (0, (-0.065, -0.04, -0.01)), "left_chest": (9, (0.055, 0.06, 0.0)),
    "right_chest": (9, (-0.055, 0.06, 0.0)),
}  # fmt: skip
"""Points beside the joints: the joint that moves each, and where it is in that joint's rest frame, metres."""

_NAMES = (*BODY_JOINTS[:JOINTS], *_POINTS)

_FLESH = (
    ("skull", "crown", 0.09), ("neck", "head", 0.07), ("left_shoulder", "right_shoulder", 0.065),
    *((f"{side}_{a}", f"{side}_{b}", radius) for side in ("left", "right") for a, b, radius in (
        ("waist", "chest", 0.115), ("hip", "knee", 0.058), ("knee", "ankle", 0.04), ("ankle", "foot", 0.02),
        ("shoulder", "elbow", 0.045), ("elbow", "wrist", 0.033), ("wrist", "fingers", 0.02),
    )),
)  # fmt: skip
"""Capsules that hide what is behind them: two points and a radius, metres."""

_SLACK = {"nose": 0.03, "eye": 0.03, "ear": 0.09, "shoulder": 0.105, "elbow": 0.08, "wrist": 0.05,
          "hip": 0.15, "knee": 0.08, "ankle": 0.085}  # fmt: skip
"""Metres of its own flesh that a keypoint lies in, and that do not hide it: see `udfs.visibility`."""

_GAPS = {
    f"{joint}_gap": (f"left_{joint}", f"right_{joint}") for joint in ("wrist", "elbow", "knee", "ankle")
} | {
    f"{side}_{a}_{b}_gap": (f"{side}_{a}", b if b in _NAMES else f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("wrist", "head"), ("wrist", "pelvis"), ("wrist", "knee"), ("wrist", "shoulder"),
                 ("wrist", "ankle"), ("knee", "neck"), ("ankle", "hip"))
}  # fmt: skip
"""Distances between two points each, as the camera sees them."""


def _at(names: tuple[str, ...]) -> np.ndarray:
    return np.array([_NAMES.index(name) for name in names])


_PARENTS = np.array(PARENTS)
_REST = upright_joints(np.zeros((1, 63)))[0].astype(np.float64)
_POINT_JOINT = np.array([joint for joint, _ in _POINTS.values()])
_POINT_OFFSET = np.array([offset for _, offset in _POINTS.values()])
_CAPSULES = np.array([_at((a, b)) for a, b, _ in _FLESH])
_RADII = np.array([radius for *_, radius in _FLESH])
_KEYPOINTS = _at(KEYPOINT_NAMES)
_SLACKS = np.array([_SLACK[name.split("_")[-1]] for name in KEYPOINT_NAMES])
_GAP_ENDS = np.array([_at(ends) for ends in _GAPS.values()])
_FACING = {"chest": 9, "head": 15}


def _part(name: str) -> str:
    """The body part of a joint."""
    if name == "pelvis":
        return "orientation"
    if name.startswith("spine"):
        return "torso"
    if "_" not in name:
        return "head"
    side, joint = name.split("_")
    return f"{side}_leg" if joint in ("hip", "knee", "ankle", "foot") else f"{side}_arm"


def _parts() -> dict[str, str]:
    """Body part of each feature, in the features' order."""
    joints = BODY_JOINTS[:JOINTS]
    parts = {f"{joint}.r6d.{i}": _part(joint) for joint in joints for i in range(6)}
    parts |= {f"betas.{i}": "shape" for i in range(SMPLX_PARAMS["betas"])}
    parts |= dict.fromkeys(("camera.yaw.sin", "camera.yaw.cos", "camera.elevation"), "camera")
    parts |= {f"{name}.facing.{axis}": "orientation" for name in _FACING for axis in "xyz"}
    parts |= {f"{joint}.{axis}": _part(joint) for joint in joints[1:] for axis in "xyz"}
    parts |= dict.fromkeys(_GAPS, "gaps")
    parts |= dict.fromkeys(("extent.x", "extent.y", "extent.z", "extent.aspect"), "extent")
    parts |= {f"{name}.hidden": "occlusion" for name in KEYPOINT_NAMES}
    return parts | {"visible_share": "occlusion"}


PARTS: Mapping[str, str] = _parts()
"""The body part that each feature speaks of, for summaries of what matters."""

FEATURES: tuple[str, ...] = tuple(PARTS)
"""Names of the features, in their order."""


def pose_features(params: Mapping[str, np.ndarray], yaw: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """(N, len(FEATURES)) float32 features of N poses as cameras see them.

    Rotations are the first two columns of their matrices (Zhou et al., "On the Continuity of Rotation
    Representations in Neural Networks", 2019). Joints are relative to the pelvis, in metres, in the camera's
    frame: x right, y down, z forward. A keypoint counts as hidden where a capsule round a bone crosses its
    ray to the camera, more than its own flesh before it.

    Args:
        params: (N, k) arrays of PARAMS by name; `global_orient` in the camera's frame. Others play no part.
        yaw, elevation: (N,) the camera's, radians.

    Raises InputError for a parameter that is missing, has another shape, or is not finite, naming the rows.
    """
    values = _checked({**params, "yaw": yaw, "elevation": elevation})
    n = len(values["yaw"])
    out = np.empty((n, len(FEATURES)), np.float32)

    def work(chunk: int) -> None:
        rows = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
        _fill({name: value[rows] for name, value in values.items()}, out[rows])

    each(work, -(-n // _CHUNK))
    return out


def hidden_keypoints(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where N bodies are, and which of COCO's keypoints they hide from the camera themselves.

    turns: (N, 22, 3, 3) float64 rotations, each joint's relative to its parent, the pelvis's to the camera.
    Returns points (N, P, 3), rotations of the joints (N, 22, 3, 3), and hidden (N, 17) bool.
    """
    n = len(turns)
    points, frames = np.empty((n, len(_NAMES), 3)), np.empty((n, JOINTS, 3, 3))
    hidden = np.zeros((n, len(_KEYPOINTS)), np.bool_)
    tree = _PARENTS, _REST, _POINT_JOINT, _POINT_OFFSET
    _pose(np.ascontiguousarray(turns), *tree, frames, points)
    _hide(points, _CAPSULES, _RADII, _KEYPOINTS, _SLACKS, hidden)
    return points, frames, hidden


def _fill(values: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    n = len(out)
    turns = np.concatenate([values["global_orient"], values["body_pose"]], axis=1)
    turns = matrix_from_rotvec(turns.reshape(n, JOINTS, 3))
    points, frames, hidden = hidden_keypoints(turns)
    joints = points[:, :JOINTS]
    extent = np.ptp(points, axis=1)
    gaps = points[:, _GAP_ENDS[:, 1], :2] - points[:, _GAP_ENDS[:, 0], :2]
    blocks = [
        turns[..., :2].swapaxes(-1, -2),
        values["betas"],
        np.stack([np.sin(values["yaw"]), np.cos(values["yaw"]), values["elevation"]], axis=1),
        frames[..., 2][:, list(_FACING.values())],
        joints[:, 1:],
        np.linalg.norm(gaps, axis=-1),
        extent,
        extent[:, 0] / extent[:, 1],
        hidden,
        1 - hidden.mean(axis=1),
    ]
    start = 0
    for block in blocks:
        flat = block.reshape(n, -1)
        out[:, start : start + flat.shape[1]] = flat
        start += flat.shape[1]


def _checked(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    n = len(np.atleast_1d(values["yaw"]))
    found = {}
    for name in (*PARAMS, "yaw", "elevation"):
        if name not in values:
            raise InputError(f"the poses have no {name}; the features need {', '.join(PARAMS)}")
        shape = (n, SMPLX_PARAMS[name]) if name in SMPLX_PARAMS else (n,)
        value = np.asarray(values[name])
        if value.shape != shape:
            raise InputError(f"{name} has shape {value.shape}; {shape} was expected")
        require_finite(value, name)
        found[name] = value
    return found


def require_finite(values: np.ndarray, what: str) -> None:
    """Raises InputError naming the rows of (N, ...) values that hold NaN or infinity."""
    finite = np.isfinite(values).reshape(len(values), math.prod(values.shape[1:])).all(axis=1)
    if not finite.all():
        raise InputError(f"{what}: {rows_text(np.flatnonzero(~finite))}, not finite: leave such rows out")


def rows_text(rows: np.ndarray) -> str:
    """ "row 3", "rows 3, 5, 8", "rows 3, 5, 8, 9, 11 and 4 more": for messages."""
    first = ", ".join(str(row) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' if len(rows) > 1 else ''} {first}{more}"


@numba.njit(cache=True, nogil=True)
def _pose(turns, parents, rest, point_joint, point_offset, frames, points):
    joints = len(parents)
    for n in range(len(turns)):
        for j in range(joints):
            p = parents[j]
            for a in range(3):
                if p < 0:
                    points[n, j, a] = 0.0
                    for b in range(3):
                        frames[n, j, a, b] = turns[n, j, a, b]
                    continue
                place = points[n, p, a]
                for b in range(3):
                    place += frames[n, p, a, b] * (rest[j, b] - rest[p, b])
                    total = 0.0
                    for c in range(3):
                        total += frames[n, p, a, c] * turns[n, j, c, b]
                    frames[n, j, a, b] = total
                points[n, j, a] = place
        for k in range(len(point_joint)):
            j = point_joint[k]
            for a in range(3):
                place = points[n, j, a]
                for b in range(3):
                    place += frames[n, j, a, b] * point_offset[k, b]
                points[n, joints + k, a] = place


@numba.njit(cache=True, nogil=True)
def _hide(points, capsules, radii, keypoints, slack, hidden):
    """A capsule is a sphere that slides along a bone: its surface nearest to the camera, on the ray."""
    for n in range(len(points)):
        for c in range(len(capsules)):
            a, b, r = points[n, capsules[c, 0]], points[n, capsules[c, 1]], radii[c]
            dx, dy, dz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
            length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
            ex, ey, slope = dx / length, dy / length, dz / length
            for k in range(len(keypoints)):
                if hidden[n, k]:
                    continue
                q = points[n, keypoints[k]]
                qx, qy = q[0] - a[0], q[1] - a[1]
                across = qx * ey - qy * ex
                room = r * r - across * across
                if room <= 0:
                    continue
                along = qx * ex + qy * ey
                # Where on the bone the sphere is whose front is nearest, were the bone endless.
                u = min(max(along - slope * (room / (1 + slope * slope)) ** 0.5, 0.0), length)
                room -= (along - u) ** 2
                if room > 0 and a[2] + slope * u - room**0.5 < q[2] - slack[k]:
                    hidden[n, k] = True

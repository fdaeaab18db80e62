"""80 named points on the skin, found by geometry on any body with SMPL-X's joints.

A marker is where a ray meets the template's skin: it leaves a point on a bone in a direction that is
given for the rest pose (arms out, palms down, facing +z), where "out" is the body's left. Right markers
mirror left ones.
"""

from dataclasses import dataclass

import numpy as np

from schemas.errors import ModelError
from schemas.smplx_params import N_MARKERS
from udfs.body import Body
from udfs.rays import hits

_OUT, _UP, _FRONT = np.eye(3)
_IN, _DOWN, _BACK = -np.eye(3)

# smplx's joints that markers start from; of pairs, the left one.
_JOINTS = {
    "pelvis": 0, "hip": 1, "spine1": 3, "knee": 4, "spine2": 6, "ankle": 7, "spine3": 9, "foot": 10,
    "neck": 12, "collar": 13, "head": 15, "shoulder": 16, "elbow": 18, "wrist": 20, "jaw": 22, "eye": 23,
    "index1": 25, "middle1": 28, "pinky1": 31,
}  # fmt: skip
_RIGHT_OF = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}


@dataclass(frozen=True)
class _Marker:
    name: str
    start: str
    end: str
    along: float
    """The ray starts this part of the way from joint `start` to joint `end`."""
    direction: np.ndarray
    deep: bool = False
    """Take the last hit: inside the head are eyeballs and a mouth."""


_MIDDLE = (
    _Marker("head_top", "head", "head", 0, _UP, True),
    _Marker("forehead", "head", "head", 0, _FRONT + 1.1 * _UP, True),
    _Marker("head_back", "head", "head", 0, _BACK + 0.6 * _UP, True),
    _Marker("chin", "jaw", "jaw", 0, _FRONT + 0.7 * _DOWN, True),
    _Marker("larynx", "neck", "head", 0.4, _FRONT),
    _Marker("nape", "neck", "head", 0.2, _BACK),
    _Marker("sternum_top", "spine3", "neck", 0.6, _FRONT),
    _Marker("sternum", "spine3", "neck", 0, _FRONT),
    _Marker("navel", "pelvis", "spine1", 0.8, _FRONT),
    _Marker("upper_back", "spine3", "neck", 0.3, _BACK),
    _Marker("lower_back", "spine1", "spine2", 0.3, _BACK),
    _Marker("sacrum", "pelvis", "spine1", 0.2, _BACK),
)

_PAIRED = (
    _Marker("temple", "head", "eye", 0.6, _OUT + 0.4 * _UP, True),
    _Marker("cheek", "jaw", "eye", 0.4, _OUT + 0.9 * _FRONT + 0.2 * _DOWN, True),
    _Marker("clavicle", "collar", "shoulder", 0.2, _FRONT + _UP),
    _Marker("acromion", "collar", "shoulder", 0.9, _UP),
    _Marker("shoulder_front", "collar", "shoulder", 0.9, _FRONT),
    _Marker("shoulder_back", "collar", "shoulder", 0.9, _BACK),
    _Marker("chest", "spine3", "shoulder", 0.5, _FRONT + 0.3 * _DOWN),
    _Marker("scapula", "spine3", "shoulder", 0.45, _BACK),
    _Marker("rib", "spine2", "spine3", 0.3, _OUT),
    _Marker("waist", "spine1", "spine2", 0.4, _OUT),
    _Marker("hip_front", "hip", "hip", 0, _FRONT + 0.5 * _UP),
    _Marker("hip_side", "hip", "hip", 0, _OUT),
    _Marker("buttock", "hip", "hip", 0, _BACK),
    _Marker("upper_arm_front", "shoulder", "elbow", 0.5, _FRONT),
    _Marker("upper_arm_back", "shoulder", "elbow", 0.5, _BACK),
    _Marker("elbow_outer", "elbow", "elbow", 0, _UP),
    _Marker("elbow_inner", "elbow", "elbow", 0, _DOWN),
    _Marker("forearm", "elbow", "wrist", 0.45, _UP),
    _Marker("wrist_thumb", "wrist", "wrist", 0, _FRONT),
    _Marker("wrist_pinky", "wrist", "wrist", 0, _BACK),
    _Marker("index_knuckle", "index1", "index1", 0, _UP),
    _Marker("pinky_knuckle", "pinky1", "pinky1", 0, _UP),
    _Marker("thigh_front", "hip", "knee", 0.55, _FRONT),
    _Marker("thigh_back", "hip", "knee", 0.55, _BACK),
    _Marker("knee_outer", "knee", "knee", 0, _OUT),
    _Marker("knee_inner", "knee", "knee", 0, _IN),
    _Marker("kneecap", "knee", "knee", 0, _FRONT),
    _Marker("shin", "knee", "ankle", 0.45, _FRONT),
    _Marker("calf", "knee", "ankle", 0.3, _BACK),
    _Marker("ankle_outer", "ankle", "ankle", 0, _OUT),
    _Marker("ankle_inner", "ankle", "ankle", 0, _IN),
    _Marker("heel", "ankle", "ankle", 0, _BACK + 0.8 * _DOWN),
    _Marker("big_toe", "foot", "foot", 0, _FRONT + 0.15 * _IN),
    _Marker("little_toe", "foot", "foot", 0, _FRONT + 1.2 * _OUT),
)

MARKER_NAMES = (
    *(m.name for m in _MIDDLE),
    *(f"{side}_{m.name}" for m in _PAIRED for side in ("left", "right")),
)


def marker_vertices(body: Body) -> np.ndarray:
    """(80,) int64 vertex indices in the order of `MARKER_NAMES`, all different.

    Raises ModelError when two markers meet in one vertex: no human body.
    """
    center = np.mean([body.joints[[a, b], 0].mean() for a, b in _RIGHT_OF.items()])
    # The template's own asymmetry, a few millimetres, must not move middle markers off the middle.
    middle = _points(body, _MIDDLE)
    middle[:, 0] = center
    left = _points(body, _PAIRED)
    chosen = [_closest(body.template, p) for p in middle]
    for point in left:
        vertex = _closest(body.template, point)
        mirrored = body.template[vertex] * (-1, 1, 1) + (2 * center, 0, 0)
        chosen += [vertex, _closest(body.template, mirrored)]
    found = np.array(chosen, np.int64)
    if len(set(chosen)) != N_MARKERS:
        names, counts = np.unique(found, return_counts=True)
        shared = [MARKER_NAMES[i] for i in np.flatnonzero(np.isin(found, names[counts > 1]))]
        raise ModelError(f"body {body.digest}: markers share a vertex: {', '.join(shared)}")
    return found


def _points(body: Body, markers: tuple[_Marker, ...]) -> np.ndarray:
    triangles = body.template[body.faces]
    joints = body.joints.astype(np.float64)
    points = []
    for marker in markers:
        start, end = joints[_JOINTS[marker.start]], joints[_JOINTS[marker.end]]
        origin = start + marker.along * (end - start)
        direction = marker.direction / np.linalg.norm(marker.direction)
        distance = hits(origin[None], direction[None], triangles, last=marker.deep)[0]
        if np.isnan(distance):
            raise ModelError(
                f"body {body.digest}: no skin for marker {marker.name}: its template is no closed body"
            )
        points.append(origin + distance * direction)
    return np.array(points)


def _closest(vertices: np.ndarray, point: np.ndarray) -> int:
    return int(np.argmin(np.linalg.norm(vertices - point, axis=1)))

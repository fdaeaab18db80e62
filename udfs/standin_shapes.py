"""Shape and expression directions of the stand-in body.

A shape direction scales bones: along themselves (and carries everything below them along), and across.
Local extras (belly, chest, muscles) are added on top. One unit is about one standard deviation of adults.
"""

from __future__ import annotations

import numpy as np

from udfs import standin_skeleton as skeleton

_SPINE = ("spine1", "spine2", "spine3")
_LEG = ("hip", "knee")
_ARM = ("shoulder", "elbow")
_HAND = tuple(f"{f}{k}" for f in skeleton.FINGERS for k in (1, 2, 3))

# Per direction: joints -> (growth along the bone, growth across it) for one unit.
_BONES: tuple[dict[str, tuple[float, float]], ...] = (
    dict.fromkeys(("all",), (0.035, 0.02)),  # 0 stature
    {
        "all": (0.0, 0.012),
        "trunk": (0.0, 0.065),
        "leg": (0.0, 0.055),
        "arm": (0.0, 0.060),
        "neck": (0.0, 0.04),
    },
    {"leg": (0.030, 0.0), "foot_part": (0.005, 0.0), "trunk": (-0.030, 0.0)},  # 2 leg against trunk length
    {"arm": (0.035, 0.0), "hand": (0.025, 0.015)},  # 3 arm length
    {"collar": (0.10, 0.01), "chest": (0.0, 0.015)},  # 4 shoulder width
    {"hip_part": (0.07, 0.055), "chest": (0.0, -0.015)},  # 5 hip width
    {"leg": (0.0, 0.030), "arm": (0.0, 0.055), "collar": (0.02, 0.03), "neck": (0.0, 0.03)},  # 6 muscle
    {},  # 7 belly
    {"head": (0.035, 0.035)},  # 8 head size
    {"chest": (0.0, 0.02)},  # 9 chest
)

_GROUPS = {
    "trunk": ("pelvis", *_SPINE),
    "chest": ("spine2", "spine3"),
    "leg": _LEG,
    "arm": _ARM,
    "hand": ("wrist", *_HAND),
    "foot_part": ("ankle", "foot"),
    "collar": ("collar",),
    "hip_part": ("pelvis",),
    "neck": ("neck",),
    "head": ("head", "jaw", "eye"),
}

# The child that gives a joint's bone its direction; others use the direction from their parent.
_BONE_END = {
    "pelvis": "spine1", "spine1": "spine2", "spine2": "spine3", "spine3": "neck", "neck": "head",
    "hip": "knee", "knee": "ankle", "ankle": "foot", "collar": "shoulder", "shoulder": "elbow",
    "elbow": "wrist", "wrist": "middle1",
}  # fmt: skip


def _growth(direction: dict[str, tuple[float, float]]) -> np.ndarray:
    """(55, 2) growth along and across for every joint's bone."""
    table = np.zeros((55, 2))
    for i, name in enumerate(skeleton.JOINT_NAMES):
        bare = name.removeprefix("left_").removeprefix("right_")
        for group, (along, across) in direction.items():
            if group == "all" or bare in _GROUPS[group]:
                table[i] += (along, across)
    return table


def _bone_axis(index: int, joints: np.ndarray) -> np.ndarray:
    name = skeleton.JOINT_NAMES[index]
    side, _, bare = name.rpartition("_")
    prefix = f"{side}_" if side else ""
    if name in ("head", "jaw") or bare == "eye":
        return np.array([0.0, 1.0, 0.0])
    if bare in _BONE_END:
        end = _BONE_END[bare]
        axis = joints[skeleton.joint_index(prefix + end)] - joints[index]
    else:
        axis = joints[index] - joints[skeleton.PARENTS[index]]
    if not prefix:
        axis = np.array([0.0, 1.0, 0.0])
    return axis / np.linalg.norm(axis)


def _bumps(points: np.ndarray, normals: np.ndarray, spots: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """Displacement along the normal, Gaussian around (x, y, z, sx, sy, sz, metres) spots on both sides."""
    out = np.zeros_like(points)
    for cx, cy, cz, sx, sy, sz, amount in spots:
        d = (
            ((np.abs(points[:, 0]) - cx) / sx) ** 2
            + ((points[:, 1] - cy) / sy) ** 2
            + ((points[:, 2] - cz) / sz) ** 2
        )
        out += (amount * np.exp(-0.5 * d))[:, None] * normals
    return out


_LOCAL: dict[int, tuple[tuple[float, ...], ...]] = {
    1: ((0.0, -0.27, 0.08, 0.10, 0.10, 0.08, 0.008), (0.07, -0.44, -0.09, 0.08, 0.09, 0.06, 0.006)),
    6: (
        (0.165, 0.10, -0.02, 0.05, 0.05, 0.06, 0.005),
        (0.075, -0.02, 0.10, 0.06, 0.05, 0.05, 0.006),
        (0.10, -0.01, -0.11, 0.06, 0.08, 0.04, 0.004),
        (0.09, 0.11, -0.05, 0.04, 0.03, 0.05, 0.004),
        (0.0, -0.25, 0.0, 0.2, 0.06, 0.2, -0.003),
    ),
    7: ((0.0, -0.27, 0.09, 0.085, 0.085, 0.07, 0.016), (0.11, -0.29, 0.0, 0.05, 0.06, 0.08, 0.006)),
    9: ((0.072, -0.045, 0.10, 0.050, 0.042, 0.045, 0.012),),
}


def shape_directions(
    points: np.ndarray, normals: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements for one unit of each of 10 betas: vertices (V, 3, 10) and joints (55, 3, 10), metres."""
    joints = skeleton.rest_joints()
    at_vertices = np.zeros((len(points), 3, 10))
    at_joints = np.zeros((55, 3, 10))
    axes = np.stack([_bone_axis(j, joints) for j in range(55)])
    for k, direction in enumerate(_BONES):
        growth = _growth(direction)
        along = np.einsum("ja,jb->jab", axes, axes)
        scale = growth[:, 0, None, None] * along + growth[:, 1, None, None] * (np.eye(3) - along)
        moved = np.zeros((55, 3))
        for j in range(1, 55):
            parent = skeleton.PARENTS[j]
            moved[j] = moved[parent] + scale[parent] @ (joints[j] - joints[parent])
        offset = points[:, None, :] - joints[None]
        each = moved[None] + np.einsum("jab,vjb->vja", scale, offset)
        at_vertices[:, :, k] = np.einsum("vj,vja->va", weights, each)
        if k in _LOCAL:
            at_vertices[:, :, k] += _bumps(points, normals, _LOCAL[k])
        at_joints[:, :, k] = moved
    return at_vertices, at_joints


_Spot = tuple[tuple[float, float, float], float, tuple[float, float, float]]

# Spots of the face: centre (mirrored in x), radius, displacement (x outward, y up, z forward) for one unit.
_FACE: dict[str, tuple[_Spot, ...]] = {
    "jaw_drop": (
        ((0.0, 0.205, 0.085), 0.014, (0.0, -0.0030, -0.0008)),
        ((0.0, 0.190, 0.078), 0.016, (0.0, -0.0030, -0.0010)),
    ),
    "smile": (
        ((0.023, 0.223, 0.081), 0.010, (0.0022, 0.0020, -0.0010)),
        ((0.042, 0.250, 0.066), 0.016, (0.0006, 0.0012, 0.0008)),
    ),
    "brow_raise": (
        ((0.012, 0.320, 0.092), 0.013, (0.0, 0.0022, 0.0)),
        ((0.042, 0.320, 0.078), 0.014, (0.0, 0.0022, 0.0)),
    ),
    "pout": (
        ((0.0, 0.223, 0.094), 0.012, (0.0, 0.0, 0.0028)),
        ((0.023, 0.223, 0.082), 0.010, (-0.0024, 0.0, 0.0010)),
    ),
    "cheek_puff": (((0.042, 0.235, 0.062), 0.016, (0.0022, 0.0, 0.0012)),),
    "frown": (((0.014, 0.318, 0.092), 0.011, (-0.0014, -0.0018, 0.0006)),),
    "sneer": (
        ((0.0, 0.231, 0.094), 0.009, (0.0, 0.0018, 0.0)),
        ((0.010, 0.253, 0.100), 0.008, (0.0010, 0.0008, 0.0)),
    ),
    "mouth_corners_down": (
        ((0.023, 0.222, 0.081), 0.010, (0.0004, -0.0022, -0.0002)),
        ((0.0, 0.214, 0.090), 0.009, (0.0, 0.0008, 0.0004)),
    ),
    "squint": (
        ((0.032, 0.310, 0.084), 0.009, (0.0, -0.0014, 0.0004)),
        ((0.032, 0.284, 0.080), 0.009, (0.0, 0.0012, 0.0004)),
    ),
    "chin_forward": (((0.0, 0.194, 0.086), 0.015, (0.0, 0.0, 0.0024)),),
}


def expression_directions(points: np.ndarray) -> np.ndarray:
    """(V, 3, 10) displacements in metres for one unit of each coefficient, in the order of `_FACE`."""
    out = np.zeros((len(points), 3, 10))
    side = np.sign(points[:, 0])
    for k, spots in enumerate(_FACE.values()):
        for center, radius, move in spots:
            d2 = (np.abs(points[:, 0]) - center[0]) ** 2 + ((points[:, 1:] - np.array(center[1:])) ** 2).sum(
                axis=1
            )
            amount = np.exp(-0.5 * d2 / radius**2) * (d2 < (3.5 * radius) ** 2)
            out[:, 0, k] += amount * move[0] * side
            out[:, 1, k] += amount * move[1]
            out[:, 2, k] += amount * move[2]
    return out

"""The skeleton of the stand-in body: SMPL-X's 55-joint tree with an adult's proportions.

Metres, y up, the subject faces +z, the subject's left is +x. The layout follows the published SMPL-X
conventions (pelvis near (0, -0.35, 0), arms along x, palms down), so that poses made for SMPL-X fit.
"""

from __future__ import annotations

import numpy as np

_MIDLINE = {
    "pelvis": (0.0, -0.352, 0.010),
    "spine1": (0.0, -0.242, -0.016),
    "spine2": (0.0, -0.112, -0.020),
    "spine3": (0.0, -0.056, -0.006),
    "neck": (0.0, 0.108, -0.025),
    "head": (0.0, 0.262, -0.006),
    "jaw": (0.0, 0.258, 0.016),
}

_LEFT = {
    "hip": (0.074, -0.450, -0.012),
    "knee": (0.106, -0.822, -0.024),
    "ankle": (0.082, -1.226, -0.050),
    "foot": (0.116, -1.284, 0.066),
    "collar": (0.047, 0.030, -0.004),
    "shoulder": (0.162, 0.084, -0.018),
    "elbow": (0.4205, 0.034, -0.050),
    "wrist": (0.6710, 0.038, -0.058),
    "eye": (0.0315, 0.298, 0.0655),
}

# Finger joints relative to the left wrist: three joints and the tip.
_FINGERS = {
    "index": (
        (0.090, -0.003, 0.025),
        (0.125, 0.000, 0.0295),
        (0.148, -0.001, 0.0320),
        (0.172, -0.004, 0.034),
    ),
    "middle": ((0.095, 0.000, 0.002), (0.131, 0.003, 0.0020), (0.157, 0.002, 0.0015), (0.184, -0.002, 0.001)),
    "pinky": (
        (0.074, -0.006, -0.039),
        (0.099, -0.006, -0.0475),
        (0.1175, -0.008, -0.0535),
        (0.138, -0.011, -0.060),
    ),
    "ring": (
        (0.087, -0.002, -0.0195),
        (0.120, 0.000, -0.0250),
        (0.1445, -0.001, -0.0290),
        (0.169, -0.004, -0.033),
    ),
    "thumb": (
        (0.024, -0.012, 0.0240),
        (0.051, -0.022, 0.0510),
        (0.0765, -0.027, 0.0690),
        (0.101, -0.031, 0.084),
    ),
}

FINGERS = tuple(_FINGERS)

BODY_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "jaw",
    "left_eye", "right_eye",
)  # fmt: skip

JOINT_NAMES = BODY_JOINTS + tuple(
    f"{side}_{finger}{k}" for side in ("left", "right") for finger in FINGERS for k in (1, 2, 3)
)

PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
    + [p for wrist, first in ((20, 25), (21, 40)) for f in range(5) for p in
       (wrist, first + 3 * f, first + 3 * f + 1)],
    dtype=np.int64,
)  # fmt: skip


def joint_index(name: str) -> int:
    """Index of a joint in SMPL-X's order; ValueError when there is none of that name."""
    return JOINT_NAMES.index(name)


def left_finger(finger: str) -> np.ndarray:
    """(4, 3) float64: the three joints and the tip of a finger of the left hand, in metres."""
    return np.array(_LEFT["wrist"]) + np.array(_FINGERS[finger])


def rest_joints() -> np.ndarray:
    """(55, 3) float64: the joints of the rest pose (a T-pose), mirror-symmetric about x = 0."""
    joints = np.zeros((55, 3))
    for i, name in enumerate(JOINT_NAMES):
        side, _, rest = name.partition("_")
        if name in _MIDLINE:
            joints[i] = _MIDLINE[name]
            continue
        if rest in _LEFT:
            joints[i] = _LEFT[rest]
        else:
            joints[i] = left_finger(rest[:-1])[int(rest[-1]) - 1]
        if side == "right":
            joints[i, 0] *= -1.0
    return joints


def mirror_joints() -> np.ndarray:
    """(55,) int64: for every joint the index of its mirror image."""
    swap = {"left": "right", "right": "left"}
    names = []
    for name in JOINT_NAMES:
        side, _, rest = name.partition("_")
        names.append(f"{swap[side]}_{rest}" if side in swap else name)
    return np.array([JOINT_NAMES.index(name) for name in names], dtype=np.int64)

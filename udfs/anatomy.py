"""Where on a body a point of its surface is: parts and landmarks of the template, of any body file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from udfs.body import Body

TORSO, ARM, HAND, LEG, FOOT, HEAD, NECK = range(7)

SKIN_AREA, TOP_AREA, BOTTOM_AREA, SHOES_AREA, HAIR_AREA, OTHER_AREA = range(6)
"""What a point of the surface belongs to; OTHER is what no caption names: belts, straps, socks."""

_GROUPS: Mapping[int, tuple[int, ...]] = {
    TORSO: (0, 3, 6, 9, 13, 14),
    ARM: (16, 17, 18, 19),
    HAND: (20, 21, *range(25, 55)),
    LEG: (1, 2, 4, 5),
    FOOT: (7, 8, 10, 11),
    HEAD: (15, 22, 23, 24),
    NECK: (12,),
}

_LANDMARKS = (
    "sole", "crown", "chin", "nape", "hip", "knee", "ankle", "pelvis", "shoulder_x", "shoulder_y", "elbow_x",
    "wrist_x", "neck_y", "neck_z", "spine_z", "eye_x", "eye_y", "eye_z", "nose_y", "nose_z", "mouth_y",
    "mouth_z", "mouth_half", "ear_x", "ear_y", "ear_z", "toe_z",
)  # fmt: skip
_FIGURE = np.dtype([(name, "f8") for name in _LANDMARKS])


def figure(body: Body) -> np.void:
    """Where the tailor measures: heights and depths of the template's landmarks, metres."""
    joints = body({"betas": np.zeros((1, 10), np.float32)}).joints[0].astype(np.float64)
    template = body.template.astype(np.float64)
    face = joints[76:]
    nose, mouth = joints[55], face[31:].mean(0)
    chin = mouth[1] - 1.2 * (nose[1] - mouth[1])
    ears = joints[58:60]
    f: Any = np.zeros((), _FIGURE)
    f["sole"], f["crown"], f["chin"] = template[:, 1].min(), template[:, 1].max(), chin
    f["hip"], f["knee"] = joints[1:3, 1].mean(), joints[4:6, 1].mean()
    f["ankle"], f["pelvis"] = joints[7:9, 1].mean(), joints[0, 1]
    f["shoulder_x"], f["shoulder_y"] = np.abs(joints[16:18, 0]).mean(), joints[16:18, 1].mean()
    f["elbow_x"], f["wrist_x"] = np.abs(joints[18:20, 0]).mean(), np.abs(joints[20:22, 0]).mean()
    f["neck_y"], f["neck_z"], f["spine_z"] = joints[12, 1], joints[12, 2], joints[6, 2]
    f["eye_x"], f["eye_y"] = np.abs(joints[23:25, 0]).mean(), joints[23:25, 1].mean()
    f["eye_z"], f["nose_y"], f["nose_z"] = joints[23:25, 2].mean(), nose[1], nose[2]
    f["mouth_y"], f["mouth_z"], f["mouth_half"] = mouth[1], mouth[2], np.abs(face[31:, 0]).max()
    f["ear_x"], f["ear_y"], f["ear_z"] = np.abs(ears[:, 0]).mean(), ears[:, 1].mean(), ears[:, 2].mean()
    f["nape"], f["toe_z"] = f["ear_y"] - 0.3 * (f["crown"] - chin), template[:, 2].max()
    return f[()]


def face_groups(body: Body) -> np.ndarray:
    """(F,) int8: TORSO, ARM, ... of each triangle, that of two of its corners at least."""
    group = np.zeros(55, np.int8)
    for name, joints in _GROUPS.items():
        group[list(joints)] = name
    corners = np.sort(group[body.vertex_part][body.faces], axis=1)
    return corners[:, 1]

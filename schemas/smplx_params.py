"""The SMPL-X parameters that a pose and a label hold, in the order in which they are hashed and stored."""

from collections.abc import Mapping

POSE_PARAMS: Mapping[str, int] = {
    "global_orient": 3,
    "body_pose": 63,
    "left_hand_pose": 45,
    "right_hand_pose": 45,
    "jaw_pose": 3,
    "leye_pose": 3,
    "reye_pose": 3,
}
"""Axis-angle rotations, radians. Hand poses are absolute (`flat_hand_mean=True`)."""

SMPLX_PARAMS: Mapping[str, int] = {"betas": 10, **POSE_PARAMS, "expression": 10, "transl": 3}
"""Column name to length; `transl` in metres, `betas` and `expression` in standard deviations."""

GENDERS = ("neutral", "female", "male")

N_JOINTS = 127
"""Joints that smplx returns: 55 of the kinematic tree, 21 surface vertices, 51 face landmarks."""

N_MARKERS = 80

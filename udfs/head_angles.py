"""Which way a head is turned: rotations of the labels' head joint, and roll, pitch and yaw of a rotation."""

from collections.abc import Mapping

import numpy as np

from udfs.rotations import matrix_from_rotvec

_CHAIN = (3, 6, 9, 12, 15)
"""Spine, neck and head among smplx's joints; body_pose begins with joint 1."""

_FACING = np.diag([1.0, -1.0, -1.0])
"""A head that faces the camera upright: SMPL-X's x is its left, y up, z forward; the camera's y is down."""


def head_rotations(params: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, 3, 3) float64 rotations of the head joint in camera space.

    params: `global_orient` (N, 3) in camera space and `body_pose` (N, 63), radians.
    """
    rotation = matrix_from_rotvec(params["global_orient"])
    body = matrix_from_rotvec(np.reshape(params["body_pose"], (-1, 21, 3)))
    for joint in _CHAIN:
        rotation = rotation @ body[:, joint - 1]
    return rotation


def view_of(points: np.ndarray, focal: np.ndarray, princpt: np.ndarray) -> np.ndarray:
    """(N, 3, 3) float64 rotations that turn the camera's axis to the rays through N pixels (N, 2).

    How a head looks in a crop depends on its rotation against the ray that it is seen along: `view.T @
    rotation` is what the crop shows.
    """
    x, y = np.moveaxis((points - princpt) / focal, -1, 0)
    turn, lift = np.arctan2(x, 1), -np.arctan2(y, np.hypot(x, 1))
    zero = np.zeros_like(turn)
    return matrix_from_rotvec(np.stack([zero, turn, zero], -1)) @ matrix_from_rotvec(
        np.stack([lift, zero, zero], -1)
    )


def angles(rotation: np.ndarray) -> np.ndarray:
    """(..., 3) roll, pitch and yaw in degrees of rotations (..., 3, 3) in camera space.

    All are 0 for an upright head that faces the camera. Yaw in (-180, 180] turns it to its left, pitch in
    [-90, 90] bends it down, roll in (-180, 180] tilts its crown to its right; yaw is applied last. Close to
    a pitch of 90 degrees, roll and yaw mean little.
    """
    r = _FACING @ rotation
    roll = np.arctan2(r[..., 1, 0], r[..., 1, 1])
    pitch = np.arcsin(np.clip(-r[..., 1, 2], -1, 1))
    yaw = np.arctan2(r[..., 0, 2], r[..., 2, 2])
    return np.degrees(np.stack([roll, pitch, yaw], -1))


def angle_error(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(...,) mean absolute difference of roll, pitch and yaw (..., 3), degrees, each the short way round."""
    return np.abs((found - truth + 180) % 360 - 180).mean(-1)


def rotation_error(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(...,) angle in degrees of the rotation between two (..., 3, 3)."""
    cosine = (np.einsum("...ij,...ij->...", found, truth) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def from_six(values: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations of six numbers (..., 6): two columns before they are made orthonormal.

    Zhou et al., "On the continuity of rotation representations in neural networks", 2019.
    """
    a, b = values[..., :3], values[..., 3:]
    x = a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-9)
    b = b - (x * b).sum(-1, keepdims=True) * x
    y = b / np.maximum(np.linalg.norm(b, axis=-1, keepdims=True), 1e-9)
    return np.stack([x, y, np.cross(x, y)], -1)

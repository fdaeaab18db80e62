"""Joints of posed bodies without a body file: one average skeleton, fast enough for millions of poses."""

import numpy as np

from udfs.rotations import matrix_from_rotvec
from udfs.stances import joint_positions

JOINTS = 22
"""Pelvis to wrists, smplx's first joints."""


def upright_joints(body_pose: np.ndarray) -> np.ndarray:
    """(N, 22, 3) float32 joints, metres, the pelvis at the origin and not turned: a pose, however it lies.

    body_pose: (N, 63) radians.
    """
    n = len(body_pose)
    local = np.zeros((JOINTS, n, 3))
    local[1:] = np.asarray(body_pose, np.float64).reshape(n, JOINTS - 1, 3).transpose(1, 0, 2)
    still = np.broadcast_to(np.eye(3), (n, 3, 3))
    return joint_positions(still, matrix_from_rotvec(local)).transpose(1, 0, 2).astype(np.float32)


def descriptor(body_pose: np.ndarray) -> np.ndarray:
    """(N, 66) float32 points whose distances are root mean square distances of joints, metres."""
    return upright_joints(body_pose).reshape(len(body_pose), -1) / np.float32(JOINTS**0.5)

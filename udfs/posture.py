"""A few angles that say how a body stands, from its joints in camera space."""

import numpy as np

_PELVIS, _NECK = 0, 12
_HIPS, _KNEES, _ANKLES = (1, 2), (4, 5), (7, 8)
_SHOULDERS, _ELBOWS, _WRISTS = (16, 17), (18, 19), (20, 21)
"""Left and right, in the order of smplx."""


def postures(joints: np.ndarray) -> dict[str, np.ndarray]:
    """Angles of N bodies by name, (N,) degrees each.

    joints: (N, > 21, 3) in the order of smplx; x right, y down, z forward.

    `trunk_tilt`: from the picture's vertical to the way from pelvis to neck, 0 to 180. `facing`: which way
    the trunk faces, 0 towards the camera, 90 to the picture's right, 180 away. `arm_raise`: of the arm that
    is raised more, from the trunk's downward line to the upper arm: 0 hanging, 180 overhead. `elbow_bend` and
    `knee_bend`: of the one that is bent more, 0 straight.
    """
    points = np.asarray(joints, np.float64)
    trunk = points[:, _NECK] - points[:, _PELVIS]
    across = points[:, _SHOULDERS[0]] - points[:, _SHOULDERS[1]]
    ahead = np.cross(across, trunk)
    up = np.array([0.0, -1.0, 0.0])
    arms = [_angle(points[:, e] - points[:, s], -trunk) for s, e in zip(_SHOULDERS, _ELBOWS, strict=True)]
    return {
        "trunk_tilt": _angle(trunk, up),
        "facing": np.degrees(np.arctan2(ahead[:, 0], -ahead[:, 2])),
        "arm_raise": np.maximum(*arms),
        "elbow_bend": _bend(points, _SHOULDERS, _ELBOWS, _WRISTS),
        "knee_bend": _bend(points, _HIPS, _KNEES, _ANKLES),
    }


def _bend(points: np.ndarray, *chain: tuple[int, int]) -> np.ndarray:
    sides = [
        _angle(points[:, b] - points[:, a], points[:, c] - points[:, b])
        for a, b, c in zip(*chain, strict=True)
    ]
    return np.maximum(*sides)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) degrees between vectors (N, 3). By both products: one alone is inexact for some angles."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))

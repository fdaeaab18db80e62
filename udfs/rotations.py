"""Rotation vectors (axis times angle, radians) in bulk, float64."""

import numpy as np


def matrix_from_rotvec(rotvec: np.ndarray) -> np.ndarray:
    """(..., 3) rotation vectors to (..., 3, 3) rotation matrices that act on column vectors."""
    w, x, y, z = np.moveaxis(_quaternion_from_rotvec(rotvec), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotvec_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices to (..., 3) rotation vectors with an angle of at most pi."""
    return _rotvec_from_quaternion(_quaternion_from_matrix(np.asarray(matrix, np.float64)))


def wrap_rotvec(rotvec: np.ndarray) -> np.ndarray:
    """The same rotations with an angle of at most pi; vectors that are short enough come back unchanged."""
    rotvec = np.asarray(rotvec, np.float64)
    angle = np.linalg.norm(rotvec, axis=-1, keepdims=True)
    wrapped = angle - 2 * np.pi * np.round(angle / (2 * np.pi))
    return np.where(angle <= np.pi, rotvec, rotvec * (wrapped / np.where(angle > 0, angle, 1)))


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., 3) rotation vector of the matrix product `first @ second`: `second` acts first. Angle <= pi."""
    a, b = _quaternion_from_rotvec(first), _quaternion_from_rotvec(second)
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - np.sum(av * bv, axis=-1, keepdims=True)
    return _rotvec_from_quaternion(np.concatenate([w, aw * bv + bw * av + np.cross(av, bv)], axis=-1))


def _quaternion_from_rotvec(rotvec: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4), scalar first."""
    rotvec = np.asarray(rotvec, np.float64)
    half = np.linalg.norm(rotvec, axis=-1, keepdims=True) / 2
    # numpy's sinc is sin(pi x) / (pi x): exact down to an angle of zero.
    return np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * rotvec], axis=-1)


def _rotvec_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, v = quaternion[..., :1], quaternion[..., 1:]
    sine = np.linalg.norm(v, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, w)
    return v * np.where(sine > 1e-12, angle / np.where(sine > 1e-12, sine, 1), 2)


def _quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Shepperd's method: of four formulas, the one that divides by the largest number."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    choice = np.argmax(np.stack([trace, m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], axis=-1), axis=-1)
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    wx, wy, wz = (m[..., j, i] - m[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1)))
    d = [1 - trace + 2 * m[..., i, i] for i in range(3)]
    candidates = np.stack(
        [
            np.stack([1 + trace, wx, wy, wz], axis=-1),
            np.stack([wx, d[0], xy, xz], axis=-1),
            np.stack([wy, xy, d[1], yz], axis=-1),
            np.stack([wz, xz, yz, d[2]], axis=-1),
        ],
        axis=-2,
    )
    q = np.take_along_axis(candidates, choice[..., None, None], axis=-2)[..., 0, :]
    return q / np.linalg.norm(q, axis=-1, keepdims=True)

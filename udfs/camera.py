"""The camera that a sample asks for: where it stands, what it projects, and SMPL-X parameters seen from it.

World: y up, the subject faces +z. Camera: OpenCV, x right, y down, z forward. Pixels: the centre of the
top-left pixel is (0.5, 0.5).
"""

from collections.abc import Mapping

import numpy as np

from udfs.rotations import compose, matrix_from_rotvec, rotvec_from_matrix

_UP_TO_DOWN = np.diag([1.0, -1.0, -1.0])


def view_rotations(yaw: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """(N, 3, 3) float64 rotations from the world to cameras that look at the origin.

    yaw (N,) turns the camera about the world's y axis, from the subject's front towards its left (+x);
    elevation (N,) lifts it, so that it looks down. Radians.
    """
    yaw, elevation = np.asarray(yaw, np.float64), np.asarray(elevation, np.float64)
    zero = np.zeros_like(yaw)
    turn = matrix_from_rotvec(np.stack([zero, -yaw, zero], axis=-1))
    tilt = matrix_from_rotvec(np.stack([elevation, zero, zero], axis=-1))
    return _UP_TO_DOWN @ tilt @ turn


def camera_params(
    params: Mapping[str, np.ndarray],
    pelvis: np.ndarray,
    yaw: np.ndarray,
    elevation: np.ndarray,
    distance: np.ndarray,
) -> dict[str, np.ndarray]:
    """SMPL-X parameters whose body stands in camera space, the pelvis at (0, 0, distance). float32.

    smplx turns a body about its pelvis joint where the shape puts it, not about the origin, and adds
    `transl` afterwards: so `global_orient` takes the camera's rotation as it is, and `transl` is what
    leads from that joint to its place before the camera. The world's own `transl` plays no part.

    Args:
        params: (N, k) arrays by name; `global_orient` is replaced, `transl` set, the rest passed on.
        pelvis: (N, 3) pelvis joint of the unposed, shaped body, metres.
        yaw, elevation: (N,) radians; distance: (N,) metres.
    """
    view = rotvec_from_matrix(view_rotations(yaw, elevation))
    place = np.stack([np.zeros(len(pelvis)), np.zeros(len(pelvis)), distance], axis=1)
    seen = {name: np.asarray(value, np.float32) for name, value in params.items()}
    seen["global_orient"] = compose(view, params["global_orient"]).astype(np.float32)
    seen["transl"] = (place - pelvis).astype(np.float32)
    return seen


def project(points: np.ndarray, focal: np.ndarray, princpt: np.ndarray) -> np.ndarray:
    """(B, N, 3) camera-space points to (B, N, 2) pixels, float64. focal, princpt: (B, 2) pixels."""
    points = np.asarray(points, np.float64)
    return focal[:, None] * points[..., :2] / points[..., 2:] + princpt[:, None]


def boxes(pixels: np.ndarray) -> np.ndarray:
    """(B, N, 2) points to (B, 4): x and y of the first and of the last."""
    x, y = pixels[..., 0], pixels[..., 1]
    return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)


def crop(
    box: np.ndarray, focal: np.ndarray, princpt: np.ndarray, margin: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics after the image was cropped around a box and resampled to its size.

    The crop is the smallest rectangle of the image's proportions, a square for a square image, that has
    the box at its centre and leaves `margin` of the box's extent around it, half on either side.

    Args:
        box: (B, 4) x0, y0, x1, y1 before the crop, pixels.
        focal, princpt: (B, 2) before the crop.
        margin: (B,) fraction, 0.1 makes the crop 1.1 times the box.
        size: (B, 2) width and height, before and after, pixels.

    Returns:
        focal and princpt after the crop, (B, 2) float64.
    """
    extent = (box[:, 2:] - box[:, :2]) * (1 + margin[:, None])
    scale = (size / extent).min(axis=1, keepdims=True)
    center = (box[:, :2] + box[:, 2:]) / 2
    return focal * scale, size / 2 + (princpt - center) * scale

"""The control image: every pixel of the body coloured by where it lies on the canonical body (PNCC)."""

import numpy as np

from udfs.body import Body
from udfs.raster import frames_at_once, paint, rasterize

# (index in body_pose, rotation in degrees about the z axis): arms down from the T-pose to an A-pose, legs
# slightly apart.
_A_POSE = ((15, -45.0), (16, 45.0), (0, 8.0), (1, -8.0))


def canonical_vertices(body: Body) -> np.ndarray:
    """(V, 3) float32: the mean shape in an A-pose with the legs slightly apart, metres."""
    pose = np.zeros((1, 21, 3))
    for joint, degrees in _A_POSE:
        pose[0, joint, 2] = np.deg2rad(degrees)
    return body({"body_pose": pose.reshape(1, 63)}).vertices[0]


def pncc_colors(body: Body) -> np.ndarray:
    """(V, 3) float32 in [0, 1]: canonical x, y, z as red, green, blue, each axis scaled by itself."""
    vertices = canonical_vertices(body).astype(np.float64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return ((vertices - low) / (high - low)).astype(np.float32)


def render_control(
    vertices: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray,
    focal: np.ndarray,
    princpt: np.ndarray,
    height: int,
    width: int,
    device: str = "cpu",
) -> np.ndarray:
    """(B, H, W, 3) uint8 control images, unlit, on black.

    vertices: (B, V, 3) camera space, metres; colors: (V, 3) of `pncc_colors`; focal, princpt: (B, 2) px.
    """
    out = np.empty((len(vertices), height, width, 3), np.uint8)
    step = frames_at_once(height, width)
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        seen = rasterize(vertices[part], faces, focal[part], princpt[part], height, width, device)
        out[part] = paint(seen, faces, colors)
    return out

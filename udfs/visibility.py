"""Which keypoints the camera sees, judged by the depth buffer."""

import numpy as np

from schemas.coco import KEYPOINT_NAMES, SMPLX_INDEX
from udfs.body import Body
from udfs.raster import Fragments
from udfs.rays import hits

OUTSIDE, HIDDEN, SEEN = 0, 1, 2

_SURFACE = 0.02
"""Metres for keypoints that lie on the surface (nose, eyes, ears): the folds of skin beside them."""

_FLESH = 0.03
"""Metres on top of a limb's radius: bodies are thicker than the mean shape, limbs are not round, and one
that points at the camera has more of itself before the joint. A hand or an arm on the joint is thicker."""

_RAYS = 16


def tolerances(body: Body) -> np.ndarray:
    """(17,) metres by which the surface may lie before a COCO keypoint that it does not hide.

    A shoulder or a hip lies inside the body: the surface before it is its own flesh up to about the
    limb's radius, and another limb beyond that. The radius is measured on the template, as the median
    distance from the joint to the skin in the plane across its bone.
    """
    triangles = body.template[body.faces]
    found = np.full(len(KEYPOINT_NAMES), _SURFACE)
    for k, joint in enumerate(SMPLX_INDEX):
        if joint < len(body.joints):
            radius = np.nanmedian(_radii(body, joint, triangles))
            found[k] = radius + _FLESH if np.isfinite(radius) else 0.1
    return found


def _radii(body: Body, joint: int, triangles: np.ndarray) -> np.ndarray:
    # Shoulders and hips take the direction of the limb that hangs on them, not of the girdle.
    name = KEYPOINT_NAMES[SMPLX_INDEX.index(joint)]
    child = int(np.flatnonzero(body.parents == joint)[0])
    begins = "shoulder" in name or "hip" in name
    bone = (
        body.joints[child] - body.joints[joint]
        if begins
        else body.joints[joint] - body.joints[body.parents[joint]]
    )
    bone = bone / np.linalg.norm(bone)
    across = np.cross(bone, np.eye(3)[np.argmin(np.abs(bone))])
    across /= np.linalg.norm(across)
    angle = np.arange(_RAYS)[:, None] * (2 * np.pi / _RAYS)
    directions = np.cos(angle) * across + np.sin(angle) * np.cross(bone, across)
    return hits(np.repeat(body.joints[joint][None], _RAYS, 0), directions, triangles)


def visibility(
    keypoints_2d: np.ndarray,
    depth: np.ndarray,
    fragments: Fragments,
    tolerance: np.ndarray,
    focal: np.ndarray,
) -> np.ndarray:
    """(B, K) int8: 0 outside the image, 1 hidden by the body, 2 seen.

    Args:
        keypoints_2d: (B, K, 2) pixels.
        depth: (B, K) metres.
        fragments: what the B frames see.
        tolerance: (K,) metres, of `tolerances`. What one pixel spans at that depth is added, since the
            buffer knows the surface at pixel centres only.
        focal: (B, 2) pixels.
    """
    frames, height, width = fragments.depth.shape
    pixel = np.floor(keypoints_2d)
    inside = ((pixel >= 0) & (pixel < (width, height))).all(axis=2)
    column, row = np.where(inside[..., None], pixel, 0).astype(np.int64).transpose(2, 0, 1)
    surface = fragments.depth[np.arange(frames)[:, None], row, column]
    slack = tolerance + depth / focal.min(axis=1, keepdims=True)
    seen = np.where(surface >= depth - slack, SEEN, HIDDEN)
    return np.where(inside, seen, OUTSIDE).astype(np.int8)

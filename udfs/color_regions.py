"""Where in a picture to look for the colours that its caption names: from the label's body alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from udfs.anatomy import FOOT, LEG, NECK, TORSO, face_groups, figure
from udfs.body import Body
from udfs.raster import frames_at_once, rasterize
from udfs.threads import each

NOWHERE, TOP, BOTTOM, SHOES, BACKGROUND = range(5)
ATTRIBUTES = ("top_color", "bottom_color", "shoes_color", "background_color")
"""What is read, in the order of the regions TOP to BACKGROUND."""

_AWAY = 0.03
"""Share of the image's side that the background keeps from the body: a generator may paint loose clothes
and a halo of mixed pixels."""

FEWEST = 6
"""Pixels below which a region is not looked at: it says nothing."""


@dataclass(frozen=True)
class Tailor:
    """A body and the part of its surface that shows each colour.

    Attributes:
        body: the labels' body.
        faces: (F,) int8, TOP, BOTTOM, SHOES or NOWHERE of each triangle.
    """

    body: Body
    faces: np.ndarray

    @classmethod
    def load(cls, body: Body) -> "Tailor":
        return cls(body, garment_faces(body))


def garment_faces(body: Body) -> np.ndarray:
    """(F,) int8: the region of each triangle, from the template's landmarks.

    The chest from above the hem to below the neckline, the thighs down to where the shortest shorts end,
    the feet above their soles. What lies between shows one thing or another, as the clothes are cut.
    """
    group, f = face_groups(body), figure(body)
    middle = body.template[body.faces].mean(1)
    x, y = np.abs(middle[:, 0]), middle[:, 1]
    regions = np.full(len(group), NOWHERE, np.int8)
    trunk = np.isin(group, (TORSO, NECK)) & (x < 0.95 * f["shoulder_x"])
    regions[trunk & (y > f["pelvis"] + 0.1) & (y < f["neck_y"] - 0.1)] = TOP
    share = (f["hip"] - y) / (f["hip"] - f["ankle"])
    legs = np.isin(group, (LEG, TORSO)) & (y < f["pelvis"] - 0.1)
    regions[legs & (share > -0.05) & (share < 0.27)] = BOTTOM
    regions[(group == FOOT) & (y > f["sole"] + 0.025) & (y < f["ankle"] - 0.01)] = SHOES
    return regions


def color_regions(
    tailor: Tailor, params: Mapping[str, np.ndarray], focal: np.ndarray, princpt: np.ndarray, height: int,
    width: int,
) -> np.ndarray:  # fmt: skip
    """(N, H, W) int8: NOWHERE, TOP, BOTTOM, SHOES or BACKGROUND of each pixel.

    A region keeps a pixel from what it borders on, unless it is too small to. The background is what lies
    away from the body, above its middle: floors have colours of their own.

    Args:
        params: SMPL-X parameters (N, k) in camera space, as labels have them.
        focal, princpt: (N, 2), pixels.
    """
    vertices = tailor.body(params).vertices
    out = np.empty((len(vertices), height, width), np.int8)
    step = frames_at_once(height, width)
    away = max(2, round(_AWAY * max(height, width)))
    inside = max(1, round(max(height, width) / 160))
    for start in range(0, len(vertices), step):
        part = slice(start, start + step)
        seen = rasterize(vertices[part], tailor.body.faces, focal[part], princpt[part], height, width).face

        def work(k: int, seen: np.ndarray = seen, start: int = start) -> None:
            out[start + k] = _regions(seen[k], tailor.faces, inside, away)

        each(work, len(seen))
    return out


def _regions(face: np.ndarray, of_face: np.ndarray, inside: int, away: int) -> np.ndarray:
    body = face >= 0
    regions = np.where(body, of_face[face], NOWHERE).astype(np.int8)
    out = np.zeros_like(regions)
    for region in (TOP, BOTTOM, SHOES):
        whole = regions == region
        kept = ~_grown(~whole, inside)
        out[kept if kept.sum() >= 4 * FEWEST else whole] = region
    rows = np.flatnonzero(body.any(1))
    if len(rows):
        background = ~_grown(body, away)
        background[(rows[0] + rows[-1]) // 2 :] = False
        out[background] = BACKGROUND
    return out


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    """(H, W) bool: within `by` pixels of the mask, along the axes."""
    for axis in (0, 1):
        total = np.cumsum(np.pad(mask, [(by + 1, by) if a == axis else (0, 0) for a in (0, 1)]), axis)
        n = mask.shape[axis]
        after, before = np.arange(2 * by + 1, 2 * by + 1 + n), np.arange(n)
        mask = np.take(total, after, axis) - np.take(total, before, axis) > 0
    return mask

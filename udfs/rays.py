"""Where rays meet a mesh: for the few points that are found once a body."""

import numpy as np


def hits(
    origins: np.ndarray, directions: np.ndarray, triangles: np.ndarray, *, last: bool = False
) -> np.ndarray:
    """(N,) distance along each ray to the first (or last) triangle that it meets, NaN where it meets none.

    Moeller and Trumbore's test, both sides. origins (N, 3), directions (N, 3) of unit length,
    triangles (F, 3, 3).
    """
    base = triangles[:, 0].astype(np.float64)
    side, other = triangles[:, 1] - base, triangles[:, 2] - base
    found = np.full(len(origins), np.nan)
    for i, (origin, direction) in enumerate(zip(origins, directions, strict=True)):
        p = np.cross(direction, other)
        determinant = np.einsum("fi,fi->f", side, p)
        inverse = 1 / np.where(np.abs(determinant) > 1e-14, determinant, np.inf)
        t = origin - base
        u = np.einsum("fi,fi->f", t, p) * inverse
        q = np.cross(t, side)
        v = (q @ direction) * inverse
        distance = np.einsum("fi,fi->f", other, q) * inverse
        met = distance[(inverse != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 1e-6)]
        if len(met):
            found[i] = met.max() if last else met.min()
    return found

"""An average body as capsules round its bones: how deep they are in each other."""

from collections.abc import Mapping

import numba
import numpy as np

from udfs.skeleton import JOINTS

_BEYOND: Mapping[str, tuple[int, int, float]] = {
    "skull": (15, 12, 0.6), "left_hand": (20, 18, 0.35), "right_hand": (21, 19, 0.35),
    "left_toes": (10, 7, 0.4), "right_toes": (11, 8, 0.4),
}  # fmt: skip
"""Points that go on from a joint, away from another, by a share of their distance."""

SKULL, HANDS, TOES = JOINTS, (JOINTS + 1, JOINTS + 2), (JOINTS + 3, JOINTS + 4)
POINTS = JOINTS + len(_BEYOND)
FLESH = np.array([0.12, 0.1, 0.1, 0.1, 0.06, 0.06, 0.1, 0.07, 0.07, 0.1, 0.03, 0.03, 0.06, 0.06, 0.06, 0.14,
                  0.06, 0.06, 0.05, 0.05, 0.04, 0.04, 0.1, 0.02, 0.02, 0.02, 0.02])  # fmt: skip
"""Metres from each point to the skin round it."""

_PARTS: Mapping[str, tuple[int, int, float, float]] = {
    "belly": (0, 6, 0.0, 0.11), "chest": (6, 9, 0.0, 0.11), "neck": (9, 12, 0.0, 0.08),
    "head": (15, SKULL, 0.0, 0.085),
} | {
    f"{name}{side}": (a[side], b[side], start, radius)
    for side in (0, 1)
    for name, a, b, start, radius in (
        ("upper_arm", (16, 17), (18, 19), 0.4, 0.045), ("forearm", (18, 19), (20, 21), 0.0, 0.035),
        ("hand", (20, 21), HANDS, 0.0, 0.025), ("thigh", (1, 2), (4, 5), 0.5, 0.06),
        ("shin", (4, 5), (7, 8), 0.0, 0.045), ("foot", (7, 8), TOES, 0.0, 0.03),
    )
}  # fmt: skip
"""Two points, the share of the way at which the capsule begins, its radius in metres."""


def _pairs() -> list[tuple[str, str]]:
    """Parts that never share flesh. A hand at its own shoulder or a heel at its own thigh is no fault."""
    pairs = []
    for side in (0, 1):
        trunk = ("belly", "chest", "neck", "head")
        legs = [f"{leg}{s}" for leg in ("thigh", "shin", "foot") for s in (0, 1)]
        pairs += [(f"{arm}{side}", other) for arm in ("forearm", "hand") for other in (*trunk, *legs)]
        pairs += [(f"upper_arm{side}", "belly"), (f"upper_arm{side}", "chest")]
        pairs += [(f"thigh{side}", other) for other in ("chest", "neck", "head")]
        pairs += [(f"{leg}{side}", other) for leg in ("shin", "foot") for other in trunk]
    for limb in (("upper_arm", "forearm", "hand"), ("thigh", "shin", "foot")):
        pairs += [(f"{a}0", f"{b}1") for a in limb for b in limb]
    return pairs


def body_points(joints: np.ndarray) -> np.ndarray:
    """(N, POINTS, 3) float64: joints (N, 22, 3), then the skull, the left hand, the right one, the toes."""
    joints = np.asarray(joints, np.float64)
    beyond = [joints[:, a] + share * (joints[:, a] - joints[:, b]) for a, b, share in _BEYOND.values()]
    return np.concatenate([joints, np.stack(beyond, axis=1)], axis=1)


def penetration(points: np.ndarray) -> np.ndarray:
    """(N,) metres by which two parts of a body overlap at most; 0 where none do. points: `body_points`."""
    out = np.zeros(len(points))
    _penetration(np.ascontiguousarray(points), _ENDS, _STARTS, _RADII, _PAIRS, out)
    return out


@numba.njit(cache=True, nogil=True)
def _penetration(points, ends, starts, radii, pairs, out):
    tails = np.empty((len(ends), 3))
    bones = np.empty((len(ends), 3))
    for n in range(len(points)):
        for i in range(len(ends)):
            for k in range(3):
                way = points[n, ends[i, 1], k] - points[n, ends[i, 0], k]
                tails[i, k] = points[n, ends[i, 0], k] + starts[i] * way
                bones[i, k] = (1 - starts[i]) * way
        deepest = 0.0
        for p in range(len(pairs)):
            i, j = pairs[p, 0], pairs[p, 1]
            depth = radii[i] + radii[j] - _gap(tails[i], bones[i], tails[j], bones[j])
            deepest = max(deepest, depth)
        out[n] = deepest


@numba.njit(cache=True, nogil=True, inline="always")
def _gap(p, d, q, e):
    """Distance of two segments p + s d and q + t e, s and t from 0 to 1; neither has length 0.

    Ericson, "Real-Time Collision Detection", 2005, 5.1.9.
    """
    rx, ry, rz = p[0] - q[0], p[1] - q[1], p[2] - q[2]
    dd = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    ee = e[0] * e[0] + e[1] * e[1] + e[2] * e[2]
    de = d[0] * e[0] + d[1] * e[1] + d[2] * e[2]
    dr = d[0] * rx + d[1] * ry + d[2] * rz
    er = e[0] * rx + e[1] * ry + e[2] * rz
    area = dd * ee - de * de
    s = min(max((de * er - dr * ee) / area, 0.0), 1.0) if area > 1e-12 else 0.0
    t = (de * s + er) / ee
    if t < 0.0:
        t = 0.0
        s = min(max(-dr / dd, 0.0), 1.0)
    elif t > 1.0:
        t = 1.0
        s = min(max((de - dr) / dd, 0.0), 1.0)
    x = rx + s * d[0] - t * e[0]
    y = ry + s * d[1] - t * e[1]
    z = rz + s * d[2] - t * e[2]
    return np.sqrt(x * x + y * y + z * z)


_NUMBER = {name: i for i, name in enumerate(_PARTS)}
_ENDS = np.array([part[:2] for part in _PARTS.values()])
_STARTS, _RADII = np.array([part[2:] for part in _PARTS.values()]).T.copy()
_PAIRS = np.array([[_NUMBER[a], _NUMBER[b]] for a, b in _pairs()])

"""How far joints go in living people, and how far a pose goes beyond."""

from collections.abc import Mapping

import numba
import numpy as np

_Range = tuple[float, float]

_LIMITS: Mapping[str, tuple[str, _Range, _Range, _Range]] = {
    "hip": ("y", (-135, 45), (-60, 60), (-45, 75)),
    "spine1": ("y", (-35, 70), (-35, 35), (-35, 35)),
    "knee": ("y", (-10, 150), (-40, 40), (-25, 25)),
    "spine2": ("y", (-35, 45), (-35, 35), (-35, 35)),
    "ankle": ("y", (-45, 65), (-40, 40), (-45, 45)),
    "spine3": ("y", (-35, 45), (-35, 35), (-35, 35)),
    "foot": ("y", (-65, 45), (-25, 25), (-25, 25)),
    "neck": ("y", (-45, 45), (-50, 50), (-40, 40)),
    "collar": ("x", (-35, 35), (-50, 40), (-45, 50)),
    "head": ("y", (-45, 45), (-50, 50), (-40, 40)),
    "shoulder": ("x", (-125, 105), (-140, 65), (-105, 110)),
    "elbow": ("x", (-90, 90), (-155, 15), (-35, 35)),
    "wrist": ("x", (-90, 90), (-50, 50), (-90, 90)),
    "whole spine": ("y", (-55, 115), (-65, 65), (-60, 60)),
    "whole neck": ("y", (-75, 75), (-95, 95), (-60, 60)),
}
"""Limits of each joint of the left side and of the middle, degrees: the bone's axis, then x, y and z.

The turn about the bone is apart from the swing of the bone, whose two components are those of its rotation
vector. In the rest pose the arms point to the sides and the palms down; x is the subject's left, y up, z
ahead. So a hip that bends is -x, a knee that bends +x, a left elbow that bends -y, a lowered left arm -z.

Sources: ranges of motion of the American Academy of Orthopaedic Surgeons (Greene and Heckman, "The Clinical
Measurement of Joint Motion", 1994) and of NASA-STD-3000, Volume I, 3.3.2.3. Each is 10 to 30 degrees wider,
because SMPL-X's fits share a turn out otherwise between neighbours: a forearm's pronation between elbow
and wrist, a raised arm between collar and shoulder, a bow between the lowest vertebra and the hips.
"""

_JOINTS = (
    "hip", "hip", "spine1", "knee", "knee", "spine2", "ankle", "ankle", "spine3", "foot", "foot", "neck",
    "collar", "collar", "head", "shoulder", "shoulder", "elbow", "elbow", "wrist", "wrist", "whole spine",
    "whole neck",
)  # fmt: skip
"""Those of `body_pose`, left before right, and two chains."""


def joint_excess(body_pose: np.ndarray) -> np.ndarray:
    """(N,) radians by which the worst joint is beyond its limits; 0 where none is.

    body_pose: (N, 63) radians. Beyond several limits of one joint the root of the squares' sum counts.
    """
    out = np.empty(len(body_pose))
    _joint_excess(np.ascontiguousarray(body_pose, np.float64), _BONES, _LOW, _HIGH, out)
    return out


@numba.njit(cache=True, nogil=True)
def _joint_excess(body_pose, bones, low, high, out):
    turns = np.empty((len(bones), 4))
    for n in range(len(body_pose)):
        for j in range(21):
            x, y, z = body_pose[n, 3 * j], body_pose[n, 3 * j + 1], body_pose[n, 3 * j + 2]
            angle = np.sqrt(x * x + y * y + z * z)
            scale = np.sin(angle / 2) / angle if angle > 1e-9 else 0.5
            turns[j] = np.cos(angle / 2), scale * x, scale * y, scale * z
        turns[21] = _product(_product(turns[2], turns[5]), turns[8])
        turns[22] = _product(turns[11], turns[14])
        worst = 0.0
        for j in range(len(bones)):
            worst = max(worst, _beyond(turns[j], bones[j], low[j], high[j]))
        out[n] = np.sqrt(worst)


@numba.njit(cache=True, nogil=True, inline="always")
def _beyond(turn, bone, low, high):
    """Squared radians beyond the limits of a joint: a twist about its bone, then a swing across it."""
    first, second = (bone + 1) % 3, (bone + 2) % 3
    sign = -1.0 if turn[0] < 0.0 else 1.0
    w, along = sign * turn[0], sign * turn[1 + bone]
    a, b = sign * turn[1 + first], sign * turn[1 + second]
    swing_w = np.sqrt(w * w + along * along)
    cos, sin = (w / swing_w, along / swing_w) if swing_w > 1e-9 else (1.0, 0.0)
    a, b = cos * a - sin * b, cos * b + sin * a
    sine = np.sqrt(a * a + b * b)
    scale = 2.0 * np.arctan2(sine, swing_w) / sine if sine > 1e-9 else 2.0
    total = 0.0
    for axis, value in ((bone, 2.0 * np.arctan2(along, w)), (first, scale * a), (second, scale * b)):
        total += max(low[axis] - value, value - high[axis], 0.0) ** 2
    return total


@numba.njit(cache=True, nogil=True, inline="always")
def _product(p, q):
    """Of two quaternions, scalar first: q acts first."""
    return np.array(
        [
            p[0] * q[0] - p[1] * q[1] - p[2] * q[2] - p[3] * q[3],
            p[0] * q[1] + p[1] * q[0] + p[2] * q[3] - p[3] * q[2],
            p[0] * q[2] - p[1] * q[3] + p[2] * q[0] + p[3] * q[1],
            p[0] * q[3] + p[1] * q[2] - p[2] * q[1] + p[3] * q[0],
        ]
    )


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axes of the bones (23,); lowest and highest turns (23, 3), radians."""
    bones = np.array(["xyz".index(_LIMITS[name][0]) for name in _JOINTS])
    low, high = np.radians([_LIMITS[name][1:] for name in _JOINTS]).transpose(2, 0, 1)
    right = np.array([name in _JOINTS[:i] for i, name in enumerate(_JOINTS)])
    # The mirror image turns about y and z the other way.
    mirrored = right[:, None] & np.array([False, True, True])
    return bones, np.where(mirrored, -high, low), np.where(mirrored, -low, high)


_BONES, _LOW, _HIGH = _tables()

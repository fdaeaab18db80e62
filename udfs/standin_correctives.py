"""Pose correctives of the stand-in body: what linear blend skinning loses at bent and twisted joints.

Blending matrices shrinks a joint (the folded knee, the twisted wrist); blending the rotation itself does
not. The difference is fitted, in SMPL-X's own terms: linear in the entries of the joint's rotation matrix
minus the identity, added to the rest pose before skinning.
"""

from __future__ import annotations

import numpy as np

from udfs import standin_skeleton as skeleton

# Joint -> largest rotation (degrees) about x, y, z that the fit sees, as (low, high) for the left side.
_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "left_hip": ((-110, 30), (-40, 40), (-20, 50)),
    "left_knee": ((0, 130), (-15, 15), (-10, 10)),
    "left_ankle": ((-40, 40), (-30, 30), (-20, 20)),
    "neck": ((-40, 40), (-50, 50), (-35, 35)),
    "head": ((-40, 40), (-50, 50), (-35, 35)),
    "left_shoulder": ((-60, 60), (-90, 40), (-80, 70)),
    "left_elbow": ((-70, 70), (-130, 0), (-30, 30)),
    "left_wrist": ((-70, 70), (-40, 40), (-70, 70)),
}
_SAMPLES = 48
_LONGEST = 0.025  # metres; a corrective never moves a vertex further than this in the fitted poses


def _rotations(name: str) -> np.ndarray:
    """(N, 3, 3) rotations spread over a joint's range (a fixed low-discrepancy sequence)."""
    from scipy.spatial.transform import Rotation

    steps = (np.arange(_SAMPLES)[:, None] * np.array([0.8191725, 0.6710436, 0.5497005]) + 0.5) % 1.0
    low, high = np.array(_RANGES[name]).T
    vectors = np.radians(low + (high - low) * steps)
    # Scaling by another sequence puts samples at small angles too.
    vectors *= (((np.arange(_SAMPLES) * 0.6180340) % 1.0) ** 0.5)[:, None]
    return np.asarray(Rotation.from_rotvec(vectors).as_matrix())


def _partial_rotation(rotations: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(N, V, 3, 3): the fraction `share` (V,) of every rotation, by blending unit quaternions."""
    from scipy.spatial.transform import Rotation

    full = Rotation.from_matrix(rotations).as_quat(canonical=True)
    mixed = share[None, :, None] * full[:, None, :]
    mixed[..., 3] += 1.0 - share[None, :]
    return np.asarray(Rotation.from_quat(mixed.reshape(-1, 4)).as_matrix()).reshape(
        len(full), len(share), 3, 3
    )


def _subtree(joint: int) -> np.ndarray:
    inside = np.zeros(55, dtype=bool)
    inside[joint] = True
    for j in range(joint + 1, 55):
        inside[j] = inside[skeleton.PARENTS[j]]
    return inside


def pose_correctives(vertices: np.ndarray, weights: np.ndarray, twin: np.ndarray) -> np.ndarray:
    """(V, 3, 486) float32: displacements in metres, mirror-symmetric.

    vertices (V, 3) and skinning weights (V, 55) of the rest pose; twin (V,) every vertex's mirror image.
    Column 9 (j - 1) + 3 r + c belongs to entry (r, c) of joint j's rotation minus the identity.
    """
    joints = skeleton.rest_joints()
    out = np.zeros((len(vertices), 3, 486), dtype=np.float32)
    for name in _RANGES:
        joint = skeleton.joint_index(name)
        share = weights[:, _subtree(joint)].sum(axis=1)
        moved = np.flatnonzero((share > 0.02) & (share < 0.98))
        fit = _fit(vertices[moved] - joints[joint], share[moved], _rotations(name))
        out[moved, :, 9 * (joint - 1) : 9 * joint] += fit.astype(np.float32)
    out[:, 2, 9 * (skeleton.joint_index("jaw") - 1) + 7] = _mouth(vertices, weights)
    # The mirror image of a rotation R is S R S with S = diag(-1, 1, 1).
    flip = np.outer([-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]).reshape(9).astype(np.float32)
    side = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
    swap = skeleton.mirror_joints()
    for j in range(1, 55):
        source = int(swap[j])
        columns, other = slice(9 * (j - 1), 9 * j), slice(9 * (source - 1), 9 * source)
        mirrored = out[twin][:, :, other] * side[None, :, None] * flip
        if skeleton.JOINT_NAMES[j].startswith("right_"):
            out[:, :, columns] = mirrored
        elif source == j:
            out[:, :, columns] = 0.5 * (out[:, :, columns] + mirrored)
    return out


def _mouth(vertices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(V,) forward displacement for one unit of sin(jaw angle): the gap between the lips sinks into a cavity.

    Entry (2, 1) of a rotation about x is the sine of its angle.
    """
    share = weights[:, skeleton.joint_index("jaw")]
    x, y, z = vertices.T
    lips = (z > 0.065) & (np.abs(y - 0.2238) < 0.014)
    inward = np.clip(1.0 - (x / 0.026) ** 2, 0.0, 1.0)
    return np.where(lips, -0.30 * share * (1.0 - share) * inward, 0.0).astype(np.float32)


def _fit(offset: np.ndarray, share: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """(K, 3, 9) correctives of K vertices at `offset` (K, 3) from the joint, by ridge least squares."""
    change = rotations - np.eye(3)
    feature = change.reshape(len(rotations), 9)
    blend = np.eye(3) + share[None, :, None, None] * change[:, None]
    wanted = np.einsum("nkab,kb->nka", _partial_rotation(rotations, share) - blend, offset)
    length = np.linalg.norm(wanted, axis=2, keepdims=True)
    wanted *= np.minimum(1.0, _LONGEST / np.maximum(length, 1e-12))
    # Unknown D (3, 9) per vertex: blend @ (D @ feature) = wanted, for every sample.
    quad = np.einsum("nkab,nkac->nkbc", blend, blend)
    normal = np.einsum("nkbc,ni,nj->kbicj", quad, feature, feature, optimize=True).reshape(
        len(offset), 27, 27
    )
    right = np.einsum("nkab,nka,ni->kbi", blend, wanted, feature, optimize=True).reshape(len(offset), 27)
    normal += np.eye(27) * 0.02 * len(rotations)
    return np.linalg.solve(normal, right[..., None]).reshape(len(offset), 3, 9)

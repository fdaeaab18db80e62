"""Scores whether a person could be in a pose: joints, self-penetration, tilt and balance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa

from schemas.tables import SCORES_PLAUSIBILITY
from udfs.capsules import FLESH, HANDS, POINTS, SKULL, TOES, body_points, penetration
from udfs.columns import check_finite, matrix
from udfs.joint_limits import joint_excess
from udfs.rotations import matrix_from_rotvec
from udfs.skeleton import upright_joints
from udfs.threads import each
from udfs.udf import Apply, Udf, Worker

_CHUNK = 2048
"""Poses at once: what they need along the way is 20 MB."""

_FALLOFFS: Mapping[str, tuple[float, int, float]] = {
    "joint_excess": (0.45, 4, 1.0),
    "penetration": (0.05, 6, 1.0),
    "tilt": (2.75, 16, 1.0),
    "imbalance": (0.6, 4, 0.4),
}
"""Where half of a fault's weight is lost, how steeply, and its weight: see `plausibility`."""

_SEGMENTS = (
    ((SKULL,), (SKULL,), 6.81, 0.0), ((12,), (0,), 43.02, 0.63), ((16, 17), (18, 19), 2.63, 0.576),
    ((18, 19), (20, 21), 1.50, 0.457), ((20, 21), HANDS, 0.585, 0.77), ((1, 2), (4, 5), 14.47, 0.385),
    ((4, 5), (7, 8), 4.57, 0.444), ((7, 8), TOES, 1.33, 0.4),
)  # fmt: skip
"""From which points to which, per cent of the body's mass, and where on the way the segment's centre is.

De Leva, "Adjustments to Zatsiorsky-Seluyanov's segment inertia parameters", J. Biomechanics 29(9), 1996,
table 4, means of women and men; head, trunk and feet, whose ends differ from our joints, are converted.
"""

_NEAR_FLOOR = 0.1
"""Metres above the lowest point in which a body part carries."""

_DIRECTIONS, _HALVINGS = 32, 12
"""In which the way to the support is tried, and how often the best one is refined: to a tenth of a mm."""


def plausibility(
    joint_excess: np.ndarray, penetration: np.ndarray, tilt: np.ndarray, imbalance: np.ndarray
) -> np.ndarray:
    """(N,) scores from 0 to 1 of (N,) faults in radians, metres, radians, metres.

    The product over the faults x of 1 - weight + weight / (1 + (x / half) ** power): 1 without a fault,
    not much less while x is below half of `half`, and towards 1 - weight far beyond it.
    """
    faults = {
        "joint_excess": joint_excess, "penetration": penetration, "tilt": tilt, "imbalance": imbalance,
    }  # fmt: skip
    score = np.ones(len(tilt))
    for name, (half, power, weight) in _FALLOFFS.items():
        score *= 1 - weight + weight / (1 + (faults[name] / half) ** power)
    return score


def tilt(points: np.ndarray) -> np.ndarray:
    """(N,) radians between the vertical and the way from pelvis to neck; points: (N, > 12, 3), y up."""
    trunk = points[:, 12] - points[:, 0]
    return np.arctan2(np.hypot(trunk[:, 0], trunk[:, 2]), trunk[:, 1])


def imbalance(points: np.ndarray) -> np.ndarray:
    """(N,) metres, along the floor, from the centre of mass to what carries it; 0 above it.

    What carries is the convex hull of all flesh round points no more than 10 cm above the lowest; the floor
    is at the lowest, wherever the body stands. points: (N, POINTS, 3) of `body_points`, turned to y up.
    """
    out = np.empty(len(points))
    _imbalance(np.ascontiguousarray(points), FLESH, _MASS, out)
    return out


@numba.njit(cache=True, nogil=True)
def _imbalance(points, flesh, mass, out):
    discs = np.empty((len(flesh), 3))
    for n in range(len(points)):
        lowest = np.inf
        x = z = 0.0
        for i in range(len(flesh)):
            lowest = min(lowest, points[n, i, 1] - flesh[i])
            x += mass[i] * points[n, i, 0]
            z += mass[i] * points[n, i, 2]
        count = 0
        for i in range(len(flesh)):
            if points[n, i, 1] - flesh[i] <= lowest + _NEAR_FLOOR:
                discs[count] = points[n, i, 0] - x, points[n, i, 2] - z, flesh[i]
                count += 1
        out[n] = _distance(discs[:count])


@numba.njit(cache=True, nogil=True)
def _distance(discs):
    """From the origin to the convex hull of discs (x, z, radius).

    It is the largest distance by which the origin is ahead of all discs in a direction, and where that is
    positive it is concave in the direction.
    """
    step = 2 * np.pi / _DIRECTIONS
    angle, best = 0.0, -np.inf
    for d in range(_DIRECTIONS):
        ahead = _ahead(discs, d * step)
        if ahead > best:
            angle, best = d * step, ahead
    for _ in range(_HALVINGS):
        step /= 2
        for tried in (angle - step, angle + step):
            ahead = _ahead(discs, tried)
            if ahead > best:
                angle, best = tried, ahead
    return max(best, 0.0)


@numba.njit(cache=True, nogil=True, inline="always")
def _ahead(discs, angle):
    x, z = np.cos(angle), np.sin(angle)
    reach = -np.inf
    for i in range(len(discs)):
        reach = max(reach, x * discs[i, 0] + z * discs[i, 1] + discs[i, 2])
    return -reach


@dataclass(frozen=True, kw_only=True)
class Plausibility(Udf):
    """Four faults of a pose, and how much of a person it leaves.

    All are those of an average body: its shape and hands don't count. The height above the floor is not
    known either: a body that hovers is one whose feet are not below it.

    Raises RowError for a pose that holds NaN or infinity.
    """

    name: ClassVar[str] = "plausibility"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ("pose_id", "global_orient", "body_pose")
    outputs: ClassVar[pa.Schema] = pa.schema([f for f in SCORES_PLAUSIBILITY if f.name != "fingerprint"])
    batch_rows: ClassVar[int] = 16384

    def setup(self, worker: Worker) -> Apply:
        def apply(rows: pa.Table) -> pa.Table:
            orient, pose = matrix(rows, "global_orient"), matrix(rows, "body_pose")
            check_finite(rows["pose_id"].to_numpy(), {"global_orient": orient, "body_pose": pose})
            faults = {name: np.empty(len(rows), np.float32) for name in _FALLOFFS}

            def work(chunk: int) -> None:
                part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
                for name, values in measure(orient[part], pose[part]).items():
                    faults[name][part] = values

            each(work, -(-len(rows) // _CHUNK))
            score = plausibility(**faults)
            columns = {"pose_id": rows["pose_id"], "plausibility": score.astype(np.float32), **faults}
            return pa.table(columns, schema=self.outputs)

        return apply


def measure(global_orient: np.ndarray, body_pose: np.ndarray) -> dict[str, np.ndarray]:
    """The faults (N,) of poses (N, 3) and (N, 63), by their names, in radians and metres."""
    points = body_points(upright_joints(body_pose))
    world = points @ matrix_from_rotvec(global_orient).transpose(0, 2, 1)
    return {
        "joint_excess": joint_excess(body_pose),
        "penetration": penetration(points),
        "tilt": tilt(world),
        "imbalance": imbalance(world),
    }


def _mass() -> np.ndarray:
    """(POINTS,) shares of the body's mass: each segment's lies at a place between two points."""
    mass = np.zeros(POINTS)
    for starts, ends, share, place in _SEGMENTS:
        for start, end in zip(starts, ends, strict=True):
            mass[start] += share * (1 - place)
            mass[end] += share * place
    return mass / mass.sum()


_MASS = _mass()

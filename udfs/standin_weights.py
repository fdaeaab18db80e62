"""Skinning of the stand-in body: which joints move which vertices, and where the joints are.

A joint's *share* of a vertex is the part of it that moves with the joint or anything below it in the tree:
a smooth step across a plane at the joint, restricted to the limb. Weights are differences of shares along
the tree, so neighbouring limbs (fingers, thighs, arm and chest) never grab each other.
"""

from __future__ import annotations

import numpy as np

from udfs import standin_skeleton as skeleton


def smooth_step(value: np.ndarray, center: float, half_width: float) -> np.ndarray:
    """0 below center - half_width, 1 above center + half_width, smooth in between."""
    t = np.clip((value - center) / (2.0 * half_width) + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _left_shares(points: np.ndarray) -> dict[str, np.ndarray]:
    """Shares of the midline and left joints at points (V, 3) of the left half (x >= 0)."""
    joint = dict(zip(skeleton.JOINT_NAMES, skeleton.rest_joints(), strict=True))
    x, y, z = points.T
    share: dict[str, np.ndarray] = {"pelvis": np.ones(len(points))}

    # Spine: by height; arms count as high up whatever their height is.
    lifted = y + np.maximum(x - 0.14, 0.0) * 3.0 * (y > -0.2)
    share["spine1"] = smooth_step(lifted, -0.250, 0.105)
    share["spine2"] = smooth_step(lifted, -0.140, 0.110)
    share["spine3"] = smooth_step(lifted, -0.060, 0.100)
    share["neck"] = smooth_step(y - 1.3 * np.maximum(x - 0.035, 0.0) + 0.15 * z, 0.112, 0.045)
    share["head"] = smooth_step(y + 0.55 * z, 0.190, 0.040) * share["neck"]

    # Jaw: the sector of the face below the mouth, seen from the hinge.
    up, forward = y - joint["jaw"][1], z - joint["jaw"][2]
    angle = np.degrees(np.arctan2(-up, forward))
    reach = np.hypot(up, forward)
    soft = 3.0 + 22.0 * np.clip((0.075 - reach) / 0.05, 0.0, 1.0)
    mouth = np.degrees(np.arctan2(joint["jaw"][1] - 0.2238, np.maximum(forward, 0.060)))
    lower = np.clip((angle - mouth + soft) / (2 * soft), 0.0, 1.0) * smooth_step(-angle, -88.0, 22.0)
    share["jaw"] = (
        lower * lower * (3 - 2 * lower) * smooth_step(reach, 0.03, 0.02) * share["head"] * (y > 0.1)
    )
    eye = points - joint["left_eye"]
    off_axis = np.degrees(np.arctan2(np.hypot(eye[:, 0], eye[:, 1]), eye[:, 2]))
    share["left_eye"] = smooth_step(-off_axis, -40.0, 22.0) * (np.linalg.norm(eye, axis=1) < 0.0165)

    # Arm. The chest below the armpit stays with the spine.
    above_armpit = smooth_step(y + 0.8 * (x - 0.15), -0.012, 0.045)
    share["left_collar"] = (
        smooth_step(x, 0.080, 0.060) * smooth_step(lifted, -0.010, 0.085) * (1 - share["neck"])
    )
    share["left_shoulder"] = smooth_step(x - 0.10 * (y - 0.08), 0.168, 0.048) * above_armpit * (y > -0.25)
    share["left_elbow"] = smooth_step(x, joint["left_elbow"][0], 0.038)
    share["left_wrist"] = smooth_step(x, joint["left_wrist"][0] - 0.004, 0.030)
    share.update(_finger_shares(points))

    # Leg: the groin plane runs from the crotch up and out to the iliac crest.
    groin = 0.62 * (x - 0.066) - 0.78 * (y + 0.462) + 0.12 * z
    share["left_hip"] = smooth_step(groin, 0.0, 0.062) * (y < -0.30)
    share["left_knee"] = smooth_step(-y, -joint["left_knee"][1], 0.052)
    share["left_ankle"] = smooth_step(
        -(y - joint["left_ankle"][1]) + 0.45 * (z - joint["left_ankle"][2]), 0.004, 0.030
    )
    share["left_foot"] = smooth_step(z, joint["left_foot"][2] + 0.004, 0.018) * (y < -1.15)
    return share


def _finger_shares(points: np.ndarray) -> dict[str, np.ndarray]:
    hand = points[:, 0] > 0.66
    gap = np.full((len(skeleton.FINGERS), len(points)), np.inf)
    along = np.zeros((len(skeleton.FINGERS), 3, len(points)))
    for f, name in enumerate(skeleton.FINGERS):
        joints = skeleton.left_finger(name)
        for k in range(3):
            span = joints[k + 1] - joints[k]
            length = np.linalg.norm(span)
            t = (points - joints[k]) @ span / length**2
            closest = joints[k] + np.clip(t, 0.0, 1.0)[:, None] * span
            gap[f] = np.minimum(gap[f], np.linalg.norm(points - closest, axis=1))
            along[f, k] = t * length
    nearest = gap.argmin(axis=0)
    share = {}
    for f, name in enumerate(skeleton.FINGERS):
        mine = hand & (nearest == f)
        widths = (0.016, 0.010, 0.008) if name == "thumb" else (0.011, 0.0075, 0.0065)
        near = smooth_step(-gap[f], -0.026, 0.008) if name == "thumb" else smooth_step(-gap[f], -0.020, 0.006)
        for k in range(3):
            share[f"left_{name}{k + 1}"] = smooth_step(along[f, k], 0.0, widths[k]) * mine * near
    return share


def _limb_only(share: dict[str, np.ndarray]) -> None:
    """A child's share never exceeds its parent's, which also keeps it on its limb."""
    for i, name in enumerate(skeleton.JOINT_NAMES):
        if name in share and skeleton.PARENTS[i] >= 0:
            parent = skeleton.JOINT_NAMES[skeleton.PARENTS[i]]
            share[name] = np.minimum(share[name], share[parent])


def skinning_weights(vertices: np.ndarray, faces: np.ndarray, twin: np.ndarray) -> np.ndarray:
    """(V, 55) float64 weights, rows sum to 1, at most four joints a vertex, mirror-symmetric.

    vertices: (V, 3) metres; faces: (F, 3); twin: (V,) index of every vertex's mirror image.
    """
    count = len(vertices)
    folded = np.column_stack([np.abs(vertices[:, 0]), vertices[:, 1:]])
    share = _left_shares(folded)
    _limb_only(share)
    own = np.zeros((count, 55))
    for i, name in enumerate(skeleton.JOINT_NAMES):
        if name in share:
            own[:, i] = share[name]
    weights = own.copy()
    for i in range(54, 0, -1):
        weights[:, skeleton.PARENTS[i]] -= own[:, i]
    weights = np.maximum(weights, 0.0)
    # So far everything is on left joints: the right half takes the mirror image of it.
    swap = skeleton.mirror_joints()
    right = vertices[:, 0] < 0
    middle = np.abs(vertices[:, 0]) < 1e-9
    mirrored = weights[:, swap]
    weights[right] = mirrored[right]
    weights[middle] = 0.5 * (weights[middle] + mirrored[middle])
    weights = _smoothed(weights, vertices, faces)
    weights = 0.5 * (weights + weights[twin][:, swap])
    rank = np.argsort(-weights, axis=1, kind="stable")[:, 4:]
    np.put_along_axis(weights, rank, 0.0, axis=1)
    weights[weights < 2e-3] = 0.0
    return weights / weights.sum(axis=1, keepdims=True)


def _smoothed(weights: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """A few rounds of averaging along the surface; more on the trunk than on the finely meshed parts."""
    from scipy.sparse import coo_matrix

    pairs = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2).tocsr()
    graph.data[:] = 1.0
    mean = graph.multiply(1.0 / np.asarray(graph.sum(axis=1))).tocsr()
    fine = (np.abs(vertices[:, 0]) > 0.64) | (vertices[:, 1] > 0.19) | (vertices[:, 1] < -1.24)
    for step in range(10):
        blurred = 0.5 * weights + 0.5 * (mean @ weights)
        weights = np.where(fine[:, None] & (step >= 2), weights, blurred)
    return weights


def joint_regressor(
    vertices: np.ndarray, weights: np.ndarray, fields: np.ndarray, moves: np.ndarray
) -> np.ndarray:
    """(55, V) float64: every joint as a sparse convex combination of the ring of vertices around it.

    fields: (V, 3, K) shape displacements of the vertices; moves: (55, 3, K) those the joints should follow.
    Rows are non-negative and sum to 1; the rest joints are met to the last bits of a least-squares fit.
    """
    from scipy.optimize import nnls

    joints = skeleton.rest_joints()
    regressor = np.zeros((55, len(vertices)))
    swap = skeleton.mirror_joints()
    twins = _twins(vertices)
    for j in range(55):
        if skeleton.JOINT_NAMES[j].startswith("right_"):
            continue
        parent = int(skeleton.PARENTS[j])
        subtree = weights[:, j] > 0.15
        if parent >= 0:
            subtree &= weights[:, parent] > 0.05
        if subtree.sum() < 12:
            subtree = weights[:, j] > 0.05
        away = np.linalg.norm(vertices - joints[j], axis=1) + np.where(subtree, 0.0, 0.05)
        nearest = np.argsort(away, kind="stable")
        for count in (160, 400, 1000):
            # A joint outside the hull of its ring (the eyes) takes in more of the surface around it.
            chosen = np.sort(nearest[:count])
            if joints[j, 0] == 0.0:
                chosen = np.unique(np.concatenate([chosen, twins[chosen]]))
            follow = (fields[chosen] - moves[j]).transpose(1, 2, 0).reshape(-1, len(chosen))
            system = np.concatenate(
                [
                    np.full((1, len(chosen)), 1e4),
                    (vertices[chosen] - joints[j]).T * 1e5,
                    follow * 100.0,
                    np.eye(len(chosen)) * 0.5,
                ]
            )
            target = np.zeros(len(system))
            target[0] = 1e4
            target[-len(chosen) :] = 0.5 / len(chosen)
            solution, _ = nnls(system, target, maxiter=50 * len(chosen))
            solution /= solution.sum()
            if np.linalg.norm(solution @ vertices[chosen] - joints[j]) < 2e-5:
                break
        regressor[j, chosen] = solution
    for j in range(55):
        if skeleton.JOINT_NAMES[j].startswith("right_"):
            regressor[j] = regressor[swap[j]][twins]
        elif joints[j, 0] == 0.0:
            regressor[j] = 0.5 * (regressor[j] + regressor[j][twins])
    return regressor


def _twins(vertices: np.ndarray) -> np.ndarray:
    """(V,) int64: the index of every vertex's mirror image."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(vertices).query(vertices * np.array([-1.0, 1.0, 1.0]))[1])

"""Where smplx looks on the stand-in body: the 21 picked vertices and the 51 landmarks of the face."""

from __future__ import annotations

import numpy as np

from udfs import standin_skeleton as skeleton

# The numbers are smplx.vertex_ids.vertex_ids["smplx"]: smplx reads these rows of the vertex array.
VERTEX_IDS = {
    "nose": 9120, "left_eye": 9448, "right_eye": 9929, "left_ear": 6, "right_ear": 616,
    "left_thumb": 5361, "left_index": 4933, "left_middle": 5058, "left_ring": 5169, "left_pinky": 5286,
    "right_thumb": 8079, "right_index": 7669, "right_middle": 7794, "right_ring": 7905, "right_pinky": 8022,
    "left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846,
    "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
}  # fmt: skip

_NOSE = (0.0, 0.258, 0.130)
_LEFT_POINTS = {
    "eye": (0.0315, 0.298, 0.090),
    "ear": (0.090, 0.284, -0.010),
    "big_toe": (0.094, -1.290, 0.165),
    "small_toe": (0.162, -1.294, 0.121),
    "heel": (0.078, -1.284, -0.130),
}

# Face landmarks in the frontal view (x, y), on the subject's left, from smplx.joint_names 76..126.
_BROW = (
    (0.050, 0.3165),
    (0.042, 0.3215),
    (0.033, 0.3225),
    (0.023, 0.3210),
    (0.013, 0.3175),
)  # outer to inner
_BRIDGE = (0.3010, 0.2880, 0.2750, 0.2620)
_NOSTRILS = ((0.0135, 0.2505), (0.0070, 0.2475), (0.0, 0.2460))
_EYE = (
    (0.0445, 0.2975),
    (0.0370, 0.3035),
    (0.0260, 0.3035),
    (0.0190, 0.2970),
    (0.0265, 0.2925),
    (0.0370, 0.2925),
)
_LIPS = ((0.0245, 0.2235), (0.0160, 0.2295), (0.0070, 0.2335), (0.0, 0.2325))  # corner to the middle, upper
_LOWER = ((0.0165, 0.2155), (0.0080, 0.2115), (0.0, 0.2105))
_INNER = ((0.0205, 0.2235), (0.0085, 0.2250), (0.0, 0.2252))
_INNER_LOWER = ((0.0085, 0.2225), (0.0, 0.2222))


def landmark_targets() -> np.ndarray:
    """(51, 2) float64 frontal positions (x, y) of the landmarks, in iBUG order, the subject's right first."""

    def right(p: tuple[float, float]) -> tuple[float, float]:
        return (-p[0], p[1])

    rows = [right(p) for p in _BROW] + list(reversed(_BROW))
    rows += [(0.0, y) for y in _BRIDGE]
    rows += [right(_NOSTRILS[0]), right(_NOSTRILS[1]), _NOSTRILS[2], _NOSTRILS[1], _NOSTRILS[0]]
    rows += [right(p) for p in _EYE]
    rows += [_EYE[k] for k in (3, 2, 1, 0, 5, 4)]
    rows += [right(p) for p in _LIPS] + [_LIPS[2], _LIPS[1], _LIPS[0]]
    rows += [_LOWER[0], _LOWER[1], _LOWER[2], right(_LOWER[1]), right(_LOWER[0])]
    rows += [right(_INNER[0]), right(_INNER[1]), _INNER[2], _INNER[1], _INNER[0]]
    rows += [_INNER_LOWER[0], _INNER_LOWER[1], right(_INNER_LOWER[0])]
    return np.array(rows)


def place_landmarks(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks as points of the surface seen from the front: faces (51,) int64 and barycentric (51, 3).

    Every target is met along -z; the first triangle from the front counts.
    """
    head = np.flatnonzero(
        (vertices[faces][:, :, 1] > 0.15).all(axis=1) & (vertices[faces][:, :, 2] > 0).any(axis=1)
    )
    a, b, c = np.moveaxis(vertices[faces[head]], 1, 0)
    chosen, bary = [], []
    for x, y in landmark_targets():
        det = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
        w1 = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (y - a[:, 1])) / det
        w2 = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (x - a[:, 0]) * (b[:, 1] - a[:, 1])) / det
        w = np.stack([1.0 - w1 - w2, w1, w2], axis=1)
        hit = (w > -1e-9).all(axis=1) & (det > 0)
        depth = np.where(hit, w[:, 0] * a[:, 2] + w[:, 1] * b[:, 2] + w[:, 2] * c[:, 2], -np.inf)
        k = int(depth.argmax())
        chosen.append(head[k])
        bary.append(np.clip(w[k], 0.0, 1.0) / np.clip(w[k], 0.0, 1.0).sum())
    return np.array(chosen, dtype=np.int64), np.array(bary)


def picked_vertices(vertices: np.ndarray, twin: np.ndarray) -> dict[str, int]:
    """The vertex of the mesh for every name of VERTEX_IDS; right ones are the mirror images of left ones."""
    picked = {"nose": _closest(vertices, _NOSE, vertices[:, 0] == 0.0)}
    targets = dict(_LEFT_POINTS)
    for finger in skeleton.FINGERS:
        joints = skeleton.left_finger(finger)
        targets[finger] = tuple(joints[3] + 0.3 * (joints[3] - joints[2]))
    for name, target in targets.items():
        vertex = _closest(vertices, target, vertices[:, 0] > 0)
        picked[f"left_{name}"] = vertex
        picked[f"right_{name}"] = int(twin[vertex])
    return picked


def _closest(vertices: np.ndarray, target: tuple[float, ...], allowed: np.ndarray) -> int:
    away = np.linalg.norm(vertices - np.array(target), axis=1)
    return int(np.where(allowed, away, np.inf).argmin())


def vertex_order(vertices: np.ndarray, part: np.ndarray, twin: np.ndarray) -> np.ndarray:
    """(V,) int64 permutation: the new mesh's vertex i is the old one `order[i]`.

    Vertices are grouped by the joint that moves them most, and smplx's picks stand where smplx reads them.
    """
    order = np.lexsort((vertices[:, 1], part))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    for name, vertex in sorted(picked_vertices(vertices, twin).items()):
        slot, now = VERTEX_IDS[name], place[vertex]
        order[[slot, now]] = order[[now, slot]]
        place[order[now]], place[order[slot]] = now, slot
    return order

"""Poses as a person would describe them: where limbs point and how far they bend, as SMPL-X parameters.

Directions and angles are said in the frame of the heading: x towards the subject's left, y up, z ahead.
A limb's direction is (outwards, up, ahead), so that the same numbers serve both sides. Elbows and knees
are hinges by construction, whatever the numbers: no stance breaks them.
"""

from dataclasses import dataclass, fields

import numpy as np

from udfs.rotations import matrix_from_rotvec, rotvec_from_matrix

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Limb:
    """An arm or a leg.

    Attributes:
        to: where the upper arm or the thigh points.
        bend: of the elbow or the knee, degrees.
        pole: the side towards which an elbow bends; the side to which the kneecap looks.
    """

    to: Vector
    bend: float = 5.0
    pole: Vector = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Stance:
    """A pose of the whole body. Angles in degrees.

    Attributes:
        turn: of the heading, to the left.
        pitch, roll: of the pelvis, forwards and to the right.
        flex, twist, side: of the spine, forwards, to the left, to the right.
        nod, look, tilt: of neck and head, downwards, to the left, to the right.
        left_arm, right_arm, left_leg, right_leg: where the limbs are.
        left_wrist, right_wrist: flexion towards the palm, and the forearm's turn.
        left_foot, right_foot: how much the sole stays level (0 to 1), and the toes pointing down.
        left_hand, right_hand: from 0, flat, to 1, a fist.
        lift: metres between the floor and the lowest point of the body.
    """

    turn: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    flex: float = 2.0
    twist: float = 0.0
    side: float = 0.0
    nod: float = 0.0
    look: float = 0.0
    tilt: float = 0.0
    left_arm: Limb = Limb((0.16, -1.0, 0.04), 14.0)
    right_arm: Limb = Limb((0.16, -1.0, 0.04), 14.0)
    left_leg: Limb = Limb((0.04, -1.0, 0.02), 4.0, (0.15, 0.0, 1.0))
    right_leg: Limb = Limb((0.04, -1.0, 0.02), 4.0, (0.15, 0.0, 1.0))
    left_wrist: tuple[float, float] = (0.0, 0.0)
    right_wrist: tuple[float, float] = (0.0, 0.0)
    left_foot: tuple[float, float] = (1.0, 0.0)
    right_foot: tuple[float, float] = (1.0, 0.0)
    left_hand: float = 0.25
    right_hand: float = 0.25
    lift: float = 0.0


_SIDED = ("turn", "roll", "twist", "side", "look", "tilt")


def mirrored(stance: Stance) -> Stance:
    """The same stance with left and right exchanged."""
    values = {f.name: getattr(stance, f.name) for f in fields(stance)}
    for name in _SIDED:
        values[name] = -values[name]
    for part in ("arm", "leg", "wrist", "foot", "hand"):
        left, right = f"left_{part}", f"right_{part}"
        values[left], values[right] = values[right], values[left]
    return Stance(**values)


def _layout() -> dict[str, slice]:
    """Where each part of a stance is in its row of numbers."""
    places, start = {}, 0
    for f in fields(Stance):
        parts: tuple[tuple[str, int], ...]
        if isinstance(f.default, Limb):
            parts = ((f"{f.name}.to", 3), (f"{f.name}.bend", 1), (f"{f.name}.pole", 3))
        else:
            parts = ((f.name, np.size(getattr(Stance, f.name))),)
        for name, size in parts:
            places[name] = slice(start, start + size)
            start += size
    return places


LAYOUT = _layout()
WIDTH = max(place.stop for place in LAYOUT.values())


def as_row(stance: Stance) -> np.ndarray:
    """(WIDTH,) float64 numbers of a stance, laid out as LAYOUT says."""
    row = np.empty(WIDTH)
    for f in fields(stance):
        value = getattr(stance, f.name)
        if isinstance(value, Limb):
            row[LAYOUT[f"{f.name}.to"]] = value.to
            row[LAYOUT[f"{f.name}.bend"]] = value.bend
            row[LAYOUT[f"{f.name}.pole"]] = value.pole
        else:
            row[LAYOUT[f.name]] = value
    return row


def mirrored_rows(rows: np.ndarray) -> np.ndarray:
    """(N, WIDTH) stances with left and right exchanged."""
    other = np.empty_like(rows)
    for name, place in LAYOUT.items():
        twin = name.replace("left_", "@").replace("right_", "left_").replace("@", "right_")
        other[:, LAYOUT[twin]] = -rows[:, place] if name in _SIDED else rows[:, place]
    return other


def smplx_params(rows: np.ndarray) -> dict[str, np.ndarray]:
    """SMPL-X parameters (N, k) float64 of N stances (N, WIDTH).

    `global_orient`, `body_pose`, `left_hand_pose`, `right_hand_pose` and `transl`, whose height puts the
    body's lowest point on the floor y = 0 (plus `lift`).
    """
    n = len(rows)

    def angle(name: str, column: int = 0) -> np.ndarray:
        return np.radians(rows[:, LAYOUT[name]][:, column])

    local = np.broadcast_to(np.eye(3), (22, n, 3, 3)).copy()
    pelvis = _about("x", angle("pitch")) @ _about("z", angle("roll"))
    spine = _euler(angle("flex") / 3, angle("twist") / 3, angle("side") / 3)
    local[[3, 6, 9]] = spine
    chest = pelvis @ spine @ spine @ spine
    head = _euler(angle("nod") / 2, angle("look") / 2, angle("tilt") / 2)
    local[[12, 15]] = head

    for side, sign, (collar, shoulder, elbow, wrist), (hip, knee, ankle, toes) in (
        ("left", 1.0, (13, 16, 18, 20), (1, 4, 7, 10)),
        ("right", -1.0, (14, 17, 19, 21), (2, 5, 8, 11)),
    ):
        outwards = np.array([sign, 1.0, 1.0])
        to = _unit(rows[:, LAYOUT[f"{side}_arm.to"]] * outwards)
        pole = rows[:, LAYOUT[f"{side}_arm.pole"]] * outwards
        local[collar] = _collar(_into(chest, to), sign)
        girdle = chest @ local[collar]
        x, y = np.array([sign, 0, 0]), np.array([0, -sign, 0])
        hinge = _unit(np.cross(to, pole))
        local[shoulder] = _frame(_into(girdle, to), _into(girdle, hinge)) @ _frame(x, y).T
        local[elbow] = matrix_from_rotvec(angle(f"{side}_arm.bend")[:, None] * y)
        flex, turn = angle(f"{side}_wrist"), angle(f"{side}_wrist", 1)
        local[wrist] = _about("x", turn) @ _about("z", -sign * flex)

        to = _unit(rows[:, LAYOUT[f"{side}_leg.to"]] * outwards)
        kneecap = rows[:, LAYOUT[f"{side}_leg.pole"]] * outwards
        down, across = np.array([0.0, -1, 0]), np.array([1.0, 0, 0])
        hinge = _unit(np.cross(kneecap, to))
        local[hip] = _frame(_into(pelvis, to), _into(pelvis, hinge)) @ _frame(down, across).T
        local[knee] = matrix_from_rotvec(angle(f"{side}_leg.bend")[:, None] * across)
        shin = pelvis @ local[hip] @ local[knee]
        level, point = rows[:, LAYOUT[f"{side}_foot"]].T
        local[ankle] = _ankle(shin, level, np.radians(point))
        # Heels off the floor: the toes stay behind and bend up.
        local[toes] = _about("x", -0.5 * np.radians(np.clip(point * level, 0, 60)))

    turn = _about("y", angle("turn"))
    height = -_lowest(turn @ pelvis, local) + rows[:, LAYOUT["lift"].start]
    return {
        "global_orient": rotvec_from_matrix(turn @ pelvis),
        "body_pose": rotvec_from_matrix(local[1:]).transpose(1, 0, 2).reshape(n, 63),
        "left_hand_pose": _hand(rows[:, LAYOUT["left_hand"].start], 1.0),
        "right_hand_pose": _hand(rows[:, LAYOUT["right_hand"].start], -1.0),
        "transl": np.stack([np.zeros(n), height, np.zeros(n)], axis=1),
    }


def joint_positions(root: np.ndarray, local: np.ndarray) -> np.ndarray:
    """(22, N, 3) joints, metres, of an average body whose pelvis is at the origin.

    root: (N, 3, 3); local: (22, N, 3, 3) rotations relative to the parent, those of the pelvis unused.
    """
    rotations, places = [root], [np.zeros((len(root), 3))]
    for joint in range(1, 22):
        parent = PARENTS[joint]
        offset = np.array(_JOINTS[joint]) - np.array(_JOINTS[parent])
        places.append(places[parent] + rotations[parent] @ offset)
        rotations.append(rotations[parent] @ local[joint])
    return np.stack(places)


PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_HALF = {
    1: (0.07, -0.10, -0.01), 4: (0.10, -0.47, -0.01), 7: (0.09, -0.88, -0.04), 10: (0.11, -0.94, 0.08),
    13: (0.05, 0.38, 0.0), 16: (0.17, 0.43, -0.01), 18: (0.43, 0.41, -0.03), 20: (0.68, 0.41, -0.03),
}  # fmt: skip
_MIDDLE = {0: (0.0, 0.0, 0.0), 3: (0.0, 0.11, -0.02), 6: (0.0, 0.24, -0.02), 9: (0.0, 0.30, 0.0),
           12: (0.0, 0.46, -0.03), 15: (0.0, 0.61, 0.0)}  # fmt: skip
_JOINTS: dict[int, Vector] = _MIDDLE | _HALF | {j + 1: (-x, y, z) for j, (x, y, z) in _HALF.items()}
"""An average body's joints in its rest pose, metres, the pelvis at the origin."""
_FLESH = np.array([0.12, 0.1, 0.1, 0.1, 0.06, 0.06, 0.1, 0.07, 0.07, 0.1, 0.03, 0.03,
                   0.06, 0.06, 0.06, 0.14, 0.06, 0.06, 0.05, 0.05, 0.04, 0.04])  # fmt: skip
"""Metres from a joint to the skin below it."""


def _lowest(root: np.ndarray, local: np.ndarray) -> np.ndarray:
    return (joint_positions(root, local)[..., 1] - _FLESH[:, None]).min(0)


def _about(axis: str, angle: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations about a coordinate axis by (N,) radians."""
    rotvec = np.zeros((len(angle), 3))
    rotvec[:, "xyz".index(axis)] = angle
    return matrix_from_rotvec(rotvec)


def _euler(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _about("y", y) @ _about("x", x) @ _about("z", z)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _into(frames: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(N, 3) vectors as seen from (N, 3, 3) frames."""
    return np.einsum("nij,ni->nj", frames, vectors)


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices whose columns are the two orthonormal directions and their cross product."""
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def _collar(to: np.ndarray, sign: float) -> np.ndarray:
    """The shoulder girdle's share of an arm's direction in the chest's frame: raised arms lift it."""
    up = 0.35 * np.arcsin(np.clip(to[:, 1], 0, 1))
    ahead = 0.2 * np.arcsin(np.clip(to[:, 2], -1, 1))
    return _about("y", -sign * ahead) @ _about("z", sign * up)


def _ankle(shin: np.ndarray, level: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Rotation of the ankle that keeps a share of the sole level, as far as an ankle goes."""
    ahead = shin[..., 2] * np.array([1.0, 0, 1])
    steady = np.linalg.norm(ahead, axis=1) > 0.1
    ahead = np.where(steady[:, None], _unit(ahead), [0, 0, 1])
    up = np.broadcast_to(np.array([0.0, 1, 0]), ahead.shape)
    sole = np.stack([np.cross(up, ahead), up, ahead], axis=-1)
    wanted = rotvec_from_matrix(np.swapaxes(shin, -1, -2) @ sole) * level[:, None]
    size = np.linalg.norm(wanted, axis=1, keepdims=True)
    wanted = wanted * np.minimum(1, 0.75 / np.maximum(size, 1e-9))
    return matrix_from_rotvec(wanted) @ _about("x", point)


def _hand(curl: np.ndarray, sign: float) -> np.ndarray:
    """(N, 45) finger rotations between a flat hand and a fist. Index, middle, little, ring, thumb."""
    pose = np.zeros((len(curl), 15, 3))
    for finger, spread in ((0, 0.06), (1, 0.0), (2, -0.14), (3, -0.06)):
        pose[:, 3 * finger : 3 * finger + 3, 2] = -sign * curl[:, None] * np.array([1.35, 1.6, 1.1])
        pose[:, 3 * finger, 1] = -sign * spread * (1 - curl)
    pose[:, 12] = curl[:, None] * np.array([0.5, sign * 0.5, -sign * 0.2])
    pose[:, 13:, 1] = sign * curl[:, None] * np.array([0.5, 0.7])
    return pose.reshape(len(curl), 45)

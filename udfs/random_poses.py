"""Poses at random, as varied as joints allow: what a keypoint network learns from."""

import numpy as np

from udfs.motions import motion_names, motion_rows
from udfs.rotations import compose, matrix_from_rotvec
from udfs.stances import LAYOUT, Limb, Stance, as_row, joint_positions, mirrored_rows, smplx_params

_ROUNDS = 8
_HIP, _SHOULDER = np.radians(138), np.radians(160)
_LIMITS = {
    "pitch": (-30, 100), "roll": (-40, 40), "flex": (-25, 60), "twist": (-60, 60), "side": (-36, 36),
    "nod": (-45, 45), "look": (-75, 75), "tilt": (-35, 35), "left_arm.bend": (0, 145),
    "right_arm.bend": (0, 145), "left_leg.bend": (0, 140), "right_leg.bend": (0, 140),
    "left_wrist": (-75, 75), "right_wrist": (-75, 75),
}  # fmt: skip
_NOISE = {
    "pitch": 5, "roll": 5, "flex": 9, "twist": 13, "side": 7, "nod": 13, "look": 22, "tilt": 8,
    "left_arm.bend": 14, "right_arm.bend": 14, "left_leg.bend": 8, "right_leg.bend": 8, "left_wrist": 18,
    "right_wrist": 18,
}  # fmt: skip
"""Standard deviations, degrees."""


def random_poses(n: int, seed: int) -> dict[str, np.ndarray]:
    """SMPL-X parameters (n, k) float32 by name, all of them but `transl`; the same for the same seed.

    Frames of the bundled motions are blended, their limbs exchanged or replaced by directions drawn from
    where arms and legs can go, and everything is disturbed; poses that run through themselves are drawn
    again. The heading is uniform; one body in ten is tipped over. Betas are uniform in [-1.5, 1.5].
    """
    rng = np.random.default_rng(seed)
    authored = np.concatenate([motion_rows(name) for name in motion_names()])
    pool = np.concatenate([authored, mirrored_rows(authored)])
    rows = _draw(n, pool, rng)
    params = smplx_params(rows)
    for attempt in range(_ROUNDS):
        bad = np.flatnonzero(_impossible(params))
        if not len(bad):
            break
        last = attempt == _ROUNDS - 1
        again = pool[rng.integers(len(pool), size=len(bad))] if last else _draw(len(bad), pool, rng)
        for name, array in smplx_params(again).items():
            params[name][bad] = array

    free = np.ones((21, 3))
    free[[3, 4, 17, 18]] = 0  # knees and elbows are hinges
    free[[9, 10]] = 0.3
    params["body_pose"] += rng.normal(0, 0.03, (n, 63)) * free.reshape(63)
    for hand in ("left_hand_pose", "right_hand_pose"):
        params[hand] += rng.normal(0, 0.06, (n, 45))
    heading = np.zeros((n, 3))
    heading[:, 1] = rng.uniform(-np.pi, np.pi, n)
    direction = rng.uniform(0, 2 * np.pi, n)
    tip = np.where(rng.random(n) < 0.1, rng.uniform(0.3, np.pi / 2, n), rng.normal(0, 0.06, n))
    tipped = tip[:, None] * np.stack([np.cos(direction), np.zeros(n), np.sin(direction)], axis=1)
    params["global_orient"] = compose(tipped, compose(heading, params["global_orient"]))
    params["jaw_pose"] = np.zeros((n, 3))
    params["jaw_pose"][:, 0] = np.clip(np.abs(rng.normal(0, 0.1, n)), 0, 0.35)
    params["leye_pose"] = rng.normal(0, 0.1, (n, 3)) * [1, 1, 0]
    params["reye_pose"] = params["leye_pose"].copy()
    params["expression"] = rng.normal(0, 0.7, (n, 10))
    params["betas"] = rng.uniform(-1.5, 1.5, (n, 10))
    del params["transl"]
    return {name: array.astype(np.float32) for name, array in params.items()}


def _draw(n: int, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, stances.WIDTH) stances."""

    def any_row() -> np.ndarray:
        return pool[rng.integers(len(pool), size=n)]

    weight = np.where(rng.random(n) < 0.5, 0, rng.random(n))[:, None]
    rows = (1 - weight) * any_row() + weight * any_row()
    rows[:, LAYOUT["lift"]] = 0
    both_legs = rng.random(n) < 0.25
    donor = any_row()
    for side in ("left", "right"):
        _take(rows, donor, f"{side}_leg", both_legs)
        _take(rows, any_row(), f"{side}_arm", rng.random(n) < 0.35)
        _take(rows, _random_arm(n, side, rng), f"{side}_arm", rng.random(n) < 0.4)
        _take(rows, _random_leg(n, side, rng), f"{side}_leg", rng.random(n) < 0.2)
        for limb in ("arm", "leg"):
            to = rows[:, LAYOUT[f"{side}_{limb}.to"]]
            to /= np.linalg.norm(to, axis=1, keepdims=True)
            to += rng.normal(0, 0.12 if limb == "arm" else 0.05, (n, 3))
        rows[:, LAYOUT[f"{side}_hand"]] = np.clip(rng.beta(0.8, 1.2, (n, 1)), 0, 1)
    for name, scale in _NOISE.items():
        place = LAYOUT[name]
        rows[:, place] += rng.normal(0, 1, (n, place.stop - place.start)) * scale
    for foot in ("left_foot", "right_foot"):
        rows[:, LAYOUT[foot].stop - 1] += rng.normal(0, 7, n)
    for name, (low, high) in _LIMITS.items():
        rows[:, LAYOUT[name]] = np.clip(rows[:, LAYOUT[name]], low, high)
    return rows


def _take(rows: np.ndarray, donor: np.ndarray, limb: str, where: np.ndarray) -> None:
    """Gives some rows the limb of a donor, its hand's or foot's place included."""
    end = limb.replace("arm", "wrist").replace("leg", "foot")
    for name in (f"{limb}.to", f"{limb}.bend", f"{limb}.pole", end):
        rows[where, LAYOUT[name]] = donor[where, LAYOUT[name]]


def _random_arm(n: int, side: str, rng: np.random.Generator) -> np.ndarray:
    """Stances whose arm points anywhere that an arm can: not across the back, not through the chest."""
    to = rng.normal(0, 1, (n, 12, 3))
    to /= np.linalg.norm(to, axis=2, keepdims=True)
    out, up, ahead = np.moveaxis(to, 2, 0)
    possible = (out > -0.45) & (ahead > -0.75) & ~((ahead < -0.2) & ((up > 0.35) | (out < 0.1)))
    possible &= ~((out < -0.1) & (ahead < 0.4))
    first = possible.argmax(1)
    chosen = to[np.arange(n), first]
    chosen[~possible.any(1)] = (0.3, -0.9, 0.3)
    rows = np.tile(as_row(Stance()), (n, 1))
    rows[:, LAYOUT[f"{side}_arm.to"]] = chosen
    rows[:, LAYOUT[f"{side}_arm.bend"]] = rng.uniform(2, 140, (n, 1))
    rows[:, LAYOUT[f"{side}_arm.pole"]] = rng.uniform((-1, -0.3, 0.1), (0.2, 1, 1), (n, 3))
    rows[:, LAYOUT[f"{side}_wrist"]] = rng.uniform((-30, -60), (40, 60), (n, 2))
    return rows


def _random_leg(n: int, side: str, rng: np.random.Generator) -> np.ndarray:
    """Stances whose thigh points down, aside, ahead or a little back, the kneecap on its upper side."""
    rows = np.tile(as_row(Stance(left_leg=Limb((0, -1, 0)))), (n, 1))
    to = rng.uniform((-0.1, -1, -0.45), (0.6, 0.2, 1), (n, 3))
    to[:, 1] = np.where(to[:, 2] < 0.4, -1, to[:, 1])
    ahead = np.clip(to[:, 2], 0, 1)
    rows[:, LAYOUT[f"{side}_leg.to"]] = to
    rows[:, LAYOUT[f"{side}_leg.bend"]] = (rng.uniform(0, 1, n) * (60 + 70 * ahead))[:, None]
    rows[:, LAYOUT[f"{side}_leg.pole"]] = np.stack([rng.uniform(0, 0.6, n), ahead, np.full(n, 0.8)], axis=1)
    rows[:, LAYOUT[f"{side}_foot"]] = rng.uniform((0, -10), (1, 30), (n, 2))
    return rows


def _impossible(params: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) bool: a hip or shoulder is turned too far, or the body runs through itself."""
    n = len(params["body_pose"])
    pose = params["body_pose"].reshape(n, 21, 3).transpose(1, 0, 2)
    local = np.concatenate([np.zeros((1, n, 3)), pose])
    local = matrix_from_rotvec(local)
    angle = np.linalg.norm(pose, axis=-1)
    bad = (angle[[0, 1]] > _HIP).any(0) | (angle[[15, 16]] > _SHOULDER).any(0)
    # A thigh goes far ahead and only a little back: the rest pose's points along -y.
    bad |= (-local[[1, 2]][..., 2, 1] < -0.6).any(0)
    return bad | _crosses_itself(joint_positions(matrix_from_rotvec(params["global_orient"]), local))


def _crosses_itself(joints: np.ndarray) -> np.ndarray:
    """(N,) bool: an arm is in the trunk, the head or the other arm, or the legs are in each other.

    joints: (22, N, 3), metres.
    """
    # The hand goes on beyond the wrist by about a third of the forearm.
    tips = {w: joints[w] + 0.35 * (joints[w] - joints[e]) for e, w in ((18, 20), (19, 21))}
    bad = _gap(joints[20], tips[20], joints[21], tips[21]) < 0.06
    bad |= _gap(joints[18], joints[20], joints[19], joints[21]) < 0.07
    for wrist, elbow, knee, other in ((20, 18, 4, 5), (21, 19, 5, 4)):
        bad |= _gap(joints[wrist], tips[wrist], joints[0], joints[12]) < 0.13
        bad |= _gap(joints[elbow], joints[wrist], joints[0], joints[9]) < 0.15
        bad |= _gap(joints[elbow], tips[wrist], joints[15], joints[15]) < 0.14
        for k in (knee, other):
            bad |= _gap(joints[wrist], tips[wrist], joints[k - 3], joints[k]) < 0.10
    bad |= _gap(joints[4], joints[7], joints[5], joints[8]) < 0.11
    for knee, hip in ((4, 2), (5, 1)):
        bad |= _gap(joints[knee], joints[knee + 3], joints[hip], joints[hip + 3]) < 0.12
    return bad


def _gap(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(N,) distances between the segments a-b and c-d, to about a centimetre: seven points on each."""
    t = np.linspace(0, 1, 7)[:, None, None]
    first, second = a + t * (b - a), c + t * (d - c)
    return np.linalg.norm(first[:, None] - second[None], axis=-1).min((0, 1))

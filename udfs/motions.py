"""The demo's own poses: short motions authored here, as files in AMASS's SMPL-X layout."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from udfs.rotations import compose
from udfs.stances import LAYOUT, Limb, Stance, as_row, mirrored, smplx_params

FPS = 20.0
LICENCE = "Apache-2.0, part of posedreamer"


@dataclass(frozen=True)
class Motion:
    """Stances at times, and what happens between them.

    Attributes:
        keys: (seconds, stance), ascending. A cycle's last key is its first again.
        cycle: whether it goes on as it began.
        speed: metres a second along the heading.
    """

    keys: tuple[tuple[float, Stance], ...]
    cycle: bool = False
    speed: float = 0.0


def motion_names() -> tuple[str, ...]:
    """Names of the motions."""
    return tuple(_MOTIONS)


def motion_rows(name: str) -> np.ndarray:
    """(N, stances.WIDTH) stances of a motion's frames at FPS."""
    from scipy.interpolate import CubicSpline, PchipInterpolator

    motion = _MOTIONS[name]
    times = np.array([t for t, _ in motion.keys])
    keys = np.stack([as_row(s) for _, s in motion.keys])
    frames = np.arange(0, times[-1] - (1e-6 if motion.cycle else -1e-6), 1 / FPS)
    if motion.cycle:
        return CubicSpline(times, keys, bc_type="periodic")(frames)
    # Monotone between keys: a hand that stops at the thigh does not swing through it.
    return PchipInterpolator(times, keys)(frames)


def motion_params(name: str) -> dict[str, np.ndarray]:
    """SMPL-X parameters (N, k) float64 of a motion's frames; y up, `transl` follows the way walked."""
    rows = motion_rows(name)
    params = smplx_params(rows)
    turn = np.radians(rows[:, LAYOUT["turn"].start])
    step = _MOTIONS[name].speed / FPS * np.stack([np.sin(turn), np.zeros(len(rows)), np.cos(turn)], axis=1)
    params["transl"] = params["transl"] + np.cumsum(step, axis=0) - step[:1]
    return params


def motion_file(name: str) -> bytes:
    """A motion as an npz in AMASS's SMPL-X layout: z up, `root_orient` (N, 3), `pose_body` (N, 63), ...

    The same bytes every time, on every machine: rotations are rounded to 1e-5 rad, places to 0.1 mm.
    """
    params = motion_params(name)
    n = len(params["transl"])
    x, y, z = params["transl"].T
    arrays = {
        "root_orient": compose(np.array([np.pi / 2, 0, 0]), params["global_orient"]),
        "pose_body": params["body_pose"],
        "pose_hand": np.concatenate([params["left_hand_pose"], params["right_hand_pose"]], axis=1),
        "pose_jaw": np.zeros((n, 3)),
        "pose_eye": np.zeros((n, 6)),
        "trans": np.round(np.stack([x, -z, y], axis=1), 4),
        "betas": np.zeros(16),
    }
    rounded = {key: (np.round(value, 5) + 0.0).astype(np.float32) for key, value in arrays.items()}
    said = {"gender": np.array("neutral"), "mocap_frame_rate": np.array(FPS), "licence": np.array(LICENCE)}
    everything: dict[str, Any] = said | rounded
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **everything)
    return buffer.getvalue()


def _sequence(*stances: Stance, seconds: float = 0.6) -> Motion:
    return Motion(tuple((i * seconds, s) for i, s in enumerate(stances)))


def _there_and_back(*stances: Stance, seconds: float = 0.6) -> Motion:
    return _sequence(*stances, *stances[-2::-1], seconds=seconds)


def _cycle(*stances: Stance, seconds: float, speed: float = 0.0) -> Motion:
    """A cycle of `seconds` of stances at equal times."""
    keys = [*stances, stances[0]]
    times = np.linspace(0, seconds, len(keys))
    return Motion(tuple(zip(times.tolist(), keys, strict=True)), cycle=True, speed=speed)


def _steps(*half: Stance, seconds: float, speed: float) -> Motion:
    """A gait: the stances of one step, then the same ones mirrored."""
    return _cycle(*half, *(mirrored(s) for s in half), seconds=seconds, speed=speed)


_UP: tuple[float, float, float] = (0.0, 1.0, 0.0)
_AHEAD = (0.0, 0.0, 1.0)
STAND = Stance()
_ON_HIP = Limb((0.62, -0.75, -0.3), 98, (-1.0, -0.2, 0.75))
_GUARD = Limb((0.25, -0.9, 0.45), 125, (-0.15, 1.0, 0.5))


def _walk() -> Motion:
    contact = Stance(
        flex=3, twist=7, roll=1,
        left_leg=Limb((0.03, -1, 0.42), 4, (0.1, 0, 1)), left_foot=(1, -14),
        right_leg=Limb((0.03, -1, -0.3), 16, (0.1, 0, 1)), right_foot=(1, 26),
        left_arm=Limb((0.16, -1, -0.38), 12), right_arm=Limb((0.14, -1, 0.36), 28),
    )  # fmt: skip
    passing = Stance(
        flex=3, roll=-3, side=3,
        left_leg=Limb((0.02, -1, 0.03), 6, (0.1, 0, 1)),
        right_leg=Limb((0.03, -1, 0.24), 58, (0.1, 0, 1)), right_foot=(0.4, 12),
        left_arm=Limb((0.18, -1, -0.06), 14), right_arm=Limb((0.17, -1, 0.06), 20),
    )  # fmt: skip
    return _steps(contact, passing, seconds=1.1, speed=1.3)


def _run() -> Motion:
    flight = Stance(
        pitch=10, flex=6, twist=14, lift=0.07, nod=-8,
        left_leg=Limb((0.03, -0.75, 0.75), 85), left_foot=(0.2, 0),
        right_leg=Limb((0.03, -1, -0.5), 28), right_foot=(0.1, 40),
        left_arm=Limb((0.3, -0.8, -0.75), 85, (-0.2, 0, 1)),
        right_arm=Limb((0.1, -1, 0.45), 95, (-0.35, 0.6, 1)),
        left_hand=0.7, right_hand=0.7,
    )  # fmt: skip
    landing = Stance(
        pitch=8, flex=6, nod=-8,
        left_leg=Limb((0.02, -1, 0.3), 32), left_foot=(1, 0),
        right_leg=Limb((0.03, -1, 0.0), 105), right_foot=(0, 30),
        left_arm=Limb((0.22, -1, -0.15), 88, (-0.2, 0, 1)),
        right_arm=Limb((0.22, -1, -0.1), 90, (-0.2, 0.2, 1)),
        left_hand=0.7, right_hand=0.7,
    )  # fmt: skip
    return _steps(flight, landing, seconds=0.75, speed=3.2)


_SEAT = Limb((0.16, -0.06, 1.0), 84, (0.05, 1, 0.1))
_ON_THIGH = Limb((0.14, -0.9, 0.22), 52, (-0.1, 0.1, 1))
SEATED = Stance(
    flex=4, left_leg=_SEAT, right_leg=_SEAT, left_arm=_ON_THIGH, right_arm=_ON_THIGH, left_hand=0.15,
    right_hand=0.15,
)  # fmt: skip


def _sit_down() -> Motion:
    bowed = Limb((0.12, -0.6, 0.8), 78, (0.08, 0.5, 0.9))
    lowering = Stance(
        pitch=32, flex=16, nod=-18, left_leg=bowed, right_leg=bowed,
        left_arm=Limb((0.14, -0.85, 0.5), 20), right_arm=Limb((0.14, -0.85, 0.5), 20),
    )  # fmt: skip
    return _there_and_back(STAND, lowering, SEATED, seconds=0.6)


def _sit_and_reach() -> Motion:
    far = replace(
        SEATED, flex=22, twist=16, nod=-12, right_arm=Limb((0.05, -0.15, 1), 10, (0, 1, 0.2)), right_hand=0.1
    )
    high = replace(SEATED, flex=-4, side=-8, nod=-22, right_arm=Limb((0.25, 0.95, 0.4), 12, (0, 0.2, 1)))
    aside = replace(
        SEATED, twist=38, look=30, side=-6, left_arm=Limb((0.95, -0.1, 0.15), 14, (0, 0.6, 1)), left_hand=0.1
    )
    crossed = replace(
        SEATED, flex=8, right_leg=Limb((-0.12, 0.16, 1.0), 92, (0.25, 1, 0.1)), right_foot=(0, 20),
        left_arm=Limb((0.1, -1, 0.3), 85, (-0.6, 0.2, 1)),
    )  # fmt: skip
    return _sequence(SEATED, far, SEATED, high, SEATED, aside, crossed, seconds=0.5)


def _wave() -> Motion:
    def at(lean: float) -> Stance:
        return Stance(
            side=-3, tilt=-6, twist=4,
            right_arm=Limb((0.95, 0.05, 0.25), 98, (lean, 1, 0.15)), right_wrist=(0, 25), right_hand=0.02,
            left_arm=Limb((0.2, -1, 0.05), 20), left_leg=Limb((0.06, -1, 0.04), 8, (0.2, 0, 1)),
        )  # fmt: skip

    return Motion(
        ((0, STAND), (0.5, at(0.35)), (0.8, at(-0.45)), (1.1, at(0.35)), (1.4, at(-0.45)), (1.9, STAND))
    )


def _reach_up() -> Motion:
    ahead = Limb((0.05, -0.05, 1), 25, _UP)
    above = Limb((0.12, 1, 0.14), 8, (0, 0.1, 1))
    lifted = Stance(flex=-2, nod=-10, left_arm=ahead, right_arm=ahead)
    high = Stance(flex=-8, nod=-30, left_arm=above, right_arm=above, left_foot=(1, 28), right_foot=(1, 28))
    aside = replace(high, side=20, roll=3, right_arm=Limb((0.3, 1, 0.1), 12, (0, 0.1, 1)))
    return _sequence(STAND, lifted, high, aside, high, mirrored(aside), seconds=0.45)


def _squat() -> Motion:
    out = Limb((0.06, -0.05, 1), 8, (0, 1, 0.1))
    half = Limb((0.26, -0.6, 0.75), 78, (0.3, 0.5, 0.8))
    deep = Limb((0.36, 0.08, 0.9), 122, (0.3, 0.9, 0.2))
    return _there_and_back(
        Stance(left_arm=out, right_arm=out),
        Stance(pitch=24, flex=8, nod=-12, left_leg=half, right_leg=half, left_arm=out, right_arm=out),
        Stance(pitch=30, flex=16, nod=-16, left_leg=deep, right_leg=deep, left_arm=out, right_arm=out),
        seconds=0.5,
    )


def _lunge() -> Motion:
    down = Stance(
        flex=-2, left_arm=_ON_HIP, right_arm=_ON_HIP, left_hand=0.5, right_hand=0.5,
        left_leg=Limb((0.04, -0.2, 1), 80, (0.05, 1, 0.2)),
        right_leg=Limb((0.04, -1, -0.35), 62), right_foot=(0, -24),
    )  # fmt: skip
    up = replace(STAND, left_arm=_ON_HIP, right_arm=_ON_HIP, left_hand=0.5, right_hand=0.5)
    return _sequence(up, down, up, mirrored(down), up, seconds=0.5)


def _kick() -> Motion:
    stand = Limb((0.04, -1, 0.06), 14, (0.3, 0, 1))
    wind_up = Stance(
        pitch=8, twist=20, left_leg=stand,
        right_leg=Limb((0.06, -0.85, -0.55), 80), right_foot=(0, 30),
        left_arm=Limb((0.7, -0.3, 0.6), 20), right_arm=Limb((0.5, -0.7, -0.6), 20),
    )  # fmt: skip
    strike = Stance(
        pitch=-14, flex=10, twist=-16, left_leg=stand,
        right_leg=Limb((0.0, 0.12, 1), 8, (0.0, 1, 0)), right_foot=(0, 32),
        left_arm=Limb((0.55, -0.4, 0.85), 25), right_arm=Limb((0.9, -0.3, -0.45), 20),
    )  # fmt: skip
    return _sequence(STAND, wind_up, strike, STAND, seconds=0.5)


def _throw() -> Motion:
    cocked = Stance(
        twist=-40, side=6, look=35, pitch=-4, right_hand=0.6,
        right_arm=Limb((0.9, 0.25, -0.35), 100, (0.1, 1, -0.15)), left_arm=Limb((0.45, 0.1, 1), 10, _UP),
        left_leg=Limb((0.05, -0.9, 0.5), 30), right_leg=Limb((0.1, -1, -0.15), 20, (0.6, 0, 1)),
    )  # fmt: skip
    release = Stance(
        twist=10, flex=8, side=-10, pitch=8, right_hand=0.1,
        right_arm=Limb((0.5, 0.75, 0.6), 20, (0, 0.4, 1)),
        left_arm=Limb((0.4, -0.7, 0.1), 80, (-0.2, 0.2, 1)),
        left_leg=Limb((0.05, -0.9, 0.55), 28), right_leg=Limb((0.05, -1, -0.4), 26), right_foot=(1, 35),
    )  # fmt: skip
    through = Stance(
        twist=40, flex=26, pitch=20, nod=-20, right_hand=0.2,
        right_arm=Limb((-0.45, -0.5, 0.9), 25, (-0.8, 0.3, 0.4)),
        left_arm=Limb((0.5, -0.6, -0.5), 70, (0, 0, 1)),
        left_leg=Limb((0.05, -0.85, 0.6), 40), right_leg=Limb((0.05, -1, -0.55), 35), right_foot=(0.6, 40),
    )  # fmt: skip
    return _sequence(STAND, cocked, release, through, seconds=0.4)


def _tennis() -> Motion:
    ready = Stance(
        pitch=14, flex=8, nod=-10, left_hand=0.6, right_hand=0.9,
        left_leg=Limb((0.3, -1, 0.3), 36, (0.25, 0, 1)), right_leg=Limb((0.3, -1, 0.3), 36, (0.25, 0, 1)),
        left_arm=Limb((0.05, -0.85, 0.5), 80, (-0.35, 0.3, 1)),
        right_arm=Limb((0.1, -0.85, 0.45), 75, (-0.3, 0.3, 1)),
    )  # fmt: skip
    back = replace(
        ready, twist=-52, look=40, right_arm=Limb((0.85, -0.15, -0.5), 40, (0.2, 1, 0)),
        left_arm=Limb((-0.1, -0.2, 0.9), 30, (-0.8, 0.3, 0.2)),
        right_leg=Limb((0.35, -1, -0.05), 40, (0.7, 0, 1)), left_leg=Limb((0.1, -1, 0.35), 22),
    )  # fmt: skip
    contact = replace(
        ready, twist=4, pitch=8, right_arm=Limb((0.7, -0.35, 0.7), 16, (-0.7, 0.3, 0.6)),
        left_arm=Limb((0.5, -0.4, 0.4), 80, (-0.7, 0.5, 0.6)),
        left_leg=Limb((0.12, -1, 0.45), 28), right_leg=Limb((0.2, -1, -0.25), 30), right_foot=(1, 25),
    )  # fmt: skip
    finish = replace(
        contact, twist=48, look=-35, right_arm=Limb((-0.3, 0.25, 0.95), 105, (-0.9, 0.6, -0.3)),
        left_arm=Limb((0.6, -0.6, -0.2), 60, (0, 0.2, 1)),
    )  # fmt: skip
    return _sequence(ready, back, contact, finish, ready, seconds=0.4)


def _yoga() -> Motion:
    aside = Limb((1, 0.02, 0), 3, (0, 0, 1))
    warrior = Stance(
        look=80, left_arm=aside, right_arm=aside, left_hand=0.02, right_hand=0.02, left_wrist=(0, 80),
        right_wrist=(0, -80),
        left_leg=Limb((1, -0.42, 0.1), 66, (1, 0.3, 0.1)), right_leg=Limb((0.75, -1, 0), 3, (0.2, 0, 1)),
    )  # fmt: skip
    joined = Limb((-0.02, 1, 0.12), 18, (-1, 0.2, 0.1))
    tree = Stance(
        left_leg=Limb((-0.02, -1, 0.0), 2, _AHEAD), right_leg=Limb((0.85, -0.55, 0.2), 138, (0.7, 0.5, 0.5)),
        right_foot=(0, 40), left_arm=joined, right_arm=joined, left_hand=0.02, right_hand=0.02,
    )  # fmt: skip
    wide = Stance(left_arm=aside, right_arm=aside, left_leg=Limb((0.7, -1, 0), 3, (0.3, 0, 1)),
                  right_leg=Limb((0.7, -1, 0), 3, (0.3, 0, 1)))  # fmt: skip
    triangle = replace(
        wide, roll=-28, side=-34, left_arm=Limb((0.25, -1, 0.0), 3, _AHEAD),
        right_arm=Limb((-0.1, 1, 0), 3, _AHEAD),
        look=-30,
    )  # fmt: skip
    spread = Stance(left_arm=aside, right_arm=aside)
    return _sequence(STAND, wide, warrior, wide, triangle, wide, spread, tree, seconds=0.5)


def _push_up() -> Motion:
    leg = Limb((0.06, -0.26, -1), 2, (0, -1, 0.26))
    high = Stance(
        pitch=72, flex=0, nod=-18, left_leg=leg, right_leg=leg, left_foot=(0, -35), right_foot=(0, -35),
        left_arm=Limb((0.12, -1, 0.12), 4, (0.1, 0.1, 1)), right_arm=Limb((0.12, -1, 0.12), 4, (0.1, 0.1, 1)),
        left_wrist=(-70, 75), right_wrist=(-70, -75), left_hand=0.02, right_hand=0.02,
    )  # fmt: skip
    flat = Limb((0.06, -0.1, -1), 2, (0, -1, 0.1))
    bent = Limb((0.75, 0.1, -0.65), 98, (-0.1, -1, 0.2))
    low = replace(high, pitch=83, left_leg=flat, right_leg=flat, left_arm=bent, right_arm=bent)
    return _there_and_back(high, low, seconds=0.7)


def _jumping_jack() -> Motion:
    together = Stance(left_leg=Limb((0.0, -1, 0.04), 8), right_leg=Limb((0.0, -1, 0.04), 8))
    half = Stance(
        lift=0.12, left_arm=Limb((1, 0.05, 0.06), 10), right_arm=Limb((1, 0.05, 0.06), 10),
        left_leg=Limb((0.22, -1, 0), 6, (0.2, 0, 1)), right_leg=Limb((0.22, -1, 0), 6, (0.2, 0, 1)),
        left_foot=(0.5, 30), right_foot=(0.5, 30),
    )  # fmt: skip
    apart = Stance(
        left_arm=Limb((0.32, 1, 0.05), 12, (-1, 0.2, 0.3)),
        right_arm=Limb((0.32, 1, 0.05), 12, (-1, 0.2, 0.3)),
        left_leg=Limb((0.48, -1, 0), 8, (0.3, 0, 1)), right_leg=Limb((0.48, -1, 0), 8, (0.3, 0, 1)),
    )  # fmt: skip
    return _cycle(together, half, apart, half, seconds=1.2)


def _dance() -> Motion:
    sway = Stance(
        roll=-8, side=14, twist=12, tilt=-10, look=20,
        left_arm=Limb((0.5, 0.85, 0.2), 40, (-1, 0.4, 0.3)), right_arm=_ON_HIP,
        left_leg=Limb((0.1, -1, 0.1), 6, (0.4, 0, 1)), right_leg=Limb((0.22, -1, 0.3), 44, (0.5, 0, 1)),
        right_foot=(1, 22),
    )  # fmt: skip
    spin = Stance(
        turn=120, twist=18, side=-6, flex=-6, nod=-10, left_foot=(1, 30),
        left_arm=Limb((0.85, 0.1, 0.5), 60, (-1, 0.3, 0.5)), right_arm=Limb((1, 0.25, -0.1), 25, (0, 0.4, 1)),
        left_leg=Limb((0.0, -1, 0.0), 4), right_leg=Limb((0.35, -0.75, 0.6), 95, (0.5, 0.3, 1)),
        right_foot=(0, 35),
    )  # fmt: skip
    low = Stance(
        turn=240, pitch=16, flex=12, roll=6, side=-16, look=-25,
        left_arm=Limb((1, 0.15, -0.2), 20, (0, 0.4, 1)), right_arm=Limb((0.3, -0.3, 0.9), 80, (-1, 0.6, 0.3)),
        left_leg=Limb((0.75, -1, 0.1), 8, (0.4, 0, 1)), right_leg=Limb((0.4, -0.75, 0.7), 86, (0.5, 0.3, 1)),
    )  # fmt: skip
    arc = Stance(
        turn=330, flex=-16, nod=-22, left_arm=Limb((0.35, 1, -0.1), 25, (-1, 0.2, 0.2)),
        right_arm=Limb((0.6, 0.8, 0.1), 30, (-1, 0.3, 0.3)), left_leg=Limb((0.04, -1, 0.12), 12),
        right_leg=Limb((0.1, -1, -0.5), 12), right_foot=(0.6, 42),
    )  # fmt: skip
    return _sequence(sway, spin, low, arc, replace(mirrored(sway), turn=360), seconds=0.5)


def _box() -> Motion:
    guard = Stance(
        pitch=6, flex=10, twist=-14, nod=4, left_hand=1, right_hand=1, left_arm=_GUARD, right_arm=_GUARD,
        left_leg=Limb((0.12, -1, 0.35), 26), right_leg=Limb((0.16, -1, -0.15), 24, (0.5, 0, 1)),
        right_foot=(1, 15),
    )  # fmt: skip
    jab = replace(guard, twist=-26, left_arm=Limb((0.0, 0.02, 1), 6, (-0.3, 1, 0)), left_wrist=(0, -60))
    cross = replace(
        guard, twist=34, pitch=10, right_arm=Limb((-0.1, 0.02, 1), 6, (-0.3, 1, 0)), right_wrist=(0, 60),
        right_leg=Limb((0.1, -1, -0.2), 34), right_foot=(1, 32),
    )  # fmt: skip
    return _sequence(guard, jab, guard, cross, guard, seconds=0.35)


def _pick_up() -> Motion:
    soft = Limb((0.1, -0.95, 0.32), 40)
    low = Stance(
        pitch=58, flex=42, nod=-20, left_leg=soft, right_leg=soft, right_hand=0.5,
        right_arm=Limb((0.02, -1, 0.2), 10, (0, 0.1, 1)), left_arm=Limb((0.2, -0.9, 0.0), 30),
    )  # fmt: skip
    knee = Stance(
        pitch=14, flex=24, nod=10, left_leg=Limb((0.12, -0.1, 1), 88, (0.1, 1, 0.1)),
        right_leg=Limb((0.08, -1, -0.05), 86), right_foot=(0, -20), left_arm=Limb((0.14, -0.75, 0.55), 40),
        right_arm=Limb((0.12, -0.85, 0.55), 15),
    )  # fmt: skip
    hold = replace(STAND, flex=6, nod=22, right_arm=Limb((0.1, -1, 0.22), 96, (-0.3, 0.5, 1)), right_hand=0.6,
                   left_arm=Limb((0.1, -1, 0.18), 92, (-0.35, 0.4, 1)), left_hand=0.5)  # fmt: skip
    return _sequence(STAND, low, hold, knee, seconds=0.6)


_MOTIONS: Mapping[str, Motion] = {
    "walking": _walk(),
    "running": _run(),
    "sitting_down": _sit_down(),
    "sitting_and_reaching": _sit_and_reach(),
    "waving": _wave(),
    "reaching_up": _reach_up(),
    "squatting": _squat(),
    "lunging": _lunge(),
    "kicking": _kick(),
    "throwing": _throw(),
    "tennis_forehand": _tennis(),
    "yoga": _yoga(),
    "push_ups": _push_up(),
    "jumping_jacks": _jumping_jack(),
    "dancing": _dance(),
    "boxing": _box(),
    "picking_up": _pick_up(),
}

"""The skin of the stand-in body as an implicit surface: an adult's proportions, in metres.

The left half is modelled (x >= 0); the caller mirrors it. A part is a *loft* (a stack of four-sided
superellipse cross-sections along one axis), a *round cone* or an *ellipsoid*; parts are joined by smooth
unions and dents. Values are negative inside and near the true distance close to the surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from udfs import standin_skeleton as skeleton

Values = np.ndarray
FAR = 0.2  # value far from every part; only the zero set and its surroundings are used


@dataclass(frozen=True)
class Part:
    """One solid: `distance(x, y, z)` broadcasts; `low`/`high` bound the solid; `blend` is the joint's width.

    A negative `sign` carves the part out instead of adding it.
    """

    distance: Callable[[Values, Values, Values], Values]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    blend: float
    sign: int = 1


def smooth_min(a: Values, b: Values, width: float) -> Values:
    """Polynomial smooth minimum; equals min(a, b) where they differ by more than `width` metres."""
    if width <= 0:
        return np.minimum(a, b)
    h = np.maximum(width - np.abs(a - b), 0.0) / width
    return np.minimum(a, b) - h * h * width * 0.25


def loft(axis: int, table: Sequence[Sequence[float]], blend: float, exponent: float = 2.0) -> Part:
    """Cross-sections along x (axis 0), y (1) or z (2).

    Rows are (t, cu, cv, u+, u-, v+, v-): position, centre and the four half-widths across the axis, with
    (u, v) = (y, z) along x, (x, z) along y, (x, y) along z. Rows are interpolated without overshoot.
    """
    from scipy.interpolate import PchipInterpolator

    rows = np.array(sorted(map(tuple, table)), dtype=np.float64)
    curve = PchipInterpolator(rows[:, 0], rows[:, 1:])
    first, last = rows[0, 0], rows[-1, 0]
    u_axis, v_axis = [a for a in range(3) if a != axis]

    def distance(*point: Values) -> Values:
        t = np.clip(point[axis], first, last)
        cu, cv, up, um, vp, vm = np.moveaxis(curve(t), -1, 0)
        du, dv = point[u_axis] - cu, point[v_axis] - cv
        ru, rv = np.where(du > 0, up, um), np.where(dv > 0, vp, vm)
        if exponent == 2.0:
            s = np.sqrt((du / ru) ** 2 + (dv / rv) ** 2)
        else:
            s = (np.abs(du / ru) ** exponent + np.abs(dv / rv) ** exponent) ** (1.0 / exponent)
        across = np.where(s > 1e-3, np.hypot(du, dv) * (1.0 - 1.0 / np.maximum(s, 1e-3)), -np.minimum(ru, rv))
        over = np.abs(point[axis] - t)
        return np.where(
            over > 0, np.hypot(np.maximum(across, 0.0), over) + np.minimum(across, 0.0) * 0.0, across
        )

    low, high = [0.0] * 3, [0.0] * 3
    low[axis], high[axis] = float(first), float(last)
    low[u_axis], high[u_axis] = float((rows[:, 1] - rows[:, 4]).min()), float((rows[:, 1] + rows[:, 3]).max())
    low[v_axis], high[v_axis] = float((rows[:, 2] - rows[:, 6]).min()), float((rows[:, 2] + rows[:, 5]).max())
    return Part(distance, tuple(low), tuple(high), blend)  # type: ignore[arg-type]


def cone(a: Sequence[float], b: Sequence[float], ra: float, rb: float, blend: float, sign: int = 1) -> Part:
    """A capsule from a to b whose radius goes from ra to rb."""
    start, span = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64) - np.array(a, dtype=np.float64)
    length2 = max(float(span @ span), 1e-12)

    def distance(x: Values, y: Values, z: Values) -> Values:
        dx, dy, dz = x - start[0], y - start[1], z - start[2]
        h = np.clip((dx * span[0] + dy * span[1] + dz * span[2]) / length2, 0.0, 1.0)
        away = np.sqrt((dx - h * span[0]) ** 2 + (dy - h * span[1]) ** 2 + (dz - h * span[2]) ** 2)
        return away - (ra + (rb - ra) * h)

    r = max(ra, rb)
    low = tuple(min(p, q) - r for p, q in zip(a, b, strict=True))
    high = tuple(max(p, q) + r for p, q in zip(a, b, strict=True))
    return Part(distance, low, high, blend, sign)  # type: ignore[arg-type]


def ellipsoid(
    center: Sequence[float],
    radii: Sequence[float],
    blend: float,
    sign: int = 1,
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Part:
    """An ellipsoid, turned by `turn` (radians about x, then y, then z)."""
    from scipy.spatial.transform import Rotation

    frame = Rotation.from_euler("xyz", turn).as_matrix()
    r = np.array(radii)

    def distance(x: Values, y: Values, z: Values) -> Values:
        d = (x - center[0], y - center[1], z - center[2])
        local = [d[0] * frame[0, k] + d[1] * frame[1, k] + d[2] * frame[2, k] for k in range(3)]
        k0 = np.sqrt(sum((local[k] / r[k]) ** 2 for k in range(3)))
        k1 = np.sqrt(sum((local[k] / r[k] ** 2) ** 2 for k in range(3)))
        return k0 * (k0 - 1.0) / np.maximum(k1, 1e-6)

    reach = np.sqrt((frame**2) @ (r**2))
    low, high = np.array(center) - reach, np.array(center) + reach
    return Part(distance, tuple(low), tuple(high), blend, sign)


def _torso() -> list[Part]:
    rows = []
    for y, w, front, back in (
        (0.135, 0.046, 0.026, -0.078),
        (0.115, 0.080, 0.040, -0.088),
        (0.095, 0.122, 0.052, -0.098),
        (0.060, 0.152, 0.078, -0.110),
        (0.020, 0.160, 0.098, -0.117),
        (-0.030, 0.158, 0.112, -0.118),
        (-0.070, 0.153, 0.116, -0.114),
        (-0.120, 0.145, 0.110, -0.104),
        (-0.180, 0.135, 0.101, -0.090),
        (-0.230, 0.131, 0.097, -0.081),
        (-0.280, 0.137, 0.099, -0.081),
        (-0.330, 0.150, 0.101, -0.090),
        (-0.380, 0.163, 0.099, -0.104),
        (-0.430, 0.172, 0.092, -0.114),
        (-0.470, 0.170, 0.083, -0.112),
        (-0.505, 0.150, 0.060, -0.090),
        (-0.525, 0.110, 0.035, -0.055),
    ):
        cz = 0.5 * (front + back)
        rows.append((y, 0.0, cz, w, w, front - cz, cz - back))
    return [
        loft(1, rows, 0.0, exponent=2.35),
        ellipsoid((0.075, -0.030, 0.072), (0.070, 0.050, 0.042), 0.03),  # chest
        ellipsoid((0.070, -0.445, -0.080), (0.072, 0.082, 0.060), 0.03),  # buttock
        cone((0.030, 0.165, -0.050), (0.140, 0.100, -0.030), 0.026, 0.034, 0.03),  # trapezius
    ]


def _neck_and_head() -> list[Part]:
    neck = []
    for y, w, front, back in (
        (0.060, 0.070, 0.020, -0.090),
        (0.110, 0.058, 0.026, -0.086),
        (0.150, 0.053, 0.032, -0.078),
        (0.190, 0.052, 0.040, -0.072),
        (0.250, 0.055, 0.040, -0.072),
    ):
        cz = 0.5 * (front + back)
        neck.append((y, 0.0, cz, w, w, front - cz, cz - back))
    face = []
    for y, w, front in (
        (0.186, 0.022, 0.072),
        (0.193, 0.034, 0.082),
        (0.205, 0.045, 0.087),
        (0.222, 0.053, 0.088),
        (0.240, 0.058, 0.088),
        (0.265, 0.063, 0.088),
        (0.295, 0.067, 0.087),
        (0.325, 0.069, 0.089),
        (0.350, 0.067, 0.087),
        (0.375, 0.058, 0.078),
        (0.395, 0.042, 0.062),
    ):
        face.append((y, 0.0, 0.0, w, w, front, 0.045))
    return [
        loft(1, neck, 0.035),
        ellipsoid((0.0, 0.326, -0.014), (0.0755, 0.104, 0.098), 0.02),
        loft(1, face, 0.015, exponent=2.3),
        ellipsoid((0.046, 0.268, 0.058), (0.018, 0.020, 0.020), 0.02),  # cheekbone
        cone((0.0, 0.194, 0.078), (0.010, 0.194, 0.077), 0.014, 0.013, 0.015),  # chin
        cone((0.010, 0.318, 0.085), (0.047, 0.317, 0.070), 0.007, 0.007, 0.012),  # brow
        ellipsoid((0.033, 0.298, 0.092), (0.019, 0.013, 0.015), 0.012, sign=-1),  # eye socket
        ellipsoid((0.0315, 0.298, 0.0655), (0.0135, 0.0135, 0.0135), 0.002),  # eye
        cone((0.0, 0.304, 0.082), (0.0, 0.262, 0.104), 0.007, 0.0095, 0.010),  # nose
        cone((0.0, 0.285, 0.084), (0.0, 0.258, 0.090), 0.009, 0.013, 0.008),
        cone((0.0, 0.256, 0.104), (0.011, 0.252, 0.094), 0.009, 0.0075, 0.006),
        cone((0.0, 0.230, 0.0895), (0.023, 0.2245, 0.0795), 0.0055, 0.003, 0.004),  # lips
        cone((0.0, 0.2175, 0.0885), (0.021, 0.2215, 0.0795), 0.0062, 0.003, 0.004),
        cone((0.0, 0.2240, 0.0965), (0.022, 0.2235, 0.0845), 0.0015, 0.0012, 0.003, sign=-1),  # mouth line
        ellipsoid((0.079, 0.282, -0.010), (0.0075, 0.031, 0.018), 0.006, turn=(-0.2, 0.35, 0.10)),  # ear
        ellipsoid((0.088, 0.283, -0.004), (0.006, 0.018, 0.009), 0.005, sign=-1, turn=(-0.2, 0.35, 0.10)),
    ]


def _leg() -> list[Part]:
    rows = []
    for y, cx, out, inn, front, back in (
        (-0.400, 0.088, 0.074, 0.074, 0.060, -0.095),
        (-0.450, 0.091, 0.082, 0.080, 0.074, -0.108),
        (-0.510, 0.094, 0.079, 0.082, 0.077, -0.108),
        (-0.560, 0.096, 0.076, 0.080, 0.075, -0.102),
        (-0.640, 0.099, 0.069, 0.073, 0.064, -0.092),
        (-0.720, 0.103, 0.060, 0.063, 0.049, -0.081),
        (-0.785, 0.106, 0.053, 0.053, 0.038, -0.073),
        (-0.825, 0.107, 0.050, 0.050, 0.037, -0.072),
        (-0.865, 0.107, 0.047, 0.047, 0.028, -0.076),
        (-0.920, 0.105, 0.051, 0.047, 0.016, -0.091),
        (-0.970, 0.102, 0.052, 0.046, 0.007, -0.097),
        (-1.030, 0.097, 0.047, 0.042, -0.001, -0.093),
        (-1.100, 0.090, 0.038, 0.035, -0.012, -0.086),
        (-1.160, 0.085, 0.032, 0.031, -0.018, -0.082),
        (-1.200, 0.083, 0.031, 0.031, -0.017, -0.083),
        (-1.228, 0.083, 0.034, 0.033, -0.012, -0.088),
        (-1.255, 0.083, 0.031, 0.031, -0.008, -0.092),
        (-1.280, 0.083, 0.025, 0.025, -0.020, -0.085),
    ):
        cz = 0.5 * (front + back)
        rows.append((y, cx, cz, out, inn, front - cz, cz - back))
    foot = []
    for z, cx, w, top, sole in (
        (-0.116, 0.078, 0.010, -1.268, -1.292),
        (-0.106, 0.079, 0.021, -1.252, -1.302),
        (-0.085, 0.080, 0.029, -1.236, -1.306),
        (-0.050, 0.083, 0.033, -1.222, -1.306),
        (-0.010, 0.089, 0.035, -1.224, -1.305),
        (0.025, 0.098, 0.039, -1.240, -1.304),
        (0.055, 0.106, 0.044, -1.256, -1.304),
        (0.080, 0.111, 0.046, -1.268, -1.306),
        (0.100, 0.114, 0.045, -1.277, -1.305),
        (0.115, 0.116, 0.040, -1.284, -1.302),
    ):
        cy = sole + 0.4 * (top - sole)
        foot.append((z, cx, cy, w, w, top - cy, cy - sole))
    toes = [((0.085, -1.291, 0.100), (0.093, -1.292, 0.142), 0.0145, 0.0125)]
    for k, (x, tip_x, tip_z) in enumerate(
        ((0.107, 0.115, 0.142), (0.122, 0.131, 0.134), (0.137, 0.1455, 0.123), (0.150, 0.1575, 0.109))
    ):
        r = 0.0105 - 0.0006 * k
        toes.append(((x, -1.292, 0.095 - 0.006 * k), (tip_x, -1.295, tip_z), r, r - 0.001))
    return [
        loft(1, rows, 0.03, exponent=2.1),
        loft(2, foot, 0.03, exponent=2.5),
        *(cone(a, b, ra, rb, 0.006) for a, b, ra, rb in toes),
    ]


def _arm() -> list[Part]:
    rows = [
        (0.110, 0.074, -0.020, 0.042, 0.055, 0.052, 0.056),
        (0.160, 0.076, -0.021, 0.054, 0.066, 0.060, 0.062),
        (0.195, 0.070, -0.023, 0.054, 0.064, 0.059, 0.060),
        (0.240, 0.061, -0.028, 0.049, 0.056, 0.053, 0.054),
        (0.300, 0.052, -0.036, 0.043, 0.049, 0.049, 0.047),
        (0.350, 0.043, -0.043, 0.040, 0.044, 0.045, 0.043),
        (0.395, 0.037, -0.048, 0.038, 0.038, 0.039, 0.040),
        (0.420, 0.034, -0.050, 0.038, 0.036, 0.039, 0.041),
        (0.460, 0.034, -0.051, 0.039, 0.037, 0.042, 0.040),
        (0.500, 0.034, -0.052, 0.038, 0.036, 0.042, 0.038),
        (0.560, 0.036, -0.054, 0.032, 0.031, 0.036, 0.033),
        (0.620, 0.038, -0.056, 0.024, 0.024, 0.030, 0.028),
        (0.660, 0.039, -0.058, 0.020, 0.020, 0.027, 0.027),
        (0.685, 0.038, -0.059, 0.019, 0.020, 0.028, 0.029),
    ]
    return [loft(0, rows, 0.045, exponent=2.1)]


def _hand() -> list[Part]:
    """Palm and fingers; in their own group, so that fingers blend into the palm and not into each other."""
    rows = [
        (0.655, 0.039, -0.058, 0.018, 0.018, 0.025, 0.025),
        (0.680, 0.038, -0.058, 0.018, 0.019, 0.029, 0.029),
        (0.705, 0.037, -0.059, 0.016, 0.019, 0.034, 0.034),
        (0.735, 0.036, -0.062, 0.0145, 0.018, 0.038, 0.036),
        (0.755, 0.0355, -0.063, 0.0125, 0.0150, 0.036, 0.035),
        (0.768, 0.0350, -0.0625, 0.0095, 0.0110, 0.030, 0.030),
    ]
    return [loft(0, rows, 0.012, exponent=2.6)]


def _finger_parts() -> list[list[Part]]:
    radii = {
        "index": (0.0100, 0.0085, 0.0076, 0.0066),
        "middle": (0.0102, 0.0088, 0.0078, 0.0068),
        "ring": (0.0098, 0.0082, 0.0073, 0.0064),
        "pinky": (0.0086, 0.0071, 0.0063, 0.0056),
        "thumb": (0.0165, 0.0115, 0.0098, 0.0078),
    }
    fingers = []
    for name in skeleton.FINGERS:
        joints = skeleton.left_finger(name).copy()
        r = radii[name]
        end = joints[3] - joints[2]
        joints[3] -= end / np.linalg.norm(end) * r[3]
        fingers.append([cone(joints[k], joints[k + 1], r[k], r[k + 1], 0.003) for k in range(3)])
    return fingers


def _merge(values: Values, parts: Sequence[Part], axes: tuple[Values, ...], gridded: bool) -> None:
    for part in parts:
        margin = part.blend + 0.012
        if gridded:
            spans = tuple(
                slice(int(np.searchsorted(a, lo - margin)), int(np.searchsorted(a, hi + margin)))
                for a, lo, hi in zip(axes, part.low, part.high, strict=True)
            )
            if any(s.start >= s.stop for s in spans):
                continue
            x, y, z = (a[s] for a, s in zip(axes, spans, strict=True))
            d = part.distance(x[:, None, None], y[None, :, None], z[None, None, :])
            where: tuple[slice, ...] | np.ndarray = spans
        else:
            inside = np.ones(len(values), dtype=bool)
            for a, lo, hi in zip(axes, part.low, part.high, strict=True):
                inside &= (a > lo - margin) & (a < hi + margin)
            where = np.flatnonzero(inside)
            if len(where) == 0:
                continue
            d = part.distance(*(a[where] for a in axes))
        if part.sign > 0:
            values[where] = smooth_min(values[where], d, part.blend)
        else:
            values[where] = -smooth_min(-values[where], d, part.blend)


def _evaluate(axes: tuple[Values, ...], gridded: bool) -> Values:
    shape = tuple(len(a) for a in axes) if gridded else (len(axes[0]),)
    torso = np.full(shape, FAR)
    _merge(torso, _torso(), axes, gridded)
    _merge(torso, _leg(), axes, gridded)
    _merge(torso, _arm(), axes, gridded)
    hand = np.full(shape, FAR)
    for finger in _finger_parts():
        one = np.full(shape, FAR)
        _merge(one, finger, axes, gridded)
        hand = smooth_min(hand, one, 0.002)
    palm = np.full(shape, FAR)
    _merge(palm, _hand(), axes, gridded)
    hand = smooth_min(hand, palm, 0.010)
    torso = smooth_min(torso, hand, 0.012)
    _merge(torso, _neck_and_head(), axes, gridded)
    return torso


def on_grid(x: Values, y: Values, z: Values) -> Values:
    """(len(x), len(y), len(z)) float64 values on the grid of three increasing axes."""
    return _evaluate((x, y, z), True)


def at_points(x: Values, y: Values, z: Values) -> Values:
    """(N,) float64 values at N points; the body is mirrored about x = 0."""
    return _evaluate((np.abs(x), y, z), False)


def grid_axes() -> tuple[Values, Values, Values]:
    """Sampling positions, closer together where hands, face and feet are."""

    def steps(*spans: tuple[float, float, float]) -> Values:
        pieces = [np.arange(lo, hi, step) for lo, hi, step in spans]
        return np.concatenate([*pieces, [spans[-1][1]]])

    return (
        steps((0.0, 0.10, 0.0035), (0.10, 0.66, 0.009), (0.66, 0.87, 0.003)),
        steps((-1.32, -1.20, 0.0045), (-1.20, -0.005, 0.009), (-0.005, 0.065, 0.0027), (0.065, 0.18, 0.009),
              (0.18, 0.45, 0.0035)),
        steps((-0.15, -0.13, 0.008), (-0.13, 0.04, 0.0035), (0.04, 0.17, 0.0045)),
    )  # fmt: skip


def spacing(points: np.ndarray) -> np.ndarray:
    """(V,) wanted edge length in metres: short at fingers, face, ears and toes, medium at joints."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]

    def near(cx: float, cy: float, cz: float, inner: float, outer: float) -> np.ndarray:
        d = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        return np.clip((outer - d) / (outer - inner), 0.0, 1.0)

    def ramp(v: np.ndarray, lo: float, hi: float) -> np.ndarray:
        return np.clip((v - lo) / (hi - lo), 0.0, 1.0)

    size = np.full(len(points), 0.021)
    for amount, wanted in (
        (near(0.165, 0.06, -0.02, 0.06, 0.14), 0.017),
        (near(0.075, -0.49, 0.0, 0.08, 0.20), 0.018),
        (near(0.106, -0.82, -0.02, 0.05, 0.12), 0.016),
        (near(0.42, 0.034, -0.05, 0.04, 0.10), 0.014),
        (ramp(y, 0.08, 0.17) * (x < 0.15), 0.012),
        (ramp(y, 0.17, 0.20) * ramp(z, 0.0, 0.05), 0.0062),
        (near(0.0315, 0.298, 0.08, 0.015, 0.03), 0.0042),
        (near(0.0, 0.225, 0.09, 0.026, 0.04), 0.0042),
        (near(0.0, 0.255, 0.10, 0.018, 0.03), 0.0045),
        (near(0.08, 0.283, -0.005, 0.03, 0.05), 0.0055),
        (ramp(x, 0.58, 0.68), 0.0075),
        (ramp(x, 0.73, 0.755), 0.0058),
        (ramp(z, 0.0 - 0.03, 0.0) * ramp(x, 0.68, 0.69), 0.0058),
        (ramp(-y, 1.14, 1.22), 0.012),
        (ramp(z, 0.07, 0.095) * (y < -1.2), 0.0062),
    ):
        size = np.minimum(size, 0.021 + (wanted - 0.021) * amount)
    return size

"""Building blocks of implicit surfaces: solids, smooth unions and dents, in metres.

Values are negative inside and near the true distance close to the surface; far away only the sign counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

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
        return np.where(over > 0, np.hypot(np.maximum(across, 0.0), over), across)

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


@dataclass(frozen=True)
class Group:
    """Parts merged one after another, then joined as one to the groups before; `blend` is that joint's width.

    Parts of different groups never blend with each other by more than the groups do: fingers stay apart.
    """

    parts: tuple[Part, ...]
    blend: float


@dataclass(frozen=True)
class Surface:
    """The union of groups of parts; nested `clusters` are merged among themselves first."""

    clusters: tuple[tuple[float, tuple[Group, ...]], ...]

    def on_grid(self, x: Values, y: Values, z: Values) -> Values:
        """(len(x), len(y), len(z)) float64 values on the grid of three increasing axes."""
        return self._evaluate((x, y, z), True)

    def at_points(self, x: Values, y: Values, z: Values) -> Values:
        """(N,) float64 values at N points; the surface is mirrored about x = 0."""
        return self._evaluate((np.abs(x), y, z), False)

    def _evaluate(self, axes: tuple[Values, ...], gridded: bool) -> Values:
        shape = tuple(len(a) for a in axes) if gridded else (len(axes[0]),)
        values = np.full(shape, FAR)
        for blend, groups in self.clusters:
            if len(groups) == 1:
                # One group is carved and blended in place: its dents may cut what is there already.
                _merge(values, groups[0].parts, axes, gridded)
                continue
            cluster = np.full(shape, FAR)
            for group in groups:
                one = np.full(shape, FAR)
                _merge(one, group.parts, axes, gridded)
                cluster = smooth_min(cluster, one, group.blend)
            values = smooth_min(values, cluster, blend)
        return values


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

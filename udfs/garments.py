"""The colour of each point of skin, hair and clothes.

Garments are cut in the template's rest pose: a sleeve ends at a share of the way from the shoulder to the
wrist, a hem at a height. So one tailor fits the stand-in and the licensed SMPL-X alike, and the cut is as
sharp as the pixels.
"""

import numba
import numpy as np

from udfs.anatomy import (
    ARM,
    BOTTOM_AREA,
    FOOT,
    HAIR_AREA,
    HAND,
    HEAD,
    LEG,
    NECK,
    OTHER_AREA,
    SHOES_AREA,
    SKIN_AREA,
    TOP_AREA,
    TORSO,
)
from udfs.clothing import BAND, CHECKS, DOTS, HEATHER, PINSTRIPES, PRINT, STRIPES
from udfs.noise import cell, step, value3


@numba.njit(cache=True, nogil=True)
def _fabric(cloth, along, across, x, y, z, width, color):
    """Colour of a garment; `along` runs down the limb or the trunk, `across` around it."""
    kind, scale = cloth.pattern, cloth.scale
    mix = 0.0
    if kind == STRIPES:
        mix = step(cloth.amount * 2 - abs((along / scale) % 2 - 1) * 2, width / scale)
    elif kind == PINSTRIPES:
        mix = step(cloth.amount - abs((across / (scale * 0.7)) % 2 - 1), width / scale) * 0.8
    elif kind == CHECKS:
        a = step(0.22 - abs((along / scale) % 2 - 1), width / scale)
        b = step(0.22 - abs((across / scale) % 2 - 1), width / scale)
        mix = 0.42 * (a + b)
    elif kind == DOTS:
        u, v = (along / scale) % 1 - 0.5, (across / scale) % 1 - 0.5
        mix = step(0.25 - np.sqrt(u * u + v * v), width / scale)
    elif kind == HEATHER:
        mix = 0.45 * value3(x * 60, y * 60, z * 60, cloth.seed) * cloth.amount * 2
        mix += 0.5 * cloth.amount * value3(x * 9, y * 9, z * 9, cloth.seed + 7)
    for c in range(3):
        color[c] = cloth.color[c] + (cloth.second[c] - cloth.color[c]) * min(mix, 1.0)


@numba.njit(cache=True, nogil=True, inline="always")
def _put(color, new, amount):
    for c in range(3):
        color[c] += (new[c] - color[c]) * amount


@numba.njit(cache=True, nogil=True, inline="always")
def _dim(color, factor):
    for c in range(3):
        color[c] *= factor


@numba.njit(cache=True, nogil=True)
def _head(o, f, x, y, z, width, color):
    """Colour of a point of the head or the neck; returns its area."""
    tall = f.crown - f.chin
    side = abs(x)
    for c in range(3):
        color[c] = o.skin[c] * (0.94 + 0.12 * value3(x * 50, y * 50, z * 50, o.seed))
    forward = (z - f.ear_z) / (f.nose_z - f.ear_z)
    ragged = 0.012 * (value3(x * 90, y * 40, z * 90, o.seed + 3) - 0.5)
    # Lower edge of the hair: the nape behind the ears, the temples beside the eyes, the forehead in front.
    brow = f.eye_y + 0.11 * tall
    if forward <= 0.0:
        edge = f.nape if o.hair_style < 2 else f.nape - o.hair_length
    elif forward < 0.25:
        edge = f.ear_y - 0.05 * tall + (brow - f.ear_y + 0.1 * tall) * forward / 0.25
        if o.hair_style == 2:
            edge -= o.hair_length * (1 - forward / 0.25)
    else:
        edge = brow + 0.05 * tall + (0.13 + 0.1 * o.hairline) * tall * min((forward - 0.25) / 0.35, 1.0)
    ear = (side > f.ear_x - 0.02) & (abs(y - f.ear_y) < 0.035) & (abs(z - f.ear_z) < 0.02)
    hair = o.hair_style > 0 and y > edge + ragged and not (ear and o.hair_style < 2)
    if o.hat > 0:
        rim = brow + (0.1 if o.hat != 2 else 0.02) * tall + (0.03 * tall if forward < 0 else 0.0)
        if y > rim and o.hat < 3:
            _put(color, o.hat_color, 1.0)
            _dim(color, 0.75 if y < rim + 0.1 * tall else 1.0)
            return OTHER_AREA
        if o.hat == 3 and abs(y - rim - 0.06 * tall) < 0.045 * tall:
            _put(color, o.hat_color, 1.0)
            return OTHER_AREA
    if hair:
        streak = value3(np.arctan2(x, z - f.ear_z) * 9, y * 14, 0.0, o.seed + 5)
        streak = 0.72 + 0.4 * streak + 0.2 * (value3(x * 160, y * 25, z * 160, o.seed + 6) - 0.5)
        for c in range(3):
            color[c] = o.hair[c] * streak
        return HAIR_AREA
    if z < f.ear_z + 0.1 * (f.nose_z - f.ear_z):
        return SKIN_AREA
    if o.beard > 0 and y < f.nose_y - 0.03 * tall and y > f.chin - 0.12 * tall and forward > 0.15:
        lips = abs(y - f.mouth_y) < 0.03 * tall and side < f.mouth_half
        cheek = y > f.mouth_y + 0.02 * tall and side > f.mouth_half * 1.3 and forward > 0.35
        if not lips and not cheek:
            _put(color, o.hair, o.beard * (0.55 + 0.45 * value3(x * 200, y * 200, z * 200, o.seed)))
    # Eyes: the white, the iris, a dark lid; brows above them.
    ex, ey = (side - f.eye_x) / (0.068 * tall), (y - f.eye_y) / (0.034 * tall)
    inside = 1.0 - ex * ex - ey * ey
    if inside > -0.9 and forward > 0.3:
        _dim(color, 1 - 0.35 * min(inside + 0.9, 0.9))
        if inside > 0:
            white = 0.75
            for c in range(3):
                color[c] = white
            if ex * ex * 4 + ey * ey * 1.1 < 1.0:
                _put(color, o.iris, 1.0)
            if ey > 0.45:
                _dim(color, 0.15)
    slant = brow - 0.02 * tall - 0.25 * abs(side - f.eye_x)
    if abs(y - slant) < 0.017 * tall and abs(side - f.eye_x) < 0.085 * tall and forward > 0.3:
        _put(color, o.hair, 0.75)
        _dim(color, 0.7)
    my = (y - f.mouth_y) / (0.032 * tall)
    mx = side / (f.mouth_half * 0.95)
    if mx * mx + my * my < 1.0 and forward > 0.5:
        _put(color, o.lips, 0.85)
        if abs(my) < 0.22:
            _dim(color, 0.45)
    if (
        abs(y - f.nose_y + 0.03 * tall) < 0.012 * tall
        and abs(side - 0.03 * tall) < 0.018 * tall
        and forward > 0.6
    ):
        _dim(color, 0.45)
    if o.glasses > 0 and forward > 0.15:
        gx, gy = (side - f.eye_x) / (0.12 * tall), (y - f.eye_y) / (0.085 * tall)
        r = gx * gx * gx * gx + gy * gy * gy * gy
        if (r < 1.0 and (r > 0.45 or o.glasses == 2)) or (abs(y - f.eye_y) < 0.014 * tall and gx * gx > 0.8):
            _dim(color, 0.12)
    return SKIN_AREA


@numba.njit(cache=True, nogil=True)
def _trunk(o, f, x, y, z, width, color):
    """Colour of a point of the trunk; returns its area."""
    side, front = abs(x), z > f.spine_z
    hem = f.pelvis + o.hem
    if o.hair_style == 2 and not front and o.hat != 2:
        fall = f.neck_y - o.hair_length * 0.9 + 0.06
        if y > fall + 0.02 * value3(x * 60, y * 5, 0.0, o.seed) and side < 0.105:
            streak = 0.7 + 0.45 * value3(x * 70, y * 8, z * 20, o.seed + 5)
            for c in range(3):
                color[c] = o.hair[c] * streak
            return HAIR_AREA
    if y < hem:
        return _legwear(o, f, x, y, z, width, color)
    # Neckline: deeper in front, a V or a round; a tank top's armholes.
    down = f.neck_y - y
    depth = o.neckline if front else 0.03
    reach = (
        o.neckline * (1 - max(down, 0.0) / (depth + 1e-6)) * 0.9
        if o.vneck > 0
        else np.sqrt(max(1 - (down / depth) ** 2, 0.0)) * o.neckline
    )
    if down < depth and side < reach and o.scarf == 0:
        for c in range(3):
            color[c] = o.skin[c]
        return SKIN_AREA
    if o.tank > 0 and side > f.shoulder_x * 0.8 and y > f.shoulder_y - 0.14:
        for c in range(3):
            color[c] = o.skin[c]
        return SKIN_AREA
    if (
        o.scarf > 0
        and side < 0.125 - 0.6 * max(down, 0.0)
        and down < 0.07 + (0.25 if front and abs(x - 0.05) < 0.035 else 0.0)
    ):
        for c in range(3):
            color[c] = o.scarf_color[c] * (0.8 + 0.3 * value3(x * 30, y * 90, z * 30, o.seed))
        return OTHER_AREA
    if (o.strap == 1 and abs(side - 0.1) < 0.022 and (front or y > f.shoulder_y - 0.05)) or (
        o.strap == 2 and abs(x * 0.85 + (y - f.shoulder_y + 0.2) * 0.52) < 0.018
    ):
        for c in range(3):
            color[c] = o.strap_color[c]
        return OTHER_AREA
    if o.strap == 1 and not front and side < 0.135 and y > hem + 0.12 and y < f.shoulder_y:
        for c in range(3):
            color[c] = o.strap_color[c] * (1.15 if abs(y - f.shoulder_y + 0.2) > 0.012 else 0.6)
        return OTHER_AREA
    if o.opening > 0 and front and side < o.opening * (0.6 + 0.5 * (y - hem) / (f.neck_y - hem)):
        for c in range(3):
            color[c] = o.inner[c]
        return OTHER_AREA
    _fabric(o.top, y, x, x, y, z, width, color)
    if o.top.pattern == BAND and abs(y - f.shoulder_y + 0.14) < 0.045:
        _put(color, o.top.second, 0.9)
    if o.top.pattern == PRINT and front and side < 0.09 and abs(y - f.shoulder_y + 0.13) < 0.07:
        patch = cell(int((x + 1) // 0.03), int((y + 2) // 0.03), 0, o.top.seed)
        _put(color, o.top.second, 0.9 if patch < 0.55 else 0.0)
    if o.opening > 0 and front and abs(side - o.opening * (0.6 + 0.5 * (y - hem) / (f.neck_y - hem))) < 0.008:
        _dim(color, 0.6)
    if o.buttons > 0 and front and side < 0.012 and (o.buttons != 2 or y > f.shoulder_y - 0.12):
        knob = side < 0.006 and (y / 0.075) % 1 < 0.15
        _dim(color, (0.35 if knob else 0.86) if o.buttons != 3 else 0.6)
    if o.pocket > 0 and front and side < 0.12 and y < hem + 0.17 and y > hem + 0.03:
        border = abs(y - hem - 0.165) < 0.006 or abs(side - 0.115 + max(y - hem - 0.1, 0.0) * 0.4) < 0.006
        _dim(color, 0.65 if border else 0.93)
    if down < o.collar and side < 0.11:
        _dim(color, 0.8)
    if y < hem + 0.022:
        _dim(color, 0.82)
    return TOP_AREA


@numba.njit(cache=True, nogil=True)
def _legwear(o, f, x, y, z, width, color):
    """Colour of a point below the hem; returns its area."""
    share = (f.hip - y) / (f.hip - f.ankle)
    hem = f.pelvis + o.hem
    if y >= hem:
        _fabric(o.top, y, x, x, y, z, width, color)
        return TOP_AREA
    if share > o.length:
        if y < f.ankle + o.socks and o.socks > 0:
            for c in range(3):
                color[c] = o.socks_color[c] * (0.85 if y > f.ankle + o.socks - 0.015 else 1.0)
            return OTHER_AREA
        for c in range(3):
            color[c] = o.skin[c] * (0.95 + 0.1 * value3(x * 30, y * 30, z * 30, o.seed))
        return SKIN_AREA
    if o.belt > 0 and y > f.pelvis + 0.035 and y < f.pelvis + 0.075:
        buckle = abs(x) < 0.022 and z > f.spine_z
        for c in range(3):
            color[c] = 0.55 if buckle else o.belt_color[c]
        return OTHER_AREA
    _fabric(o.bottom, y, x, x, y, z, width, color)
    outer = abs(x) - (0.09 + 0.05 * min(max(1 - share, 0.0), 1.0))
    if o.side_stripe > 0 and abs(z - f.spine_z) < 0.02 and outer > 0.0:
        _put(color, o.bottom.second, 0.9)
    if o.denim > 0:
        worn = max(0.0, 1 - ((share - 0.25) / 0.3) ** 2) * (1.0 if z > f.spine_z else 0.4)
        for c in range(3):
            color[c] += (0.55 - color[c]) * 0.10 * worn
        if outer > 0.0 and abs(z - f.spine_z) < 0.006:
            _dim(color, 0.7)
    if share > o.length - 0.02:
        _dim(color, 0.8)
    return BOTTOM_AREA


@numba.njit(cache=True, nogil=True)
def surface(o, f, group, x, y, z, width, color):
    """Linear colour (written to `color`) and area of the template's surface at (x, y, z), metres.

    width: of a pixel, metres, for soft edges. o: an `OUTFIT` record, f: the `figure`.
    """
    side = abs(x)
    if group == HEAD:
        return _head(o, f, x, y, z, width, color)
    if group in (NECK, TORSO, ARM):
        # Seams follow the pattern, not the triangles: a collar's height, a sleeve's armhole.
        if side < f.shoulder_x + 0.012 or y < f.shoulder_y - 0.13:
            if y > f.neck_y + max(o.collar * 0.6, 0.04 * o.scarf) and side < 0.075:
                return _head(o, f, x, y, z, width, color)
            return _trunk(o, f, x, y, z, width, color)
        group = ARM
    if group == LEG:
        return _legwear(o, f, x, y, z, width, color)
    if group == FOOT:
        if o.barefoot == 0 and y < f.ankle - 0.01 + o.shoe_height:
            if y < f.sole + 0.022:
                for c in range(3):
                    color[c] = o.sole[c]
                return OTHER_AREA
            for c in range(3):
                color[c] = o.shoes[c] * (0.9 + 0.2 * value3(x * 40, y * 40, z * 40, o.seed))
            laces = z > f.toe_z - 0.17 and z < f.toe_z - 0.06 and y > f.sole + 0.045
            if laces and (z / 0.018) % 1 < 0.4:
                _put(color, o.sole, 0.7)
            return SHOES_AREA
        return _legwear(o, f, x, y, z, width, color)
    share = (side - f.shoulder_x) / (f.wrist_x - f.shoulder_x)
    if group == ARM and share < o.sleeve and not (o.tank > 0):
        _fabric(o.top, side, y, x, y, z, width, color)
        if share > o.sleeve - 0.035:
            _dim(color, 0.8)
        return TOP_AREA
    for c in range(3):
        color[c] = o.skin[c] * (0.95 + 0.1 * value3(x * 30, y * 30, z * 30, o.seed))
    if group == HAND and o.gloves > 0:
        _put(color, o.strap_color, 1.0)
        return OTHER_AREA
    if o.watch > 0 and abs(share - 0.955) < 0.022 and (x > 0) == (o.watch == 1) and o.sleeve < 0.9:
        for c in range(3):
            color[c] = 0.03
        return OTHER_AREA
    if group == HAND and share < o.sleeve and o.tank == 0:
        _fabric(o.top, side, y, x, y, z, width, color)
        return TOP_AREA
    return SKIN_AREA

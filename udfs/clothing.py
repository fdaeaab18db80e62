"""What a body wears, and the colour of each point of its skin, hair and clothes.

Garments are cut in the template's rest pose: a sleeve ends at a share of the way from the shoulder to the
wrist, a hem at a height. So one tailor fits the stand-in and the licensed SMPL-X alike, and the cut is as
sharp as the pixels.
"""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from udfs.body import Body
from udfs.grammar import BOTTOMS, COLORS, HAIR, TOPS
from udfs.noise import cell, step, value3

TORSO, ARM, HAND, LEG, FOOT, HEAD, NECK = range(7)

SKIN_AREA, TOP_AREA, BOTTOM_AREA, SHOES_AREA, HAIR_AREA, OTHER_AREA = range(6)
"""What a point of the surface belongs to; OTHER is what no caption names: belts, straps, socks, eyes."""

_GROUPS: Mapping[int, tuple[int, ...]] = {
    TORSO: (0, 3, 6, 9, 13, 14),
    ARM: (16, 17, 18, 19),
    HAND: (20, 21, *range(25, 55)),
    LEG: (1, 2, 4, 5),
    FOOT: (7, 8, 10, 11),
    HEAD: (15, 22, 23, 24),
    NECK: (12,),
}

_FIGURE = np.dtype(
    [
        (name, "f8")
        for name in (
            "sole crown chin nape hip knee ankle pelvis shoulder_x shoulder_y elbow_x wrist_x neck_y neck_z "
            "spine_z eye_x eye_y eye_z nose_y nose_z mouth_y mouth_z mouth_half ear_x ear_y ear_z toe_z"
        ).split()
    ]
)

_PLAIN, _STRIPES, _PINSTRIPES, _CHECKS, _DOTS, _HEATHER, _BAND, _PRINT = range(8)

_CLOTH = np.dtype(
    [
        ("color", "f8", 3),
        ("second", "f8", 3),
        ("pattern", "i8"),
        ("scale", "f8"),
        ("amount", "f8"),
        ("seed", "i8"),
    ]
)

OUTFIT = np.dtype(
    [
        ("seed", "i8"),
        ("skin", "f8", 3),
        ("hair", "f8", 3),
        ("lips", "f8", 3),
        ("iris", "f8", 3),
        ("hair_style", "i8"),
        ("hair_length", "f8"),
        ("hairline", "f8"),
        ("beard", "f8"),
        ("hat", "i8"),
        ("hat_color", "f8", 3),
        ("glasses", "i8"),
        ("top", _CLOTH),
        ("sleeve", "f8"),
        ("tank", "i8"),
        ("neckline", "f8"),
        ("vneck", "f8"),
        ("collar", "f8"),
        ("opening", "f8"),
        ("inner", "f8", 3),
        ("buttons", "i8"),
        ("pocket", "i8"),
        ("hem", "f8"),
        ("bottom", _CLOTH),
        ("length", "f8"),
        ("denim", "f8"),
        ("side_stripe", "f8"),
        ("belt", "i8"),
        ("belt_color", "f8", 3),
        ("socks", "f8"),
        ("socks_color", "f8", 3),
        ("shoes", "f8", 3),
        ("sole", "f8", 3),
        ("barefoot", "i8"),
        ("shoe_height", "f8"),
        ("strap", "i8"),
        ("strap_color", "f8", 3),
        ("watch", "i8"),
        ("gloves", "i8"),
        ("scarf", "i8"),
        ("scarf_color", "f8", 3),
        ("folds", "f8"),
    ]
)
"""Every choice that dresses one person; colours are linear RGB."""

_SKIN_TONES = (
    (255, 224, 196), (246, 205, 170), (232, 184, 145), (214, 160, 118), (190, 134, 92), (160, 106, 70),
    (128, 82, 54), (96, 60, 40),
)  # fmt: skip
_TONES_BY_WORD: Mapping[str, tuple[int, ...]] = {
    "African": (5, 6, 7),
    "European": (0, 1, 2),
    "East Asian": (1, 2),
    "South Asian": (3, 4, 5),
    "Middle Eastern": (2, 3, 4),
    "Latin American": (2, 3, 4),
    "Pacific Islander": (3, 4, 5),
}
_BAREFOOT_SCENES = ("beach", "poolside", "dance studio")
_WARM_SCENES = ("snowy field", "ski slope")


def linear(color: tuple[float, float, float] | np.ndarray) -> np.ndarray:
    """(3,) sRGB in 0..255 to linear light in 0..1."""
    c = np.asarray(color, np.float64) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def figure(body: Body) -> np.void:
    """Where the tailor measures: heights and depths of the template's landmarks, metres."""
    joints = body({"betas": np.zeros((1, 10), np.float32)}).joints[0].astype(np.float64)
    template = body.template.astype(np.float64)
    face = joints[76:]
    nose, mouth = joints[55], face[31:].mean(0)
    chin = mouth[1] - 1.2 * (nose[1] - mouth[1])
    ears = joints[58:60]
    f = np.zeros((), _FIGURE)
    f["sole"], f["crown"], f["chin"] = template[:, 1].min(), template[:, 1].max(), chin
    f["hip"], f["knee"] = joints[1:3, 1].mean(), joints[4:6, 1].mean()
    f["ankle"], f["pelvis"] = joints[7:9, 1].mean(), joints[0, 1]
    f["shoulder_x"], f["shoulder_y"] = np.abs(joints[16:18, 0]).mean(), joints[16:18, 1].mean()
    f["elbow_x"], f["wrist_x"] = np.abs(joints[18:20, 0]).mean(), np.abs(joints[20:22, 0]).mean()
    f["neck_y"], f["neck_z"], f["spine_z"] = joints[12, 1], joints[12, 2], joints[6, 2]
    f["eye_x"], f["eye_y"] = np.abs(joints[23:25, 0]).mean(), joints[23:25, 1].mean()
    f["eye_z"], f["nose_y"], f["nose_z"] = joints[23:25, 2].mean(), nose[1], nose[2]
    f["mouth_y"], f["mouth_z"], f["mouth_half"] = mouth[1], mouth[2], np.abs(face[31:, 0]).max()
    f["ear_x"], f["ear_y"], f["ear_z"] = np.abs(ears[:, 0]).mean(), ears[:, 1].mean(), ears[:, 2].mean()
    f["nape"], f["toe_z"] = f["ear_y"] - 0.3 * (f["crown"] - chin), template[:, 2].max()
    return f[()]


def face_groups(body: Body) -> np.ndarray:
    """(F,) int8: TORSO, ARM, ... of each triangle, that of two of its corners at least."""
    group = np.zeros(55, np.int8)
    for name, joints in _GROUPS.items():
        group[list(joints)] = name
    corners = np.sort(group[body.vertex_part][body.faces], axis=1)
    return corners[:, 1]


def outfit(said: Mapping[str, str | None], seed: int) -> np.void:
    """Dresses a person as a caption's attributes say; what they leave open is drawn from the seed."""
    rng = np.random.default_rng([seed, 1])
    o = np.zeros((), OUTFIT)
    subject = said.get("subject") or rng.choice(["woman", "man"])
    if subject in ("person", "child"):
        subject = rng.choice(["woman", "man"])
    feminine = subject in ("woman", "girl")
    scene, demographic = said.get("scene") or "", said.get("demographic") or ""
    o["seed"] = rng.integers(1 << 20)
    _face(o, said, feminine, demographic, scene, rng)
    top = said.get("top") or str(rng.choice(list(TOPS)))
    bottom = said.get("bottom") or str(rng.choice([b for b in BOTTOMS if feminine or b != "skirt"]))
    _top(o, top, said.get("top_color"), feminine, rng)
    _bottom(o, bottom, said.get("bottom_color"), rng)
    _extras(o, said.get("shoes_color"), scene, top, rng)
    return o[()]


def _color(word: str | None, rng: np.random.Generator) -> np.ndarray:
    base = np.asarray(COLORS[word if word in COLORS else str(rng.choice(list(COLORS)))], float)
    return linear(np.clip(base + rng.normal(0, 4, 3) + rng.normal(0, 3), 4, 252))


def _face(
    o: Any,
    said: Mapping[str, str | None],
    feminine: bool,
    demographic: str,
    scene: str,
    rng: np.random.Generator,
) -> None:
    tones = np.asarray(_SKIN_TONES, float)[list(_TONES_BY_WORD.get(demographic, range(len(_SKIN_TONES))))]
    low, high = tones[rng.integers(len(tones))], tones[rng.integers(len(tones))]
    o["skin"] = linear(low + (high - low) * rng.uniform(0, 0.3) + rng.normal(0, 3, 3))
    o["lips"] = o["skin"] * rng.uniform(0.45, 0.75) * np.array([1.25, 0.7, 0.75])
    o["iris"] = linear(np.array([[70, 45, 30], [60, 90, 120], [70, 90, 60], [40, 28, 22]])[rng.integers(4)])
    words = list(HAIR)
    if demographic == "older":
        words = ["grey", "white", "grey", "brown"]
    elif demographic in _TONES_BY_WORD and demographic not in ("European", "Latin American"):
        words = ["black", "black", "brown"]
    word = said.get("hair_color")
    o["hair"] = linear(np.asarray(HAIR[word if word in HAIR else str(rng.choice(words))], float))
    bald = not word and not feminine and rng.random() < 0.1
    o["hair_style"] = 0 if bald else 1 + (rng.random() < (0.75 if feminine else 0.1))
    o["hair_length"] = rng.uniform(0.02, 0.3)
    o["hairline"] = rng.normal(0, 0.12)
    o["beard"] = 0 if feminine else rng.choice([0, 0, 0, 0.45, 0.95])
    cold = scene in _WARM_SCENES
    covered = 0.6 if cold else 0.06 if word else 0.16
    o["hat"] = (2 if cold else rng.choice([1, 1, 2, 3])) if rng.random() < covered else 0
    o["hat_color"] = _color(None, rng)
    o["glasses"] = rng.choice([0, 0, 0, 0, 0, 1, 2])


def _cloth(word: str | None, patterns: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    cloth = np.zeros((), _CLOTH)
    color = _color(word, rng)
    cloth["color"] = color
    bright = color @ np.array([0.2126, 0.7152, 0.0722])
    darker, lighter = color * rng.uniform(0.35, 0.6), color + (1 - color) * rng.uniform(0.35, 0.6)
    contrast = linear((240, 240, 236)) if bright < 0.3 else linear((35, 37, 45))
    cloth["second"] = (darker if bright > 0.12 else lighter) if rng.random() < 0.65 else contrast
    cloth["pattern"] = rng.choice(patterns)
    if cloth["pattern"] == _HEATHER:  # melange mixes shades of one colour
        cloth["second"] = darker if bright > 0.12 else color + (1 - color) * 0.2
    cloth["scale"] = rng.uniform(0.03, 0.1)
    cloth["amount"] = rng.uniform(0.15, 0.33)
    cloth["seed"] = rng.integers(1 << 20)
    return cloth


def _top(o: Any, top: str, color: str | None, feminine: bool, rng: np.random.Generator) -> None:
    patterns = (_PLAIN,) * 5 + (
        _STRIPES,
        _PINSTRIPES,
        _CHECKS,
        _DOTS,
        _HEATHER,
        _HEATHER,
        _BAND,
        _PRINT,
        _PRINT,
    )
    if top in ("hoodie", "jacket", "sweater"):
        patterns = (_PLAIN,) * 5 + (_STRIPES, _HEATHER, _HEATHER, _BAND, _PRINT)
    o["top"] = _cloth(color, patterns, rng)
    length = TOPS.get(top, "short")
    o["sleeve"] = {"none": 0.0, "short": rng.uniform(0.24, 0.42), "long": rng.uniform(0.93, 1.0)}[length]
    o["tank"] = length == "none"
    o["neckline"] = rng.uniform(0.055, 0.085) + 0.03 * (length == "none") + 0.015 * feminine
    o["vneck"] = rng.random() < 0.25
    o["collar"] = rng.uniform(0.02, 0.05) if top in ("shirt", "polo shirt", "hoodie", "jacket") else 0.0
    if top in ("hoodie", "shirt", "polo shirt"):
        o["neckline"] = 0.05
        o["vneck"] = 1
    o["opening"] = rng.uniform(0.02, 0.07) if top == "jacket" and rng.random() < 0.6 else 0.0
    o["inner"] = _color(None, rng)
    o["buttons"] = {"shirt": 1, "polo shirt": 2, "jacket": 3, "hoodie": 3 * int(rng.random() < 0.4)}.get(
        top, 0
    )
    o["pocket"] = top == "hoodie"
    o["hem"] = (
        rng.uniform(-0.09, -0.02) if top in ("hoodie", "jacket", "sweater") else rng.uniform(-0.07, 0.08)
    )


def _bottom(o: Any, bottom: str, color: str | None, rng: np.random.Generator) -> None:
    patterns = (_PLAIN,) * 8 + (_HEATHER, _HEATHER, _CHECKS, _PINSTRIPES)
    o["bottom"] = _cloth(color, (_HEATHER,) if bottom == "jeans" else patterns, rng)
    o["bottom"]["amount"] *= 0.7
    if bottom == "jeans":
        o["bottom"]["second"] = o["bottom"]["color"] * 0.7 + 0.3 * linear((200, 210, 225))
        o["bottom"]["scale"] = 0.05
    kind = BOTTOMS.get(bottom, "long")
    o["length"] = {"short": rng.uniform(0.3, 0.46), "skirt": rng.uniform(0.28, 0.5)}.get(
        kind, rng.uniform(0.9, 1.0)
    )
    o["denim"] = bottom == "jeans"
    o["side_stripe"] = bottom in ("sweatpants", "leggings", "shorts") and rng.random() < 0.35
    o["belt"] = bottom in ("jeans", "trousers", "shorts") and rng.random() < 0.5
    o["belt_color"] = linear(np.array([[60, 38, 24], [25, 25, 27], [150, 110, 70]])[rng.integers(3)])


def _extras(o: Any, shoes: str | None, scene: str, top: str, rng: np.random.Generator) -> None:
    o["shoes"] = _color(shoes, rng)
    o["sole"] = (
        linear(rng.choice([235, 225, 60, 120]) + np.zeros(3)) if rng.random() < 0.7 else o["shoes"] * 0.5
    )
    o["barefoot"] = shoes is None and rng.random() < (0.6 if scene in _BAREFOOT_SCENES else 0.02)
    o["shoe_height"] = rng.choice([0.015, 0.03, 0.11], p=[0.5, 0.35, 0.15])
    o["socks"] = rng.choice([0.0, 0.03, 0.08, 0.22], p=[0.3, 0.3, 0.25, 0.15])
    o["socks_color"] = linear((238, 238, 236)) if rng.random() < 0.6 else _color(None, rng)
    o["strap"] = rng.choice([0, 1, 2, 3], p=[0.74, 0.1, 0.06, 0.1])
    o["strap_color"] = _color(None, rng) * 0.6
    o["watch"] = rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1])
    o["gloves"] = rng.random() < (0.7 if scene in _WARM_SCENES else 0.03)
    o["scarf"] = rng.random() < (0.4 if scene in _WARM_SCENES else 0.04) and top != "tank top"
    o["scarf_color"] = _color(None, rng)
    o["folds"] = rng.uniform(0.5, 1.0)


@numba.njit(cache=True, nogil=True)
def _fabric(cloth, along, across, x, y, z, width, color):
    """Colour of a garment; `along` runs down the limb or the trunk, `across` around it."""
    kind, scale = cloth.pattern, cloth.scale
    mix = 0.0
    if kind == 1:
        mix = step(cloth.amount * 2 - abs((along / scale) % 2 - 1) * 2, width / scale)
    elif kind == 2:
        mix = step(cloth.amount - abs((across / (scale * 0.7)) % 2 - 1), width / scale) * 0.8
    elif kind == 3:
        a = step(0.22 - abs((along / scale) % 2 - 1), width / scale)
        b = step(0.22 - abs((across / scale) % 2 - 1), width / scale)
        mix = 0.42 * (a + b)
    elif kind == 4:
        u, v = (along / scale) % 1 - 0.5, (across / scale) % 1 - 0.5
        mix = step(0.25 - np.sqrt(u * u + v * v), width / scale)
    elif kind == 5:
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
            return 5
        if o.hat == 3 and abs(y - rim - 0.06 * tall) < 0.045 * tall:
            _put(color, o.hat_color, 1.0)
            return 5
    if hair:
        streak = value3(np.arctan2(x, z - f.ear_z) * 9, y * 14, 0.0, o.seed + 5)
        streak = 0.72 + 0.4 * streak + 0.2 * (value3(x * 160, y * 25, z * 160, o.seed + 6) - 0.5)
        for c in range(3):
            color[c] = o.hair[c] * streak
        return 4
    if z < f.ear_z + 0.1 * (f.nose_z - f.ear_z):
        return 0
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
    return 0


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
            return 4
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
        return 0
    if o.tank > 0 and side > f.shoulder_x * 0.8 and y > f.shoulder_y - 0.14:
        for c in range(3):
            color[c] = o.skin[c]
        return 0
    if (
        o.scarf > 0
        and side < 0.125 - 0.6 * max(down, 0.0)
        and down < 0.07 + (0.25 if front and abs(x - 0.05) < 0.035 else 0.0)
    ):
        for c in range(3):
            color[c] = o.scarf_color[c] * (0.8 + 0.3 * value3(x * 30, y * 90, z * 30, o.seed))
        return 5
    if (o.strap == 1 and abs(side - 0.1) < 0.022 and (front or y > f.shoulder_y - 0.05)) or (
        o.strap == 2 and abs(x * 0.85 + (y - f.shoulder_y + 0.2) * 0.52) < 0.018
    ):
        for c in range(3):
            color[c] = o.strap_color[c]
        return 5
    if o.strap == 1 and not front and side < 0.135 and y > hem + 0.12 and y < f.shoulder_y:
        for c in range(3):
            color[c] = o.strap_color[c] * (1.15 if abs(y - f.shoulder_y + 0.2) > 0.012 else 0.6)
        return 5
    if o.opening > 0 and front and side < o.opening * (0.6 + 0.5 * (y - hem) / (f.neck_y - hem)):
        for c in range(3):
            color[c] = o.inner[c]
        return 5
    _fabric(o.top, y, x, x, y, z, width, color)
    if o.top.pattern == 6 and abs(y - f.shoulder_y + 0.14) < 0.045:
        _put(color, o.top.second, 0.9)
    if o.top.pattern == 7 and front and side < 0.09 and abs(y - f.shoulder_y + 0.13) < 0.07:
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
    return 1


@numba.njit(cache=True, nogil=True)
def _legwear(o, f, x, y, z, width, color):
    """Colour of a point below the hem; returns its area."""
    share = (f.hip - y) / (f.hip - f.ankle)
    hem = f.pelvis + o.hem
    if y >= hem:
        _fabric(o.top, y, x, x, y, z, width, color)
        return 1
    if share > o.length:
        if y < f.ankle + o.socks and o.socks > 0:
            for c in range(3):
                color[c] = o.socks_color[c] * (0.85 if y > f.ankle + o.socks - 0.015 else 1.0)
            return 5
        for c in range(3):
            color[c] = o.skin[c] * (0.95 + 0.1 * value3(x * 30, y * 30, z * 30, o.seed))
        return 0
    if o.belt > 0 and y > f.pelvis + 0.035 and y < f.pelvis + 0.075:
        buckle = abs(x) < 0.022 and z > f.spine_z
        for c in range(3):
            color[c] = 0.55 if buckle else o.belt_color[c]
        return 5
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
    return 2


@numba.njit(cache=True, nogil=True)
def surface(o, f, group, x, y, z, width, color):
    """Linear colour (written to `color`) and area of the template's surface at (x, y, z), metres.

    width: of a pixel, metres, for soft edges. o: an `OUTFIT` record, f: the `figure`.
    """
    side = abs(x)
    if group == HEAD:
        return _head(o, f, x, y, z, width, color)
    if group == NECK or group == TORSO or group == ARM:
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
                return 5
            for c in range(3):
                color[c] = o.shoes[c] * (0.9 + 0.2 * value3(x * 40, y * 40, z * 40, o.seed))
            laces = z > f.toe_z - 0.17 and z < f.toe_z - 0.06 and y > f.sole + 0.045
            if laces and (z / 0.018) % 1 < 0.4:
                _put(color, o.sole, 0.7)
            return 3
        return _legwear(o, f, x, y, z, width, color)
    share = (side - f.shoulder_x) / (f.wrist_x - f.shoulder_x)
    if group == ARM and share < o.sleeve and not (o.tank > 0):
        _fabric(o.top, side, y, x, y, z, width, color)
        if share > o.sleeve - 0.035:
            _dim(color, 0.8)
        return 1
    for c in range(3):
        color[c] = o.skin[c] * (0.95 + 0.1 * value3(x * 30, y * 30, z * 30, o.seed))
    if group == HAND and o.gloves > 0:
        _put(color, o.strap_color, 1.0)
        return 5
    if o.watch > 0 and abs(share - 0.955) < 0.022 and (x > 0) == (o.watch == 1) and o.sleeve < 0.9:
        for c in range(3):
            color[c] = 0.03
        return 5
    if group == HAND and share < o.sleeve and o.tank == 0:
        _fabric(o.top, side, y, x, y, z, width, color)
        return 1
    return 0

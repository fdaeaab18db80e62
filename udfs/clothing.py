"""What a body wears and how it looks: every choice, from a caption's attributes and a seed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from udfs.grammar import BOTTOMS, COLORS, HAIR, TOPS
from udfs.light_color import linear

PLAIN, STRIPES, PINSTRIPES, CHECKS, DOTS, HEATHER, BAND, PRINT = range(8)

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


def outfit(said: Mapping[str, str | None], seed: int) -> np.void:
    """Dresses a person as a caption's attributes say; what they leave open is drawn from the seed."""
    rng = np.random.default_rng([seed, 1])
    o: Any = np.zeros((), OUTFIT)
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
    base = np.array(COLORS[word if word and word in COLORS else str(rng.choice(list(COLORS)))])
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
    o["hair"] = linear(HAIR[word if word and word in HAIR else str(rng.choice(words))])
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
    if cloth["pattern"] == HEATHER:  # melange mixes shades of one colour
        cloth["second"] = darker if bright > 0.12 else color + (1 - color) * 0.2
    cloth["scale"] = rng.uniform(0.03, 0.1)
    cloth["amount"] = rng.uniform(0.15, 0.33)
    cloth["seed"] = rng.integers(1 << 20)
    return cloth


def _top(o: Any, top: str, color: str | None, feminine: bool, rng: np.random.Generator) -> None:
    patterns: tuple[int, ...] = (PLAIN,) * 5
    patterns += (STRIPES, PINSTRIPES, CHECKS, DOTS, HEATHER, HEATHER, BAND, PRINT, PRINT)
    if top in ("hoodie", "jacket", "sweater"):
        patterns = (PLAIN,) * 5 + (STRIPES, HEATHER, HEATHER, BAND, PRINT)
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
    patterns = (PLAIN,) * 8 + (HEATHER, HEATHER, CHECKS, PINSTRIPES)
    o["bottom"] = _cloth(color, (HEATHER,) if bottom == "jeans" else patterns, rng)
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

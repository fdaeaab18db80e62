"""What stands around the person: which ground, sky, walls and things make a scene of the caption grammar."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from udfs.grammar import COLORS, SCENES
from udfs.light_color import linear
from udfs.recipes import (
    BOARD,
    BOX,
    BUILDING,
    BUSH,
    CAR,
    CONIFER,
    DOOR,
    FENCE,
    FRAME,
    PLAIN,
    POLE,
    RACK,
    RECIPES,
    ROCK,
    SOFA,
    STANDS,
    STRIPES,
    TREE,
    WINDOW,
    Recipe,
    Srgb,
)

PROP = np.dtype(
    [
        ("kind", "i8"),
        ("side", "f8"),
        ("base", "f8"),
        ("width", "f8"),
        ("height", "f8"),
        ("distance", "f8"),
        ("yaw", "f8"),
        ("color", "f8", 3),
        ("second", "f8", 3),
        ("seed", "i8"),
    ]
)
"""A thing: metres to the right of the camera, above the ground, wide, high, away; linear colours."""

SETTING = np.dtype(
    [
        ("seed", "i8"),
        ("ground", "i8"),
        ("ground_colors", "f8", (2, 3)),
        ("beyond", "i8"),
        ("beyond_colors", "f8", (2, 3)),
        ("border", "f8"),
        ("wall", "i8"),
        ("wall_colors", "f8", (2, 3)),
        ("wall_distance", "f8"),
        ("wall_yaw", "f8"),
        ("wall_scale", "f8"),
        ("ceiling", "f8"),
        ("skirting", "f8"),
        ("sky", "f8", (2, 3)),
        ("clouds", "f8"),
        ("hills", "f8", 2),
        ("hill_colors", "f8", (2, 3)),
        ("haze", "f8"),
        ("light", "f8", 3),
        ("gradient", "f8", 2),
        ("scale", "f8"),
    ]
)
"""Everything but the things. wall -1: open sky. Distances in metres from the camera, along the ground."""


_SIZES: Mapping[int, tuple[float, float, float, float]] = {
    TREE: (3.0, 6.0, 4.0, 8.0),
    CONIFER: (2.0, 3.5, 4.0, 10.0),
    BUILDING: (6.0, 14.0, 6.0, 22.0),
    POLE: (0.5, 0.9, 3.0, 6.0),
    BUSH: (1.0, 2.6, 0.6, 1.6),
    BOX: (0.6, 1.6, 0.5, 1.2),
    ROCK: (0.8, 3.0, 0.4, 1.6),
    CAR: (3.8, 4.8, 1.4, 1.7),
    FENCE: (14.0, 24.0, 0.9, 1.6),
    STANDS: (12.0, 22.0, 2.5, 5.0),
    SOFA: (1.6, 2.3, 0.75, 0.95),
    WINDOW: (0.9, 1.7, 1.1, 1.6),
    DOOR: (0.85, 1.0, 2.0, 2.15),
    FRAME: (0.4, 1.1, 0.4, 0.9),
    BOARD: (1.0, 2.4, 0.8, 1.2),
    RACK: (1.2, 2.4, 1.2, 2.0),
}
_BASE = {WINDOW: 0.95, FRAME: 1.35, BOARD: 1.0, RACK: 0.0}
_LEAVES: tuple[Srgb, ...] = ((58, 92, 42), (84, 110, 50), (46, 78, 52), (120, 110, 48), (60, 88, 66))
_FACADES: tuple[Srgb, ...] = (
    (176, 160, 140),
    (150, 110, 92),
    (196, 188, 174),
    (132, 136, 144),
    (110, 100, 96),
    (205, 180, 150),
)
_SKIES: tuple[tuple[Srgb, Srgb], ...] = (
    ((92, 148, 214), (190, 214, 234)), ((120, 165, 215), (215, 226, 236)), ((150, 170, 190), (212, 218, 224)),
    ((70, 130, 205), (160, 200, 232)),
)  # fmt: skip
_MOODS: Mapping[str, tuple[Srgb, Srgb]] = {
    "golden hour light": ((140, 165, 200), (250, 214, 160)),
    "warm sunset light": ((110, 115, 165), (250, 170, 110)),
    "soft overcast light": ((190, 196, 202), (222, 225, 228)),
    "blue hour light": ((38, 52, 100), (110, 120, 165)),
    "cool morning light": ((140, 170, 210), (226, 230, 238)),
    "hazy sunlight": ((180, 196, 210), (238, 232, 216)),
}


def scenery(
    said: Mapping[str, str | None], seed: int, distance: float, brightness: np.ndarray
) -> tuple[np.void, np.ndarray]:
    """The setting and the things of a scene that a caption names, or of one that the seed picks.

    Args:
        distance: metres along the ground from the camera to the person.
        brightness: (3,) linear light on the surroundings.
    """
    rng = np.random.default_rng([seed, 3])
    name = said.get("scene") or ""
    if name not in RECIPES:
        plain = [s.name for s in SCENES if s.group == "studio"]
        names = plain if said.get("background_color") else list(RECIPES)
        name = names[rng.integers(len(names))]
    recipe = RECIPES[name]
    o: Any = np.zeros((), SETTING)
    o["seed"], o["light"], o["scale"] = rng.integers(1 << 20), brightness, rng.uniform(0.8, 1.3)
    o["ground"] = recipe.ground
    o["ground_colors"] = _pair(recipe.colors, rng)
    o["beyond"], o["border"] = -1, np.inf
    if recipe.beyond is not None:
        texture, first, second, border = recipe.beyond
        o["beyond"], o["border"] = texture, distance + border * rng.uniform(0.6, 1.6)
        o["beyond_colors"] = _pair((first, second), rng)
    mood = _MOODS.get(said.get("lighting") or "") or _SKIES[rng.integers(len(_SKIES))]
    o["sky"] = _pair(mood, rng, 0.3)
    o["clouds"] = rng.choice([0.0, 0.3, 0.6, 0.9])
    o["hills"] = recipe.hills * rng.uniform(0.5, 1.5, 2) * np.array([1.0, 0.55])
    o["hill_colors"] = _pair(recipe.hill_colors, rng)
    o["haze"] = rng.uniform(90, 400)
    o["gradient"] = rng.uniform(-0.25, 0.25, 2)
    o["wall"], o["wall_distance"] = -1, np.inf
    if recipe.wall is not None:
        _wall(o, recipe, said.get("background_color"), distance, rng)
    return o[()], _props(o, recipe, distance, rng)


def _pair(colors: tuple[Srgb, ...], rng: np.random.Generator, spread: float = 1.0) -> np.ndarray:
    shift = rng.normal(0, 7 * spread, 3) + rng.normal(0, 8)
    noise = rng.normal(0, 4 * spread, (len(colors), 3))
    return linear(np.clip(np.asarray(colors, float) + shift + noise, 3, 252))


def _wall(o: Any, recipe: Recipe, word: str | None, distance: float, rng: np.random.Generator) -> None:
    o["wall"], o["wall_scale"] = recipe.wall, rng.uniform(0.7, 1.4)
    if recipe.wall == PLAIN and not recipe.sweep and rng.random() < 0.25 and word is None:
        o["wall"] = STRIPES
    choice = recipe.wall_colors[rng.integers(len(recipe.wall_colors))]
    color = COLORS.get(word or "", choice)
    first = (
        _pair((color,), rng)[0] if word is None else linear(np.asarray(color, float) + rng.normal(0, 2, 3))
    )
    o["wall_colors"] = np.stack([first, first * rng.uniform(0.55, 0.85)])
    o["wall_distance"] = distance + (rng.uniform(1.2, 2.5) if recipe.sweep else rng.uniform(0.9, 4.0))
    o["wall_yaw"] = 0.0 if recipe.sweep else rng.normal(0, 0.22)
    o["ceiling"] = rng.uniform(2.6, 3.6) if not recipe.sweep else 50.0
    o["skirting"] = 0.0 if recipe.sweep or rng.random() < 0.4 else rng.uniform(0.06, 0.14)
    if recipe.sweep:
        o["ground_colors"] = np.stack([first, first * 0.93])


def _props(o: Any, recipe: Recipe, distance: float, rng: np.random.Generator) -> np.ndarray:
    props = []
    kinds = [k for k in recipe.props for _ in range(rng.integers(0, 3) if k not in (FENCE, STANDS) else 1)]
    for kind in kinds:
        far = rng.uniform(1.5, 22) if kind not in (BUILDING,) else rng.uniform(10, 45)
        if kind in (BOX, SOFA, RACK):
            far = rng.uniform(0.7, 5)
        away = distance + far
        if o["wall"] >= 0:
            away = min(away, float(o["wall_distance"]) - 0.15)
        if away < distance + 0.45:
            continue
        props.append(_prop(kind, away, 0.0, rng.uniform(-0.55, 0.55) * away, rng))
    if o["wall"] >= 0:
        place = rng.uniform(-2.5, -1.0)
        for kind in rng.permutation(np.array(recipe.decor, int)):
            if rng.random() < 0.85:
                prop = _prop(int(kind), float(o["wall_distance"]) - 0.02, float(o["wall_yaw"]), place, rng)
                props.append(prop)
                place += float(prop["width"]) + rng.uniform(0.2, 0.9)
    ordered = sorted(props, key=lambda p: -float(p["distance"]))
    return np.array(ordered, PROP) if ordered else np.zeros(0, PROP)


def _prop(kind: int, away: float, yaw: float, side: float, rng: np.random.Generator) -> np.ndarray:
    p = np.zeros((), PROP)
    narrow, wide, low, high = _SIZES[kind]
    p["kind"], p["side"], p["distance"], p["yaw"] = kind, side, away, yaw
    p["width"], p["height"] = rng.uniform(narrow, wide), rng.uniform(low, high)
    p["base"] = _BASE.get(kind, 0.0) * rng.uniform(0.85, 1.15)
    palette: tuple[Srgb, ...] = tuple(COLORS.values())
    if kind in (TREE, CONIFER, BUSH):
        palette = _LEAVES
    elif kind in (BUILDING, STANDS):
        palette = _FACADES
    elif kind in (POLE, FENCE, ROCK):
        palette = ((92, 92, 94), (140, 136, 130), (110, 84, 60), (190, 190, 188))
    elif kind in (BOX, DOOR, RACK):
        palette = ((150, 108, 70), (215, 212, 204), (96, 70, 50), (120, 126, 130), (170, 150, 120))
    elif kind == BOARD:
        palette = ((40, 66, 54), (232, 232, 228), (50, 60, 90))
    p["color"] = _pair((palette[rng.integers(len(palette))],), rng)[0]
    others = tuple(COLORS.values())
    p["second"] = _pair((others[rng.integers(len(others))],), rng)[0]
    p["seed"] = rng.integers(1 << 20)
    return p

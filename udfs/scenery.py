"""What stands around the person: which ground, sky, walls and things make a scene of the caption grammar."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from udfs.clothing import linear
from udfs.grammar import COLORS, SCENES

Srgb = tuple[int, int, int]

(
    GRASS,
    ASPHALT,
    SAND,
    TILES,
    PLANKS,
    COBBLES,
    COURT,
    PLAIN,
    WATER,
    BRICK,
    STRIPES,
    CURTAIN,
    PANELS,
    SHELVES,
) = range(14)
"""Textures of grounds and walls."""

TREE, CONIFER, BUILDING, POLE, BUSH, BOX, ROCK, CAR, FENCE, STANDS, SOFA, WINDOW, DOOR, FRAME, BOARD, RACK = (
    range(16)
)
"""Things that stand upright: on the ground, or flat on a wall."""

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


@dataclass(frozen=True)
class Recipe:
    """A scene's ingredients; distances are metres behind the person.

    beyond: texture and colours of the ground from some metres on. wall: None is the open air.
    props: kinds of free-standing things; decor: kinds of things on the wall. hills: height in metres.
    """

    ground: int
    colors: tuple[Srgb, Srgb]
    beyond: tuple[int, Srgb, Srgb, float] | None = None
    wall: int | None = None
    wall_colors: tuple[Srgb, ...] = ()
    props: tuple[int, ...] = ()
    decor: tuple[int, ...] = ()
    hills: float = 0
    hill_colors: tuple[Srgb, Srgb] = ((95, 115, 120), (70, 100, 75))
    sweep: bool = False


_GREEN, _DRY, _ROAD, _STONE = (
    ((92, 128, 58), (62, 98, 42)),
    ((190, 165, 95), (160, 130, 70)),
    ((98, 98, 100), (78, 78, 82)),
    ((160, 155, 148), (120, 116, 110)),
)
_DUNE, _SNOW, _EARTH, _SEA = (
    ((222, 200, 158), (200, 176, 132)),
    ((240, 243, 248), (214, 222, 235)),
    ((140, 115, 85), (110, 90, 66)),
    ((70, 120, 145), (45, 90, 120)),
)
_OAK, _PALE, _GREYS, _LINO = (
    ((168, 124, 82), (140, 98, 62)),
    ((205, 180, 145), (182, 155, 120)),
    ((150, 150, 150), (122, 122, 124)),
    ((190, 188, 180), (165, 162, 155)),
)
_WALLS: tuple[Srgb, ...] = (
    (226, 220, 208),
    (205, 212, 214),
    (214, 202, 186),
    (190, 205, 196),
    (222, 214, 190),
    (176, 186, 196),
    (196, 170, 150),
)
_WATER = (WATER, *_SEA)

RECIPES: Mapping[str, Recipe] = {
    "city street": Recipe(ASPHALT, _ROAD, (TILES, *_STONE, 5.0), props=(BUILDING, BUILDING, BUILDING, CAR, POLE, TREE)),
    "cobbled alley": Recipe(COBBLES, _STONE, props=(BUILDING, BUILDING, DOOR, BOX, POLE), wall=BRICK, wall_colors=((150, 95, 75), (170, 150, 130)), decor=(WINDOW, DOOR)),
    "market": Recipe(COBBLES, _STONE, props=(RACK, RACK, BOX, BOX, BUILDING, POLE)),
    "bus stop": Recipe(TILES, _STONE, (ASPHALT, *_ROAD, 2.5), props=(BUILDING, BUILDING, POLE, CAR, BOARD, TREE)),
    "train platform": Recipe(TILES, _GREYS, (ASPHALT, (90, 80, 72), (60, 55, 50), 3.0), props=(BUILDING, POLE, POLE, BOARD, FENCE)),
    "rooftop": Recipe(TILES, _STONE, props=(FENCE, BUILDING, BUILDING, BUILDING, BOX), hills=6),
    "bridge": Recipe(COBBLES, _STONE, (*_WATER, 4.0), props=(FENCE, POLE, BUILDING, TREE), hills=8),
    "parking lot": Recipe(ASPHALT, _ROAD, props=(CAR, CAR, CAR, POLE, BUILDING, TREE)),
    "town square": Recipe(COBBLES, _STONE, props=(BUILDING, BUILDING, BUILDING, TREE, POLE, BOX)),
    "harbour": Recipe(PLANKS, _GREYS, (*_WATER, 2.5), props=(POLE, POLE, FENCE), hills=9),
    "city steps": Recipe(TILES, _STONE, props=(BUILDING, STANDS, POLE)),
    "beach": Recipe(SAND, _DUNE, (*_WATER, 8.0), props=(ROCK,), hills=2),
    "forest": Recipe(GRASS, ((110, 92, 60), (72, 78, 44)), props=(TREE, CONIFER, CONIFER, TREE, CONIFER, BUSH, BUSH, TREE), hills=14, hill_colors=((60, 84, 62), (44, 66, 42))),
    "meadow": Recipe(GRASS, _GREEN, props=(TREE, BUSH), hills=10, hill_colors=((110, 138, 110), (92, 124, 66))),
    "mountain trail": Recipe(SAND, _EARTH, (GRASS, *_GREEN, 4.0), props=(ROCK, ROCK, CONIFER, BUSH), hills=45, hill_colors=((130, 140, 155), (90, 105, 95))),
    "lake shore": Recipe(SAND, _EARTH, (*_WATER, 4.0), props=(ROCK, BUSH), hills=22),
    "desert": Recipe(SAND, ((214, 176, 122), (190, 148, 96)), props=(ROCK,), hills=12, hill_colors=((205, 165, 120), (196, 156, 106))),
    "snowy field": Recipe(SAND, _SNOW, props=(CONIFER, TREE), hills=12, hill_colors=((205, 215, 228), (225, 230, 238))),
    "park": Recipe(GRASS, _GREEN, (SAND, *_DUNE, 5.0), props=(TREE, TREE, BUSH, POLE, TREE, BOX)),
    "garden": Recipe(GRASS, _GREEN, props=(BUSH, BUSH, FENCE, TREE, BUSH)),
    "riverbank": Recipe(GRASS, _GREEN, (*_WATER, 3.5), props=(BUSH, TREE), hills=10),
    "rocky coast": Recipe(SAND, ((140, 135, 128), (105, 100, 96)), (*_WATER, 6.0), props=(ROCK, ROCK, ROCK), hills=5),
    "wheat field": Recipe(GRASS, ((218, 186, 100), (186, 150, 72)), props=(TREE,), hills=8, hill_colors=((170, 160, 110), (196, 170, 90))),
    "living room": Recipe(PLANKS, _OAK, wall=PLAIN, wall_colors=_WALLS, props=(SOFA, BOX), decor=(WINDOW, FRAME, FRAME)),
    "kitchen": Recipe(TILES, _LINO, wall=TILES, wall_colors=_WALLS, props=(BOX, BOX, BOX), decor=(WINDOW, RACK)),
    "bedroom": Recipe(PLANKS, _PALE, wall=PLAIN, wall_colors=_WALLS, props=(SOFA,), decor=(WINDOW, FRAME)),
    "bathroom": Recipe(TILES, _LINO, wall=TILES, wall_colors=((220, 228, 230), (180, 205, 210)), props=(BOX,), decor=(FRAME, WINDOW)),
    "office": Recipe(PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS, props=(BOX, BOX), decor=(WINDOW, WINDOW, BOARD)),
    "library": Recipe(PLANKS, _OAK, wall=SHELVES, wall_colors=((110, 76, 48), (140, 100, 66)), props=(BOX,), decor=()),
    "restaurant": Recipe(PLANKS, _OAK, wall=PANELS, wall_colors=((150, 105, 75), (120, 60, 50), (90, 100, 90)), props=(BOX, SOFA), decor=(FRAME, WINDOW)),
    "café": Recipe(TILES, _LINO, wall=BRICK, wall_colors=((200, 190, 178), (160, 100, 80)), props=(BOX, BOX), decor=(BOARD, WINDOW)),
    "museum": Recipe(PLANKS, _PALE, wall=PLAIN, wall_colors=((236, 234, 230), (150, 50, 50), (60, 80, 90)), decor=(FRAME, FRAME, FRAME)),
    "classroom": Recipe(PLAIN, _LINO, wall=PLAIN, wall_colors=_WALLS, props=(BOX, BOX), decor=(BOARD, WINDOW)),
    "workshop": Recipe(PLAIN, _GREYS, wall=BRICK, wall_colors=((150, 140, 130), (170, 110, 85)), props=(BOX, RACK), decor=(RACK, WINDOW)),
    "hallway": Recipe(TILES, _LINO, wall=PLAIN, wall_colors=_WALLS, decor=(DOOR, DOOR, FRAME)),
    "warehouse": Recipe(PLAIN, _GREYS, wall=PANELS, wall_colors=((150, 155, 160),), props=(BOX, RACK, BOX, BOX), decor=(DOOR,)),
    "shop": Recipe(TILES, _LINO, wall=SHELVES, wall_colors=((225, 222, 214), (190, 180, 165)), props=(RACK, RACK), decor=()),
    "tennis court": Recipe(COURT, ((60, 110, 150), (60, 110, 150)), (COURT, (70, 125, 80), (70, 125, 80), 5.0), props=(FENCE, TREE, TREE, FENCE), hills=4),
    "basketball court": Recipe(PLANKS, ((205, 155, 100), (190, 140, 88)), wall=PLAIN, wall_colors=_WALLS, props=(STANDS,), decor=(BOARD, DOOR)),
    "football pitch": Recipe(GRASS, ((72, 132, 58), (60, 118, 48)), props=(STANDS, FENCE, POLE, TREE)),
    "baseball field": Recipe(SAND, ((176, 120, 82), (156, 104, 70)), (GRASS, *_GREEN, 4.0), props=(FENCE, STANDS, POLE)),
    "running track": Recipe(COURT, ((180, 80, 60), (180, 80, 60)), (GRASS, *_GREEN, 5.0), props=(STANDS, TREE, POLE)),
    "gym": Recipe(PLAIN, ((70, 72, 76), (60, 62, 66)), wall=PLAIN, wall_colors=_WALLS, props=(RACK, BOX), decor=(WINDOW, FRAME)),
    "dance studio": Recipe(PLANKS, _PALE, wall=PANELS, wall_colors=((205, 212, 216),), decor=(WINDOW, WINDOW)),
    "skate park": Recipe(PLAIN, _GREYS, props=(ROCK, BOX, BUILDING, TREE, POLE), hills=5),
    "climbing hall": Recipe(PLAIN, ((60, 80, 130), (55, 75, 120)), wall=PANELS, wall_colors=((190, 180, 165), (150, 150, 155)), decor=(RACK,)),
    "ski slope": Recipe(SAND, _SNOW, props=(CONIFER, CONIFER, POLE), hills=40, hill_colors=((170, 185, 210), (225, 232, 242))),
    "poolside": Recipe(TILES, ((205, 198, 186), (185, 178, 166)), (WATER, (80, 180, 205), (50, 150, 185), 2.0), props=(FENCE, TREE, BUSH)),
    "boxing gym": Recipe(PLAIN, ((70, 70, 76), (58, 58, 64)), wall=BRICK, wall_colors=((120, 70, 58), (110, 110, 112)), props=(BOX,), decor=(FRAME, WINDOW)),
    "studio backdrop": Recipe(PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS, sweep=True),
    "paper background": Recipe(PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS, sweep=True),
    "painted wall": Recipe(PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS),
    "curtain": Recipe(PLANKS, _OAK, wall=CURTAIN, wall_colors=_WALLS),
    "photo booth": Recipe(PLAIN, _GREYS, wall=PANELS, wall_colors=_WALLS),
}  # fmt: skip
"""By the scene's name in the caption grammar."""

_SIZES: Mapping[int, tuple[float, float, float, float]] = {
    TREE: (3.0, 6.0, 4.0, 8.0), CONIFER: (2.0, 3.5, 4.0, 10.0), BUILDING: (6.0, 14.0, 6.0, 22.0),
    POLE: (0.5, 0.9, 3.0, 6.0), BUSH: (1.0, 2.6, 0.6, 1.6), BOX: (0.6, 1.6, 0.5, 1.2), ROCK: (0.8, 3.0, 0.4, 1.6),
    CAR: (3.8, 4.8, 1.4, 1.7), FENCE: (14.0, 24.0, 0.9, 1.6), STANDS: (12.0, 22.0, 2.5, 5.0),
    SOFA: (1.6, 2.3, 0.75, 0.95), WINDOW: (0.9, 1.7, 1.1, 1.6), DOOR: (0.85, 1.0, 2.0, 2.15),
    FRAME: (0.4, 1.1, 0.4, 0.9), BOARD: (1.0, 2.4, 0.8, 1.2), RACK: (1.2, 2.4, 1.2, 2.0),
}  # fmt: skip
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
    "golden hour light": ((140, 165, 200), (250, 214, 160)), "warm sunset light": ((110, 115, 165), (250, 170, 110)),
    "soft overcast light": ((190, 196, 202), (222, 225, 228)), "blue hour light": ((38, 52, 100), (110, 120, 165)),
    "cool morning light": ((140, 170, 210), (226, 230, 238)), "hazy sunlight": ((180, 196, 210), (238, 232, 216)),
}  # fmt: skip


def scenery(
    said: Mapping[str, str | None], seed: int, distance: float, brightness: np.ndarray
) -> tuple[np.void, np.ndarray]:
    """The setting and the things of a scene that a caption names, or of one that the seed picks.

    Args:
        distance: metres along the ground from the camera to the person.
        brightness: (3,) linear light on the surroundings.
    """
    rng = np.random.default_rng([seed, 3])
    name = said.get("scene")
    if name not in RECIPES:
        plain = [s.name for s in SCENES if s.group == "studio"]
        names = plain if said.get("background_color") else list(RECIPES)
        name = names[rng.integers(len(names))]
    recipe = RECIPES[name]
    o = np.zeros((), SETTING)
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
    choice = tuple(recipe.wall_colors[rng.integers(len(recipe.wall_colors))])
    color = COLORS[word] if word in COLORS else choice
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

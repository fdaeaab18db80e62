"""What makes each scene of the caption grammar: its ground, its walls, what stands about."""

from collections.abc import Mapping
from dataclasses import dataclass

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


_GREEN = ((92, 128, 58), (62, 98, 42))
_ROAD = ((98, 98, 100), (78, 78, 82))
_STONE = ((160, 155, 148), (120, 116, 110))
_DUNE = ((222, 200, 158), (200, 176, 132))
_SNOW = ((240, 243, 248), (214, 222, 235))
_EARTH = ((140, 115, 85), (110, 90, 66))
_SEA = ((70, 120, 145), (45, 90, 120))
_OAK = ((168, 124, 82), (140, 98, 62))
_PALE = ((205, 180, 145), (182, 155, 120))
_GREYS = ((150, 150, 150), (122, 122, 124))
_LINO = ((190, 188, 180), (165, 162, 155))
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
    "city street": Recipe(
        ASPHALT, _ROAD, (TILES, *_STONE, 5.0), props=(BUILDING, BUILDING, BUILDING, CAR, POLE, TREE)
    ),
    "cobbled alley": Recipe(
        COBBLES,
        _STONE,
        props=(BUILDING, BUILDING, DOOR, BOX, POLE),
        wall=BRICK,
        wall_colors=((150, 95, 75), (170, 150, 130)),
        decor=(WINDOW, DOOR),
    ),
    "market": Recipe(COBBLES, _STONE, props=(RACK, RACK, BOX, BOX, BUILDING, POLE)),
    "bus stop": Recipe(
        TILES, _STONE, (ASPHALT, *_ROAD, 2.5), props=(BUILDING, BUILDING, POLE, CAR, BOARD, TREE)
    ),
    "train platform": Recipe(
        TILES, _GREYS, (ASPHALT, (90, 80, 72), (60, 55, 50), 3.0), props=(BUILDING, POLE, POLE, BOARD, FENCE)
    ),
    "rooftop": Recipe(TILES, _STONE, props=(FENCE, BUILDING, BUILDING, BUILDING, BOX), hills=6),
    "bridge": Recipe(COBBLES, _STONE, (*_WATER, 4.0), props=(FENCE, POLE, BUILDING, TREE), hills=8),
    "parking lot": Recipe(ASPHALT, _ROAD, props=(CAR, CAR, CAR, POLE, BUILDING, TREE)),
    "town square": Recipe(COBBLES, _STONE, props=(BUILDING, BUILDING, BUILDING, TREE, POLE, BOX)),
    "harbour": Recipe(PLANKS, _GREYS, (*_WATER, 2.5), props=(POLE, POLE, FENCE), hills=9),
    "city steps": Recipe(TILES, _STONE, props=(BUILDING, STANDS, POLE)),
    "beach": Recipe(SAND, _DUNE, (*_WATER, 8.0), props=(ROCK,), hills=2),
    "forest": Recipe(
        GRASS,
        ((110, 92, 60), (72, 78, 44)),
        props=(TREE, CONIFER, CONIFER, TREE, CONIFER, BUSH, BUSH, TREE),
        hills=14,
        hill_colors=((60, 84, 62), (44, 66, 42)),
    ),
    "meadow": Recipe(
        GRASS, _GREEN, props=(TREE, BUSH), hills=10, hill_colors=((110, 138, 110), (92, 124, 66))
    ),
    "mountain trail": Recipe(
        SAND,
        _EARTH,
        (GRASS, *_GREEN, 4.0),
        props=(ROCK, ROCK, CONIFER, BUSH),
        hills=45,
        hill_colors=((130, 140, 155), (90, 105, 95)),
    ),
    "lake shore": Recipe(SAND, _EARTH, (*_WATER, 4.0), props=(ROCK, BUSH), hills=22),
    "desert": Recipe(
        SAND,
        ((214, 176, 122), (190, 148, 96)),
        props=(ROCK,),
        hills=12,
        hill_colors=((205, 165, 120), (196, 156, 106)),
    ),
    "snowy field": Recipe(
        SAND, _SNOW, props=(CONIFER, TREE), hills=12, hill_colors=((205, 215, 228), (225, 230, 238))
    ),
    "park": Recipe(GRASS, _GREEN, (SAND, *_DUNE, 5.0), props=(TREE, TREE, BUSH, POLE, TREE, BOX)),
    "garden": Recipe(GRASS, _GREEN, props=(BUSH, BUSH, FENCE, TREE, BUSH)),
    "riverbank": Recipe(GRASS, _GREEN, (*_WATER, 3.5), props=(BUSH, TREE), hills=10),
    "rocky coast": Recipe(
        SAND, ((140, 135, 128), (105, 100, 96)), (*_WATER, 6.0), props=(ROCK, ROCK, ROCK), hills=5
    ),
    "wheat field": Recipe(
        GRASS,
        ((218, 186, 100), (186, 150, 72)),
        props=(TREE,),
        hills=8,
        hill_colors=((170, 160, 110), (196, 170, 90)),
    ),
    "living room": Recipe(
        PLANKS, _OAK, wall=PLAIN, wall_colors=_WALLS, props=(SOFA, BOX), decor=(WINDOW, FRAME, FRAME)
    ),
    "kitchen": Recipe(
        TILES, _LINO, wall=TILES, wall_colors=_WALLS, props=(BOX, BOX, BOX), decor=(WINDOW, RACK)
    ),
    "bedroom": Recipe(PLANKS, _PALE, wall=PLAIN, wall_colors=_WALLS, props=(SOFA,), decor=(WINDOW, FRAME)),
    "bathroom": Recipe(
        TILES,
        _LINO,
        wall=TILES,
        wall_colors=((220, 228, 230), (180, 205, 210)),
        props=(BOX,),
        decor=(FRAME, WINDOW),
    ),
    "office": Recipe(
        PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS, props=(BOX, BOX), decor=(WINDOW, WINDOW, BOARD)
    ),
    "library": Recipe(
        PLANKS, _OAK, wall=SHELVES, wall_colors=((110, 76, 48), (140, 100, 66)), props=(BOX,), decor=()
    ),
    "restaurant": Recipe(
        PLANKS,
        _OAK,
        wall=PANELS,
        wall_colors=((150, 105, 75), (120, 60, 50), (90, 100, 90)),
        props=(BOX, SOFA),
        decor=(FRAME, WINDOW),
    ),
    "café": Recipe(
        TILES,
        _LINO,
        wall=BRICK,
        wall_colors=((200, 190, 178), (160, 100, 80)),
        props=(BOX, BOX),
        decor=(BOARD, WINDOW),
    ),
    "museum": Recipe(
        PLANKS,
        _PALE,
        wall=PLAIN,
        wall_colors=((236, 234, 230), (150, 50, 50), (60, 80, 90)),
        decor=(FRAME, FRAME, FRAME),
    ),
    "classroom": Recipe(
        PLAIN, _LINO, wall=PLAIN, wall_colors=_WALLS, props=(BOX, BOX), decor=(BOARD, WINDOW)
    ),
    "workshop": Recipe(
        PLAIN,
        _GREYS,
        wall=BRICK,
        wall_colors=((150, 140, 130), (170, 110, 85)),
        props=(BOX, RACK),
        decor=(RACK, WINDOW),
    ),
    "hallway": Recipe(TILES, _LINO, wall=PLAIN, wall_colors=_WALLS, decor=(DOOR, DOOR, FRAME)),
    "warehouse": Recipe(
        PLAIN, _GREYS, wall=PANELS, wall_colors=((150, 155, 160),), props=(BOX, RACK, BOX, BOX), decor=(DOOR,)
    ),
    "shop": Recipe(
        TILES,
        _LINO,
        wall=SHELVES,
        wall_colors=((225, 222, 214), (190, 180, 165)),
        props=(RACK, RACK),
        decor=(),
    ),
    "tennis court": Recipe(
        COURT,
        ((60, 110, 150), (60, 110, 150)),
        (COURT, (70, 125, 80), (70, 125, 80), 5.0),
        props=(FENCE, TREE, TREE, FENCE),
        hills=4,
    ),
    "basketball court": Recipe(
        PLANKS,
        ((205, 155, 100), (190, 140, 88)),
        wall=PLAIN,
        wall_colors=_WALLS,
        props=(STANDS,),
        decor=(BOARD, DOOR),
    ),
    "football pitch": Recipe(GRASS, ((72, 132, 58), (60, 118, 48)), props=(STANDS, FENCE, POLE, TREE)),
    "baseball field": Recipe(
        SAND, ((176, 120, 82), (156, 104, 70)), (GRASS, *_GREEN, 4.0), props=(FENCE, STANDS, POLE)
    ),
    "running track": Recipe(
        COURT, ((180, 80, 60), (180, 80, 60)), (GRASS, *_GREEN, 5.0), props=(STANDS, TREE, POLE)
    ),
    "gym": Recipe(
        PLAIN,
        ((70, 72, 76), (60, 62, 66)),
        wall=PLAIN,
        wall_colors=_WALLS,
        props=(RACK, BOX),
        decor=(WINDOW, FRAME),
    ),
    "dance studio": Recipe(
        PLANKS, _PALE, wall=PANELS, wall_colors=((205, 212, 216),), decor=(WINDOW, WINDOW)
    ),
    "skate park": Recipe(PLAIN, _GREYS, props=(ROCK, BOX, BUILDING, TREE, POLE), hills=5),
    "climbing hall": Recipe(
        PLAIN,
        ((60, 80, 130), (55, 75, 120)),
        wall=PANELS,
        wall_colors=((190, 180, 165), (150, 150, 155)),
        decor=(RACK,),
    ),
    "ski slope": Recipe(
        SAND, _SNOW, props=(CONIFER, CONIFER, POLE), hills=40, hill_colors=((170, 185, 210), (225, 232, 242))
    ),
    "poolside": Recipe(
        TILES,
        ((205, 198, 186), (185, 178, 166)),
        (WATER, (80, 180, 205), (50, 150, 185), 2.0),
        props=(FENCE, TREE, BUSH),
    ),
    "boxing gym": Recipe(
        PLAIN,
        ((70, 70, 76), (58, 58, 64)),
        wall=BRICK,
        wall_colors=((120, 70, 58), (110, 110, 112)),
        props=(BOX,),
        decor=(FRAME, WINDOW),
    ),
    "studio backdrop": Recipe(PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS, sweep=True),
    "paper background": Recipe(PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS, sweep=True),
    "painted wall": Recipe(PLAIN, _GREYS, wall=PLAIN, wall_colors=_WALLS),
    "curtain": Recipe(PLANKS, _OAK, wall=CURTAIN, wall_colors=_WALLS),
    "photo booth": Recipe(PLAIN, _GREYS, wall=PANELS, wall_colors=_WALLS),
}
"""By the scene's name in the caption grammar."""

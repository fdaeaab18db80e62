"""The built-in caption grammar: its words, captions made of them, and attributes read from any caption."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from schemas.caption_attributes import CAPTION_ATTRIBUTES
from schemas.ids import uniform
from schemas.source import GrammarSource

Srgb = tuple[int, int, int]

COLORS: Mapping[str, Srgb] = {
    "red": (200, 30, 38),
    "orange": (240, 125, 25),
    "yellow": (245, 210, 50),
    "green": (40, 140, 60),
    "teal": (20, 145, 150),
    "blue": (45, 100, 210),
    "navy": (26, 40, 105),
    "purple": (120, 50, 155),
    "pink": (245, 140, 180),
    "brown": (105, 65, 35),
    "beige": (220, 200, 165),
    "white": (244, 244, 242),
    "grey": (130, 132, 135),
    "black": (24, 24, 26),
}
"""Colour words of clothing, shoes and backgrounds, told apart at a glance."""

HAIR: Mapping[str, Srgb] = {
    "black": (28, 24, 24),
    "brown": (88, 56, 36),
    "blonde": (215, 180, 115),
    "red": (160, 70, 35),
    "grey": (150, 148, 146),
    "white": (228, 226, 222),
}

TOPS: Mapping[str, Literal["none", "short", "long"]] = {
    "t-shirt": "short",
    "shirt": "long",
    "long-sleeved shirt": "long",
    "polo shirt": "short",
    "tank top": "none",
    "hoodie": "long",
    "sweater": "long",
    "jacket": "long",
}
"""What is worn above, and how long its sleeves are."""

BOTTOMS: Mapping[str, Literal["short", "long", "skirt"]] = {
    "jeans": "long",
    "trousers": "long",
    "leggings": "long",
    "sweatpants": "long",
    "shorts": "short",
    "skirt": "skirt",
}
"""What is worn below, and how far down it goes."""

SUBJECTS = ("woman", "man", "person")
DEMOGRAPHICS = (
    "young", "middle-aged", "older",
    "African", "East Asian", "European", "Latin American", "Middle Eastern", "Pacific Islander",
    "South Asian",
)  # fmt: skip
CAMERAS = (
    "35mm photograph", "50mm photograph", "85mm photograph", "film photograph", "medium-format photograph",
    "documentary photograph", "editorial photograph", "eye-level photograph", "smartphone snapshot",
    "wide-angle shot", "telephoto shot",
)  # fmt: skip
REALISM = (
    "photorealistic", "sharp focus", "natural skin texture", "fine fabric detail", "realistic proportions",
    "true-to-life colours", "subtle film grain", "high detail", "no retouching",
)  # fmt: skip

Group = Literal["city", "nature", "indoor", "sport", "studio"]
Place = Literal["outdoor", "indoor", "studio"]


@dataclass(frozen=True)
class Scene:
    """Where the person is: `phrase` says it in a caption, `words` give it away in other people's.

    A `{color}` in the phrase is the background colour.
    """

    name: str
    group: Group
    place: Place
    phrase: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lighting:
    """How the light falls: its colour, and its contrast from 0, shadowless, to 1, hard shadows."""

    name: str
    places: tuple[Place, ...]
    color: Srgb
    contrast: float


SCENES = (
    Scene("city street", "city", "outdoor", "on a city street", ("street", "road", "sidewalk", "curb")),
    Scene("cobbled alley", "city", "outdoor", "in a cobbled alley", ("alley",)),
    Scene("market", "city", "outdoor", "at an outdoor market", ("fruit stand", "market place")),
    Scene("bus stop", "city", "outdoor", "at a bus stop", ("bus station",)),
    Scene("train platform", "city", "outdoor", "on a train platform", ("train station", "platform")),
    Scene("rooftop", "city", "outdoor", "on a rooftop terrace"),
    Scene("bridge", "city", "outdoor", "on a stone bridge"),
    Scene("parking lot", "city", "outdoor", "in an empty parking lot", ("parking",)),
    Scene("town square", "city", "outdoor", "in a town square", ("plaza",)),
    Scene("harbour", "city", "outdoor", "by a harbour", ("harbor", "dock", "pier", "boat", "kayak")),
    Scene("city steps", "city", "outdoor", "in front of wide city steps", ("staircase",)),
    Scene("beach", "nature", "outdoor", "on a beach", ("ocean", "surfboard", "surfing", "surfer", "wave")),
    Scene("forest", "nature", "outdoor", "on a forest path", ("woods", "jungle")),
    Scene("meadow", "nature", "outdoor", "in a meadow", ("grass", "grassy", "pasture")),
    Scene("mountain trail", "nature", "outdoor", "on a mountain trail", ("mountain", "hillside")),
    Scene("lake shore", "nature", "outdoor", "on a lake shore", ("lake",)),
    Scene("desert", "nature", "outdoor", "in a desert", ("sand dune",)),
    Scene("snowy field", "nature", "outdoor", "in a snowy field", ("snow", "snowy")),
    Scene("park", "nature", "outdoor", "in a park", ("frisbee",)),
    Scene("garden", "nature", "outdoor", "in a garden", ("backyard", "yard", "lawn")),
    Scene("riverbank", "nature", "outdoor", "on a riverbank", ("river", "stream")),
    Scene("rocky coast", "nature", "outdoor", "on a rocky coast", ("cliff",)),
    Scene("wheat field", "nature", "outdoor", "in a wheat field"),
    Scene("living room", "indoor", "indoor", "in a living room", ("couch", "sofa")),
    Scene("kitchen", "indoor", "indoor", "in a kitchen", ("oven", "stove", "refrigerator")),
    Scene("bedroom", "indoor", "indoor", "in a bedroom with {color} walls", ("bed",)),
    Scene("bathroom", "indoor", "indoor", "in a tiled bathroom", ("restroom", "toilet", "bathtub")),
    Scene("office", "indoor", "indoor", "in an office", ("desk", "conference room", "meeting room")),
    Scene("library", "indoor", "indoor", "in a library", ("bookshelf",)),
    Scene("restaurant", "indoor", "indoor", "in a restaurant", ("diner", "pizzeria")),
    Scene("café", "indoor", "indoor", "in a café", ("cafe", "coffee shop")),
    Scene("museum", "indoor", "indoor", "in a museum hall", ("art gallery",)),
    Scene("classroom", "indoor", "indoor", "in a classroom", ("school",)),
    Scene("workshop", "indoor", "indoor", "in a workshop", ("garage",)),
    Scene("hallway", "indoor", "indoor", "in a hallway with {color} walls", ("corridor", "doorway")),
    Scene("warehouse", "indoor", "indoor", "in a warehouse"),
    Scene("shop", "indoor", "indoor", "in a shop", ("store", "bakery", "supermarket")),
    Scene("tennis court", "sport", "outdoor", "on a tennis court", ("tennis", "racket", "racquet")),
    Scene("basketball court", "sport", "indoor", "on a basketball court", ("basketball",)),
    Scene("football pitch", "sport", "outdoor", "on a football pitch", ("soccer", "football")),
    Scene("baseball field", "sport", "outdoor", "on a baseball field", ("baseball", "batter", "umpire")),
    Scene("running track", "sport", "outdoor", "on a running track", ("race track",)),
    Scene("gym", "sport", "indoor", "in a gym", ("gymnasium",)),
    Scene("dance studio", "sport", "indoor", "in a dance studio", ("dance floor",)),
    Scene("skate park", "sport", "outdoor", "in a skate park", ("skateboard", "skateboarding")),
    Scene("climbing hall", "sport", "indoor", "in a climbing hall"),
    Scene(
        "ski slope", "sport", "outdoor", "on a ski slope",
        ("ski", "skier", "skiing", "snowboard", "snowboarder", "snowboarding", "slope"),
    ),
    Scene("poolside", "sport", "outdoor", "by a swimming pool", ("pool",)),
    Scene("boxing gym", "sport", "indoor", "in a boxing gym"),
    Scene("studio backdrop", "studio", "studio", "in front of a plain {color} studio backdrop"),
    Scene("paper background", "studio", "studio", "in front of a {color} paper background"),
    Scene("painted wall", "studio", "studio", "in front of a {color} painted wall"),
    Scene("curtain", "studio", "studio", "in front of a {color} curtain"),
    Scene("photo booth", "studio", "studio", "in a photo booth with {color} walls"),
)  # fmt: skip

LIGHTINGS = (
    Lighting("bright midday sun", ("outdoor",), (255, 250, 240), 0.9),
    Lighting("golden hour light", ("outdoor",), (255, 215, 160), 0.7),
    Lighting("warm sunset light", ("outdoor",), (255, 190, 140), 0.7),
    Lighting("soft overcast light", ("outdoor",), (238, 243, 250), 0.15),
    Lighting("cool morning light", ("outdoor",), (225, 236, 255), 0.4),
    Lighting("hazy sunlight", ("outdoor",), (255, 242, 220), 0.45),
    Lighting("blue hour light", ("outdoor",), (170, 190, 240), 0.2),
    Lighting("soft window light", ("indoor", "studio"), (245, 246, 250), 0.4),
    Lighting("warm lamp light", ("indoor",), (255, 214, 165), 0.5),
    Lighting("bright ceiling light", ("indoor",), (250, 250, 245), 0.5),
    Lighting("diffuse daylight", ("indoor", "studio", "outdoor"), (244, 247, 252), 0.2),
    Lighting("dim evening light", ("indoor",), (220, 190, 165), 0.4),
    Lighting("large softbox light", ("studio",), (250, 250, 250), 0.3),
    Lighting("hard flash", ("studio", "indoor"), (255, 255, 255), 1.0),
    Lighting("dramatic side light", ("studio", "indoor"), (255, 240, 225), 0.95),
    Lighting("high-key studio light", ("studio",), (255, 255, 255), 0.1),
)

WORDS: Mapping[str, tuple[str, ...]] = {
    "scene": tuple(s.name for s in SCENES),
    "lighting": tuple(x.name for x in LIGHTINGS),
}
"""What the grammar can say of attributes that a picture shows, beside colours of clothes and walls."""


def captions(seeds: np.ndarray, grammar: GrammarSource, genders: Sequence[str] | None = None) -> pa.Table:
    """One caption a seed; each depends on its own seed, gender and the probabilities alone.

    Args:
        seeds: (N,) int64 or uint64.
        genders: N of `neutral`, `female`, `male`; a gendered body gets a subject that fits.

    Returns:
        Table of N rows: `text` and the columns CAPTION_ATTRIBUTES, NULL where the text does not say it.
    """
    seeds = np.asarray(seeds)
    n = len(seeds)

    def pick(name: str, size: np.ndarray | int) -> np.ndarray:
        return (uniform(seeds, "grammar", name) * size).astype(np.int64)

    def said(name: str, words: np.ndarray, probability: float) -> np.ndarray:
        words[uniform(seeds, "grammar", name, "said") >= probability] = None
        return words

    def choose(name: str, words: Iterable[str], probability: float = 1.0) -> np.ndarray:
        chosen = _objects(words)
        chosen = chosen[pick(name, len(chosen))]
        return said(name, chosen, probability)

    gender = np.asarray(genders if genders is not None else ["neutral"] * n, dtype=str)
    subject = choose("subject", SUBJECTS)
    subject[gender == "female"] = "woman"
    subject[gender == "male"] = "man"
    bottoms = _objects(BOTTOMS)  # the skirt is last, so that leaving it out is a shorter list
    bottom = bottoms[pick("bottom", np.where(subject == "man", len(bottoms) - 1, len(bottoms)))]

    # Groups alike, however many scenes each has, so that studios are no rarity.
    groups = [[i for i, s in enumerate(SCENES) if s.group == g] for g in _GROUPS]
    group = pick("group", len(groups))
    sizes = np.array([len(g) for g in groups])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    scene = np.concatenate([np.array(g) for g in groups])[starts[group] + pick("scene", sizes[group])]
    place = _objects(s.place for s in SCENES)[scene]
    lighting = np.empty(n, dtype=object)
    for kind in sorted(set(place.tolist())):
        rows = place == kind
        lighting[rows] = choose("lighting", (x.name for x in LIGHTINGS if kind in x.places))[rows]

    demographic = choose("demographic", DEMOGRAPHICS, grammar.demographic)
    hair = _objects(HAIR)  # grey and white are last: the young do without
    hair = hair[pick("hair_color", np.where(demographic == "young", len(hair) - 2, len(hair)))]
    columns = {
        "subject": subject,
        "top": choose("top", TOPS),
        "top_color": choose("top_color", COLORS),
        "bottom": bottom,
        "bottom_color": choose("bottom_color", COLORS),
        "shoes_color": choose("shoes_color", COLORS, grammar.shoes),
        "hair_color": said("hair_color", hair, grammar.hair),
        "scene": _objects(s.name for s in SCENES)[scene],
        "background_color": choose("background_color", COLORS),
        "lighting": said("lighting", lighting, grammar.lighting),
        "camera": choose("camera", CAMERAS, grammar.camera),
        "realism": choose("realism", REALISM, grammar.realism),
        "demographic": demographic,
    }
    phrase = _objects(s.phrase for s in SCENES)[scene]
    columns["background_color"][[("{color}" not in p) for p in phrase]] = None
    rows_of_words = zip(*(columns[a] for a in CAPTION_ATTRIBUTES), strict=True)
    text = [
        _sentence(p, **dict(zip(CAPTION_ATTRIBUTES, words, strict=True)))
        for p, words in zip(phrase, rows_of_words, strict=True)
    ]
    table = {"text": text} | {a: columns[a] for a in CAPTION_ATTRIBUTES}
    return pa.table({k: pa.array(v, pa.string()) for k, v in table.items()})


def read_attributes(texts: Sequence[str]) -> pa.Table:
    """What captions written by anyone say, by plain word rules; NULL where they do not say it.

    The first person named is the subject; the clothes are those named before anybody else is.
    Table of N rows with the columns CAPTION_ATTRIBUTES. Captions of this grammar read back exactly.
    """
    rows = [_read(" ".join(text.lower().split())) for text in texts]
    return pa.table({a: pa.array([r.get(a) for r in rows], pa.string()) for a in CAPTION_ATTRIBUTES})


_GROUPS: tuple[Group, ...] = ("city", "nature", "indoor", "sport", "studio")


def _objects(words: Iterable[str]) -> np.ndarray:
    return np.array(list(words), dtype=object)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiouAEIO" and not word.startswith("European") else "a"


def _sentence(
    phrase: str, *, subject: str, top: str, top_color: str, bottom: str, bottom_color: str,
    shoes_color: str | None, hair_color: str | None, scene: str, background_color: str | None,
    lighting: str | None, camera: str | None, realism: str | None, demographic: str | None,
) -> str:  # fmt: skip
    who = f"{demographic} {subject}" if demographic else subject
    clothes = [f"{_article(top_color)} {top_color} {top}"]
    one = f"{_article(bottom_color)} " if bottom == "skirt" else ""
    clothes.append(f"{one}{bottom_color} {bottom}")
    if shoes_color:
        clothes.append(f"{shoes_color} shoes")
    worn = f"{', '.join(clothes[:-1])} and {clothes[-1]}"
    hair = f" with {hair_color} hair wearing" if hair_color else " in"
    where = phrase
    if background_color:
        where = phrase.replace("a {color}", f"{_article(background_color)} {{color}}")
        where = where.replace("{color}", background_color)
    said = [f"{_article(who)} {who}{hair} {worn}", where, lighting, camera, realism]
    return ", ".join(part for part in said if part)


_COLOR_WORDS = {c: c for c in COLORS} | {
    "gray": "grey", "silver": "grey", "dark grey": "grey", "light grey": "grey", "dark blue": "navy",
    "navy blue": "navy", "light blue": "blue", "sky blue": "blue", "dark green": "green", "lime": "green",
    "olive": "green", "turquoise": "teal", "aqua": "teal", "violet": "purple", "lavender": "purple",
    "magenta": "pink", "maroon": "red", "crimson": "red", "gold": "yellow", "tan": "beige", "khaki": "beige",
    "cream": "beige", "off-white": "white",
}  # fmt: skip
_HAIR_WORDS = {h: h for h in HAIR} | {
    "blond": "blonde", "brunette": "brown", "dark": "black", "gray": "grey", "ginger": "red", "auburn": "red",
    "silver": "grey",
}  # fmt: skip
_TOP_WORDS = {t: t for t in TOPS} | {
    "tshirt": "t-shirt", "t shirt": "t-shirt", "tee shirt": "t-shirt", "tee": "t-shirt", "jersey": "t-shirt",
    "long sleeved shirt": "long-sleeved shirt", "long sleeve shirt": "long-sleeved shirt",
    "polo": "polo shirt",
    "dress shirt": "shirt", "button-up shirt": "shirt", "blouse": "shirt", "vest": "tank top",
    "hooded sweatshirt": "hoodie", "sweatshirt": "sweater", "jumper": "sweater", "pullover": "sweater",
    "cardigan": "sweater", "coat": "jacket", "parka": "jacket", "blazer": "jacket", "top": "t-shirt",
}  # fmt: skip
_BOTTOM_WORDS = {b: b for b in BOTTOMS} | {
    "pants": "trousers", "slacks": "trousers", "chinos": "trousers", "tights": "leggings",
    "yoga pants": "leggings", "sweat pants": "sweatpants", "track pants": "sweatpants",
    "board shorts": "shorts", "swim trunks": "shorts", "trunks": "shorts", "short": "shorts",
}  # fmt: skip
_WHOLE_WORDS = {
    "dress": (None, "skirt"), "gown": (None, "skirt"), "suit": ("jacket", "trousers"),
    "wetsuit": ("long-sleeved shirt", "leggings"), "wet suit": ("long-sleeved shirt", "leggings"),
    "tuxedo": ("jacket", "trousers"), "outfit": (None, None), "uniform": (None, None),
    "clothes": (None, None),
}  # fmt: skip
_SUBJECT_WORDS = {
    "woman": "woman", "women": "woman", "lady": "woman", "ladies": "woman", "female": "woman",
    "mother": "woman", "bride": "woman", "man": "man", "men": "man", "guy": "man", "guys": "man",
    "gentleman": "man", "male": "man", "father": "man", "groom": "man", "girl": "girl", "girls": "girl",
    "boy": "boy", "boys": "boy", "child": "child", "children": "child", "kid": "child", "kids": "child",
    "toddler": "child", "baby": "child", "person": "person", "people": "person", "player": "person",
    "skier": "person", "snowboarder": "person", "surfer": "person", "skateboarder": "person",
    "someone": "person", "rider": "person", "batter": "person", "pitcher": "person",
}  # fmt: skip
_DEMOGRAPHIC_WORDS = {d.lower(): d for d in DEMOGRAPHICS} | {
    "elderly": "older", "old": "older", "little": "young", "teenage": "young", "middle aged": "middle-aged",
}  # fmt: skip
_SCENE_WORDS = {s.name: s.name for s in SCENES} | {w: s.name for s in SCENES for w in s.words}


def _any_of(words: Iterable[str]) -> str:
    """Alternation that prefers the longest word, so that "tank top" is not read as "top"."""
    return "(?:" + "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True)) + ")"


_C = _any_of(_COLOR_WORDS)
_STOP = _any_of(
    {*_TOP_WORDS, *_BOTTOM_WORDS, *_WHOLE_WORDS, *_COLOR_WORDS, *_SUBJECT_WORDS,
     "shoes", "hair", "haired", "and", "with", "in", "on", "a", "an", "the", "of", "at", "by", "wearing",
     "is"}
)  # fmt: skip


def _coloured(words: Iterable[str]) -> re.Pattern[str]:
    """A thing, with the first colour before it: "red and white striped shirt" is red."""
    return re.compile(
        rf"(?:\b(?P<color>{_C})(?:(?: and |/|-| ){_C})*(?:,? (?!{_STOP}\b)[\w'-]+){{0,2}}? )?"
        rf"\b(?P<thing>{_any_of(words)})(?:e?s)?\b(?!-| shirt| shoes| pants)"
    )


_TOP, _BOTTOM, _WHOLE = _coloured(_TOP_WORDS), _coloured(_BOTTOM_WORDS), _coloured(_WHOLE_WORDS)
_ALL_IN = re.compile(
    rf"\b(?:dressed|clad|clothed|all|wearing)(?: all)?(?: in)? (?P<color>{_C})(?=$|[ .,]*$|[.,])"
)
_SHOES = re.compile(
    rf"\b(?P<color>{_C})(?: (?!{_STOP}\b)[\w'-]+)? (?:shoes|sneakers|trainers|boots|sandals|socks)\b"
)
_HAIR = re.compile(
    rf"\b(?P<a>{_any_of(_HAIR_WORDS)})[ -](?:\w+ )?hair(?:ed)?\b"
    r"|\b(?P<b>blonde?|brunette)\b|\b(?P<c>red)head\b"
)
_BACKGROUND = re.compile(
    rf"\b(?P<color>{_C})(?: (?!{_STOP}\b)[\w'-]+)? (?:backdrop|background|walls?|curtain|screen)\b"
)
_SUBJECT = re.compile(rf"\b(?P<word>{_any_of(_SUBJECT_WORDS)})\b")
_DEMOGRAPHIC = re.compile(rf"\b(?P<word>{_any_of(_DEMOGRAPHIC_WORDS)})\b")
_SCENE = re.compile(rf"\b(?P<word>{_any_of(_SCENE_WORDS)})(?:e?s)?\b")
_LIGHTING = re.compile(rf"\b(?P<word>{_any_of(x.name for x in LIGHTINGS)})\b")
_CAMERA = re.compile(rf"\b(?P<word>{_any_of(CAMERAS)})\b")
_REALISM = re.compile(rf"\b(?P<word>{_any_of(REALISM)})\b")


def _read(text: str) -> dict[str, str | None]:
    said: dict[str, str | None] = {}
    people = list(_SUBJECT.finditer(text))
    own = text
    if people:
        said["subject"] = _SUBJECT_WORDS[people[0]["word"]]
        other = next((p for p in people[1:] if p.start() > people[0].end() + 1), None)
        own = text[: other.start()] if other else text
        if found := _DEMOGRAPHIC.search(text[: people[0].end()]):
            said["demographic"] = _DEMOGRAPHIC_WORDS[found["word"]]
    _read_clothes(own, said)
    if found := _SHOES.search(own):
        said["shoes_color"] = _COLOR_WORDS[found["color"]]
    if found := _HAIR.search(own):
        said["hair_color"] = _HAIR_WORDS[found["a"] or found["b"] or found["c"]]
    if found := _SCENE.search(text):
        said["scene"] = _SCENE_WORDS[found["word"]]
    if found := _BACKGROUND.search(text):
        said["background_color"] = _COLOR_WORDS[found["color"]]
    for name, pattern in (("lighting", _LIGHTING), ("camera", _CAMERA), ("realism", _REALISM)):
        if found := pattern.search(text):
            said[name] = found["word"]
    return said


def _read_clothes(text: str, said: dict[str, str | None]) -> None:
    if found := _ALL_IN.search(text):
        said["top_color"] = said["bottom_color"] = _COLOR_WORDS[found["color"]]
    if found := _WHOLE.search(text):
        said["top"], said["bottom"] = _WHOLE_WORDS[found["thing"]]
        if found["color"]:
            said["top_color"] = said["bottom_color"] = _COLOR_WORDS[found["color"]]
    for part, words, pattern in (("top", _TOP_WORDS, _TOP), ("bottom", _BOTTOM_WORDS, _BOTTOM)):
        # "on top of" and "a short man" name no clothes: those two words count only with a colour.
        found = next(
            (m for m in pattern.finditer(text) if m["color"] or m["thing"] not in ("top", "short")), None
        )
        if found:
            said[part] = words[found["thing"]]
            if found["color"]:
                said[f"{part}_color"] = _COLOR_WORDS[found["color"]]

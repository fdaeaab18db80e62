import itertools
import json
import re

import numpy as np
import pytest

from schemas.caption_attributes import CAPTION_ATTRIBUTES
from schemas.source import GrammarSource
from udfs.grammar import BOTTOMS, COLORS, LIGHTINGS, SCENES, TOPS, captions, read_attributes


def said(text):
    row = read_attributes([text]).to_pylist()[0]
    return {k: v for k, v in row.items() if v is not None}


def test_the_attributes_are_what_the_text_says():
    """Read back by the word rules, which share the vocabulary and not the code that wrote the sentence."""
    made = captions(np.arange(5000), GrammarSource())
    read = read_attributes(made["text"].to_pylist())
    for name in CAPTION_ATTRIBUTES:
        assert read[name].to_pylist() == made[name].to_pylist(), name
    for row in made.slice(0, 500).to_pylist():
        for name in CAPTION_ATTRIBUTES:
            if row[name] is not None and name != "scene":
                assert row[name] in row["text"]


def test_a_caption_depends_on_its_seed_alone():
    seeds = np.array([5, -3, 2**62, 7])
    together = captions(seeds, GrammarSource())
    alone = captions(seeds[2:3], GrammarSource())
    assert together.slice(2, 1).to_pylist() == alone.to_pylist()
    assert captions(seeds.view(np.uint64), GrammarSource()) == together


def test_probabilities_are_kept():
    grammar = GrammarSource(demographic=0.6, hair=0.0, shoes=1.0, lighting=0.3)
    made = captions(np.arange(20_000), grammar)
    share = {name: 1 - made[name].null_count / len(made) for name in made.column_names}
    assert share["demographic"] == pytest.approx(0.6, abs=0.02)
    assert share["lighting"] == pytest.approx(0.3, abs=0.02)
    assert share["hair_color"] == 0
    for name in ("shoes_color", "subject", "top", "top_color", "bottom", "bottom_color", "scene"):
        assert share[name] == 1


def test_words_are_used_evenly():
    made = captions(np.arange(28_000), GrammarSource())
    for name, words in (("top_color", COLORS), ("bottom_color", COLORS), ("top", TOPS)):
        count = {c["values"]: c["counts"] for c in made[name].value_counts().to_pylist()}
        assert set(count) == set(words)
        expected = len(made) / len(words)
        assert all(abs(n - expected) < 6 * expected**0.5 for n in count.values())
    assert set(made["scene"].to_pylist()) == {s.name for s in SCENES}


def test_a_gendered_body_has_a_subject_that_fits():
    n = 600
    for gender, subjects in (
        ("male", {"man"}),
        ("female", {"woman"}),
        ("neutral", {"man", "woman", "person"}),
    ):
        made = captions(np.arange(n), GrammarSource(), [gender] * n)
        assert set(made["subject"].to_pylist()) == subjects


def test_the_english_is_sound():
    for text in captions(np.arange(20_000), GrammarSource())["text"].to_pylist():
        assert not re.search(
            r"\ba [aeiou]|\ban [^aeiouAEIO]|  | ,|\{|None", text.replace("a European", "")
        ), text
    light_of = {x.name: x.places for x in LIGHTINGS}
    place_of = {s.name: s.place for s in SCENES}
    for row in captions(np.arange(5000), GrammarSource()).to_pylist():
        assert row["lighting"] is None or place_of[row["scene"]] in light_of[row["lighting"]]
        assert not (row["subject"] == "man" and row["bottom"] == "skirt")


def test_scenes_cover_five_groups_and_say_where_a_background_colour_goes():
    assert len(SCENES) >= 40
    assert {s.group for s in SCENES} == {"city", "nature", "indoor", "sport", "studio"}
    assert len({s.name for s in SCENES}) == len(SCENES)
    assert all("{color}" in s.phrase for s in SCENES if s.group == "studio")


def test_colours_are_told_apart():
    for (a, x), (b, y) in itertools.combinations(COLORS.items(), 2):
        assert np.linalg.norm(np.subtract(x, y)) > 60, (a, b)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man in a red shirt and blue jeans.", ("man", "shirt", "red", "jeans", "blue")),
        ("A woman wearing a white tank top, black shorts", ("woman", "tank top", "white", "shorts", "black")),
        ("a person in blue and white striped t-shirt", ("person", "t-shirt", "blue", None, None)),
        ("Two men in gray hooded sweatshirts", ("man", "hoodie", "grey", None, None)),
        ("A boy in red shirt and pants", ("boy", "shirt", "red", "trousers", None)),
        ("A man in a blue dress shirt and tie", ("man", "shirt", "blue", None, None)),
        ("A woman in a long purple dress", ("woman", None, "purple", "skirt", "purple")),
        ("A man dressed all in black.", ("man", None, "black", None, "black")),
        ("A man in a white shirt next to a woman in a red jacket", ("man", "shirt", "white", None, None)),
        ("A short man on top of a hill", ("man", None, None, None, None)),
        ("A man holding a red umbrella", ("man", None, None, None, None)),
        ("", (None,) * 5),
    ],
)
def test_clothes_in_free_captions(text, expected):
    found = said(text)
    assert tuple(found.get(k) for k in ("subject", "top", "top_color", "bottom", "bottom_color")) == expected


def test_scene_and_hair_in_free_captions():
    assert said("A blonde woman surfing a wave")["scene"] == "beach"
    assert said("A blonde woman surfing a wave")["hair_color"] == "blonde"
    assert said("A person with long black hair in front of a blue wall")["background_color"] == "blue"
    assert said("An elderly man in a KITCHEN")["demographic"] == "older"
    assert "scene" not in said("A man eats")


def test_coco_captions_are_about_people(real_data):
    file = real_data / "captions_coco_val2017_people.json"
    texts = [a["caption"] for a in json.loads(file.read_text())["annotations"]]
    read = read_attributes(texts)
    assert read["subject"].null_count == 0
    assert len(texts) - read["scene"].null_count > len(texts) / 3
    assert set(read["top_color"].drop_null().to_pylist()) <= set(COLORS)
    assert set(read["bottom"].drop_null().to_pylist()) <= set(BOTTOMS)

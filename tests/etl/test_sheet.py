"""A contact sheet shows the right pictures in the right places."""

import numpy as np
import pytest
from PIL import Image

from etl.lake import Lake
from etl.release import create_release
from etl.sheet import Sample, Strip, contact_sheet, draw_sheet, draw_strips
from schemas.errors import InputError, RowError
from tests.lake_rows import LABELS, fill, selected
from udfs.picture import encode


def flat(color: tuple[int, int, int], height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def sample(**changes: object) -> Sample:
    facts = {
        "control": flat((200, 0, 0)),
        "image": flat((0, 0, 200)),
        "keypoints": None,
        "caption": "a man",
        "oks": 0.5,
    }
    return Sample(**(facts | changes))


def tiles(sheet: Image.Image, tile: int = 100) -> list[np.ndarray]:
    pixels = np.asarray(sheet)
    return [pixels[14 : 14 + tile, 14 + k * (tile + 3) :][:, :tile] for k in range(3)]


def test_three_tiles_stand_side_by_side():
    control, image, drawn = tiles(draw_sheet([sample()], tile=100))
    assert (control == (200, 0, 0)).all()
    assert (image == (0, 0, 200)).all()
    assert (drawn == (0, 0, 200)).all()


def test_keypoints_are_drawn_where_they_are_and_only_when_seen():
    keypoints = np.zeros((17, 3))
    keypoints[5] = 16, 16, 0.9
    keypoints[6] = 48, 48, 0.1
    _, _, drawn = tiles(draw_sheet([sample(keypoints=keypoints)], tile=100))
    changed = np.argwhere((drawn != (0, 0, 200)).any(-1))
    np.testing.assert_allclose(changed.mean(0), (24.5, 24.5), atol=1)
    assert np.ptp(changed, axis=0).max() < 8


def test_a_picture_keeps_its_proportions():
    image = tiles(draw_sheet([sample(image=flat((0, 0, 200), 50, 100))], tile=100))[1]
    blue = (image == (0, 0, 200)).all(-1)
    assert blue.sum() == 50 * 100
    assert blue[25:75].all()


def test_the_sheet_grows_with_the_samples():
    one = draw_sheet([sample()], 4, 100).size
    assert draw_sheet([sample()] * 4, 4, 100).size[1] == one[1]
    assert draw_sheet([sample()] * 5, 4, 100).size[1] > one[1]
    draw_sheet([sample(caption="", oks=None), sample(caption="word " * 500), sample(caption="x" * 900)], 3)


@pytest.mark.parametrize("caption", ["word " * 500, "W" * 900, "a " + "W" * 900, "a man, " * 9])
def test_a_caption_never_runs_into_the_score(caption):
    without, score_only = (draw_sheet([sample(caption=c, oks=0.5)], tile=100) for c in (caption, ""))
    score = np.asarray(score_only)[117:130] < 200
    left = np.flatnonzero(score.any((0, 2)))[0]
    text = np.asarray(without)[117:130]
    assert (text[:, left - 5 : left] == 255).all()
    assert (text[:, :left] < 200).any()
    np.testing.assert_array_equal(text[:, left:], np.asarray(score_only)[117:130, left:])


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    made = Lake.create(tmp_path_factory.mktemp("sheet") / "lake")
    fill(made, 40)
    for path in made.table("images").read(["image_path"]).column(0).to_pylist():
        made.store.write(path, encode(flat((0, 0, 200)), "png"))
    for path in made.table("labels").read(["control_path"]).column(0).to_pylist():
        made.store.write(path, encode(flat((200, 0, 0)), "png"))
    return made


def test_letters_that_the_font_lacks_are_drawn_without_their_marks():
    tiles = [Image.new("RGB", (80, 80))]
    marked, plain = (draw_strips([Strip(tiles, text, "")], tile=80) for text in ("a café, äé", "a cafe, ae"))
    assert np.array_equal(np.asarray(marked), np.asarray(plain))


def test_a_sheet_of_a_lake_and_of_a_release(lake):
    create_release(lake, "0.1.0", selected(lake), label_fingerprint=LABELS)
    for sheet in (contact_sheet(lake, n=6, tile=100), contact_sheet(lake, release="0.1.0", n=6, tile=100)):
        control, image, _ = tiles(sheet)
        assert (control == (200, 0, 0)).all()
        assert (image == (0, 0, 200)).all()


def test_chosen_images_are_shown_and_unknown_ones_named(lake):
    ids = lake.table("images").read(["image_id"]).column(0).to_pylist()[:3]
    assert contact_sheet(lake, image_ids=ids, tile=100).size == contact_sheet(lake, n=3, tile=100).size
    with pytest.raises(InputError, match="no measured image 12345"):
        contact_sheet(lake, image_ids=[12345])


def test_a_damaged_image_is_named_and_an_empty_lake_said(lake, tmp_path):
    row = lake.table("images").read(["image_id", "image_path"]).to_pylist()[0]
    lake.store.write(row["image_path"], b"no image")
    with pytest.raises(RowError, match="no intact JPEG or PNG"):
        contact_sheet(lake, image_ids=[row["image_id"]])
    with pytest.raises(InputError, match="no measured images to show"):
        contact_sheet(Lake.create(tmp_path / "empty"))

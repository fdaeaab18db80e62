import numpy as np
import pyarrow as pa
import pytest

from schemas.caption_attributes import CAPTION_ATTRIBUTES
from schemas.coco import SMPLX_INDEX
from schemas.smplx_params import SMPLX_PARAMS
from schemas.source import GrammarSource
from udfs import grammar
from udfs.anatomy import BOTTOM_AREA, SHOES_AREA, TOP_AREA
from udfs.body import Body
from udfs.camera import boxes, camera_params, crop, project
from udfs.raster import rasterize
from udfs.recipes import RECIPES
from udfs.scenery import scenery
from udfs.shaded import Model, Shaded, render
from udfs.udf import Worker

SIZE = 128


@pytest.fixture(scope="module")
def model():
    return Model.load(Body.load(None))


@pytest.fixture(scope="module")
def paint():
    made = Shaded().load(Worker(device="cpu", files=None))
    return lambda rows: made(rows).pixels


def rows(model, count, seed=0, size=SIZE, said=None):
    """Label, sample and caption columns of `count` people; `said` overrides caption attributes."""
    rng = np.random.default_rng(seed)
    params = {name: np.zeros((count, length), np.float32) for name, length in SMPLX_PARAMS.items()}
    params["body_pose"] = rng.normal(0, 0.2, (count, 63)).astype(np.float32)
    params["body_pose"][:, 47], params["body_pose"][:, 50] = -0.9, 0.9  # arms down
    params["betas"] = rng.uniform(-1, 1, (count, 10)).astype(np.float32)
    elevation = np.radians(rng.uniform(-5, 15, count))
    pelvis = model.body.pelvis(params["betas"], params["expression"])
    params = camera_params(params, pelvis, rng.uniform(-np.pi, np.pi, count), elevation, np.full(count, 3.0))
    focal, princpt = np.full((count, 2), SIZE * 0.87), np.full((count, 2), SIZE / 2)
    box = boxes(project(model.body(params).vertices, focal, princpt))
    focal, princpt = crop(box, focal, princpt, np.full(count, 0.1), np.full((count, 2), size))
    captions = grammar.captions(np.arange(count) + 1000 * seed, GrammarSource())
    columns = {name: pa.array(list(value)) for name, value in params.items()}
    columns |= {"focal": pa.array(list(focal.astype(np.float32)))}
    columns |= {"princpt": pa.array(list(princpt.astype(np.float32)))}
    columns |= {
        "gender": pa.array(["neutral"] * count),
        "camera_elevation": pa.array(elevation, pa.float32()),
    }
    columns |= {"seed": pa.array(rng.integers(0, 1 << 60, count))}
    columns |= {name: pa.array([size] * count, pa.int32()) for name in ("image_height", "image_width")}
    for name in CAPTION_ATTRIBUTES:
        columns[name] = (
            pa.array([said[name]] * count, pa.string()) if said and name in said else captions[name]
        )
    return pa.table(columns).select(Shaded.columns)


def layers(model, table, i):
    """The layers of row i."""
    row = table.slice(i, 1).to_pylist()[0]
    params = {name: np.asarray([row[name]], np.float32) for name in SMPLX_PARAMS}
    vertices = model.body(params).vertices[0]
    said = {name: row[name] for name in CAPTION_ATTRIBUTES}
    camera = np.asarray(row["focal"]), np.asarray(row["princpt"])
    size = row["image_height"], row["image_width"]
    return render(model, vertices, *camera, row["camera_elevation"], said, row["seed"], *size), vertices


def test_a_row_has_the_same_bytes_again_and_in_any_company(model, paint):
    table = rows(model, 5)
    together = paint(table)
    assert together.shape == (5, SIZE, SIZE, 3)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(paint(table), together)
    shuffled = paint(table.take(pa.array([3, 1, 4])))
    np.testing.assert_array_equal(shuffled, together[[3, 1, 4]])
    np.testing.assert_array_equal(paint(table.slice(2, 1))[0], together[2])


def test_another_seed_paints_another_picture_of_the_same_person(model):
    table = rows(model, 1, seed=3)
    first, _ = layers(model, table, 0)
    changed = table.set_column(table.column_names.index("seed"), "seed", pa.array([123]))
    second, _ = layers(model, changed, 0)
    np.testing.assert_array_equal(first.person[..., 3], second.person[..., 3])
    difference = np.abs(first.develop().astype(int) - second.develop().astype(int))
    assert difference.mean() > 8
    assert difference[first.person[..., 3] > 0.5].mean() > 4


def test_the_silhouette_is_that_of_the_labels(model):
    table = rows(model, 2, seed=1, size=256)
    for i in range(2):
        painted, vertices = layers(model, table, i)
        row = table.slice(i, 1).to_pylist()[0]
        camera = np.asarray([row["focal"]]), np.asarray([row["princpt"]])
        label = rasterize(vertices[None], model.body.faces, *camera, 256, 256).face[0] >= 0
        mine = painted.person[..., 3] >= 0.5
        assert (label & mine).sum() / (label | mine).sum() > 0.97
        # Every pixel whose centre the body covers has some of it, and none far from it has any.
        assert (painted.person[..., 3][label] > 0).mean() > 0.999
        row_index, column = np.nonzero(painted.person[..., 3] > 0)
        points = project(vertices[None], *camera)[0]
        assert column.min() >= points[:, 0].min() - 1
        assert row_index.max() <= points[:, 1].max() + 1


def nearest_color(pixels, words):
    distance = ((np.median(pixels, axis=0) - np.array(list(words.values()), float)) ** 2).sum(1)
    return list(words)[distance.argmin()]


def test_clothes_have_the_colours_that_the_caption_says(model):
    count = 40
    table = rows(model, count, seed=5)
    right = total = 0
    for i in range(count):
        painted, _ = layers(model, table, i)
        picture, row = painted.develop(), table.slice(i, 1).to_pylist()[0]
        for name, area in (
            ("top_color", TOP_AREA),
            ("bottom_color", BOTTOM_AREA),
            ("shoes_color", SHOES_AREA),
        ):
            pixels = picture[painted.area == area]
            if row[name] and len(pixels) > 30:
                total += 1
                right += nearest_color(pixels, grammar.COLORS) == row[name]
    assert total > 80
    assert right / total > 0.85


@pytest.mark.parametrize(("kind", "bare"), [("tank top", True), ("sweater", False)])
def test_sleeves_are_as_long_as_the_garment_has_them(model, kind, bare):
    table = rows(model, 1, seed=2, said={"top": kind, "bottom": "jeans"})
    painted, _ = layers(model, table, 0)
    row = table.slice(0, 1).to_pylist()[0]
    params = {name: np.asarray([row[name]], np.float32) for name in SMPLX_PARAMS}
    joints = model.body(params).joints
    elbow = project(joints[:, [18, 19]], np.asarray([row["focal"]]), np.asarray([row["princpt"]]))[0]
    shown = [painted.area[int(y), int(x)] for x, y in elbow]
    if bare:
        assert TOP_AREA not in shown
    else:
        assert TOP_AREA in shown


def test_the_background_has_the_colour_that_the_caption_says(model):
    said = {"scene": "studio backdrop", "background_color": "teal", "lighting": None}
    painted, _ = layers(model, rows(model, 1, seed=4, said=said), 0)
    picture = painted.develop()
    top = picture[: SIZE // 3][painted.area[: SIZE // 3] < 0]
    assert nearest_color(top, grammar.COLORS) == "teal"


def test_every_scene_of_the_grammar_can_be_painted():
    assert set(RECIPES) == {scene.name for scene in grammar.SCENES}
    for name in RECIPES:
        setting, props = scenery({"scene": name}, 1, 3.0, np.ones(3))
        assert np.isfinite(setting["ground_colors"]).all()
        assert (props["distance"] > 3).all()


def test_nothing_said_at_all_is_painted_too(model, paint):
    table = rows(model, 2, said=dict.fromkeys(CAPTION_ATTRIBUTES))
    assert table["top_color"].null_count == 2
    pictures = paint(table)
    assert pictures.std() > 20
    assert (pictures[0] != pictures[1]).any()


def test_keypoints_lie_on_the_person(model):
    table = rows(model, 1, seed=6)
    painted, _ = layers(model, table, 0)
    row = table.slice(0, 1).to_pylist()[0]
    params = {name: np.asarray([row[name]], np.float32) for name in SMPLX_PARAMS}
    joints = model.body(params).joints[:, SMPLX_INDEX]
    points = project(joints, np.asarray([row["focal"]]), np.asarray([row["princpt"]]))[0]
    covered = [painted.person[int(y), int(x), 3] > 0 for x, y in points]
    assert np.mean(covered) > 0.9

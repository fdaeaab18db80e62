import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas.errors import ModelError, RowError
from schemas.metrics import metric_outputs
from schemas.smplx_params import SMPLX_PARAMS
from schemas.source import GrammarSource
from udfs import grammar
from udfs.body import Body
from udfs.camera import boxes, camera_params, crop, project
from udfs.caption_colors import CaptionColors, Palette, oklab, read_colors, right
from udfs.color_regions import ATTRIBUTES, TOP, Tailor, color_regions
from udfs.columns import list_column
from udfs.grammar import COLORS
from udfs.random_poses import random_poses
from udfs.shaded import Shaded
from udfs.udf import Worker

N, SIDE = 64, 128


class Folder:
    def __init__(self):
        self.data = {}

    def read(self, path):
        if path not in self.data:
            raise FileNotFoundError(path)
        return self.data[path]

    def write(self, path, data):
        self.data[path] = data


@pytest.fixture(scope="module")
def palettes():
    return Palette.load()


@pytest.fixture(scope="module")
def tailor():
    return Tailor.load(Body.load(None))


@pytest.fixture(scope="module")
def rows(tailor):
    """What CaptionColors and Shaded read, of N captioned people."""
    params = random_poses(N, 44)
    pelvis = tailor.body.pelvis(params["betas"], params["expression"])
    params = camera_params(params, pelvis, np.linspace(-3, 3, N), np.full(N, 0.1), np.full(N, 3.0))
    vertices = tailor.body(params).vertices
    focal, princpt = np.full((N, 2), 100.0), np.full((N, 2), SIDE / 2)
    box = boxes(project(vertices, focal, princpt))
    focal, princpt = crop(box, focal, princpt, np.full(N, 0.1), np.full((N, 2), SIDE))
    said = grammar.captions(np.arange(N) + 7_000, GrammarSource(shoes=0.7))
    columns = {
        "image_id": np.arange(N),
        "image_path": [f"{i}.png" for i in range(N)],
        "gender": ["neutral"] * N,
        **{k: list_column(params[k].astype(np.float32), pa.list_(pa.float32())) for k in SMPLX_PARAMS},
        "focal": list_column(focal.astype(np.float32), pa.list_(pa.float32())),
        "princpt": list_column(princpt.astype(np.float32), pa.list_(pa.float32())),
        "camera_elevation": np.full(N, 0.1, np.float32),
        "image_height": np.full(N, SIDE, np.int32),
        "image_width": np.full(N, SIDE, np.int32),
        "seed": np.arange(N) + 900,
        **{name: said[name] for name in said.column_names if name != "text"},
    }
    return pa.table(columns)


@pytest.fixture(scope="module")
def pictures(rows):
    return Shaded().load(Worker(device="cpu", files=Folder()))(rows).pixels


@pytest.fixture(scope="module")
def apply(pictures):
    files = Folder()
    for i, picture in enumerate(pictures):
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "PNG")
        files.write(f"{i}.png", out.getvalue())
    files.write("broken.png", files.read("0.png")[:500])
    files.write("small.png", (out := io.BytesIO(), Image.new("RGB", (64, 64)).save(out, "PNG"))[0].getvalue())
    return CaptionColors().setup(Worker(device="cpu", files=files))


@pytest.fixture(scope="module")
def measured(apply, rows):
    return apply(rows.select(CaptionColors.inputs))


def test_oklab_is_that_of_its_author():
    known = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]], np.uint8)
    wanted = [
        [1.0, 0.0, 0.0],
        [0.62796, 0.22486, 0.12585],
        [0.86644, -0.23389, 0.17950],
        [0.45201, -0.03246, -0.31153],
        [0.0, 0.0, 0.0],
    ]
    assert np.allclose(oklab(known), wanted, atol=2e-4)


def test_colours_of_renders_are_read_as_their_captions_say(measured):
    assert measured.schema.equals(metric_outputs("colors"))
    for name, least in (("top_color", 0.85), ("bottom_color", 0.95), ("shoes_color", 0.9)):
        verdicts = [v for v in measured[f"{name}_right"].to_pylist() if v is not None]
        assert len(verdicts) >= N // 2
        assert np.mean(verdicts) >= least, name


def test_another_picture_of_another_caption_is_wrong(rows, pictures, tailor, palettes):
    params = {name: np.stack(rows[name].to_pylist()) for name in SMPLX_PARAMS}
    camera = (np.stack(rows[name].to_pylist()) for name in ("focal", "princpt"))
    regions = color_regions(tailor, params, *camera, SIDE, SIDE)
    said = rows.select(ATTRIBUTES).to_pylist()
    other = [*said[1:], said[0]]
    read = read_colors(pictures, regions, other, palettes)
    verdicts = [right(s["bottom_color"], r["bottom_color"]) for s, r in zip(other, read, strict=True)]
    assert np.mean(verdicts) < 0.25, "one in fourteen is right by chance"


def test_what_is_not_said_or_not_shown_is_null(rows, measured):
    for name in ATTRIBUTES:
        said, read = rows[name].to_pylist(), measured[f"{name}_read"].to_pylist()
        assert all(r is None for s, r in zip(said, read, strict=True) if s is None)
        assert set(read) <= {*COLORS, None}
    assert None in rows["background_color"].to_pylist()
    assert right("red", None) is None
    assert right(None, "red") is None
    assert right("red", "red") is True
    assert right("red", "blue") is False


def test_a_share_counts_only_what_was_measured(measured):
    row = next(r for r in measured.to_pylist() if r["background_color_right"] is None)
    known = [row[f"{name}_right"] for name in ATTRIBUTES if row[f"{name}_right"] is not None]
    assert row["colors_right"] == pytest.approx(np.mean(known))


def test_a_small_region_is_not_read(palettes):
    picture = np.full((1, 20, 20, 3), (200, 30, 38), np.uint8)
    regions = np.zeros((1, 20, 20), np.int8)
    said = [{"top_color": "red"}]
    regions[0, 0, :5] = TOP
    assert read_colors(picture, regions, said, palettes)[0]["top_color"] is None
    regions[0, 0, :6] = TOP
    assert read_colors(picture, regions, said, palettes)[0]["top_color"] == "red"


@pytest.mark.parametrize("word", ["red", "yellow", "green", "blue", "purple", "pink", "white", "black"])
def test_a_strap_does_not_decide(palettes, word):
    pixels = np.full((90, 3), COLORS[word], np.uint8)
    pixels[:30] = (120, 90, 60)
    assert palettes["cloth"].read(pixels) == word


def test_rows_keep_their_order_whatever_their_size(apply, rows, measured):
    order = [5, 3, 9]
    out = apply(rows.select(CaptionColors.inputs).take(pa.array(order)))
    assert out["image_id"].to_pylist() == order
    assert out.equals(measured.take(pa.array(order)))


@pytest.mark.parametrize(
    ("path", "message"),
    [("gone.png", "is not there"), ("broken.png", "no intact"), ("small.png", "64 x 64 pixels")],
)
def test_a_file_that_cannot_be_read_is_named(apply, rows, path, message):
    bad = rows.slice(0, 1).set_column(1, "image_path", pa.array([path]))
    with pytest.raises(RowError, match=f"{path}.*{message}"):
        apply(bad.select(CaptionColors.inputs))


def test_references_that_are_damaged_are_refused(tmp_path):
    (tmp_path / "colors.json").write_text('{"words": ["red"]}')
    with pytest.raises(ModelError, match="no colour references"):
        Palette.load(tmp_path / "colors.json")


def test_the_fingerprint_covers_the_body_and_the_references():
    names = CaptionColors().fingerprint().ingredients
    assert {"models.references", "models.body_neutral"} <= set(names)

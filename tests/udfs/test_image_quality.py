import io
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter
from skimage.measure import blur_effect

from schemas.errors import RowError
from schemas.metrics import metric_outputs
from tests.tiny_pipelines import Folder
from udfs.image_quality import ImageQuality, blockiness, colorfulness, image_quality, luma, sharpness
from udfs.picture import encode
from udfs.udf import Worker


@pytest.fixture(scope="module")
def textured():
    """(200, 240, 3): smooth shapes with fine noise on them."""
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8))
    smooth = np.asarray(coarse.resize((240, 200), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs(real_data):
    files = sorted((real_data / "coco_people").glob("*.jpg"))
    assert len(files) == 6
    return [np.asarray(Image.open(f).convert("RGB")) for f in files]


def blurred(picture, radius):
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def compressed(picture, quality):
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data))


def rising(values):
    values = list(values)
    return all(a < b for a, b in pairwise(values))


def test_sharpness_is_that_of_scikit_image(textured):
    for picture in (textured, blurred(textured, 2), textured[:20, :31]):
        assert sharpness(luma(picture)) == pytest.approx(1 - blur_effect(luma(picture)), abs=1e-6)


def test_blur_lowers_sharpness_of_photographs(photographs):
    for picture in photographs:
        assert rising(sharpness(luma(blurred(picture, r))) for r in (8, 4, 2, 1, 0))
        assert sharpness(luma(picture)) == pytest.approx(1 - blur_effect(luma(picture)), abs=1e-6)


def test_compression_shows_in_photographs(photographs):
    for picture in photographs:
        assert rising(blockiness(luma(compressed(picture, q))) for q in (95, 75, 50, 30, 10, 5))
        # Moved by half a block, its borders are no longer where they are looked for.
        moved = compressed(picture, 10)[4:, 4:]
        assert blockiness(luma(moved)) < 1.1


def test_a_picture_that_was_never_compressed_shows_no_blocks(textured):
    assert blockiness(luma(textured)) == pytest.approx(1, abs=0.05)
    steps = np.zeros((32, 32), np.float32)
    steps[:, 8:] = 1  # one border of the six, and no step elsewhere
    assert blockiness(steps) == 1 or blockiness(steps) > 100
    steps[:, 12] = 2
    # One column of 3 borders has a step of 1, two of the 28 others have one; the rows have none.
    assert blockiness(steps) == pytest.approx((1 / 6) / (2 / 56))


def test_colorfulness_is_that_of_its_authors_formula():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    # One colour: no spread, means of 255 and 127.5.
    assert colorfulness(red) == pytest.approx(0.3 * np.hypot(255, 127.5))
    red[:2] = (0, 255, 0)
    # rg is -255 and 255, yb 127.5 everywhere.
    assert colorfulness(red) == pytest.approx(255 + 0.3 * 127.5)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, 2)
    assert colorfulness(grey) == 0


def test_exposure_and_clipping_are_counted():
    half = np.zeros((10, 10, 3), np.uint8)
    half[:5] = 255
    found = image_quality(half)
    assert found["brightness"] == pytest.approx(0.5)
    assert found["contrast"] == pytest.approx(0.5)
    assert found["clipped_dark"] == found["clipped_bright"] == 0.5
    half[:, 5:] = (255, 20, 20)
    assert image_quality(half)["clipped_bright"] == 0.75, "one channel at its end is clipped"
    assert image_quality(half)["clipped_dark"] == 0.25


def test_flat_and_tiny_pictures_have_finite_numbers():
    for picture in (np.full((64, 64, 3), 90, np.uint8), np.zeros((16, 16, 3), np.uint8)):
        found = image_quality(picture)
        assert np.isfinite(list(found.values())).all()
        assert found["sharpness"] == 0
        assert found["blockiness"] == 1


def test_rows_in_any_batch_have_what_each_has_alone(textured):
    files = Folder()
    pictures = [textured[:128, :128], blurred(textured, 3)[:128, :128], 255 - textured[:128, :128]]
    for k, picture in enumerate(pictures):
        files.write(f"{k}.png", encode(picture, "png"))
    files.write("broken.png", files.read("0.png")[:900])
    rows = pa.table(
        {
            "image_id": pa.array([7, 8, 9]),
            "image_path": [f"{k}.png" for k in range(3)],
            "image_height": pa.array([128] * 3, pa.int32()),
            "image_width": pa.array([128] * 3, pa.int32()),
        }
    )
    apply = ImageQuality().setup(Worker("cpu", files))
    found = apply(rows)
    assert found.schema.equals(metric_outputs("image_quality"))
    for k, picture in enumerate(pictures):
        alone = image_quality(picture)
        assert found.slice(k, 1).to_pylist() == apply(rows.slice(k, 1)).to_pylist()
        for name, value in alone.items():
            assert found[name][k].as_py() == pytest.approx(value, rel=1e-6)
    with pytest.raises(RowError, match=r"broken\.png"):
        apply(rows.slice(0, 1).set_column(1, "image_path", pa.array(["broken.png"])))
    with pytest.raises(RowError, match="its labels are for"):
        apply(rows.slice(0, 1).set_column(2, "image_height", pa.array([64], pa.int32())))

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas.errors import RowError
from schemas.metrics import metric_outputs
from udfs.body import Body
from udfs.keypoint_renders import make_renders
from udfs.keypoints import WEIGHTS, KeypointMetric
from udfs.random_poses import random_poses
from udfs.shaded import Model
from udfs.udf import Worker


class Folder:
    """The lake's files, in memory."""

    def __init__(self):
        self.data = {}

    def read(self, path):
        if path not in self.data:
            raise FileNotFoundError(path)
        return self.data[path]

    def write(self, path, data):
        self.data[path] = data


def jpeg(picture):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.fixture(scope="module")
def renders():
    return make_renders(Model.load(Body.load(None)), random_poses, 6, seed=55_555, margin=(0.1, 0.1))


@pytest.fixture(scope="module")
def files(renders):
    folder = Folder()
    for i in range(6):
        folder.write(f"images/{i}.jpg", jpeg(np.ascontiguousarray(renders.pictures[i, ..., :3])))
    folder.write("images/blank.jpg", jpeg(np.full((256, 256, 3), 140, np.uint8)))
    folder.write("images/broken.jpg", jpeg(np.zeros((256, 256, 3), np.uint8))[:300])
    folder.write("images/pickle.jpg", b"\x80\x04\x95not an image")
    folder.write("images/small.jpg", jpeg(np.zeros((64, 64, 3), np.uint8)))
    return folder


@pytest.fixture(scope="module")
def apply(files):
    return KeypointMetric().setup(Worker(device="cpu", files=files))


def table(renders, paths, labels=None, visible=None):
    labels = list(range(len(paths))) if labels is None else labels
    keypoints = renders.keypoints[labels].reshape(len(paths), 34)
    visible = renders.visible[labels] if visible is None else visible
    columns = {
        "image_id": pa.array(range(100, 100 + len(paths)), pa.int64()),
        "image_path": pa.array(paths),
        "keypoints_2d": pa.array(list(keypoints), pa.list_(pa.float32())),
        "keypoints_visible": pa.array(list(visible.astype(np.int8)), pa.list_(pa.int8())),
        "bbox": pa.array(list(renders.boxes[labels]), pa.list_(pa.float32())),
        "image_height": pa.array([256] * len(paths), pa.int32()),
        "image_width": pa.array([256] * len(paths), pa.int32()),
    }
    return pa.table(columns).select(KeypointMetric.inputs)


def test_rows_hold_what_the_schema_says_and_match_their_labels(apply, renders):
    out = apply(table(renders, [f"images/{i}.jpg" for i in range(6)]))
    assert out.schema.equals(metric_outputs("keypoints"))
    assert out["image_id"].to_pylist() == list(range(100, 106))
    assert np.median(out["oks"].to_pylist()) > 0.85
    for row in out.to_pylist():
        assert row["persons"] >= 1
        points = np.array(row["keypoints"]).reshape(17, 3)
        assert (points[:, 2] >= 0).all()
        assert (points[:, 2] <= 1).all()
        x, y, w, h = row["keypoints_bbox"]
        confident = points[points[:, 2] > 0.5]
        assert (np.abs(confident[:, 0] - x - w / 2) < w * 0.7).all()
        assert (np.abs(confident[:, 1] - y - h / 2) < h * 0.7).all()


def test_labels_of_another_picture_score_lower(apply, renders):
    paths = [f"images/{i}.jpg" for i in range(6)]
    own = apply(table(renders, paths))["oks"].to_pylist()
    other = apply(table(renders, paths, labels=[1, 2, 3, 4, 5, 0]))["oks"].to_pylist()
    assert np.median(own) > np.median(other) + 0.2


def test_an_empty_picture_has_no_person_and_nothing_is_measured(apply, renders):
    row = apply(table(renders, ["images/blank.jpg"])).to_pylist()[0]
    assert row == {
        "image_id": 100,
        "persons": 0,
        "person_score": None,
        "keypoints": None,
        "keypoints_bbox": None,
        "oks": None,
    }


def test_without_a_labelled_keypoint_in_the_image_there_is_no_oks(apply, renders):
    row = apply(table(renders, ["images/0.jpg"], visible=np.zeros((1, 17)))).to_pylist()[0]
    assert row["persons"] >= 1
    assert row["keypoints"] is not None
    assert row["oks"] is None


@pytest.mark.parametrize("name", ["broken", "pickle", "small", "missing"])
def test_a_picture_that_cannot_be_read_is_a_row_error_that_names_it(apply, renders, name):
    with pytest.raises(RowError, match=f"images/{name}.jpg"):
        apply(table(renders, [f"images/{name}.jpg"]))


def test_no_rows_give_no_rows(apply, renders):
    out = apply(table(renders, ["images/0.jpg"]).slice(0, 0))
    assert out.num_rows == 0
    assert out.schema.equals(KeypointMetric.outputs)


def test_the_fingerprint_follows_the_weights_content_and_not_their_place(tmp_path):
    copy, changed = tmp_path / "copy.safetensors", tmp_path / "changed.safetensors"
    data = WEIGHTS.read_bytes()
    copy.write_bytes(data)
    changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    shipped = KeypointMetric().fingerprint().value
    assert KeypointMetric(weights=copy).fingerprint().value == shipped
    assert KeypointMetric(weights=changed).fingerprint().value != shipped
    assert KeypointMetric(threshold=0.5).fingerprint().value != shipped


def test_the_shipped_weights_are_small():
    assert WEIGHTS.stat().st_size < 8_000_000

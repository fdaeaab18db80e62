"""Images, bodies and sheets of a release, by id and by condition."""

import hashlib
import io
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import smplx
from PIL import Image

from etl.lake import Lake
from etl.pictures import Pictures
from etl.query import Release
from schemas.errors import ConfigError, InputError, LakeError, RowError
from schemas.smplx_params import SMPLX_PARAMS
from schemas.tables import DATASET
from tests.lake_rows import random_rows
from tests.released import publish_rows
from tests.udfs.test_labels import samples
from udfs.labels import Labels
from udfs.picture import MAX_PIXELS, encode
from udfs.standin import standin_path
from udfs.udf import Worker

N = 9


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Release:
    """Labels of the real UDF; image i is a picture of the number i."""
    lake = Lake.create(tmp_path_factory.mktemp("pictures") / "lake")
    labels = Labels().setup(Worker("cpu", lake.store))(samples(N, global_orient=np.zeros((N, 3))))
    given = {n: labels[n].to_pylist() for n in DATASET.names if n in labels.column_names}
    paths = [f"files/images/{i}.png" for i in range(N)]
    files = [encode(np.full((12, 20, 3), i, np.uint8), "png") for i in range(N)]
    for path, data in zip(paths, files, strict=True):
        lake.store.write(path, data)
    sums = [hashlib.sha256(data).hexdigest() for data in files]
    rows = random_rows("dataset", N, image_path=paths, image_sha256=sums, round=np.arange(N), **given)
    return publish_rows(lake, [rows.slice(0, 4), rows.slice(4)])


@pytest.fixture
def ids(release) -> np.ndarray:
    return release.array("image_id")


def test_rows_come_in_the_order_of_the_ids(release, ids):
    some = [ids[7], ids[0], ids[7], ids[3]]
    for given in (some, np.array(some), pd.Series(some, index=list("abcd")), tuple(map(int, some))):
        assert release.to_pandas(["round"], ids=given)["round"].tolist() == [7, 0, 7, 3]
    assert release.to_arrow(["image_id", "round"], ids=some, limit=2)["round"].to_pylist() == [7, 0]
    assert release.array("joints_3d", ids=some).shape == (4, 127, 3)
    np.testing.assert_array_equal(release.array("joints_3d", ids=some)[3], release.array("joints_3d")[3])
    assert release.to_pandas(ids=[]).shape == (0, len(release.columns))


def test_pictures_are_opened_when_they_are_indexed(release, ids, monkeypatch):
    pictures = release.images(ids[[5, 2]])
    assert [np.asarray(picture)[0, 0, 0] for picture in pictures] == [5, 2]
    assert pictures[0].size == (20, 12)
    assert pictures[-1].getpixel((3, 3)) == (2, 2, 2)
    assert isinstance(pictures[0], Image.Image)
    assert pictures.ids == [ids[5], ids[2]]
    opened = []
    read = type(release.lake.store).read
    monkeypatch.setattr(
        type(release.lake.store), "read", lambda store, path: opened.append(path) or read(store, path)
    )
    few = release.images(where="round >= 4", limit=4, check=True)[1:3]
    assert (len(few), opened) == (2, [])
    assert [np.asarray(few[i])[0, 0, 0] for i in (1, 0)] == [6, 5]
    assert opened == ["files/images/6.png", "files/images/5.png"]
    with pytest.raises(IndexError):
        few[2]
    assert repr(release.images()) == "Pictures(9 images)"


def test_a_picture_that_is_gone_damaged_huge_or_another_is_named(tmp_path):
    lake = Lake.create(tmp_path / "lake")
    good = encode(np.zeros((8, 8, 3), np.uint8), "png")
    huge = Image.new("1", (20_000, MAX_PIXELS // 20_000 + 1))
    out = io.BytesIO()
    huge.save(out, "PNG")
    for name, data in {"good": good, "cut": good[:40], "huge": out.getvalue()}.items():
        lake.store.write(f"files/{name}", data)
    paths = [f"files/{name}" for name in ("good", "cut", "huge", "gone")]
    pictures = Pictures(lake.store, [1, 2, 3, 4], paths)
    assert pictures[0].size == (8, 8)
    for at, said in (
        (1, "files/cut: no intact"),
        (2, "files/huge: .*pixels"),
        (3, "files/gone: .*not there"),
    ):
        with pytest.raises(RowError, match=said):
            pictures[at]
    checked = Pictures(lake.store, [1, 1], ["files/good"] * 2, [hashlib.sha256(good).hexdigest(), "0" * 64])
    assert checked[0].size == (8, 8)
    with pytest.raises(RowError, match="files/good: not the file that its row speaks of"):
        checked[1]
    with pytest.raises(LakeError, match="not a path below the lake"):
        Pictures(lake.store, [1], ["../outside.png"])[0]


def test_smplx_poses_what_the_labels_say(release, ids):
    chosen = ids[[6, 1, 4]]
    with redirect_stdout(io.StringIO()):  # it warns of a body file with few shape directions
        model = smplx.create(
            str(standin_path()),
            "smplx",
            batch_size=len(chosen),
            use_pca=False,
            flat_hand_mean=True,
            **release.smplx(chosen),
        )
    joints = model().joints.detach().numpy()
    np.testing.assert_allclose(joints, release.array("joints_3d", ids=chosen), atol=2e-5)
    assert np.abs(joints - release.array("joints_3d", ids=ids[:3])).max() > 0.01
    parameters = release.smplx(where="round < 5", limit=2)
    assert {name: value.shape for name, value in parameters.items()} == {
        name: (2, k) for name, k in SMPLX_PARAMS.items()
    }
    assert all(value.dtype == np.float32 for value in parameters.values())


def test_a_sheet_shows_what_the_condition_lets_through(release):
    sheet = np.asarray(release.show(3, "round in (2, 5, 8)", columns=1, tile=60))
    middles = [sheet[y, 14 + 60 + 3 + 30].tolist() for y in np.flatnonzero((sheet[:, 107] < 9).all(-1))]
    assert [middle for i, middle in enumerate(middles) if i == 0 or middle != middles[i - 1]] == [
        [2] * 3,
        [5] * 3,
        [8] * 3,
    ]
    assert release.show(100, tile=40).size == release.show(N, tile=40).size
    for n, where in ((0, None), (3, "round > 100")):
        with pytest.raises(InputError, match="nothing to show"):
            release.show(n, where)


def test_wrong_ids_are_answered_with_what_is_wrong(release, ids):
    with pytest.raises(InputError, match=r"release 1\.0\.0 has no image 12 and 1 more"):
        release.images([int(ids[0]), 12, 13, 13])
    for wrong in ("round > 3", [0.5], ["a"], [[1, 2]], 7):
        with pytest.raises(InputError, match="list of image ids"):
            release.smplx(wrong)
    with pytest.raises(InputError, match="both given"):
        release.images(ids, where="round > 3")
    with pytest.raises(InputError, match="twice: oks, oks"):
        release.to_arrow(["oks", "oks"])


@pytest.mark.parametrize(
    "where", [pc.field("okss") > 1, pc.field("oks") == "a", pc.field("oks"), pd.Series([True]), 7]
)
def test_wrong_conditions_are_answered_with_what_is_wrong(release, where):
    for ask in (release.to_pandas, release.array, release.dask, release.torch):
        with pytest.raises(ConfigError, match="where: "):
            ask(["oks"] if ask != release.array else "oks", where)


def test_dask_holds_the_same_rows_a_partition_a_file(release):
    columns, where = ["joints_2d", "round", "oks"], "round != 2 and round < 7"
    frame = release.dask(columns, where)
    assert frame.npartitions == 2
    ours = release.to_arrow(columns, where).to_pandas(types_mapper=pd.ArrowDtype)
    pd.testing.assert_frame_equal(frame.compute(scheduler="sync").reset_index(drop=True), ours)
    assert release.dask(["round"], "round > 5").npartitions == 1, "the first file holds none of them"
    assert frame[["round"]].sum().compute(scheduler="sync").tolist() == [0 + 1 + 3 + 4 + 5 + 6]
    none = release.dask(columns, pc.field("round") > pa.scalar(50))
    assert len(none) == 0
    assert list(none.columns) == columns

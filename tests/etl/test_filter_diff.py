"""Two policies side by side: who comes, who goes, by which rule, and who is near the thresholds."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from etl.filter import Measured
from etl.lake import Lake
from etl.selection_diff import boundary, boundary_sheet, compare, write_diff
from schemas.errors import ConfigError, InputError, RowError
from schemas.policy import Policy
from tests.lake_rows import IMAGES, LABELS, METRICS, fill, random_rows
from udfs.picture import encode

MEASURED = Measured({"metrics_keypoints": METRICS}, IMAGES)
STRICT = Policy(
    name="strict", rules=[{"column": "persons", "min": 1, "max": 4}, {"column": "oks", "min": 0.6}]
)
OTHER = Policy(name="other", rules=[{"column": "persons", "max": 2}, {"column": "oks", "min": 0.5}])


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    made = Lake.create(tmp_path_factory.mktemp("diff") / "lake")
    fill(made, 400)
    note = json.dumps({"udf": "images", "upstream.labels": LABELS})
    made.table("fingerprints").append(
        random_rows("fingerprints", 1, fingerprint=IMAGES, udf="images", ingredients=note)
    )
    return made


@pytest.fixture(scope="module")
def diff(lake):
    rows, _ = MEASURED.rows(lake, STRICT, OTHER)
    return compare(rows, STRICT, OTHER)


def test_what_comes_and_goes_is_what_pandas_finds(lake, diff):
    rows = lake.table("metrics_keypoints").to_pandas(["image_id", "persons", "oks"])
    a = rows["persons"].between(1, 4) & (rows["oks"] >= np.float32(0.6))
    b = (rows["persons"] <= 2) & (rows["oks"] >= np.float32(0.5))
    assert diff.kept == {
        "both": (a & b).sum(),
        "only the first": (a & ~b).sum(),
        "only the second": (b & ~a).sum(),
        "neither": (~a & ~b).sum(),
    }
    table = diff.table().to_pandas().set_index("image_id")
    assert set(table.index[table["change"] == "goes"]) == set(rows["image_id"][a & ~b])
    assert set(table.index[table["change"] == "comes"]) == set(rows["image_id"][b & ~a])
    counts = {(c.direction, c.rule): c.count for c in diff.changes}
    nobody = b & ~a & (rows["persons"] == 0)
    assert counts == {
        ("goes", "persons <= 2"): (a & ~b).sum(),
        ("comes", "1 <= persons <= 4"): nobody.sum(),
        ("comes", "oks >= 0.6"): (b & ~a & ~nobody).sum(),
    }
    assert table.groupby(["change", "rule"]).size().to_dict() == counts


def test_boundary_cases_are_the_nearest_on_both_sides(lake, diff):
    cases = [c for c in boundary(diff, each=5) if c.rule == "oks >= 0.6"]
    rows = lake.table("metrics_keypoints").to_pandas(["image_id", "persons", "oks"])
    rows = rows[rows["persons"].between(1, 2)].assign(distance=(rows["oks"] - 0.6).abs())
    rows = rows.sort_values("distance")
    below = rows[(rows["oks"] < np.float32(0.6)) & (rows["oks"] >= np.float32(0.5))].head(5)
    above = rows[rows["oks"] >= np.float32(0.6)].head(5)
    assert [c.image_id for c in cases if c.state == "comes"] == below["image_id"].tolist()
    assert [c.image_id for c in cases if c.state == "stays"] == above["image_id"].tolist()
    assert cases[0].value == f"oks {below['oks'].iloc[0]:.4g}"


def test_the_threshold_of_a_ranking_is_the_worst_that_it_keeps(diff):
    ranked = Policy(
        name="best", rules=[{"top": 50, "by": "oks"}, {"at_most": 1, "per": "persons", "by": "oks"}]
    )
    other = compare(diff.rows, Policy(name="all", rules=[]), ranked)
    cases = boundary(other, each=3)
    scores = diff.rows.to_pandas()["oks"].dropna().sort_values(ascending=False).to_numpy()
    assert [c.rule for c in cases] == ["top 50 by oks"] * 6 + ["at most 1 per persons by oks"] * 3
    near = [float(c.value.removeprefix("oks ")) for c in cases[:3]]
    np.testing.assert_allclose(near, scores[50:53], atol=1e-4)
    assert [c.value for c in cases[6:]] == [""] * 3, "every class has a threshold of its own"


def test_a_ranking_of_what_has_no_score_has_no_threshold(diff):
    rows = diff.rows.set_column(
        diff.rows.column_names.index("oks"), "oks", pa.nulls(diff.rows.num_rows, pa.float32())
    )
    ranked = Policy(name="best", rules=[{"top": 50, "by": "oks"}])
    cases = boundary(compare(rows, Policy(name="all", rules=[]), ranked), each=3)
    assert [(c.rule, c.value) for c in cases] == [("top 50 by oks", "")] * 3


def test_a_picture_that_is_gone_is_named(lake, diff, tmp_path):
    with pytest.raises(RowError, match="the image is not there"):
        write_diff(lake, MEASURED, diff, tmp_path / "out")


def _paint(lake: Lake, cases) -> None:
    images = lake.table("images").to_pandas(["image_id", "image_path"]).set_index("image_id")["image_path"]
    labels = (
        lake.table("labels").to_pandas(["sample_id", "control_path"]).set_index("sample_id")["control_path"]
    )
    for case in cases:
        for path, color in ((images[case.image_id], (200, 0, 0)), (labels[case.sample_id], (0, 200, 0))):
            pixels = np.full((32, 24, 3), color, np.uint8)
            lake.store.write(path, encode(pixels, "png"))


def test_a_folder_gets_the_list_and_the_pictures(lake, diff, tmp_path):
    cases = boundary(diff)
    _paint(lake, cases)
    files = write_diff(lake, MEASURED, diff, tmp_path / "out")
    assert [f.name for f in files] == ["changes.csv", "boundary.png"]
    listed = pd.read_csv(files[0])
    assert len(listed) == diff.kept["only the first"] + diff.kept["only the second"]
    assert set(listed["change"]) == {"comes", "goes"}
    assert listed["image_id"].dtype == np.int64
    with Image.open(files[1]) as image:
        pixels = np.asarray(image).reshape(-1, 3).astype(int)
    for color in ((200, 0, 0), (0, 200, 0)):
        assert (np.abs(pixels - color).max(1) < 3).sum() > 1000 * len(cases)


def test_no_change_has_no_pictures(lake, diff, tmp_path):
    same = compare(diff.rows, STRICT, STRICT)
    assert (same.changes, boundary(same)) == ((), [])
    assert [f.name for f in write_diff(lake, MEASURED, same, tmp_path / "out")] == ["changes.csv"]
    with pytest.raises(InputError, match="no image comes or goes"):
        boundary_sheet(lake, MEASURED, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        write_diff(lake, MEASURED, same, tmp_path / "file")

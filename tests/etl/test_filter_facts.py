"""Rules on what stands behind an image read it by id, and open nothing but tables."""

import json

import numpy as np
import pandas as pd
import pytest

from etl.filter import Measured, select
from etl.lake import Lake
from schemas.errors import LakeError
from schemas.policy import Policy, parse_policy
from tests.lake_rows import IMAGES, LABELS, METRICS, SAMPLES, fill, random_rows
from tests.watched import run_light

MADE = {"metric_fingerprints": {"metrics_keypoints": METRICS}, "image_fingerprint": IMAGES}

POLICY = """
name: all-of-it
rules:
  - {column: coverage, min: 0.2}
  - {column: oks, min: 0.3, sources: {amass: {min: 0.5}}}
  - any:
      - {column: camera_yaw, min: 0}
      - {column: prompt_truncated, equals: true}
  - {column: persons, max: 4, when: {column: nose_visible, equals: 2}}
  - {at_most: 3, per: top_color, by: oks}
  - {top: 60, by: person_score}
"""


@pytest.fixture
def lake(tmp_path):
    made = Lake.create(tmp_path / "lake")
    fill(made, 600)
    # The images' fingerprint says what labels they were painted from.
    note = json.dumps({"udf": "images", "upstream.labels": LABELS})
    made.table("fingerprints").append(
        random_rows("fingerprints", 1, fingerprint=IMAGES, udf="images", ingredients=note)
    )
    return made


def frame(lake: Lake) -> pd.DataFrame:
    """Everything joined by pandas."""
    parts = (
        ("samples", "sample_id", ["pose_id", "caption_id", "camera_yaw"]),
        ("labels", "sample_id", ["coverage", "keypoints_visible"]),
        ("metrics_keypoints", "image_id", ["oks", "persons", "person_score"]),
        ("poses", "pose_id", ["source", "sequence"]),
        ("captions", "caption_id", ["top_color"]),
    )
    rows = lake.table("images").to_pandas(["image_id", "sample_id", "prompt_truncated"])
    for table, key, names in parts:
        rows = rows.merge(lake.table(table).to_pandas([key, *names]), on=key, validate="many_to_one")
    return rows


def chosen(lake: Lake, found) -> set[int]:
    rows = lake.table("selections").to_pandas(["selection", "image_id", "keep"])
    return set(rows[(rows["selection"] == found.fingerprint) & rows["keep"]]["image_id"])


def test_a_policy_on_everything_decides_as_pandas_does_on_the_joined_tables(lake):
    found = select(lake, parse_policy(POLICY, "p"), **MADE, sample_fingerprints=[SAMPLES])
    rows = frame(lake)
    least = np.where(rows["source"] == "amass", np.float32(0.5), np.float32(0.3))
    nose = rows["keypoints_visible"].str[0] == 2
    kept = rows[
        (rows["coverage"] >= np.float32(0.2))
        & (rows["oks"] >= least)
        & ((rows["camera_yaw"] >= 0) | (rows["prompt_truncated"] == True))  # noqa: E712 (NULL is not true)
        & (~nose | (rows["persons"] <= 4))
    ].sort_values(["oks", "image_id"], ascending=[False, True])
    per_color = kept.groupby("top_color").cumcount()
    kept = kept[kept["top_color"].isna() | (per_color < 3)].dropna(subset=["person_score"])
    kept = kept.sort_values(["person_score", "image_id"], ascending=[False, True]).head(60)
    assert found.images == 600
    assert chosen(lake, found) == set(kept["image_id"])
    assert sum(r.first for r in found.funnel) == 600 - found.kept
    assert all(r.first for r in found.funnel[:4])


def test_classes_may_be_what_images_share(lake):
    policy = Policy(name="p", rules=[{"at_most": 1, "per": "pose_id", "by": "oks", "missing": "keep"}])
    found = select(lake, policy, **MADE)
    rows = frame(lake).sort_values(["oks", "image_id"], ascending=[False, True], na_position="last")
    assert chosen(lake, found) == set(rows.drop_duplicates("pose_id")["image_id"])


def test_a_dry_run_says_the_same_and_writes_nothing(lake):
    policy = parse_policy(POLICY, "p")
    before = lake.tables()
    dry = select(lake, policy, **MADE, write=False)
    assert lake.tables() == before
    wet = select(lake, policy, **MADE)
    assert (dry.fingerprint, dry.kept, dry.funnel) == (wet.fingerprint, wet.kept, wet.funnel)
    assert (dry.written, wet.written) == (0, 600)


def test_what_stands_behind_an_image_and_is_not_there_is_said(lake):
    lake.table("images").append(random_rows("images", 1, 8, fingerprint=IMAGES))
    last = lake.table("images").read(["image_id"]).column("image_id").to_pylist()
    known = set(lake.table("metrics_keypoints").read(["image_id"]).column("image_id").to_pylist())
    (stranger,) = set(last) - known
    lake.table("metrics_keypoints").append(
        random_rows("metrics_keypoints", 1, 8, fingerprint=METRICS, image_id=[stranger])
    )
    with pytest.raises(LakeError, match="table samples lacks 1 rows, such as sample_id"):
        select(lake, Policy(name="p", rules=[{"column": "source", "equals": "demo"}]), **MADE)


def test_images_that_nobody_noted_have_no_labels(tmp_path):
    bare = Lake.create(tmp_path / "bare")
    fill(bare, 10)
    with pytest.raises(LakeError, match="does not say what labels the images 0123456789abcdef show"):
        select(bare, Policy(name="p", rules=[{"column": "coverage", "min": 0}]), **MADE)


def test_the_order_of_files_decides_nothing(tmp_path):
    rows = {}
    for name, reverse in (("one", False), ("two", True)):
        lake = Lake.create(tmp_path / name)
        fill(lake, 300, seed=3)
        if reverse:
            for table in ("images", "metrics_keypoints"):
                whole = lake.table(table).read().to_pandas().sort_values("image_id").index
                turned = lake.table(table).read().take(whole.to_numpy())
                lake.table(table).replace([lake.table(table).write(turned)])
        policy = Policy(name="p", rules=[{"column": "oks", "min": 0.2}, {"top": 50, "by": "persons"}])
        found = select(lake, policy, **MADE)
        rows[name] = (found.fingerprint, chosen(lake, found), found.funnel)
    assert rows["one"] == rows["two"]


_FILTER = """
from etl.filter import Measured, load_policy, select
from etl.lake import Lake
from etl.selection_diff import boundary, compare
from etl.sweep import sweep
lake, policy = Lake(sys.argv[1]), load_policy(sys.argv[2])
measured = Measured({"metrics_keypoints": sys.argv[3]}, sys.argv[4])
found = select(lake, policy, **vars(measured))
rows, _ = measured.rows(lake, policy)
swept = sweep(rows, policy, "coverage", [0.1, 0.9])
diff = compare(rows, policy, policy.with_bound("coverage", 0.5))
said = {"kept": found.kept, "cases": len(boundary(diff)), "swept": [p.kept for p in swept.points]}
"""


def test_rules_on_everything_open_no_image_and_import_no_torch(lake, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(POLICY)
    said = run_light(lake, _FILTER, str(file), METRICS, IMAGES)
    assert said["kept"] > 0
    assert said["cases"] > 0
    assert said["swept"][0] >= said["swept"][1]


def test_measured_rows_hold_what_the_policies_read(lake):
    policies = [parse_policy(POLICY, "p"), Policy(name="q", rules=[{"column": "sequence", "equals": "x"}])]
    rows, unmeasured = Measured(**MADE).rows(lake, *policies)
    assert unmeasured == 0
    wanted = {"image_id", "sample_id", *policies[0].columns, "sequence"}
    assert set(rows.column_names) == wanted

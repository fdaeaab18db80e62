"""What differs between two releases: every row is counted once, with the reason that a hand can check."""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import scipy.stats

from etl.filter import select
from etl.fingerprints import register
from etl.lake import Lake
from etl.release import create_release
from etl.release_diff import ALL, COMPARED, diff_releases, ks_statistic
from schemas.fingerprint import fingerprint
from schemas.policy import Policy
from tests.lake_rows import IMAGES, LABELS, METRICS, fill, measure

LOOSE = Policy(name="loose", rules=({"column": "oks", "min": 0.3},))
TIGHT = Policy(name="tight", rules=({"column": "oks", "min": 0.6}, {"column": "persons", "max": 3}))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Release 0.1.0 of images that pass the loose policy."""
    made = Lake.create(tmp_path_factory.mktemp("diff") / "lake")
    fill(made, 120)
    publish(made, "0.1.0", LOOSE)
    return made


@pytest.fixture
def lake(published, tmp_path):
    return Lake(shutil.copytree(published.url, tmp_path / "lake"))


def publish(lake: Lake, name: str, policy: Policy, images: str = IMAGES, metrics: str = METRICS) -> None:
    chosen = select(
        lake, policy, metric_fingerprints={"metrics_keypoints": metrics}, image_fingerprint=images
    )
    create_release(lake, name, chosen, label_fingerprint=LABELS)


def again(lake: Lake, table: str, **change: object) -> None:
    """The table's rows once more, computed otherwise."""
    rows = lake.table(table).read()
    for name, value in change.items():
        at = rows.schema.get_field_index(name)
        values = [value] * rows.num_rows if isinstance(value, str) else value
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    lake.table(table).append(rows)


def measured(lake: Lake) -> pd.DataFrame:
    names = ["image_id", "oks", "persons"]
    images = lake.table("images").to_pandas(["image_id", "sample_id"])
    return (
        lake.table("metrics_keypoints").to_pandas(names).merge(images, on="image_id").set_index("sample_id")
    )


def test_another_policy_takes_rows_away_by_rule(lake):
    publish(lake, "0.2.0", TIGHT)
    facts = measured(lake)
    was = facts[facts["oks"] >= np.float32(0.3)]
    stays = was[(was["oks"] >= np.float32(0.6)) & (was["persons"] <= 3)]
    gone = was.drop(stays.index)
    found = diff_releases(lake, "0.1.0", "0.2.0")
    assert found.unchanged == len(stays)
    assert sorted(found.rows["sample_id"]) == sorted(gone.index)
    assert set(found.rows["change"]) == {"removed"}
    assert set(found.rows["reason"]) == {"policy"}
    by_oks = int((gone["oks"] < np.float32(0.6)).sum())
    assert dict(zip(found.counts()["rule"], found.counts()["rows"], strict=True)) == {
        "oks >= 0.6": by_oks,
        "persons <= 3": len(gone) - by_oks,
    }
    assert list(found.causes) == ["policy"]
    assert "0.3" in found.causes["policy"]
    back = diff_releases(lake, "0.2.0", "0.1.0")
    assert sorted(back.rows["sample_id"]) == sorted(gone.index)
    assert set(back.rows["change"]) == {"added"}
    assert set(back.rows["rule"]) == {"oks >= 0.6", "persons <= 3"}


def test_new_images_are_new(lake):
    before = set(measured(lake).index)
    fill(lake, 40, seed=7)
    publish(lake, "0.2.0", LOOSE)
    found = diff_releases(lake, "0.1.0", "0.2.0")
    assert set(found.rows["reason"]) == {"new"}
    assert found.rows["rule"].isna().all()
    assert not before & set(found.rows["sample_id"])
    assert found.causes == {}
    assert set(diff_releases(lake, "0.2.0", "0.1.0").rows["reason"]) == {"gone"}


def test_another_metric_changes_the_rows_that_stay(lake):
    new = "c" * 16
    facts = measured(lake)["oks"]
    oks = lake.table("metrics_keypoints").read(["oks"]).column(0)
    again(lake, "metrics_keypoints", fingerprint=new, oks=pc.subtract(pa.scalar(1, pa.float32()), oks))
    publish(lake, "0.2.0", LOOSE, metrics=new)
    found = diff_releases(lake, "0.1.0", "0.2.0")
    assert set(found.rows["reason"]) == {"metric"}
    counts = found.rows["change"].value_counts()
    edge = np.float32(0.3)
    inverse = (1 - facts).astype(np.float32)
    assert counts["changed"] == ((facts >= edge) & (inverse >= edge)).sum()
    assert counts["removed"] == ((facts >= edge) & (inverse < edge)).sum()
    assert counts["added"] == ((facts < edge) & (inverse >= edge)).sum()
    assert found.unchanged == 0
    assert found.causes["metric"] == f"{METRICS} -> {new}", "neither was registered"


def test_a_metric_beside_the_keypoints_changes_rows_where_both_have_its_columns(lake):
    measure(lake, "silhouette")
    again(lake, "metrics_silhouette", fingerprint="better")
    prints = {"metrics_keypoints": METRICS}
    for name, more in (("0.2.0", "silhouette"), ("0.3.0", "better")):
        chosen = select(
            lake, LOOSE, metric_fingerprints=prints | {"metrics_silhouette": more}, image_fingerprint=IMAGES
        )
        create_release(lake, name, chosen, label_fingerprint=LABELS)
    assert not len(diff_releases(lake, "0.1.0", "0.2.0").rows)
    found = diff_releases(lake, "0.2.0", "0.3.0")
    assert {f"{a} {b}" for a, b in zip(found.rows["change"], found.rows["reason"], strict=True)} == {
        "changed metric"
    }
    assert len(found.rows) == lake.release("0.3.0").rows
    assert found.causes == {"metric": "silhouette -> better"}


def test_another_generator_is_the_reason_where_the_picture_is_another(lake):
    other = "d" * 16
    ids = lake.table("images").read(["image_id"]).column(0).to_numpy() ^ 1
    again(lake, "images", fingerprint=other, image_id=ids)
    rows = lake.table("metrics_keypoints").read(["image_id", "oks"])
    oks = rows.column("oks").to_pandas()
    kept = pc.if_else(pc.greater_equal(rows.column("oks"), 0.5), rows.column("oks"), None)
    again(lake, "metrics_keypoints", image_id=rows.column("image_id").to_numpy() ^ 1, oks=kept)
    publish(lake, "0.2.0", LOOSE, images=other)
    found = diff_releases(lake, "0.1.0", "0.2.0")
    assert set(found.rows["reason"]) == {"generator"}
    counts = found.rows["change"].value_counts()
    assert counts["changed"] == (oks >= 0.5).sum()
    assert counts["removed"] == ((oks >= np.float32(0.3)) & (oks < 0.5)).sum()
    assert list(found.causes) == ["generator"]


def test_what_follows_from_another_cause_is_no_cause_of_its_own(lake):
    from etl.release_diff import _why

    steps = [fingerprint("images", 1, {"steps": 4}, upstream={"labels": x}) for x in ("a", "b")]
    more = fingerprint("images", 1, {"steps": 8}, upstream={"labels": "b"})
    for made in (*steps, more):
        register(lake, made)
    assert _why(lake, steps[0].value, steps[1].value) == ""
    assert _why(lake, steps[0].value, more.value) == "parameters.steps 4 -> 8"


def test_shifts_are_those_of_pandas_and_scipy(lake):
    publish(lake, "0.2.0", TIGHT)
    shifts = diff_releases(lake, "0.1.0", "0.2.0").shifts.set_index(["column", "source"])
    compared = [name for name in COMPARED if name in lake.release("0.1.0").columns]
    assert set(shifts.index.get_level_values("column")) == set(compared) < set(COMPARED)
    assert {"oks", "coverage", "persons", "person_score"} <= set(compared)
    sides = [lake.release(name).to_pandas(["source", *compared]) for name in ("0.1.0", "0.2.0")]
    for column in ("oks", "coverage", "person_score", "persons"):
        for source in (ALL, "amass", "demo", "laion"):
            row = shifts.loc[(column, source)]
            of = [side if source == ALL else side[side["source"] == source] for side in sides]
            for name, frame in zip("ab", of, strict=True):
                assert row[f"rows_{name}"] == len(frame)
                np.testing.assert_allclose(row[f"mean_{name}"], frame[column].mean(), rtol=1e-6)
                for q in (25, 50, 75):
                    np.testing.assert_allclose(
                        row[f"q{q}_{name}"], frame[column].quantile(q / 100), rtol=1e-6
                    )
            expected = scipy.stats.ks_2samp(*(frame[column].dropna() for frame in of)).statistic
            np.testing.assert_allclose(row["ks"], expected, atol=1e-12)


def test_a_sample_without_numbers_has_no_distance():
    assert np.isnan(ks_statistic(np.empty(0), np.ones(3)))
    assert ks_statistic(np.array([1.0, 2.0]), np.array([3.0])) == 1

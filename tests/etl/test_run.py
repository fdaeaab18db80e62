"""The whole job on real input: every stage, then again, then with something changed."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from deltalake import DeltaTable
from PIL import Image
from typer.testing import CliRunner

from etl.cli import FAILED_ROWS, app
from etl.lake import Lake
from etl.run import plan_pipeline
from etl.settings import load_pipeline
from schemas.smplx_params import SMPLX_PARAMS

PIPELINE = """\
lake: lake
poses:
  - {{name: amass, path: {data}/amass_smplh_601frames.npz, every: 10, licence: non-commercial research}}
  - {{name: wholebody, path: {data}/smplx_wholebody_500.npz, frames_per_sequence: 60, licence: MIT}}
captions:
  - {{name: coco, path: {data}/captions_coco_val2017_people.json, licence: CC BY 4.0}}
plan: {{pairing: random, image_size: [192, 192]}}
generator: {{name: shaded}}
policy: lenient
release: 0.1.0
cluster: {{workers: 2, partition_rows: 32}}
"""
SAMPLES = 61 + 60


@pytest.fixture(scope="module")
def done(real_data, tmp_path_factory) -> Path:
    """The pipeline file of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    file = folder / "pipeline.yaml"
    file.write_text(PIPELINE.format(data=real_data))
    result = CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return file


@pytest.fixture
def finished(done, tmp_path) -> tuple[Path, Lake]:
    """A copy of the finished run that a test may change."""
    shutil.copytree(done.parent, tmp_path / "copy")
    file = tmp_path / "copy" / "pipeline.yaml"
    return file, Lake(tmp_path / "copy" / "lake")


def _todo(file: Path) -> dict[str, int]:
    return {p.name: p.to_compute for p in plan_pipeline(load_pipeline(file)) if p.to_compute}


def test_every_sample_has_every_row(done):
    lake = Lake(done.parent / "lake")
    counts = {name: lake.table(name).count() for name in lake.tables()}
    for table in ("poses", "samples", "labels", "images", "metrics_keypoints", "selections"):
        assert counts[table] == SAMPLES, table
    assert counts["captions"] == 6940, "four of the 6,944 are there twice, word for word on the same image"
    assert "failures" not in counts
    samples = lake.table("samples").to_pandas(["sample_id", "pose_id", "caption_id", "seed"])
    assert samples["sample_id"].is_unique
    assert samples["seed"].is_unique
    assert set(samples["pose_id"]) == set(lake.table("poses").to_pandas(["pose_id"])["pose_id"])


def test_labels_reproject_and_smplx_agrees(done):
    import smplx
    import torch

    from udfs.body import body_files

    lake = Lake(done.parent / "lake")
    rows = lake.release("0.1.0").to_pandas(arrays="numpy")
    joints = np.stack(rows["joints_3d"]).reshape(-1, 127, 3)
    focal, center = np.stack(rows["focal"]), np.stack(rows["princpt"])
    projected = joints[..., :2] / joints[..., 2:] * focal[:, None] + center[:, None]
    assert np.abs(projected - np.stack(rows["joints_2d"]).reshape(-1, 127, 2)).max() < 1e-3

    layer = smplx.create(
        str(body_files(None)["neutral"]),
        model_type="smplx",
        ext="npz",
        use_pca=False,
        flat_hand_mean=True,
        num_betas=10,
        num_expression_coeffs=10,
        batch_size=len(rows),
    )
    params = {name: torch.from_numpy(np.stack(rows[name])) for name in SMPLX_PARAMS}
    with torch.no_grad():
        out = layer(**params)
    assert np.abs(out.joints.numpy() - joints).max() < 1e-4


def test_images_show_their_labels(done):
    lake = Lake(done.parent / "lake")
    oks = lake.table("metrics_keypoints").to_pandas(["oks", "persons"])
    assert oks["oks"].median() > 0.75
    images = lake.table("images").to_pandas()
    assert images["image_path"].is_unique
    for row in images.sample(10, random_state=0).itertuples():
        with Image.open(lake.store.full(row.image_path)) as image:
            assert image.size == (192, 192)


def test_a_release_reads_alike_everywhere(done):
    root = done.parent / "lake"
    release = Lake(root).release("0.1.0")
    ours = release.to_pandas(columns=["image_id", "oks"], where="oks >= 0.8").sort_values("image_id")
    version = Lake(root).table("releases").to_pandas()["dataset_version"].item()
    plain = DeltaTable(root / "dataset", version=version).to_pandas(columns=["image_id", "oks"])
    plain = plain[plain["oks"] >= np.float32(0.8)].sort_values("image_id")
    assert ours["image_id"].tolist() == plain["image_id"].tolist()
    polars = pl.read_delta(str(root / "dataset"), version=version).filter(
        pl.col("oks") >= float(np.float32(0.8))
    )
    assert sorted(polars["image_id"]) == ours["image_id"].tolist()
    assert 0 < len(ours) <= SAMPLES


def test_a_second_run_does_nothing_and_says_so(finished):
    file, lake = finished
    before = lake.tables()
    result = CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Nothing to compute" in result.output
    assert lake.tables() == before
    assert _todo(file) == {}


def test_another_policy_touches_neither_images_nor_metrics(finished):
    file, lake = finished
    before = lake.tables()
    file.write_text(file.read_text().replace("lenient", "strict").replace("0.1.0", "0.2.0"))
    assert CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False).exit_code == 0
    after = lake.tables()
    assert {name for name in after if after[name] != before.get(name)} == {
        "fingerprints",
        "selections",
        "dataset",
        "releases",
    }
    old, new = (lake.release(name).to_pandas(["image_id"]) for name in ("0.1.0", "0.2.0"))
    assert len(new) < len(old)
    assert set(new["image_id"]) <= set(old["image_id"])


def test_the_plan_says_what_a_change_will_cost(finished):
    file, _ = finished
    text = file.read_text()
    file.write_text(text + "image: {quality: 80}\n")
    plans = {p.name: p for p in plan_pipeline(load_pipeline(file))}
    assert _todo(file) == {"images": SAMPLES, "keypoints": SAMPLES}
    assert plans["images"].stale == SAMPLES
    assert plans["images"].why_stale == "parameters.quality 92 -> 80"
    file.write_text(text.replace("every: 10", "every: 5"))
    assert _todo(file) == {"read amass": 1, "samples": 60}, (
        "other inputs are another plan of the same samples"
    )
    plans = {p.name: p for p in plan_pipeline(load_pipeline(file))}
    assert plans["read amass"].why_stale == "parameters.every 10 -> 5"
    assert {name for name, p in plans.items() if p.open_ended} >= {"samples", "images"}


def test_more_poses_change_no_sample_that_exists(finished):
    file, lake = finished
    before = lake.table("samples").to_pandas().set_index("sample_id").drop(columns="fingerprint")
    file.write_text(file.read_text().replace("every: 10", "every: 5").replace("release: 0.1.0\n", ""))
    assert CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False).exit_code == 0
    rows = lake.table("samples").to_pandas().drop(columns="fingerprint").astype({"betas": str})
    after = rows.drop_duplicates().set_index("sample_id")
    assert len(after) == SAMPLES + 60
    pd.testing.assert_frame_equal(after.loc[before.index], before.astype({"betas": str}))
    images = lake.table("images").to_pandas()
    assert len(images) == SAMPLES + 60
    assert images["image_path"].is_unique


def test_a_lost_image_fails_its_row_alone(finished):
    file, lake = finished
    lost = lake.table("images").to_pandas(["image_path"])["image_path"].iloc[0]
    Path(lake.store.full(lost)).unlink()
    shutil.rmtree(Path(lake.url) / "metrics_keypoints")
    result = CliRunner().invoke(app, ["run", str(file)])
    assert result.exit_code == FAILED_ROWS
    assert "--retry" in result.output
    failures = lake.table("failures").to_pandas()
    assert len(failures) == 1
    assert lost in failures["message"].item()
    assert lake.table("metrics_keypoints").count() == SAMPLES - 1

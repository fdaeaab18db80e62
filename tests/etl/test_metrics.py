"""Metrics that a finished run is given afterwards: what they cost and touch, and what rules make of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from etl.cli import app
from etl.filter import select
from etl.lake import Lake
from etl.run import plan_pipeline
from etl.settings import load_pipeline
from etl.stages import Stages
from schemas.policy import Policy
from udfs.image_quality import ImageQuality
from udfs.keypoints import WEIGHTS as KEYPOINTS

PIPELINE = """\
lake: lake
poses: [{name: demo, path: bundled, every: 30}]
plan: {image_size: [96, 96]}
generator: {name: shaded}
policy: lenient
release: 0.1.0
cluster: {workers: 0, partition_rows: 16}
"""
NEW = ("colors", "image_quality", "silhouette", "head_pose", "caption_match")
ALL = f"metrics: {{{', '.join(f'{name}: true' for name in NEW)}}}\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, dict[str, int], int]:
    """The file of a run that was given metrics afterwards, its tables' versions before, its images."""
    folder = tmp_path_factory.mktemp("metrics")
    file = folder / "pipeline.yaml"
    file.write_text(PIPELINE)
    _run(file)
    lake = Lake(folder / "lake")
    before, files = lake.tables(), _files(folder)
    file.write_text(PIPELINE + ALL)
    count = lake.table("images").count()
    assert _todo(file) == dict.fromkeys(NEW, count)
    _run(file)
    assert _files(folder) == files, "no image was painted again"
    return file, before, count


@pytest.fixture
def copied(measured, tmp_path) -> Path:
    shutil.copytree(measured[0].parent, tmp_path / "copy")
    return tmp_path / "copy" / "pipeline.yaml"


def _run(file):
    result = CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def _todo(file):
    return {p.name: p.to_compute for p in plan_pipeline(load_pipeline(file)) if p.to_compute}


def _files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".jpg", ".png")}


def test_new_metrics_touch_their_own_tables_alone(measured):
    file, before, count = measured
    lake = Lake(file.parent / "lake")
    after = lake.tables()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"fingerprints", *(f"metrics_{name}" for name in NEW)}
    for name in NEW:
        ids = lake.table(f"metrics_{name}").to_pandas(["image_id"])["image_id"]
        assert ids.is_unique
        assert len(ids) == count
    assert _todo(file) == {}


def test_a_raised_version_measures_that_metric_again_and_keeps_what_was(copied, measured, monkeypatch):
    lake, count = Lake(copied.parent / "lake"), measured[2]
    before, files = lake.tables(), _files(copied.parent)
    monkeypatch.setattr(ImageQuality, "version", ImageQuality.version + 1)
    plans = {p.name: p for p in plan_pipeline(load_pipeline(copied)) if p.to_compute}
    assert list(plans) == ["image_quality"]
    assert plans["image_quality"].stale == count
    assert plans["image_quality"].why_stale.startswith("version")
    _run(copied)
    after = lake.tables()
    assert {n for n in after if after[n] != before[n]} == {"fingerprints", "metrics_image_quality"}
    assert lake.table("metrics_image_quality").count() == 2 * count
    assert _files(copied.parent) == files


def test_knowing_what_to_measure_takes_no_torch(measured):
    """`plan` and `filter` ask for fingerprints; models are digested and not loaded."""
    code = (
        "import sys; from etl.lake import Lake; from etl.settings import load_pipeline\n"
        "from etl.stages import Stages; from pathlib import Path; file = Path(sys.argv[1])\n"
        "stages = Stages.latest(Lake(file.parent / 'lake'), load_pipeline(file))\n"
        "print(len({m.fingerprint.value for m in stages.metrics}), 'torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(measured[0])],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert found.stdout.split() == [str(1 + len(NEW)), "False"]


def test_heads_are_found_by_the_keypoint_network_of_the_pipeline(measured, tmp_path):
    def metrics(more: str):
        file = tmp_path / "pipeline.yaml"
        file.write_text(PIPELINE + f"metrics: {{head_pose: true{more}}}\n")
        found = Stages(Lake(measured[0].parent / "lake"), load_pipeline(file)).metrics
        return {m.name: m.udf.models() for m in found}

    weights = tmp_path / "other.safetensors"
    weights.write_bytes(KEYPOINTS.read_bytes() + b" ")
    default, other = metrics(""), metrics(f", keypoints: {{weights: {weights}}}")
    assert default["head_pose"]["keypoints"] == default["keypoints"]["keypoints"]
    assert other["head_pose"]["keypoints"] == other["keypoints"]["keypoints"]
    assert default["head_pose"]["keypoints"] != other["head_pose"]["keypoints"]
    assert default["head_pose"]["model"] == other["head_pose"]["model"]


def test_renders_measure_as_what_they_are(measured):
    lake = Lake(measured[0].parent / "lake")
    rows = {name: lake.table(f"metrics_{name}").to_pandas() for name in NEW}
    assert rows["silhouette"]["silhouette_iou"].median() > 0.8
    assert rows["head_pose"]["head_rotation_error"].median() < 45
    assert rows["caption_match"]["caption_match"].mean() > 0.3
    assert rows["image_quality"]["clipped_dark"].max() < 0.5
    assert rows["colors"]["colors_right"].mean() > 0.8


def test_rules_take_the_new_metrics_with_conditions(measured):
    file = measured[0]
    stages = Stages.latest(Lake(file.parent / "lake"), load_pipeline(file))
    policy = Policy.model_validate(
        {
            "name": "all-of-it",
            "rules": [
                {"column": "silhouette_iou", "min": 0.5, "missing": "reject"},
                {
                    "column": "head_pose_error",
                    "max": 25,
                    "when": {"column": "nose_visible", "equals": 2},
                    "missing": "keep",
                },
                {"column": "sharpness", "min": 0.2},
                {"column": "caption_match", "min": 0.1, "missing": "keep"},
            ],
        }
    )
    chosen = select(
        stages.lake,
        policy,
        metric_fingerprints={m.table: m.fingerprint.value for m in stages.metrics},
        image_fingerprint=stages.images.fingerprint.value,
    )
    decided = stages.lake.table("selections").read(where=pc.field("selection") == chosen.fingerprint)
    labels = stages.lake.table("labels").to_pandas(["sample_id", "keypoints_visible"]).set_index("sample_id")
    nose = labels["keypoints_visible"].map(lambda v: v[0])
    heads = stages.lake.table("metrics_head_pose").to_pandas().set_index("image_id")["head_pose_error"]
    for row in decided.to_pylist():
        if row["rejected_by"] and row["rejected_by"].startswith("head_pose_error"):
            assert nose[row["sample_id"]] == 2
            assert heads[row["image_id"]] > 25
    assert decided.num_rows == measured[2]
    assert 0 < chosen.kept < measured[2]

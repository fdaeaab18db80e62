"""The stages of a pipeline: every ingredient alone changes the fingerprints that depend on it."""

import json
import os
import shutil
from pathlib import Path

import pytest

import etl
from etl.lake import Lake
from etl.settings import load_pipeline
from etl.stage import pending, run_stage
from etl.stages import Stages
from etl.table import computed_by
from schemas.errors import InputError
from schemas.fingerprint import difference
from udfs.body import body_files
from udfs.keypoints import WEIGHTS, KeypointMetric

BUNDLED = Path(etl.__file__).parent / "data" / "poses"
BASE = """\
lake: lake
poses: [{{name: demo, path: bundled}}]
plan: {{image_size: [64, 64]}}
generator: {{name: shaded}}
body: {{model: body.npz}}
{more}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    shutil.copy(body_files(None)["neutral"], folder / "body.npz")
    return folder


def _prints(folder, text: str = "") -> dict[str, tuple[str, str]]:
    file = folder / "pipeline.yaml"
    file.write_text(text if text.startswith("lake") else BASE.format(more=text))
    stages = Stages(Lake.create(folder / "lake"), load_pipeline(file))
    made = [*stages.reading, stages.samples, stages.labels, stages.images, stages.keypoints]
    return {s.name: (s.fingerprint.value, s.fingerprint.json) for s in made}


def _changed(before, after) -> dict[str, str]:
    return {k: difference(before[k][1], after[k][1]) for k in before if before[k][0] != after[k][0]}


def test_a_setting_changes_its_stage_and_those_after_it(folder):
    base = _prints(folder)
    changed = _changed(base, _prints(folder, "image: {quality: 80}"))
    assert set(changed) == {"images", "keypoints"}
    assert changed["images"] == "parameters.quality 92 -> 80"
    assert changed["keypoints"].startswith("upstream.images")

    assert not _changed(base, _prints(folder, "metrics: {colors: true}")), (
        "one more metric, all else as it was"
    )
    changed = _changed(base, _prints(folder, BASE.format(more="").replace("64, 64", "64, 80")))
    assert set(changed) == {"samples"}, "a sample's labels and images are found by its own id"
    changed = _changed(base, _prints(folder, BASE.format(more="").replace("bundled", "bundled, every: 2")))
    assert "read demo" in changed


def test_what_changes_no_result_changes_no_fingerprint(folder):
    base = _prints(folder)
    text = BASE.format(more="policy: lenient\ncluster: {workers: 1, partition_rows: 7}")
    assert _changed(base, _prints(folder, text.replace("bundled", "bundled, licence: mine"))) == {}


def test_a_byte_of_a_model_file_changes_what_is_computed_with_it(folder):
    base = _prints(folder)
    body = folder / "body.npz"
    whole = body.read_bytes()
    body.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    changed = _changed(base, _prints(folder))
    body.write_bytes(whole)
    assert set(changed) == {"labels", "images", "keypoints"}
    assert changed["labels"].startswith("models.body")

    weights = folder / "weights.safetensors"
    whole = WEIGHTS.read_bytes()
    weights.write_bytes(whole)
    assert _changed(base, _prints(folder, "metrics: {keypoints: {weights: weights.safetensors}}")) == {}
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    changed = _changed(base, _prints(folder, "metrics: {keypoints: {weights: weights.safetensors}}"))
    assert set(changed) == {"keypoints"}
    assert changed["keypoints"].startswith("models.")


def test_a_version_changes_the_fingerprint(monkeypatch):
    before = KeypointMetric().fingerprint()
    monkeypatch.setattr(KeypointMetric, "version", KeypointMetric.version + 1)
    after = KeypointMetric().fingerprint()
    assert before.value != after.value
    assert difference(before.json, after.json).startswith("version ")


def _read(folder, text: str, workers) -> Stages:
    """Stages of a lake that has read its sources."""
    file = folder / "pipeline.yaml"
    file.write_text(text)
    stages = Stages(Lake.create(folder / "lake"), load_pipeline(file))
    for stage in stages.reading:
        run_stage(stages.lake, stage, workers)
    stages.record_files()
    return Stages(stages.lake, stages.pipeline)


def _with_captions(folder, n: int, plan: str, workers, more: str = "") -> Stages:
    (folder / "words.jsonl").write_text("\n".join(json.dumps({"caption": f"person {i}"}) for i in range(n)))
    source = f"captions: [{more}{{name: words, path: words.jsonl}}]"
    return _read(folder, BASE.format(more=source).replace("image_size: [64, 64]", plan), workers)


@pytest.fixture
def small(folder, tmp_path):
    """A folder with two sequences of poses to change."""
    (tmp_path / "poses").mkdir()
    for name in ("walking", "running"):
        shutil.copy(BUNDLED / f"{name}.npz", tmp_path / "poses")
    shutil.copy(folder / "body.npz", tmp_path)
    return tmp_path


def test_captions_are_put_before_the_workers_once(small, workers):
    stages = _with_captions(small, 5, "pairing: random", workers)
    stages.write_captions()
    file = Path(stages.lake.store.full(stages.captions_path))
    os.utime(file, (1, 1))
    stages.write_captions()
    assert file.stat().st_mtime == 1


@pytest.mark.parametrize(
    ("plan", "most"),
    [
        ("pairing: random", 1024),
        ("pairing: all", 65_536 // 300),
        ("pairing: all, draws: 1000", 1),
        ("pairing: grammar, captions_per_pose: 1000", 65),
    ],
)
def test_a_task_plans_no_more_samples_than_fit_in_memory(small, plan, most, workers):
    more = "" if "grammar" not in plan else "{kind: grammar}, "
    stages = _with_captions(small, 300, plan, workers, more)
    assert stages.samples.partition_rows == most


def _mine(more: str = "") -> str:
    return BASE.format(more="").replace("path: bundled", f"path: poses{more}")


def _planned(small, workers, every: str = "") -> set[str]:
    """Sequences of the poses in the plan, which is made."""
    stages = _read(small, _mine(every), workers)
    run_stage(stages.lake, stages.samples, workers)
    where = computed_by([stages.samples.fingerprint.value])
    samples = stages.lake.table("samples").to_pandas(["pose_id"], where)
    poses = stages.lake.table("poses").to_pandas(["pose_id", "sequence", "frame"]).drop_duplicates()
    return set(samples.merge(poses, on="pose_id")[["sequence", "frame"]].itertuples(index=False, name=None))


def test_only_what_the_sources_hold_now_is_planned(small, workers):
    first = _planned(small, workers)
    assert {sequence for sequence, _ in first} == {"walking", "running"}
    fewer = _planned(small, workers, ", every: 5")
    assert {frame % 5 for _, frame in fewer} == {0}
    assert _planned(small, workers) == first

    running = small / "poses" / "running.npz"
    shutil.copy(BUNDLED / "kicking.npz", running)
    changed = _planned(small, workers)
    assert sum(name == "running" for name, _ in changed) == 31, "the 31 frames of the new file and no others"
    running.unlink()
    assert _planned(small, workers) == {row for row in first if row[0] == "walking"}


def test_a_file_that_was_only_touched_is_the_same_plan(small, workers):
    _planned(small, workers)
    before = Stages(Lake(small / "lake"), load_pipeline(small / "pipeline.yaml")).samples.fingerprint
    os.utime(small / "poses" / "walking.npz", (1, 1))
    _planned(small, workers)
    after = Stages(Lake(small / "lake"), load_pipeline(small / "pipeline.yaml")).samples.fingerprint
    assert before.value == after.value


def test_other_captions_are_another_plan(small, workers):
    one = _with_captions(small, 5, "pairing: random", workers)
    one.write_captions()
    run_stage(one.lake, one.samples, workers)
    other = _with_captions(small, 6, "pairing: random", workers)
    todo = pending(other.lake, other.samples)
    assert len(todo.stale) == todo.total > 0
    assert todo.why_stale.startswith("upstream.captions")


def test_what_was_read_is_known_when_its_files_are_away(small, workers):
    """A selection is made and published from the lake alone."""
    stages = _read(small, _mine(), workers)
    before = stages.keypoints.fingerprint.value
    shutil.rmtree(small / "poses")
    assert Stages(stages.lake, stages.pipeline, as_run=True).keypoints.fingerprint.value == before
    source = stages.pipeline.poses[0].model_copy(update={"every": 9})
    other = stages.pipeline.model_copy(update={"poses": (source,)})
    with pytest.raises(InputError, match="source demo was not read with these settings"):
        _ = Stages(stages.lake, other, as_run=True).samples


def test_metrics_are_measured_where_the_pipeline_asks(folder):
    def made(more):
        file = folder / "pipeline.yaml"
        file.write_text(BASE.format(more=more))
        return Stages(Lake.create(folder / "lake"), load_pipeline(file))

    assert [m.name for m in made("").metrics] == ["keypoints"]
    assert [m.name for m in made("metrics: {silhouette: false}").metrics] == ["keypoints"]
    base, other = (
        made(f"metrics: {{colors: true}}{more}").metrics for more in ("", "\nimage: {quality: 80}")
    )
    assert [m.name for m in base] == ["keypoints", "colors"]
    base, other = (metrics[1].fingerprint.json for metrics in (base, other))
    assert difference(base, other).startswith("upstream.images")

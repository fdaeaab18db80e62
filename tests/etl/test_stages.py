"""The stages of a pipeline: every ingredient alone changes the fingerprints that depend on it."""

import os
import shutil
from pathlib import Path

import pytest

from etl.lake import Lake
from etl.settings import load_pipeline
from etl.stages import Stages
from schemas.fingerprint import difference
from tests.lake_rows import random_rows
from udfs.body import body_files
from udfs.keypoints import WEIGHTS, KeypointMetric

BASE = """\
lake: lake
poses: [{{name: demo, path: bundled}}]
plan: {{image_size: [64, 64]}}
body: {{model: body.npz}}
{more}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    shutil.copy(body_files(None)["neutral"], folder / "body.npz")
    return folder


def _prints(folder, text: str = "", read: bool = True) -> dict[str, tuple[str, str]]:
    file = folder / "pipeline.yaml"
    file.write_text(text if text.startswith("lake") else BASE.format(more=text))
    stages = Stages(Lake.create(folder / "lake"), load_pipeline(file))
    made = [*(stages.reading if read else ()), stages.samples, stages.labels, stages.images, stages.keypoints]
    return {s.name: (s.fingerprint.value, s.fingerprint.json) for s in made}


def _changed(before, after) -> dict[str, str]:
    return {k: difference(before[k][1], after[k][1]) for k in before if before[k][0] != after[k][0]}


def test_a_setting_changes_its_stage_and_those_after_it(folder):
    base = _prints(folder)
    changed = _changed(base, _prints(folder, "image: {quality: 80}"))
    assert set(changed) == {"images", "keypoints"}
    assert changed["images"] == "parameters.quality 92 -> 80"
    assert changed["keypoints"].startswith("upstream.images")

    changed = _changed(base, _prints(folder, BASE.format(more="").replace("64, 64", "64, 80")))
    assert set(changed) == {"samples"}, "a sample's labels and images are found by its own id"
    changed = _changed(base, _prints(folder, BASE.format(more="").replace("bundled", "bundled, every: 2")))
    assert set(changed) == {"read demo"}


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


def _with_captions(folder, n: int, plan: str, more: str = "") -> Stages:
    """Stages of a lake with `n` captions."""
    file = folder / "pipeline.yaml"
    source = f"captions: [{more}{{name: words, path: words.jsonl}}]"
    file.write_text(BASE.format(more=source).replace("image_size: [64, 64]", plan))
    stages = Stages(Lake.create(folder / f"lake{n}"), load_pipeline(file))
    captions = random_rows("captions", n, fingerprint=stages.caption_fingerprints[0])
    stages.lake.table("captions").append(captions)
    return stages


def test_captions_are_put_before_the_workers_once(folder):
    stages = _with_captions(folder, 5, "pairing: random")
    stages.write_captions(stages.captions_path)
    file = Path(stages.lake.store.full(stages.captions_path))
    os.utime(file, (1, 1))
    stages.write_captions(stages.captions_path)
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
def test_a_task_plans_no_more_samples_than_fit_in_memory(folder, plan, most):
    more = "" if "grammar" not in plan else "{kind: grammar}, "
    stages = _with_captions(folder, 300, plan, more)
    assert stages.samples.partition_rows == most


def test_what_was_read_is_known_when_its_files_are_away(folder):
    """A selection is made and published from the lake alone."""
    base = _prints(folder, BASE.format(more="").replace("bundled", "gone"), read=False)
    assert {"samples", "labels", "images", "keypoints"} == set(base)

"""Reading sources: what is whole goes in once, what is not is kept with its reason."""

import json
import os

import numpy as np
import pytest

from etl.ingest import ReadFiles, list_files
from etl.stage import Stage, run_stage
from schemas.errors import ConfigError
from schemas.source import CaptionSource, PoseSource


def _archive(path, n, seed=0, **changed):
    rng = np.random.default_rng(seed)
    arrays = {
        "global_orient": rng.normal(0, 0.3, (n, 3)),
        "body_pose": rng.normal(0, 0.2, (n, 63)),
        "expression": rng.normal(0, 1, (n, 10)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(arrays | changed))


def _read(lake, source, workers, **kwargs):
    stage = Stage(f"read {source.name}", ReadFiles(source=source), "sources", list_files(source))
    return run_stage(lake, stage, workers, **kwargs)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "poses"
    _archive(folder / "a" / "walk.npz", 5, 1)
    _archive(folder / "b" / "walk.npz", 7, 2)
    (folder / "LICENSE.txt").write_text("not a pose")
    return folder


def test_a_folder_is_walked_and_read_once(lake, workers, folder):
    source = PoseSource(name="mine", path=str(folder))
    assert _read(lake, source, workers).computed == 2
    poses = lake.table("poses").to_pandas()
    assert poses.groupby("sequence").size().to_dict() == {"a/walk": 5, "b/walk": 7}
    assert poses["pose_id"].is_unique

    versions = lake.tables()
    assert _read(lake, source, workers).total == 0
    assert lake.tables() == versions


def test_a_file_touched_but_unchanged_adds_no_pose(lake, workers, folder):
    source = PoseSource(name="mine", path=str(folder))
    _read(lake, source, workers)
    os.utime(folder / "a" / "walk.npz", (1, 1))
    assert _read(lake, source, workers).computed == 1
    assert lake.table("poses").to_pandas()["pose_id"].is_unique
    assert len(lake.table("poses").to_pandas()) == 12


def test_bad_files_and_frames_are_kept_with_their_reason(lake, workers, folder):
    spoilt = np.zeros((4, 63))
    spoilt[2, 5] = np.nan
    _archive(folder / "nan.npz", 4, 3, body_pose=spoilt)
    _archive(folder / "shape.npz", 4, 4, body_pose=np.zeros((4, 60)))
    whole = (folder / "a" / "walk.npz").read_bytes()
    (folder / "short.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(folder / "object.npz", body_pose=np.array([{"a": 1}], object), global_orient=np.zeros((1, 3)))

    report = _read(lake, PoseSource(name="mine", path=str(folder)), workers)
    assert (report.computed, report.failed) == (6, 0)
    rejected = lake.table("rejected").to_pandas().set_index("path")
    assert sorted(rejected.index) == ["nan.npz", "object.npz", "shape.npz", "short.npz"]
    assert rejected.loc["nan.npz", "row"] == 2
    assert rejected.loc[["object.npz", "shape.npz", "short.npz"], "row"].isna().all()
    for path, message in rejected["message"].items():
        assert path in message or "frame 2" in message
    assert len(lake.table("poses").to_pandas()) == 5 + 7 + 3
    sources = lake.table("sources").to_pandas().set_index("path")
    assert sources["rows"].to_dict() == {
        "a/walk.npz": 5,
        "b/walk.npz": 7,
        "nan.npz": 3,
        "object.npz": 0,
        "shape.npz": 0,
        "short.npz": 0,
    }


def test_other_settings_read_again_and_are_told_apart(lake, workers, folder):
    _read(lake, PoseSource(name="mine", path=str(folder)), workers)
    report = _read(lake, PoseSource(name="mine", path=str(folder), every=5), workers)
    assert report.computed == 2
    poses = lake.table("poses").to_pandas()
    counts = poses.groupby("fingerprint").size()
    assert sorted(counts) == [3, 12]
    assert set(poses[poses["fingerprint"] == counts.idxmin()]["frame"]) == {0, 5}
    assert poses["pose_id"].nunique() == 12


def test_captions_and_their_licence(lake, workers, tmp_path):
    file = tmp_path / "captions.jsonl"
    lines = [{"caption": "a man in a red shirt"}, {"caption": "  "}, {"caption": "a woman on a beach"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    _read(lake, CaptionSource(name="words", path=str(file), licence="CC0"), workers)
    captions = lake.table("captions").to_pandas()
    assert sorted(captions["text"]) == ["a man in a red shirt", "a woman on a beach"]
    assert captions.set_index("text")["top_color"].to_dict()["a man in a red shirt"] == "red"
    assert lake.table("rejected").to_pandas()["row"].notna().all()
    assert lake.table("sources").to_pandas()["licence"].tolist() == ["CC0"]


@pytest.mark.parametrize("made", [False, True])
def test_nothing_to_read_is_an_error_that_names_the_source(tmp_path, made):
    if made:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"poses source mine: .*empty"):
        list_files(PoseSource(name="mine", path=str(tmp_path / "empty")))

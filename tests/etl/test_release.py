"""A release is one version of `dataset` with exactly its rows, whatever happens while it is made."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

import etl.release
from etl.filter import select
from etl.lake import Lake
from etl.release import create_release, list_releases
from etl.release_events import tag_release
from schemas.errors import ConfigError, ConflictError, InputError, LakeError
from schemas.metrics import METRICS as COLUMNS
from schemas.policy import Policy
from schemas.tables import TABLES, TableSpec, published
from tests.lake_rows import IMAGES, LABELS, METRICS, fill, measure, selected


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    made = Lake.create(tmp_path_factory.mktemp("release") / "lake")
    fill(made, 300)
    return made


@pytest.fixture
def lake(filled, tmp_path):
    return Lake(shutil.copytree(filled.url, tmp_path / "lake"))


def publish(lake: Lake, name: str = "0.1.0", policy: str | Policy = "lenient", **more: str):
    return create_release(lake, name, selected(lake, policy), label_fingerprint=LABELS, **more)


def joined_by_pandas(lake: Lake):
    """The kept rows, joined by another engine than the one under test."""
    t = {name: lake.table(name).to_pandas() for name in lake.tables()}
    kept = t["selections"].query("keep")[["image_id"]]
    labels = t["labels"].drop(columns=["fingerprint"])
    images = t["images"][
        ["image_id", "sample_id", "image_path", "image_sha256", "generator", "seed", "fingerprint"]
    ]
    samples = t["samples"][["sample_id", "pose_id", "caption_id", "prompt", "round"]]
    poses = t["poses"][["pose_id", "source", "sequence", "frame"]]
    captions = t["captions"][["caption_id", "text"]].rename(columns={"text": "caption"})
    return (
        kept.merge(images.rename(columns={"fingerprint": "generator_fingerprint"}), on="image_id")
        .merge(samples, on="sample_id")
        .merge(poses, on="pose_id")
        .merge(captions, on="caption_id")
        .merge(t["metrics_keypoints"].rename(columns={"fingerprint": "metric_fingerprint"}), on="image_id")
        .merge(labels, on="sample_id")
        .assign(label_fingerprint=LABELS)[published(()).names]
    )


def test_the_rows_are_the_join_that_pandas_makes(lake):
    made = publish(lake)
    expected = joined_by_pandas(lake).sort_values("image_id").reset_index(drop=True)
    rows = made.to_pandas(arrays="numpy").sort_values("image_id").reset_index(drop=True)
    assert made.rows == len(rows) == len(expected) > 50
    assert list(rows) == list(expected)
    for name in expected:
        for a, b in zip(rows[name], expected[name], strict=True):
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b)
            else:
                assert a == b or (a is None or a != a, b is None or b != b) == (True, True), name


def test_rows_lie_sorted_by_source_and_score_across_files(lake, monkeypatch):
    monkeypatch.setattr(etl.release, "join", lambda parts: _JOIN(parts, 40))
    made = publish(lake)
    rows = made.to_pandas(["source", "oks", "image_id"])
    assert len(lake.table("dataset").files(made.dataset_version)) == -(-made.rows // 40) > 2
    expected = rows.sort_values(
        ["source", "oks", "image_id"], ascending=[True, False, True], na_position="last"
    )
    assert rows.equals(expected)


_JOIN = etl.release.join


def test_a_release_has_the_metrics_that_its_policy_reads(lake):
    publish(lake)
    for name in ("silhouette", "colors"):
        measure(lake, name)
    made = create_release(lake, "0.2.0", selected(lake, "lenient", ["silhouette"]), label_fingerprint=LABELS)
    assert made.metrics == ("keypoints", "silhouette")
    names = [f.name for f in COLUMNS["silhouette"]]
    assert made.columns[-len(names) :] == names
    frame = made.to_pandas(["image_id", *names], where="silhouette_iou >= 0.5").set_index("image_id")
    measured = lake.table("metrics_silhouette").to_pandas(where="silhouette_iou >= 0.5").set_index("image_id")
    assert 0 < len(frame) < made.rows
    assert frame.equals(measured.loc[frame.index, names])
    assert len(made.sql("select silhouette_iou from release where silhouette_iou >= 0.5")) == len(frame)
    plain = DeltaTable(lake.table("dataset").uri, version=made.dataset_version).to_pandas()
    assert (plain["silhouette_iou"] >= 0.5).sum() == len(frame)
    for release, lacking in ((made, "colors_right"), (lake.release("0.1.0"), "silhouette_iou")):
        assert lacking not in release.columns
        assert lacking not in release.to_pandas(limit=1)
        has = ", ".join(release.metrics)
        with pytest.raises(InputError, match=f"no column '{lacking}'; .* no other metrics than {has};"):
            release.to_arrow([lacking])
        with pytest.raises(ConfigError, match=f"called '{lacking}'.* no other metrics than {has};"):
            release.to_arrow(where=f"{lacking} > 0.5")
        with pytest.raises(ConfigError, match=lacking):
            release.sql(f"select {lacking} from release")


def test_a_release_stays_as_it_was_when_the_table_gets_more_columns(lake, monkeypatch):
    with monkeypatch.context() as before:
        # As it was when releases had the columns of no other metric.
        before.setitem(TABLES, "dataset", TableSpec(published(()), ("image_id",)))
        before.setattr("etl.release.DATASET", published(()))
        old = publish(lake)
        rows = old.to_arrow()
    measure(lake, "silhouette")
    new = create_release(lake, "0.2.0", selected(lake, "lenient", ["silhouette"]), label_fingerprint=LABELS)
    again = lake.release("0.1.0")
    assert again.to_arrow().equals(rows)
    assert new.to_arrow(rows.column_names).equals(rows.select(rows.column_names))
    assert len(new.sql("select silhouette_iou from release")) == new.rows
    assert again.sql("select * from release").shape == (old.rows, len(rows.column_names))
    assert (
        "silhouette_iou" not in DeltaTable(lake.table("dataset").uri, version=old.dataset_version).to_pandas()
    )


def test_every_release_is_its_own_version_with_its_own_rows(lake):
    first = publish(lake, "0.1.0", "lenient")
    before = first.to_arrow()
    second = publish(lake, "0.2.0", "strict")
    assert second.dataset_version == first.dataset_version + 1
    assert 0 < second.rows < first.rows
    assert first.to_arrow().equals(before)
    assert set(second.to_pandas()["image_id"]) < set(first.to_pandas()["image_id"])
    plain = DeltaTable(lake.table("dataset").uri, version=second.dataset_version).to_pandas()
    assert len(plain) == second.rows
    assert (plain["oks"] >= np.float32(0.8)).all()
    assert [r.name for r in list_releases(lake)] == ["0.1.0", "0.2.0"]


def test_the_manifest_says_what_the_release_is_made_of(lake):
    made = publish(lake, notes="first try")
    data = lake.store.read(made.manifest_path)
    assert hashlib.sha256(data).hexdigest() == made.manifest_sha256
    manifest = json.loads(data)
    assert manifest["rows"] == made.rows
    assert manifest["parent"] is None
    for path, digest in manifest["dataset_files"].items():
        assert hashlib.sha256(lake.store.read(path)).hexdigest() == digest
    assert list(manifest["dataset_files"]) == lake.table("dataset").files(made.dataset_version)
    assert manifest["fingerprints"] == {
        "images": IMAGES,
        "labels": LABELS,
        "metrics_keypoints": METRICS,
        "selection": made.selection,
        "policy": manifest["fingerprints"]["policy"],
    }
    assert manifest["policy"]["rules"][0]["column"] == "oks"
    assert manifest["table_versions"]["labels"] == lake.table("labels").version()
    assert manifest["software"]["deltalake"]
    assert made.notes == "first try"
    assert Policy.model_validate(manifest["policy"]).fingerprint.value == manifest["fingerprints"]["policy"]


@pytest.mark.parametrize("name", ["1", "v1.0.0", "1.0", "1.0.0/..", "../1.0.0", "01.0.0", "1.0.0\n", ""])
def test_a_name_that_is_no_version_is_refused(lake, name):
    with pytest.raises(ConfigError, match="is no semantic version"):
        publish(lake, name)
    assert lake.table("dataset").version() is None


def test_a_name_is_taken_once(lake):
    publish(lake, "0.1.0")
    version = lake.table("dataset").version()
    with pytest.raises(ConfigError, match=r"release 0\.1\.0 is there already and never changes"):
        publish(lake, "0.1.0", "strict")
    assert lake.table("dataset").version() == version


def test_a_selection_that_keeps_nothing_is_refused(lake):
    none = Policy(name="none", rules=({"column": "persons", "min": 1000},))
    with pytest.raises(InputError, match="policy none keeps none of the 300 images"):
        publish(lake, "0.1.0", none)


def test_missing_labels_are_named(lake):
    with pytest.raises(LakeError, match=r"table labels lacks \d+ rows, such as sample_id"):
        create_release(lake, "0.1.0", selected(lake), label_fingerprint="other")
    assert lake.table("dataset").version() is None
    assert list_releases(lake) == []


class Killed(BaseException):
    """Stands for the end of the process."""


def crash(monkeypatch: pytest.MonkeyPatch, where: str, *what: object) -> None:
    """A publication that ends where it comes to this function of `etl.release`."""

    def die(*args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(etl.release, where, die)
        with pytest.raises(Killed):
            publish(*what)


@pytest.mark.parametrize("where", ["_write_manifest", "software", "release"])
def test_a_crash_on_the_way_leaves_no_release_and_the_next_attempt_makes_it(lake, monkeypatch, where):
    publish(lake, "0.0.1", "strict")
    crash(monkeypatch, where, lake)
    if where == "release":  # killed after the row was there
        assert lake.release("0.1.0").rows == len(lake.release("0.1.0").to_arrow())
        return
    assert [r.name for r in list_releases(lake)] == ["0.0.1"]
    half_made = lake.table("dataset").version()
    made = publish(lake)
    assert made.dataset_version == half_made
    assert len(made.to_arrow()) == made.rows


def test_what_a_crash_left_is_not_used_for_other_rows(lake, monkeypatch):
    crash(monkeypatch, "_write_manifest", lake, "0.1.0", "lenient")
    half_made = lake.table("dataset").version()
    made = publish(lake, "0.1.0", "strict")
    assert made.dataset_version == half_made + 1
    assert (made.array("oks") >= np.float32(0.8)).all()


def test_of_two_processes_with_one_name_one_wins_and_its_manifest_stays(lake, monkeypatch):
    refuse = etl.release._refuse_taken

    def other_first(lake: Lake, name: str) -> None:
        refuse(lake, name)
        with monkeypatch.context() as patch:
            patch.setattr(etl.release, "_refuse_taken", refuse)
            publish(lake, "0.1.0", "strict")

    with monkeypatch.context() as patch:
        patch.setattr(etl.release, "_refuse_taken", other_first)
        with pytest.raises(ConflictError, match=r"release 0\.1\.0 was published by another process"):
            publish(lake, "0.1.0", "lenient")
    winner = lake.release("0.1.0")
    assert winner.policy == "strict"
    assert len(winner.to_arrow()) == winner.rows
    assert hashlib.sha256(lake.store.read(winner.manifest_path)).hexdigest() == winner.manifest_sha256


def test_a_rival_that_publishes_in_between_leaves_no_version_of_the_loser(lake, monkeypatch):
    write = etl.release._write

    def overtaken(*arguments):
        yield from write(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(etl.release, "_write", write)
            publish(lake, "0.1.0", "strict")

    with monkeypatch.context() as patch:
        patch.setattr(etl.release, "_write", overtaken)
        with pytest.raises(ConflictError, match=r"release 0\.1\.0 is being published by another process"):
            publish(lake, "0.1.0", "lenient")
    assert [r.policy for r in list_releases(lake)] == ["strict"]
    assert lake.table("dataset").version() == lake.release("0.1.0").dataset_version


_PUBLISH = """
import sys
from etl.lake import Lake
from etl.release import create_release
from schemas.errors import PosedreamerError
from tests.lake_rows import LABELS, selected
lake = Lake(sys.argv[1])
chosen = selected(lake, sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    create_release(lake, "0.1.0", chosen, label_fingerprint=LABELS)
    print("published")
except PosedreamerError as error:
    print(error)
"""


def test_of_two_processes_that_publish_one_name_at_once_one_wins_and_the_other_is_told(lake):
    command = [sys.executable, "-c", _PUBLISH, lake.url]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "cwd": Path(__file__).parents[2],
    }
    both = {policy: subprocess.Popen([*command, policy], **pipes) for policy in ("lenient", "strict")}
    for process in both.values():
        assert process.stdout.readline() == "ready\n"
    for process in both.values():
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {policy: process.communicate()[0].strip() for policy, process in both.items()}
    assert [process.returncode for process in both.values()] == [0, 0]
    (winner,) = (policy for policy, words in said.items() if words == "published")
    (refused,) = (words for words in said.values() if words != "published")
    assert refused.startswith("release 0.1.0 ")
    (made,) = list_releases(lake)
    assert made.policy == winner
    assert len(made.to_arrow()) == made.rows
    assert hashlib.sha256(lake.store.read(made.manifest_path)).hexdigest() == made.manifest_sha256


def test_what_a_crash_left_and_others_followed_is_made_anew(lake, monkeypatch):
    """Maintenance may be removing the files of a version that no release names."""
    crash(monkeypatch, "_write_manifest", lake)
    other = publish(lake, "0.0.1", "strict")
    assert publish(lake).dataset_version == other.dataset_version + 1


def test_what_a_crash_left_is_made_anew_when_a_table_that_it_was_made_from_went_on(lake, monkeypatch):
    """Nothing pinned the versions that it was made from, so maintenance may be removing their files."""
    crash(monkeypatch, "_write_manifest", lake)
    half_made = lake.table("dataset").version()
    fill(lake, 5, seed=9)
    poses = lake.table("poses")
    poses.rearrange(poses.files(), [poses.write(poses.read())])
    made = publish(lake)
    assert made.dataset_version == half_made + 1
    assert made.manifest()["table_versions"]["poses"] == poses.version()


def test_a_manifest_that_is_not_the_published_one_is_not_read(lake):
    made = publish(lake)
    data = lake.store.read(made.manifest_path)
    for wrong in (b"", data.replace(b'"poses"', b'"posed"')):
        lake.store.write(made.manifest_path, wrong)
        with pytest.raises(LakeError, match="is not the manifest that was published"):
            made.manifest()


def test_a_release_follows_the_newest_or_the_one_that_is_said(lake):
    assert publish(lake, "0.1.0").parent is None
    assert publish(lake, "0.2.0").parent == "0.1.0"
    tag_release(lake, "0.1.0", "stable")
    third = publish(lake, "0.3.0", parent="stable")
    assert third.parent == third.manifest()["parent"] == "0.1.0"
    assert publish(lake, "1.0.0", parent="none").parent is None
    with pytest.raises(LakeError, match=r"has no release '9\.9\.9'"):
        publish(lake, "2.0.0", parent="9.9.9")
    assert [r.parent for r in list_releases(lake)] == [None, "0.1.0", "0.1.0", None]


def test_rows_that_two_plans_share_are_published_once(lake):
    poses = lake.table("poses")
    rows = poses.read()
    again = rows.set_column(
        rows.column_names.index("fingerprint"), "fingerprint", [["another plan"] * rows.num_rows]
    )
    poses.append(again)
    made = publish(lake)
    assert len(np.unique(made.array("image_id"))) == made.rows == len(made.to_arrow())


def test_adding_images_changes_no_release(lake):
    made = publish(lake)
    before = made.to_arrow()
    fill(lake, 60, seed=5)
    later = publish(lake, "0.2.0")
    assert later.rows > made.rows
    assert lake.release("0.1.0").to_arrow().equals(before)
    found = select(
        lake, Policy(name="x", rules=()), metric_fingerprints={"metrics_keypoints": METRICS},
        image_fingerprint=IMAGES,
    )  # fmt: skip
    assert found.images == 360

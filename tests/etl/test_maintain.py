"""Maintenance frees what nobody needs and nothing else, next to readers and writers."""

import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

import etl.maintain
from etl.cli import app
from etl.lake import Lake
from etl.maintain import maintain
from etl.release import create_release
from etl.release_events import delete_release
from etl.verify import verify_release
from schemas.errors import ConfigError, LakeError
from schemas.tables import TABLES
from tests.lake_rows import LABELS, fill, give_files, random_rows, selected

ROOT = Path(__file__).parents[2]
ORPHANS = (
    "files/images/0123456789abcdef/ab/ab00000000000000.jpg",
    "files/controls/1111111111111111/ab/ab00000000000000.png",
    "files/images/0123456789abcdef/ab/.ab00000000000000.jpg.00000000000000000000000000000000.tmp",
    "files/releases/0.1.0/manifest-9-0000000000000000.json",
    "files/plan/.files-0123456789abcdef.json.00000000000000000000000000000000.tmp",
    "files/mining/oks-0123456789abcdef/.model.json.00000000000000000000000000000000.tmp",
    "poses/part-00000000000000000000000000000000.parquet",
    f"poses/part-00003-{32 * '0'}-{64 * '0'}.parquet",
    "poses/.part-00000000000000000000000000000000.parquet.00000000000000000000000000000000.tmp",
    "poses/part-00000000000000000000000000000000.parquet#1",
    "poses/_delta_log/00000000000000000009.json#1",
    "preferences/part-00000000000000000000000000000000.parquet",
    ".lake.json.00000000000000000000000000000000.tmp",
)
FOREIGN = (
    "notes.txt",
    "exports/0.1.0.tar",
    "files/holiday.jpg",
    "files/images/holiday.jpg",
    "files/images/0123456789abcdef/ab/holiday.jpg",
    "files/releases/0.1.0/errata.txt",
    "files/releases/9.9.9/manifest-1.json",
    "poses/measured.parquet",
    "poses/_delta_log/readme.md",
)
KEPT = (
    "files/plan/files-0123456789abcdef.json",
    "files/plan/captions-00ff.arrow",
    "files/releases/0.1.0/card.md",
    "files/mining/poses-00ff.arrow",
    "files/mining/oks-0123456789abcdef/model.json",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two releases, poses in many files, and files of all kinds that no row names; all of it old."""
    lake = Lake.create(tmp_path_factory.mktemp("maintain") / "lake")
    fill(lake, 40)
    give_files(lake)  # replaces files of `images` and `labels`, which no release pins
    for name, policy in (("0.1.0", "lenient"), ("0.2.0", "strict")):
        create_release(lake, name, selected(lake, policy), label_fingerprint=LABELS)
    for i in range(12):
        lake.table("poses").append(random_rows("poses", 3, 100 + i))
    for path in (*ORPHANS, *FOREIGN, *KEPT):
        lake.store.write(path, b"x" * 100)
    grow_old(lake)
    return lake


@pytest.fixture
def lake(made, tmp_path):
    return Lake(shutil.copytree(made.url, tmp_path / "lake"))


def grow_old(lake: Lake, days: int = 30) -> None:
    """As if all that was done had been done before: files, and when they were taken out of their tables."""
    then = time.time() - days * 86400
    for path in Path(lake.url).rglob("*"):
        if path.suffix == ".json" and path.parent.name == "_delta_log":
            text = re.sub(
                r'"deletionTimestamp":\d+', f'"deletionTimestamp":{int(then * 1000)}', path.read_text()
            )
            path.write_text(text)
        os.utime(path, (then, then))


def tree(lake: Lake) -> dict[str, int]:
    root = Path(lake.url)
    return {str(p.relative_to(root)): p.stat().st_size for p in root.rglob("*") if p.is_file()}


def rows(lake: Lake) -> dict[str, pa.Table]:
    names = {name: [*TABLES[name].key] for name in lake.tables()}
    return {n: lake.table(n).read(k).sort_by([(c, "ascending") for c in k]) for n, k in names.items()}


def test_a_dry_run_says_what_the_real_one_does_and_changes_nothing(lake):
    before = tree(lake)
    times = {path: Path(lake.store.full(path)).stat().st_mtime for path in before}
    said = maintain(lake)
    assert tree(lake) == before
    assert {path: Path(lake.store.full(path)).stat().st_mtime for path in before} == times
    done = maintain(lake, apply=True)
    assert done == said
    gone = {path: size for path, size in before.items() if path not in tree(lake)}
    assert sum(gone.values()) == sum(f.frees for f in said) > 0
    assert len(gone) == sum(f.files for f in said if f.what in ("vacuum", "sweep"))


def test_what_no_row_and_no_release_needs_goes_and_all_else_stays(lake):
    before, content = tree(lake), rows(lake)
    found = maintain(lake, apply=True)
    after = tree(lake)
    gone = set(before) - set(after)
    assert set(ORPHANS) <= gone
    replaced = {path for path in gone if path.startswith(("images/", "labels/"))}
    assert len(replaced) == 4
    assert gone == set(ORPHANS) | replaced
    assert {(f.what, f.place) for f in found if f.what != "sweep"} == {
        ("compact", "poses"),
        ("vacuum", "images"),
        ("vacuum", "labels"),
        *(("unknown", place) for place in ("", "files", "files/images", "files/releases", "poses")),
        ("unknown", "files/releases/0.1.0"),
        ("unknown", "poses/_delta_log"),
    }
    assert {f.example for f in found if f.what == "unknown"} >= {"exports/", "files/holiday.jpg"}
    assert rows(lake) == content
    for name in ("0.1.0", "0.2.0"):
        assert verify_release(lake, name) == []
    again = maintain(lake, apply=True)
    assert {f.what for f in again} == {"unknown"}


def test_any_reader_opens_every_release_afterwards(lake):
    before = {name: lake.release(name).to_arrow() for name in ("0.1.0", "0.2.0")}
    maintain(lake, apply=True)
    for name, table in before.items():
        release = Lake(lake.url).release(name)
        assert release.to_arrow().equals(table)
        plain = DeltaTable(lake.table("dataset").uri, version=release.dataset_version).to_pandas()
        assert sorted(plain["image_id"]) == sorted(table.column("image_id").to_pylist())
        for pinned, version in release.manifest()["table_versions"].items():
            assert len(DeltaTable(lake.table(pinned).uri, version=version).to_pandas()) > 0


def test_a_pinned_version_outlives_compaction(lake):
    release = create_release(lake, "0.3.0", selected(lake), label_fingerprint=LABELS)
    version = release.manifest()["table_versions"]["poses"]
    pinned = lake.table("poses").read(version=version)
    maintain(lake, apply=True)
    assert len(lake.table("poses").files()) < 12
    grow_old(lake)
    assert not any(f.what == "vacuum" and f.place == "poses" for f in maintain(lake, apply=True))
    assert lake.table("poses").read(version=version).equals(pinned)
    delete_release(lake, "0.3.0")
    _backdate_deletions(lake)
    (freed,) = (f for f in maintain(lake, apply=True) if f.what == "vacuum" and f.place == "poses")
    assert freed.files == 12, "two more are pinned by the others"
    for name in ("0.1.0", "0.2.0"):
        assert verify_release(lake, name) == []
    with pytest.raises(FileNotFoundError):
        lake.table("poses").read(version=version)


def _backdate_deletions(lake: Lake) -> None:
    table = lake.table("release_events")
    events = table.read()
    at = pa.array([datetime.now(UTC) - timedelta(days=20)] * events.num_rows, events.schema.field("at").type)
    table.replace([table.write(events.set_column(events.schema.get_field_index("at"), "at", at))])


def test_a_deleted_release_frees_its_own_files_when_it_is_old_enough(lake):
    maintain(lake, apply=True)
    release = lake.release("0.1.0")
    own = {*lake.table("dataset").files(release.dataset_version), release.manifest_path, KEPT[2]}
    delete_release(lake, "0.1.0", force=True)
    assert {f.what for f in maintain(lake, apply=True)} == {"unknown"}, "somebody may be reading it"
    _backdate_deletions(lake)
    before = set(tree(lake))
    maintain(lake, apply=True)
    assert before - set(tree(lake)) == own
    assert verify_release(lake, "0.2.0") == []
    with pytest.raises(LakeError, match="was deleted"):
        lake.release("0.1.0")


def test_the_age_of_a_file_counts_from_when_it_was_taken_out(lake):
    """A file of last year that was replaced a minute ago may be being read."""
    maintain(lake, apply=True)
    poses = lake.table("poses")
    grow_old(lake)
    old = set(poses.files())
    poses.replace([poses.write(poses.read())])
    maintain(lake, apply=True)
    assert old <= set(tree(lake))


def test_young_files_stay(lake):
    for path in ORPHANS:
        os.utime(lake.store.full(path))
    maintain(lake, apply=True)
    assert set(ORPHANS) <= set(tree(lake))


def test_a_file_that_is_written_again_after_it_was_seen_stays(lake, monkeypatch):
    """A run found it, left by a crash, and is about to name it in a row."""
    seen = etl.maintain.listed

    def then_written(store, folder):
        found = seen(store, folder)
        if folder == ORPHANS[0].rpartition("/")[0]:
            os.utime(store.full(ORPHANS[0]))
        return found

    monkeypatch.setattr(etl.maintain, "listed", then_written)
    maintain(lake, apply=True)
    left = set(tree(lake))
    assert ORPHANS[0] in left
    assert not set(ORPHANS[1:]) & left


def test_a_version_that_no_release_names_goes_unless_it_is_the_newest(lake):
    dataset = lake.table("dataset")
    half_made = [dataset.replace([dataset.write(random_rows("dataset", 4, i))]).version for i in (1, 2)]
    files = [dataset.files(version) for version in half_made]
    grow_old(lake)
    maintain(lake, apply=True)
    left = set(tree(lake))
    assert not set(files[0]) & left
    assert set(files[1]) <= left
    assert verify_release(lake, "0.1.0") == []


@pytest.mark.parametrize("damage", ["flip", "lose"])
def test_without_a_manifest_nothing_is_removed(lake, damage):
    path = lake.release("0.1.0").manifest_path
    if damage == "lose":
        lake.store.fs.rm(lake.store.full(path))
    else:
        lake.store.write(path, lake.store.read(path)[:-1] + b" ")
    before = tree(lake)
    with pytest.raises(LakeError, match=r"release 0\.1\.0: what it pins cannot be told"):
        maintain(lake, apply=True)
    assert tree(lake) == before
    delete_release(lake, "0.1.0", force=True)
    maintain(lake, apply=True)
    assert verify_release(lake, "0.2.0") == []


def test_an_empty_lake_and_one_that_was_never_read_are_tidy(tmp_path):
    assert maintain(Lake.create(tmp_path / "lake"), apply=True) == []


_WRITE = """
import sys, time
from etl.lake import Lake
from tests.lake_rows import random_rows
lake = Lake(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
i = 0
while not lake.store.exists("stop"):
    for name in ("poses", "fingerprints"):
        lake.table(name).append(random_rows(name, 4, 1000 + i))
        lake.table(name).append(random_rows(name, 4, 1000 + i // 2))
    i += 1
    time.sleep(0.05)
print(i)
"""

_READ = """
import sys, time
from etl.lake import Lake
lake = Lake(sys.argv[1])
whole = {name: lake.release(name).to_arrow() for name in ("0.1.0", "0.2.0")}
print("ready", flush=True)
sys.stdin.readline()
last = reads = 0
while not lake.store.exists("stop"):
    ids = lake.table("poses").read(["pose_id"]).column(0).to_pylist()
    assert len(set(ids)) == len(ids) >= last
    last, reads = len(ids), reads + 1
    time.sleep(0.05)
    for name, rows in whole.items():
        assert Lake(sys.argv[1]).release(name).to_arrow().equals(rows)
print(reads)
"""


def test_it_runs_next_to_writers_and_readers(lake):
    poses = lake.table("poses")
    before = poses.read(["pose_id"]).column(0).to_pylist()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    both = [subprocess.Popen([sys.executable, "-c", code, lake.url], **pipes) for code in (_WRITE, _READ)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    compacted = set()
    for turn in range(100):
        found = maintain(lake, older_than=timedelta(hours=1), apply=True)
        compacted |= {(turn, f.place) for f in found if f.what == "compact"}
        if len([place for _, place in compacted if place == "poses"]) >= 2 or both[0].poll() is not None:
            break
    lake.store.write("stop", b"")
    written, read = (int(process.communicate()[0]) for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert read > 0
    assert {place for _, place in compacted} == {"poses", "fingerprints"}
    new = [random_rows("poses", 4, 1000 + i).column("pose_id").to_pylist() for i in range(written)]
    ids = poses.read(["pose_id"]).column(0).to_pylist()
    assert sorted(ids) == sorted([*before, *(i for some in new for i in some)])
    prints = lake.table("fingerprints").read(["fingerprint"]).column(0).to_pylist()
    assert len(set(prints)) == len(prints) >= 4 * written
    assert not set(ORPHANS) & set(tree(lake))
    for name in ("0.1.0", "0.2.0"):
        assert verify_release(lake, name) == []


def _pipeline(lake: str | Path, folder: Path) -> str:
    file = folder / "pipeline.yaml"
    file.write_text(f"lake: {lake}\nposes: [{{name: demo, path: bundled}}]\n")
    return str(file)


def test_the_command_is_dry_unless_it_is_told(lake, tmp_path):
    file = _pipeline(lake.url, tmp_path)
    before = tree(lake)
    said = CliRunner().invoke(app, ["maintain", "-p", file], catch_exceptions=False)
    assert said.exit_code == 0
    assert "Would free" in said.output
    assert tree(lake) == before
    done = CliRunner().invoke(app, ["maintain", "-p", file, "--apply"], catch_exceptions=False)
    assert "Freed" in done.output
    assert not set(ORPHANS) & set(tree(lake))
    assert set(FOREIGN) <= set(tree(lake))


@pytest.mark.parametrize("age", ["0d", "0h", "10m", "x", "-1d", "7", "999999w"])
def test_an_age_that_is_none_or_too_short_is_refused(tmp_path, age):
    file = _pipeline("lake", tmp_path)
    result = CliRunner().invoke(app, ["maintain", "-p", file, f"--older-than={age}"])
    assert isinstance(result.exception, ConfigError)
    assert f"--older-than {age}" in str(result.exception)

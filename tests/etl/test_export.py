"""An export can be killed anywhere and goes on to the same bytes; what it cannot trust, it names."""

import fcntl
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import etl.parquet
import etl.release
from etl.cli import app
from etl.export import FORMATS, export_release
from etl.exports import pieces
from etl.join import join
from etl.lake import Lake
from etl.release import create_release
from schemas.errors import ConfigError, ConflictError, InputError, LakeError, StageError
from schemas.policy import Policy
from tests.lake_rows import LABELS, fill, selected

ROOT = Path(__file__).parents[2]
ROWS = 24


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    lake = Lake.create(tmp_path_factory.mktemp("export") / "lake")
    fill(lake, ROWS, seed=3)
    table = lake.table("images")
    images = table.read()
    files = [f"picture {i}".encode() * 50 for i in range(ROWS)]
    for path, data in zip(images.column("image_path").to_pylist(), files, strict=True):
        lake.store.write(path, data)
    digests = [[hashlib.sha256(data).hexdigest() for data in files]]
    at = images.column_names.index("image_sha256")
    table.replace([table.write(images.set_column(at, "image_sha256", digests))])
    all_rows = Policy.model_validate(
        {"name": "all", "rules": [{"column": "oks", "min": 0, "missing": "keep"}]}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(etl.release, "join", lambda parts: join(parts, 7))
        patch.setattr(etl.parquet, "ROW_GROUP_ROWS", 3)
        create_release(lake, "0.1.0", selected(lake, all_rows), label_fingerprint=LABELS)
    return lake.release("0.1.0")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Pieces of 5 rows in blocks of 2, as a large release has pieces of many blocks."""
    from dataclasses import replace

    small = {
        name: tuple(replace(step, rows=step.rows and 5, block=2) for step in steps)
        for name, steps in FORMATS.items()
    }
    monkeypatch.setattr("etl.export.FORMATS", small)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Killed(BaseException):
    """Not an error that anything would handle."""


def kill_at(patch: pytest.MonkeyPatch, count: int) -> None:
    """Ends the process, so to speak, instead of giving the `count`-th file its name."""
    left = [count]
    rename = Path.replace

    def replace(self, target):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return rename(self, target)

    patch.setattr(Path, "replace", replace)


def begin(monkeypatch: pytest.MonkeyPatch, count: int, release: object, format: str, out: Path) -> None:
    """An export that is killed at its `count`-th rename."""
    with monkeypatch.context() as patch:
        kill_at(patch, count)
        with pytest.raises(Killed):
            export_release(release, format, out)


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_is_killed_anywhere_ends_in_the_same_bytes(release, tmp_path, monkeypatch, format):
    where = "image_id > 0 or persons > 0"
    whole = export_release(release, format, tmp_path / "whole", where=where)
    assert whole.fresh
    assert 5 < whole.rows <= ROWS
    expected = contents(tmp_path / "whole")
    assert expected.keys() >= {"manifest.json", "SHA256SUMS"}
    for count in range(0, 1000, 3 if whole.files < 12 else 5):
        out = tmp_path / str(count)
        with monkeypatch.context() as patch:
            kill_at(patch, count)
            try:
                export_release(release, format, out, where=where)
                break  # there are no more files than that
            except Killed:
                assert "manifest.json" not in contents(out)
        export_release(release, format, out, where=where)
        assert contents(out) == expected
    assert count > 5


def test_a_process_that_is_killed_goes_on(release, tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom etl.export import export_release\n"
        "from posedreamer import Lake\nrename, left = Path.replace, [9]\n"
        "def replace(self, target):\n"
        "    left[0] -= 1\n"
        "    return rename(self, target) if left[0] else os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.replace = replace\n"
        "export_release(Lake(sys.argv[1]).release('0.1.0'), 'parquet', Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, release.lake.url, tmp_path / "a"], cwd=ROOT)
    assert done.returncode == -9
    assert len(list((tmp_path / "a").rglob("*.jpg"))) == 7
    for name in "ab":
        export_release(release, "parquet", tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_finished_pieces_are_not_made_again(release, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(pieces, "_read", lambda *given: read.append(given[1]) or b"x")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        kill_at(patch, 1 + 2 * 3)  # the facts; three shards and their notes
        with pytest.raises(Killed):
            export_release(release, "webdataset", out)
    there = {p: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    assert len(there) == 3
    read.clear()
    seen = []
    export_release(release, "webdataset", out, watch=lambda *now: seen.append(now))
    assert len(read) == ROWS - 15
    assert {p: p.stat().st_mtime_ns for p in there} == there
    assert seen[0] == (15, ROWS)
    assert seen[-1] == (ROWS, ROWS)
    read.clear()
    again = export_release(release, "webdataset", out)
    assert (again.fresh, again.rows, again.files) == (False, ROWS, 5)
    assert read == []


def test_the_manifest_and_the_checksums_say_what_is_there(release, tmp_path):
    out = tmp_path / "out"
    done = export_release(release, "hdf5", out, where="persons >= 2")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["release"] == "0.1.0"
    assert manifest["format"] == "hdf5"
    assert manifest["where"] == "persons >= 2"
    assert manifest["dataset_version"] == release.dataset_version
    assert manifest["rows"] == done.rows == len(release.to_arrow(["image_id"], "persons >= 2")) < ROWS
    assert manifest["software"].keys() == {"posedreamer", "numpy", "pyarrow", "h5py"}
    sums = (out / "SHA256SUMS").read_bytes()
    assert manifest["sha256sums_sha256"] == hashlib.sha256(sums).hexdigest()
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=True
    )
    files = {line.removesuffix(": OK") for line in checked.stdout.splitlines()}
    assert files == contents(out).keys() - {"SHA256SUMS", "manifest.json"}
    assert len(files) == manifest["files"] == done.files == 2 * done.rows
    assert sum((out / f).stat().st_size for f in files) == done.bytes


@pytest.mark.parametrize("format", ["webdataset", "datasets", "coco"])
def test_a_damaged_image_stops_the_export_by_its_name(release, tmp_path, format):
    store = release.lake.store
    path = release.to_arrow(["image_path"]).column(0)[13].as_py()
    whole = store.read(path)
    store.write(path, whole[:-1] + b"!")
    try:
        with pytest.raises(LakeError, match=f"{path} .* is damaged: its SHA-256"):
            export_release(release, format, tmp_path / "out")
        store.fs.rm(store.full(path))
        with pytest.raises(LakeError, match=f"has lost {path}"):
            export_release(release, format, tmp_path / "out")
        assert not (tmp_path / "out" / "manifest.json").exists()
    finally:
        store.write(path, whole)
    export_release(release, format, tmp_path / "out")
    export_release(release, format, tmp_path / "other")
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_a_folder_with_something_else_in_it_is_refused(release, tmp_path, monkeypatch):
    out = tmp_path / "out"
    begin(monkeypatch, 4, release, "coco", out)
    for finished in (False, True):
        if finished:
            export_release(release, "coco", out)
        before = contents(out)
        with pytest.raises(ConfigError, match="has another export in it, with format 'coco' and not 'npz'"):
            export_release(release, "npz", out)
        with pytest.raises(ConfigError, match="with where None and not 'persons > 0'"):
            export_release(release, "coco", out, where="persons > 0")
        assert contents(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("[]")
    (tmp_path / "notes.txt").write_text("mine")
    for wrong in ("mine", "notes.txt", ""):
        with pytest.raises(ConfigError, match="is no export"):
            export_release(release, "coco", tmp_path / wrong)


def test_what_another_process_exports_to_is_left_alone(release, tmp_path, monkeypatch):
    out = tmp_path / "out"
    begin(monkeypatch, 1, release, "coco", out)
    with (out / ".export" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another process exports to"):
            export_release(release, "coco", out)
    assert export_release(release, "coco", out).fresh


def test_a_file_that_was_taken_away_is_missed(release, tmp_path, monkeypatch):
    out = tmp_path / "out"
    begin(monkeypatch, 8, release, "coco", out)
    lost = min(out.rglob("*.jpg"), key=lambda p: p.stat().st_mtime_ns)
    lost.unlink()
    with pytest.raises(ConfigError, match=f"has lost images/.*{lost.name}.*remove the folder"):
        export_release(release, "coco", out)


def test_wrong_arguments_are_refused_before_anything_is_written(release, tmp_path):
    out = tmp_path / "out"
    for kind, message, arguments in (
        (ConfigError, "no export format 'cocoo'; did you mean coco", {"format": "cocoo"}),
        (ConfigError, "did you mean oks", {"where": "okss > 0"}),
        (InputError, "no row of release 0.1.0 meets 'persons > 99'", {"where": "persons > 99"}),
        (ConfigError, "rows is 0", {"rows": 0}),
        (ConfigError, "coco has no number of rows a file; webdataset, datasets, npz have",
         {"format": "coco", "rows": 5}),
        (ConfigError, "inside the lake", {"out": Path(release.lake.url) / "dataset" / "out"}),
        (ConfigError, "is a URL", {"out": Path("s3://bucket/out")}),
    ):  # fmt: skip
        given = {"format": "webdataset", "out": out, **arguments}
        with pytest.raises(kind, match=message):
            export_release(release, **given)
    assert not out.exists()
    by_url = Lake(f"file://{release.lake.url}").release("0.1.0")
    with pytest.raises(ConfigError, match="inside the lake"):
        export_release(by_url, "coco", Path(release.lake.url) / "files" / "out")


def test_a_full_disk_is_a_sentence_and_not_a_traceback(release, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StageError, match="No space left on device; the same command goes on"):
            export_release(release, "coco", tmp_path / "out")
    assert export_release(release, "coco", tmp_path / "out").fresh


def test_the_command_exports_and_says_how_to_check(release, tmp_path):
    file = tmp_path / "pipeline.yaml"
    runner = CliRunner()
    assert runner.invoke(app, ["init", str(file)]).exit_code == 0
    file.write_text(file.read_text().replace("lake: lake ", f"lake: {release.lake.url} ", 1))
    out = tmp_path / "out"
    words = ["export", "0.1.0", "--format", "webdataset", "--out", out, "--rows", "10", "-p", file]
    first = runner.invoke(app, list(map(str, words)), catch_exceptions=False)
    assert first.exit_code == 0
    assert f"cd {out} && sha256sum -c SHA256SUMS" in first.output
    assert len(list(out.glob("shard-*.tar"))) == 3
    again = runner.invoke(app, list(map(str, words)), catch_exceptions=False)
    assert "has this export already" in again.output
    assert not (out / ".export").exists()

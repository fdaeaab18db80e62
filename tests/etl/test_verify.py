"""A release verifies as long as every byte is what was published, and the fault is named when not."""

import shutil

import pytest

import etl.release
import etl.verify
from etl.join import join
from etl.lake import Lake
from etl.release import create_release
from etl.verify import file_sha256, verify_release
from schemas.errors import LakeError
from tests.lake_rows import LABELS, fill, give_files, selected


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two releases of rows whose image and control files are there."""
    lake = Lake.create(tmp_path_factory.mktemp("verify") / "lake")
    fill(lake, 60)
    give_files(lake)
    for name, policy in (("0.1.0", "lenient"), ("0.2.0", "strict")):
        create_release(lake, name, selected(lake, policy), label_fingerprint=LABELS)
    return lake


@pytest.fixture
def lake(made, tmp_path):
    return Lake(shutil.copytree(made.url, tmp_path / "lake"))


def _flip(lake: Lake, path: str, at: int) -> None:
    data = bytearray(lake.store.read(path))
    data[at] ^= 1
    lake.store.write(path, bytes(data))


def test_an_intact_release_has_no_fault(lake):
    seen = []
    assert verify_release(lake, "0.1.0", lambda done, total: seen.append((done, total))) == []
    release = lake.release("0.1.0")
    manifest = release.manifest()
    pinned = sum(len(lake.table(name).files(v)) for name, v in manifest["table_versions"].items())
    total = len(manifest["dataset_files"]) + pinned + 2 * release.rows
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("column", ["image_path", "control_path"])
@pytest.mark.parametrize("change", ["flip", "lose"])
def test_a_changed_picture_is_named(lake, column, change):
    path = lake.release("0.1.0").to_pandas([column])[column].iloc[3]
    if change == "flip":
        _flip(lake, path, 17)
    else:
        lake.store.fs.rm(lake.store.full(path))
    faults = verify_release(lake, "0.1.0")
    assert [f.path for f in faults] == [path]
    assert ("SHA-256" if change == "flip" else "missing") in faults[0].what


@pytest.mark.parametrize("at", [100, -10])
def test_a_flipped_bit_in_a_parquet_file_is_named(lake, at):
    path = lake.table("dataset").files(lake.release("0.1.0").dataset_version)[0]
    _flip(lake, path, at)
    assert path in [f.path for f in verify_release(lake, "0.1.0")]
    assert verify_release(lake, "0.2.0") == []


def test_a_damaged_parquet_file_hides_no_picture_of_another(lake, monkeypatch):
    monkeypatch.setattr(etl.release, "join", lambda parts: join(parts, 5))
    create_release(lake, "0.3.0", selected(lake, "lenient"), label_fingerprint=LABELS)
    release = lake.release("0.3.0")
    files = lake.table("dataset").files(release.dataset_version)
    assert len(files) > 2
    path = release.to_pandas(["image_path"])["image_path"].iloc[-1]
    _flip(lake, files[0], 100)
    _flip(lake, path, 17)
    assert [f.path for f in verify_release(lake, "0.3.0")] == [files[0], path]


@pytest.mark.parametrize(
    "table", ["poses", "captions", "samples", "labels", "metrics_keypoints", "selections"]
)
def test_a_flipped_bit_in_a_table_that_a_release_pins_is_named(lake, table):
    pinned = lake.release("0.1.0").manifest()["table_versions"]
    path = lake.table(table).files(pinned[table])[-1]
    _flip(lake, path, 60)
    (fault,) = verify_release(lake, "0.1.0")
    assert fault.path == path
    assert "SHA-256" in fault.what


def test_a_file_of_a_version_that_a_release_pins_is_missed(lake):
    path = lake.table("poses").files()[0]
    lake.store.fs.rm(lake.store.full(path))
    (fault,) = verify_release(lake, "0.1.0")
    assert fault.path == path
    assert "version 1 of poses, which the release pins" in fault.what


def test_a_file_that_cannot_be_read_is_a_fault(lake, monkeypatch):
    path = lake.release("0.1.0").to_pandas(["image_path"])["image_path"].iloc[0]

    def broken(store, name):
        if name == path:
            raise OSError("Input/output error")
        return file_sha256(store, name)

    monkeypatch.setattr(etl.verify, "file_sha256", broken)
    (fault,) = verify_release(lake, "0.1.0")
    assert (fault.path, fault.what) == (path, "cannot be read: Input/output error")


def test_a_changed_manifest_is_found(lake):
    path = lake.release("0.1.0").manifest_path
    _flip(lake, path, 40)
    assert [f.path for f in verify_release(lake, "0.1.0")] == [path]


def test_a_later_release_and_later_rows_leave_it_intact(lake):
    fill(lake, 30, 1)
    create_release(lake, "0.3.0", selected(lake, "lenient"), label_fingerprint=LABELS)
    assert verify_release(lake, "0.1.0") == []


def test_an_unknown_release_is_an_error(lake):
    with pytest.raises(LakeError, match="9"):
        verify_release(lake, "9.9.9")

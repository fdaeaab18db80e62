"""A release verifies as long as every byte is what was published, and the fault is named when not."""

import hashlib

import pyarrow as pa
import pytest

from etl.lake import Lake
from etl.release import create_release
from etl.verify import verify_release
from schemas.errors import LakeError
from tests.lake_rows import LABELS, fill, selected


@pytest.fixture
def lake(tmp_path):
    """Two releases of rows whose image and control files are there."""
    made = Lake.create(tmp_path / "lake")
    fill(made, 60)
    _give_files(made, "images", "image_path", "image_sha256")
    _give_files(made, "labels", "control_path", "control_sha256")
    for name, policy in (("0.1.0", "lenient"), ("0.2.0", "strict")):
        create_release(made, name, selected(made, policy), label_fingerprint=LABELS)
    return made


def _give_files(lake: Lake, name: str, path_column: str, sha_column: str) -> None:
    table = lake.table(name)
    rows = table.read()
    data = [f"{name} {i}".encode() * 20 for i in range(rows.num_rows)]
    paths = [f"files/{name}/{i:03d}.bin" for i in range(rows.num_rows)]
    for path, content in zip(paths, data, strict=True):
        lake.store.write(path, content)
    digests = [hashlib.sha256(content).hexdigest() for content in data]
    for column, values in ((path_column, paths), (sha_column, digests)):
        rows = rows.set_column(rows.column_names.index(column), column, pa.array(values))
    table.replace([table.write(rows)])


def _flip(lake: Lake, path: str, at: int) -> None:
    data = bytearray(lake.store.read(path))
    data[at] ^= 1
    lake.store.write(path, bytes(data))


def test_an_intact_release_has_no_fault(lake):
    seen = []
    assert verify_release(lake, "0.1.0", lambda done, total: seen.append((done, total))) == []
    release = lake.release("0.1.0")
    total = len(release.manifest()["dataset_files"]) + 2 * release.rows
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

"""Lakes are made and opened on purpose, here and in an object store."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta

import pytest
import s3fs
from deltalake import DeltaTable

from etl.lake import Lake
from etl.maintain import maintain
from etl.release import create_release
from etl.verify import verify_release
from schemas.errors import LakeError
from tests.lake_rows import LABELS, fill, give_files, random_rows, selected


def test_a_lake_is_made_once_and_opened_again(tmp_path):
    made = Lake.create(tmp_path / "lake")
    made.table("poses").append(random_rows("poses", 3, 1))
    again = Lake.create(tmp_path / "lake")
    assert again.table("poses").count() == 3
    assert Lake(tmp_path / "lake").tables() == {"poses": 1}
    assert Lake.is_at(tmp_path / "lake")
    assert not Lake.is_at(tmp_path)


def test_what_is_no_lake_is_refused(tmp_path):
    with pytest.raises(LakeError, match="is not a lake"):
        Lake(tmp_path / "none")
    (tmp_path / "mine.txt").write_text("thesis")
    with pytest.raises(LakeError, match="is not empty and not a lake"):
        Lake.create(tmp_path)
    (tmp_path / "lake.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(LakeError, match="has lake format 99"):
        Lake(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\xff"])
def test_a_damaged_marker_is_said(tmp_path, text):
    (tmp_path / "lake.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LakeError, match=r"lake\.json"):
        Lake(tmp_path)


def test_what_a_killed_process_left_of_the_marker_is_in_nobodys_way(tmp_path):
    (tmp_path / ".lake.json.0123abc.tmp").write_bytes(b"{")
    assert Lake.create(tmp_path).tables() == {}


def test_a_place_out_of_reach_is_said_and_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "file").write_text("x")
    for open_it in (Lake, Lake.create, Lake.is_at):
        with pytest.raises(LakeError, match="lake cannot be read: "):
            open_it(tmp_path / "file" / "lake")
        with pytest.raises(LakeError, match="foo://bar cannot be read: Protocol not known"):
            open_it("foo://bar")


def test_unknown_tables_are_named(tmp_path):
    with pytest.raises(LakeError, match="no table is called 'pose'; there are sources, "):
        Lake.create(tmp_path).table("pose")


@pytest.fixture(scope="module")
def s3():
    """Options of an object store on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        options = {"key": "test", "secret": "test", "endpoint_url": url}
        s3fs.S3FileSystem(**options).mkdir("bucket")
        yield options
    finally:
        server.terminate()
        server.wait()


def test_a_lake_in_an_object_store_does_all_that_a_local_one_does(s3, tmp_path):
    remote, local = Lake.create("s3://bucket/some/lake", s3), Lake.create(tmp_path / "lake")
    for lake in (remote, local):
        fill(lake, 60)
        lake.store.write("files/x.bin", b"bytes")
        assert lake.store.read("files/x.bin") == b"bytes"
        made = create_release(lake, "0.1.0", selected(lake), label_fingerprint=LABELS)
        assert selected(lake).written == 0
        assert made.rows == lake.table("dataset").count()
    there, here = (Lake("s3://bucket/some/lake", s3).release("0.1.0"), local.release("0.1.0"))
    assert there.to_arrow().equals(here.to_arrow())
    assert there.to_arrow(["image_id"], "oks >= 0.8", limit=3).num_rows == 3
    assert len(remote.table("labels").dask(["sample_id"])) == 60
    repeated = remote.table("poses").append(remote.table("poses").read())
    assert (repeated.version, repeated.repeated) == (None, 30)
    options = remote.store.delta_options
    plain = DeltaTable(
        "s3://bucket/some/lake/dataset", version=there.dataset_version, storage_options=options
    )
    assert sorted(plain.to_pandas()["image_id"]) == sorted(here.to_pandas()["image_id"])
    with pytest.raises(LakeError, match="is not a lake"):
        Lake("s3://bucket/elsewhere", s3)
    with pytest.raises(LakeError, match="no lake can be made at s3://nobucket/lake: The specified bucket"):
        Lake.create("s3://nobucket/lake", s3)


def test_a_lake_in_an_object_store_is_kept_tidy(s3):
    lake = Lake.create("s3://bucket/tidy", s3)
    fill(lake, 10)
    give_files(lake)
    create_release(lake, "0.1.0", selected(lake), label_fingerprint=LABELS)
    for i in range(8):
        lake.table("captions").append(random_rows("captions", 2, 50 + i))
    orphan, foreign = "files/images/0123456789abcdef/ab/ab00000000000000.jpg", "files/images/holiday.jpg"
    for path in (orphan, foreign):
        lake.store.write(path, b"x")
    replaced = lake.table("images").files(1)
    before = lake.table("captions").read(["caption_id"]).column(0)
    found = maintain(lake, older_than=timedelta(0), apply=True)
    assert {f.what for f in found} == {"compact", "vacuum", "sweep", "unknown"}
    assert not any(lake.store.exists(path) for path in (orphan, *replaced))
    assert lake.store.exists(foreign)
    assert sorted(lake.table("captions").read(["caption_id"]).column(0).to_pylist()) == sorted(
        before.to_pylist()
    )
    assert verify_release(lake, "0.1.0") == []

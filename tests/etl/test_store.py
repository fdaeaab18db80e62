"""Files of the lake are written whole or not at all, and no path leads out of it."""

import pickle
import threading

import pyarrow.fs as pafs
import pytest

from etl.store import Store
from schemas.errors import LakeError


@pytest.mark.parametrize("place", ["lake", "memory://bucket/lake"])
def test_what_is_written_is_read(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    store = Store.at(place)
    store.write("files/a/b.bin", b"\x00one")
    store.write("files/a/b.bin", b"two")
    assert store.read("files/a/b.bin") == b"two"
    assert store.exists("files/a/b.bin")
    assert not store.exists("files/a")
    assert not store.exists("files/other")
    with pytest.raises(FileNotFoundError):
        store.read("files/other")


@pytest.mark.parametrize("place", ["lake", "memory://bucket/created"])
def test_what_is_created_stays(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    store = Store.at(place)
    assert store.create("files/a.bin", b"one")
    assert not store.create("files/a.bin", b"two")
    assert store.read("files/a.bin") == b"one"


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_create_a_local_file_at_once_one_does(tmp_path, monkeypatch, links):
    """And where the file system has no hard links, it is written all the same."""
    store = Store.at(tmp_path)
    if links:
        monkeypatch.setattr(Store, "exists", lambda self, path: False)
    else:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    won = [store.create("a/x", str(i).encode()) for i in range(3)]
    assert won == [True, False, False]
    assert store.read("a/x") == b"0"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x"]


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "",
        "a/..",
        "s3://b/x",
        "file:///x",
        "a\\..\\x",
        "a\0b",
        "..",
        "./..",
    ],
)
def test_a_path_that_leaves_the_lake_is_refused(tmp_path, path):
    store = Store.at(tmp_path / "lake")
    for action in (
        store.read,
        store.exists,
        lambda p: store.write(p, b""),
        lambda p: store.create(p, b""),
        store.uri,
    ):
        with pytest.raises(LakeError, match="is not a path below the lake"):
            action(path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    store = Store.at(tmp_path)
    store.write("a/x", b"old")

    def full(self, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        store.write("a/x", b"new")
    assert store.read("a/x") == b"old"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x"]


def test_a_reader_sees_an_old_or_a_new_file_never_a_part(tmp_path):
    store = Store.at(tmp_path)
    contents = [bytes([i]) * 300_000 for i in range(4)]
    store.write("x", contents[0])
    done = threading.Event()

    def write() -> None:
        for _ in range(25):
            for content in contents:
                store.write("x", content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert store.read("x") in contents
    writer.join()


def test_a_store_travels_to_other_processes(tmp_path):
    store = Store.at(tmp_path / "lake", {"auto_mkdir": True})
    store.write("x", b"1")
    there = pickle.loads(pickle.dumps(store))
    assert there == store
    assert hash(there) == hash(store)
    assert there.read("x") == b"1"


def test_credentials_go_to_every_library_under_its_own_name(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    store = Store.at(
        "s3://bucket/lake/",
        {"key": "k", "secret": "s", "token": "t", "endpoint_url": "http://127.0.0.1:9",
         "client_kwargs": {"region_name": "eu-west-3"}},
    )  # fmt: skip
    assert store.url == "s3://bucket/lake"
    named = store.delta_options
    assert named["AWS_ACCESS_KEY_ID"] == "k"
    assert named["AWS_SECRET_ACCESS_KEY"] == "s"
    assert named["AWS_SESSION_TOKEN"] == "t"
    assert named["AWS_ALLOW_HTTP"] == "true"
    assert named["AWS_REGION"] == "eu-west-3"
    assert store.full("a/b") == "bucket/lake/a/b"
    assert isinstance(store.arrow, pafs.S3FileSystem)
    assert store.arrow.region == "eu-west-3"
    assert Store.at("s3://bucket/lake").delta_options is None


def test_an_object_store_named_in_the_environment_is_enough(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert Store.at("s3://bucket/lake").delta_options == {"AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert Store.at("s3://bucket/lake").delta_options == {"AWS_ALLOW_HTTP": "true"}


def test_local_places_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Store.at("lake").url == str(tmp_path / "lake")
    assert Store.at("~/lake").url == str(tmp_path / "home/lake")
    assert Store.at("lake").local

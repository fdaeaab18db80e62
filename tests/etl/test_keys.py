"""A commit reads the keys of those files alone that may hold what is coming, and misses no repeat."""

import numpy as np
import pyarrow as pa
import pytest

from etl import table as table_module
from etl.keys import may_hold, row_keys
from schemas.errors import LakeError
from tests.lake_rows import random_rows


@pytest.fixture
def opened(monkeypatch):
    """Paths of the files whose keys a commit reads of those that are there."""
    paths = []
    real = table_module.open_parquet

    def watched(store, path):
        paths.append(path)
        return real(store, path)

    monkeypatch.setattr(table_module, "open_parquet", watched)
    return paths


def test_files_of_other_selections_are_not_read(lake, opened):
    names = ["a" * 16, "c" * 16, "b" * 16]
    for seed, name in enumerate(names):
        lake.table("selections").append(random_rows("selections", 20, seed, selection=name))
    assert opened == []
    fresh = type(lake)(lake.url)
    again = random_rows("selections", 20, 1, selection=names[1])
    assert fresh.table("selections").append(again).repeated == 20
    assert len(opened) == 1, "one file of three may hold them"
    assert fresh.table("selections").count() == 60


def test_a_repeat_is_found_in_files_that_mix(lake):
    table = lake.table("metrics_keypoints")
    first = random_rows("metrics_keypoints", 30, 1, fingerprint=["a", "b", "c"] * 10)
    table.append(first)
    other = random_rows("metrics_keypoints", 10, 2, fingerprint="b")
    mixed = pa.concat_tables([first.slice(1, 1), other])
    done = type(lake)(lake.url).table("metrics_keypoints").append(mixed)
    assert (done.rows, done.repeated) == (10, 1)


def test_one_id_with_two_contents_is_found_whatever_the_rest_of_its_key(lake):
    rows = random_rows("samples", 3, 1, fingerprint="a")
    lake.table("samples").append(rows)
    other = random_rows("samples", 3, 2, fingerprint="z", sample_id=rows.column("sample_id").to_numpy())
    with pytest.raises(LakeError, match="stands for two different rows"):
        type(lake)(lake.url).table("samples").append(other)


def test_repeats_within_one_commit_are_left_out_once(lake):
    table = lake.table("metrics_keypoints")
    rows = random_rows("metrics_keypoints", 20, 1, fingerprint="a")
    files = [table.write(part) for part in (rows, rows.slice(5, 3), pa.concat_tables([rows, rows]))]
    done = table.commit(files)
    assert (done.rows, done.repeated) == (20, 43)
    assert table.count() == 20


def test_a_file_without_a_range_may_hold_anything(lake):
    table = lake.table("selections")
    coming = [table.write(random_rows("selections", 3, 1, selection="m"))]
    there = pa.table(
        {
            "path": ["before", "around", "after", "unknown"],
            "min.selection": ["a", "a", "n", None],
            "max.selection": ["b", "z", "z", None],
        }
    )
    assert may_hold(there, coming, ("selection", "image_id")).tolist() == [False, True, False, True]
    assert may_hold(there.select(["path"]), coming, ("selection",)).all()


def test_keys_differ_by_every_column_and_follow_the_id():
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 1000)
    one = row_keys(pa.table({"selection": ["a"] * 1000, "image_id": ids}))
    two = row_keys(pa.table({"selection": ["b"] * 1000, "image_id": ids}))
    assert len({*one.tolist(), *two.tolist()}) == 2000
    parts = pa.chunked_array([["a"] * 400, ["a"] * 600])
    np.testing.assert_array_equal(row_keys(pa.table({"selection": parts, "image_id": ids})), one)
    numbers = pa.table(
        {"stage": ["s"] * 4, "row_id": [1, 1, 2, 2], "attempt": pa.array([1, 2, 1, 2], pa.int32())}
    )
    assert len(set(row_keys(numbers).tolist())) == 4

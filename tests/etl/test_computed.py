"""Rows of some computations are those that the table's own reader gives, however files mix them."""

import pyarrow as pa
import pytest

from etl import computed
from etl.computed import read_computed
from etl.table import computed_by
from schemas.tables import TABLES, TableSpec
from tests.lake_rows import random_rows

A, B, C = "a" * 16, "b" * 16, "c" * 16
COLUMNS = ["image_id", "oks", "keypoints", "persons"]


def _fill(lake) -> None:
    table = lake.table("metrics_keypoints")
    mixed = [A, B, C] * 20
    for seed, prints in enumerate(([A] * 50, [B] * 40, mixed, [C] * 3, [A, C] * 15)):
        table.append(random_rows("metrics_keypoints", len(prints), seed, fingerprint=prints))


@pytest.mark.parametrize("wanted", [[A], [B], [A, B], [C, A], ["d" * 16], []])
def test_the_rows_are_those_of_the_tables_reader(lake, wanted):
    _fill(lake)
    table = lake.table("metrics_keypoints")
    found = read_computed(lake, "metrics_keypoints", COLUMNS, wanted)
    assert found.equals(table.read(COLUMNS, computed_by(wanted)))
    with_prints = read_computed(lake, "metrics_keypoints", ["fingerprint", "image_id"], wanted)
    assert set(with_prints.column("fingerprint").to_pylist()) <= set(wanted)
    assert with_prints.num_rows == found.num_rows


def test_no_fingerprint_is_read_where_the_log_says_what_a_file_holds(lake, monkeypatch):
    _fill(lake)
    read = []
    opened = computed.open_parquet

    class Watched:
        def __init__(self, parquet):
            self.parquet = parquet
            self.schema_arrow = parquet.schema_arrow

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.parquet.close()

        def read(self, columns):
            read.append(columns)
            return self.parquet.read(columns)

    monkeypatch.setattr(computed, "open_parquet", lambda store, path: Watched(opened(store, path)))
    read_computed(lake, "metrics_keypoints", ["image_id"], [B])
    # Of five files, one is of B alone, two may hold it among others.
    assert sorted(read) == [["image_id"], ["image_id", "fingerprint"], ["image_id", "fingerprint"]]


def test_a_table_that_is_not_there_has_no_rows(lake):
    assert read_computed(lake, "images", ["image_id"], [A]).num_rows == 0


def test_a_column_younger_than_a_file_is_null_there(lake, monkeypatch):
    table = lake.table("metrics_keypoints")
    table.append(random_rows("metrics_keypoints", 5, 1, fingerprint=A))
    old = TABLES["metrics_keypoints"]
    added = TableSpec(old.schema.append(pa.field("new", pa.float32())), old.key)
    monkeypatch.setitem(TABLES, "metrics_keypoints", added)
    table.append(random_rows("metrics_keypoints", 3, 2, fingerprint=A, new=[1.0, 2.0, 3.0]))
    rows = read_computed(lake, "metrics_keypoints", ["image_id", "new"], [A])
    assert rows.equals(table.read(["image_id", "new"], computed_by([A])))
    assert rows.column("new").null_count == 5

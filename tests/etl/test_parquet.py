"""What a data file holds and how it is described agree, and nobody has to believe it."""

import dataclasses
import json

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from etl.parquet import ROW_GROUP_ROWS, read_keys, with_lengths, write_parquet
from etl.store import Store
from schemas.errors import SchemaError
from schemas.tables import TABLES
from tests.lake_rows import random_rows


@pytest.fixture
def store(tmp_path):
    return Store.at(tmp_path)


@pytest.mark.parametrize("table", TABLES)
def test_rows_come_back_as_they_were(store, table):
    rows = random_rows(table, 50, 1)
    file = write_parquet(store, table, rows)
    path = f"{table}/{file.name}"
    assert with_lengths(path, pq.read_table(store.full(path))).equals(rows)
    assert (file.rows, file.size) == (50, len(store.read(path)))
    keys = read_keys(store, file)
    assert keys.equals(rows.select(keys.column_names))
    assert set(TABLES[table].key) <= set(keys.column_names)


@pytest.mark.parametrize("table", TABLES)
def test_files_say_plain_types_that_other_readers_know(store, table):
    file = write_parquet(store, table, random_rows(table, 5, 1))
    frame = pl.read_parquet(store.full(f"{table}/{file.name}"))
    assert not any(isinstance(kind, pl.Array) for kind in frame.schema.values())


@pytest.mark.parametrize("table", TABLES)
def test_statistics_bound_every_value(store, table):
    rows = random_rows(table, 200, 2)
    stats = json.loads(write_parquet(store, table, rows).stats)
    assert stats["numRecords"] == 200
    for field in rows.schema:
        column = rows.column(field.name)
        if pa.types.is_nested(field.type):
            continue
        assert stats["nullCount"][field.name] == column.null_count
        low, high = (pa.scalar(stats[k][field.name]).cast(field.type) for k in ("minValues", "maxValues"))
        assert pc.all(pc.less_equal(low, column)).as_py()
        assert pc.all(pc.greater_equal(high, column)).as_py()


def test_statistics_of_long_and_foreign_texts_bound_them(store):
    texts = ["\U0010ffff" * 100, "z" * 47 + "é" * 10, "a" * 100, "", "🙂" * 60]
    rows = random_rows("captions", 5, 1, text=texts)
    stats = json.loads(write_parquet(store, "captions", rows).stats)
    assert stats["minValues"]["text"] == ""
    assert stats["maxValues"]["text"] >= max(texts)[:48]
    alone = json.loads(write_parquet(store, "captions", rows.slice(1, 1)).stats)
    assert alone["minValues"]["text"] <= texts[1] <= alone["maxValues"]["text"]


def test_a_column_of_nothing_but_null_has_no_bounds(store):
    rows = random_rows("metrics_keypoints", 5, 1, oks=None)
    stats = json.loads(write_parquet(store, "metrics_keypoints", rows).stats)
    assert "oks" not in stats["minValues"]
    assert stats["nullCount"]["oks"] == 5


def test_large_files_have_small_row_groups(store):
    rows = random_rows("failures", 2 * ROW_GROUP_ROWS + 1, 1)
    path = f"failures/{write_parquet(store, 'failures', rows).name}"
    assert pq.read_metadata(store.full(path)).num_row_groups == 3


def test_files_sort_in_the_order_of_their_places(store):
    names = [write_parquet(store, "failures", random_rows("failures", 1, i), i).name for i in (2, 10, 1)]
    assert sorted(names) == [names[2], names[0], names[1]]


def test_invalid_rows_write_nothing(store, tmp_path):
    with pytest.raises(SchemaError):
        write_parquet(store, "metrics_keypoints", random_rows("metrics_keypoints", 3, 1, persons=-1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 1}, "bytes and not 1"),
        ({"rows": 4}, "has 5 rows and not 4"),
        ({"table": "selections"}, "selections"),
        ({"stats": json.dumps({"numRecords": 6})}, "described with 6 rows and has 5"),
        ({"name": "part-none.parquet"}, "part-none"),
    ],
)
def test_a_file_that_is_not_as_described_is_refused(store, changes, message):
    file = write_parquet(store, "failures", random_rows("failures", 5, 1))
    with pytest.raises((ValueError, OSError), match=message):
        read_keys(store, dataclasses.replace(file, **changes))


def test_a_file_with_other_columns_is_refused(store):
    file = write_parquet(store, "failures", random_rows("failures", 5, 1))
    full = store.full(f"failures/{file.name}")
    pq.write_table(pq.read_table(full).drop_columns(["message"]), full)
    changed = dataclasses.replace(file, size=store.fs.info(full)["size"])
    with pytest.raises(ValueError, match="other columns than the table failures"):
        read_keys(store, changed)

"""A bad row is refused before it is written, and the message leads to it."""

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import SchemaError
from schemas.tables import TABLES
from schemas.validate import validate
from tests.lake_rows import random_rows


def changed(table: str, column: str, values: object, n: int = 4) -> pa.Table:
    rows = random_rows(table, n, 1)
    values = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    return rows.set_column(rows.column_names.index(column), column, values)


def refused(table: str, rows: pa.Table) -> str:
    with pytest.raises(SchemaError) as caught:
        validate(table, rows)
    return str(caught.value)


@pytest.mark.parametrize("table", TABLES)
def test_good_rows_come_back_in_the_schemas_order(table):
    rows = random_rows(table, 20, 1)
    turned = rows.select(list(reversed(rows.column_names)))
    assert validate(table, turned).equals(rows)
    assert validate(table, turned).schema.equals(TABLES[table].schema)
    assert validate(table, rows.slice(0, 0)).num_rows == 0
    chunked = pa.concat_tables([rows.slice(0, 7), rows.slice(7)])
    assert validate(table, chunked).equals(rows)


@pytest.mark.parametrize("table", TABLES)
def test_good_rows_are_taken_from_plain_lists_and_python_values(table):
    rows = random_rows(table, 5, 1)
    plain = pa.table({f.name: _loose(rows.column(f.name)) for f in rows.schema})
    assert validate(table, plain).equals(rows)


def _loose(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_fixed_size_list(column.type):
        return column.cast(pa.list_(column.type.value_type))
    return column.cast(pa.int64()) if pa.types.is_integer(column.type) else column


def test_a_slice_of_a_larger_batch_is_judged_by_its_own_rows():
    rows = random_rows("labels", 10, 1)
    flat = np.array(rows.column("betas").to_pylist(), np.float32)
    flat[2, 3] = np.nan
    bad = rows.set_column(
        rows.column_names.index("betas"),
        "betas",
        pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), 10),
    )
    assert validate("labels", bad.slice(3)).num_rows == 7
    key = rows.column("sample_id")[2].as_py()
    assert f"'sample_id': {key}" in refused("labels", bad.slice(1))


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        ("metrics_keypoints", "oks", [0.1, 1.5, 0.2, None], "column oks: 1.5 is beyond 1"),
        ("metrics_keypoints", "oks", [0.1, -0.1, 0.2, None], "column oks: -0.1 is beyond 0"),
        ("metrics_keypoints", "oks", [0.1, np.nan, 0.2, 0.3], "column oks: nan is not finite"),
        ("metrics_keypoints", "oks", [0.1, np.inf, 0.2, 0.3], "column oks: inf is not finite"),
        ("metrics_keypoints", "oks", [0.1, 1e300, 0.2, 0.3], "column oks"),
        ("metrics_keypoints", "persons", [1, None, 2, 3], "column persons: None is NULL"),
        ("metrics_keypoints", "persons", [1, 2**40, 2, 3], "column persons"),
        ("metrics_keypoints", "persons", [1.0, 1.5, 2.0, 3.0], "column persons"),
        ("metrics_keypoints", "persons", ["1", "x", "2", "3"], "column persons"),
        ("metrics_keypoints", "keypoints", [[0.0] * 51, None, [0.0] * 50, None], "has not the length 51"),
        ("metrics_keypoints", "keypoints", [[0.0] * 51, None, [np.nan] * 51, None], "is not finite"),
        ("metrics_keypoints", "keypoints", [[0.0] * 51, None, [None] * 51, None], "holds a NULL"),
        ("metrics_keypoints", "keypoints", [0.0, 1.0, 2.0, 3.0], "not a list of 51"),
        (
            "labels",
            "betas",
            [[0.0] * 10, [0.0] * 9, [0.0] * 11, []],
            "has not the length 10 (3 rows like it)",
        ),
        ("labels", "betas", [[0.0] * 10, None, [0.0] * 10, [0.0] * 10], "column betas: None is NULL"),
        ("labels", "keypoints_visible", [[0] * 17, [3] * 17, [0] * 17, [0] * 17], "is beyond 2"),
        ("labels", "gender", ["neutral", "other", "male", "female"], "other is none of neutral|female|male"),
        ("images", "image_bytes", [1, 0, 5, 6], "column image_bytes: 0 is beyond 1"),
        (
            "images",
            "status",
            ["generated", "adopted", "made", "made"],
            "made is none of generated|adopted (2",
        ),
    ],
)
def test_a_violation_names_table_row_column_and_value(table, column, values, message):
    text = refused(table, changed(table, column, values))
    assert text.startswith(f"table {table}, ")
    assert f"column {column}" in text
    assert message in text


def test_the_row_that_is_named_is_the_bad_one():
    for bad in range(4):
        values = [0.5] * 4
        values[bad] = 2.0
        rows = changed("metrics_keypoints", "oks", values)
        key = rows.column("image_id")[bad].as_py()
        assert f"row {{'image_id': {key}, " in refused("metrics_keypoints", rows)


def test_nulls_before_it_do_not_shift_the_row_that_is_named():
    lists = [None, [0.0] * 51, None, [0.0] * 50 + [np.inf]]
    rows = changed("metrics_keypoints", "keypoints", lists)
    key = rows.column("image_id")[3].as_py()
    text = refused("metrics_keypoints", rows)
    assert f"row {{'image_id': {key}, " in text
    assert "rows like it" not in text


def test_missing_and_unknown_columns_are_named():
    rows = random_rows("poses", 2, 1)
    renamed = rows.rename_columns(["bettas" if n == "betas" else n for n in rows.column_names])
    assert refused("poses", renamed) == ("table poses: missing columns ['betas'], unknown columns ['bettas']")


def test_a_long_value_is_cut_in_the_message():
    rows = changed("labels", "joints_3d", [[0.0] * 380] * 4)
    assert len(refused("labels", rows)) < 300

"""Checks a batch of rows against its table's schema before it is written."""

from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import SchemaError
from schemas.tables import TABLES


def validate(table: str, rows: pa.Table) -> pa.Table:
    """Returns the rows with exactly the schema's columns, in its order, or raises SchemaError.

    Checked: missing and unknown columns, types, NULLs, list lengths, finite numbers, ranges and
    permitted values. The error names the table, the row's key, the column and the value.
    """
    schema = TABLES[table].schema
    missing = [n for n in schema.names if n not in rows.column_names]
    unknown = [n for n in rows.column_names if n not in schema.names]
    if missing or unknown:
        raise SchemaError(f"table {table}: missing columns {missing}, unknown columns {unknown}")
    return pa.table([_checked(table, rows, f) for f in schema], schema=schema)


def _checked(table: str, rows: pa.Table, field: pa.Field) -> pa.Array:
    column = rows.column(field.name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty table has no chunk to combine
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    nulls = column.is_null()
    if column.null_count and not field.nullable:
        _refuse(table, rows, field, nulls.to_numpy(False), "is NULL")
    if pa.types.is_fixed_size_list(field.type):
        return _checked_list(table, rows, field, column)
    if column.type != field.type:
        try:
            column = column.cast(field.type)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"table {table}, column {field.name}: {error}") from error
    _check_values(table, rows, field, column, 1)
    return column


def _checked_list(table: str, rows: pa.Table, field: pa.Field, column: pa.Array) -> pa.Array:
    length = field.type.list_size
    if not pa.types.is_nested(column.type):
        raise SchemaError(f"table {table}, column {field.name}: is {column.type}, not a list of {length}")
    lengths = pc.list_value_length(column).to_numpy(False)
    wrong = ~column.is_null().to_numpy(False) & (lengths != length)
    if wrong.any():
        _refuse(table, rows, field, wrong, f"has not the length {length}")
    inner = pc.list_flatten(column)
    if inner.null_count:
        flat = np.zeros(len(column), bool)
        valid = np.flatnonzero(~column.is_null().to_numpy(False))
        flat[valid] = inner.is_null().to_numpy(False).reshape(-1, length).any(1)
        _refuse(table, rows, field, flat, "holds a NULL")
    column = column.cast(field.type)
    _check_values(table, rows, field, column, length)
    return column


def _check_values(table: str, rows: pa.Table, field: pa.Field, column: pa.Array, length: int) -> None:
    values = pc.list_flatten(column) if length > 1 or pa.types.is_nested(column.type) else column
    facts = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    if "one_of" in facts:
        allowed = pa.array(facts["one_of"].split("|"))
        bad = pc.invert(pc.is_in(values.drop_null(), allowed)).to_numpy(False)
        if bad.any():
            _refuse(table, rows, field, _rows(column, bad, length), f"is none of {facts['one_of']}")
    if not pa.types.is_floating(values.type) and not pa.types.is_integer(values.type):
        return
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(values.type) and not np.isfinite(numbers).all():
        _refuse(table, rows, field, _rows(column, ~np.isfinite(numbers), length), "is not finite")
    for name, outside in (("low", np.less), ("high", np.greater)):
        if name in facts:
            bad = outside(numbers, float(facts[name]))
            if bad.any():
                _refuse(table, rows, field, _rows(column, bad, length), f"is beyond {facts[name]}")


def _rows(column: pa.Array, bad: np.ndarray, length: int) -> np.ndarray:
    """Mask over the column's rows from a mask over its non-null values."""
    mask = np.zeros(len(column), bool)
    valid = np.flatnonzero(~column.is_null().to_numpy(False))
    mask[valid] = bad.reshape(len(valid), length).any(1)
    return mask


def _refuse(table: str, rows: pa.Table, field: pa.Field, bad: np.ndarray, what: str) -> NoReturn:
    first = int(np.flatnonzero(bad)[0])
    key = {k: rows.column(k)[first].as_py() for k in TABLES[table].key if k in rows.column_names}
    value = str(rows.column(field.name)[first].as_py())
    value = value if len(value) <= 80 else value[:77] + "..."
    more = f" ({int(bad.sum())} rows like it)" if bad.sum() > 1 else ""
    raise SchemaError(f"table {table}, row {key}, column {field.name}: {value} {what}{more}")

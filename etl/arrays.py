"""Label arrays between Arrow, NumPy and pandas."""

from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import InputError

Arrays: TypeAlias = Literal["list", "numpy"]


def shaped(name: str, column: pa.ChunkedArray) -> np.ndarray:
    """A column as NumPy, label arrays in the shape of what they hold; NULL lists are rows of NaN.

    `joints_3d` is (N, 127, 3), `joints_2d` (N, 127, 2), `keypoints` (N, 17, 3), `body_pose` (N, 63); single
    values are (N,).
    """
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_pandas().to_numpy()
    values = matrix(column)
    return values.reshape(len(values), *point_shape(name, column.type))


def point_shape(name: str, kind: pa.FixedSizeListType) -> tuple[int, ...]:
    """Shape of one row: (127, 3) for `joints_3d`, (63,) for `body_pose`."""
    point = 2 if name.endswith("_2d") else 3 if name.endswith("_3d") or name == "keypoints" else None
    return (kind.list_size,) if point is None else (kind.list_size // point, point)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """(N, k) of a column of fixed-size lists, a copy of its own that may be written to."""
    length, kind = column.type.list_size, column.type.value_type.to_pandas_dtype()
    if not column.null_count:
        parts = [pc.list_flatten(chunk).to_numpy() for chunk in column.chunks]
        return np.concatenate([np.empty(0, kind), *parts]).reshape(-1, length)
    # Flattening leaves NULL rows out, which would shift all that follow.
    values = np.full((len(column), length), np.nan, kind)
    values[column.is_valid().to_numpy()] = pc.list_flatten(column).to_numpy().reshape(-1, length)
    return values


def to_frame(rows: pa.Table, arrays: Arrays = "list") -> pd.DataFrame:
    """A dataframe whose label arrays are Arrow lists, or one NumPy array a row (None where NULL)."""
    if arrays not in ("list", "numpy"):
        raise InputError(f"arrays is {arrays!r}; it is list or numpy")
    if arrays == "list":
        return rows.to_pandas(
            types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_nested(kind) else None
        )
    lists = [f.name for f in rows.schema if pa.types.is_fixed_size_list(f.type)]
    frame = rows.drop_columns(lists).to_pandas()
    views = {name: _views(rows.column(name)) for name in lists}
    return frame.assign(**views)[rows.column_names]


def _views(column: pa.ChunkedArray) -> pd.Series:
    cells = np.empty(len(column), object)
    valid = column.is_valid().to_numpy()
    for i, row in enumerate(matrix(column)):
        cells[i] = row if valid[i] else None
    return pd.Series(cells, dtype=object)

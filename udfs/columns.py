"""List columns of Arrow tables as (N, k) arrays, and back."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from schemas.errors import InputError, RowError


def matrix(table: pa.Table, name: str) -> np.ndarray:
    """A list column as an (N, k) array of its own type.

    Raises InputError when a row or an element is null, or when rows differ in length.
    """
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    values = column.flatten()
    if column.null_count or values.null_count:
        raise InputError(
            f"column {name}: {column.null_count + values.null_count} null values in a label array"
        )
    if not len(column):
        return np.empty((0, getattr(column.type, "list_size", 0)), values.type.to_pandas_dtype())
    width, rest = divmod(len(values), len(column))
    if rest or (not pa.types.is_fixed_size_list(column.type) and not _even(column, width)):
        raise InputError(f"column {name}: rows differ in length, {len(values)} values in {len(column)} rows")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), width)


def list_column(array: np.ndarray, type: pa.DataType) -> pa.Array:
    """(N, ...) array as a list column of this type; what follows the first axis is flattened."""
    flat = np.ascontiguousarray(array).reshape(len(array), math.prod(array.shape[1:]))
    values = pa.array(flat.reshape(-1)).cast(type.value_type)
    if pa.types.is_fixed_size_list(type):
        if len(flat) and flat.shape[1] != type.list_size:
            raise InputError(f"{flat.shape[1]} values a row do not fit {type}")
        return pa.FixedSizeListArray.from_arrays(values, type=type)
    offsets = pa.array(np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1])
    return pa.ListArray.from_arrays(offsets, values, type=type)


def check_finite(pose_ids: np.ndarray, parameters: Mapping[str, np.ndarray]) -> None:
    """Raises RowError that names the first pose with NaN or infinity in one of its (N, k) parameters."""
    for name, values in parameters.items():
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if len(bad):
            raise RowError(f"pose {pose_ids[bad[0]]}: its {name} holds NaN or infinity; leave the pose out")


def _even(column: pa.Array, width: int) -> bool:
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return bool((lengths == width).all())


def metric_rows(ids: pa.ChunkedArray, found: Sequence[Mapping[str, object]], outputs: pa.Schema) -> pa.Table:
    """What a metric measured, a dict an image, as its table."""
    values = [pa.array([row[f.name] for row in found], f.type) for f in list(outputs)[1:]]
    return pa.table([ids, *values], schema=outputs)

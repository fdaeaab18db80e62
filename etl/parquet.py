"""Parquet files as the lake writes them, and what a commit must know of each."""

import hashlib
import json
import re
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.store import Store
from schemas.tables import TABLES
from schemas.validate import validate

ROW_GROUP_ROWS = 5000
_NAMED = re.compile(r"-([0-9a-f]{64})\.parquet$")


@dataclass(frozen=True)
class DataFile:
    """A Parquet file that waits for its commit.

    Attributes:
        table: the table it belongs to.
        name: path below the table's folder.
        size: bytes.
        rows: number of rows.
        stats: Delta's statistics as JSON text.
        modified: milliseconds since 1970.
    """

    table: str
    name: str
    size: int
    rows: int
    stats: str
    modified: int

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


def write_parquet(
    store: Store, table: str, rows: pa.Table, place: int | None = None, group_rows: int | None = None
) -> DataFile:
    """Validates rows and writes them under a fresh name, which ends in the SHA-256 of the file's bytes.

    Nothing reads the file before its commit.

    place: of this file among others, where their order matters: names sort by it. group_rows: of a row
    group, the least that is read of a file; for narrow rows that are read as a whole, many are faster.
    """
    rows = validate(table, rows)
    sink = pa.BufferOutputStream()
    strings = [f.name for f in rows.schema if pa.types.is_string(f.type)]
    pq.write_table(
        rows.cast(plain_lists(rows.schema)),
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=strings,
        row_group_size=group_rows or ROW_GROUP_ROWS,
    )
    data = sink.getvalue().to_pybytes()
    order = "" if place is None else f"{place:05d}-"
    name = f"part-{order}{uuid.uuid4().hex}-{hashlib.sha256(data).hexdigest()}.parquet"
    store.write(f"{table}/{name}", data)
    return DataFile(table, name, len(data), rows.num_rows, _stats(rows), int(time.time() * 1000))


def named_sha256(path: str) -> str | None:
    """The SHA-256 that a file's own name says; None where it says none."""
    found = _NAMED.search(path)
    return None if found is None else found[1]


def _stats(rows: pa.Table) -> str:
    """Row count, minima, maxima and NULL counts.

    Every column that is not a list needs both bounds: readers compare with NULL where one is missing, and
    prune all rows of the file. Values are finite, `validate` has seen to it.
    """
    low: dict[str, object] = {}
    high: dict[str, object] = {}
    flat = [f.name for f in rows.schema if not pa.types.is_nested(f.type)]
    for name in flat:
        extremes = pc.min_max(rows.column(name)).as_py()
        if extremes["min"] is not None:
            low[name], high[name] = _bound(extremes["min"], ""), _bound(extremes["max"], _LAST)
    nulls = {name: rows.column(name).null_count for name in flat}
    facts = {"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}
    return json.dumps(facts, allow_nan=False)


_LAST = "\U0010ffff"
_BOUND_LENGTH = 48


def _bound(value: object, after: str) -> object:
    """A bound as JSON; a long text is cut, and `after` keeps an upper bound above all that begin alike."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, str) and len(value) > _BOUND_LENGTH:
        return value[:_BOUND_LENGTH] + after
    return value


def open_parquet(store: Store, path: str) -> pq.ParquetFile:
    """A Parquet file of the lake by its relative path."""
    return pq.ParquetFile(store.full(path), filesystem=store.arrow)


def with_lengths(path: str, rows: pa.Table) -> pa.Table:
    """Columns of the file at `path`, its label arrays as the fixed-size lists of the table's schema."""
    schema = TABLES[path.partition("/")[0]].schema
    return rows.cast(pa.schema([schema.field(name) for name in rows.column_names]))


def plain_lists(schema: pa.Schema) -> pa.Schema:
    """Lists without a length: Delta knows no other, and Polars refuses files that say otherwise."""
    return pa.schema(
        [
            f.with_type(pa.list_(f.type.value_type)) if pa.types.is_fixed_size_list(f.type) else f
            for f in schema
        ]
    )


def read_keys(store: Store, file: DataFile) -> pa.Table:
    """Key (and content) columns of a file that waits for its commit, after checking the file itself.

    Raises ValueError with what is wrong: missing, cut short, other rows or other columns than described.
    """
    spec = TABLES[file.table]
    path = f"{file.table}/{file.name}"
    size = store.fs.info(store.full(path))["size"]
    if size != file.size:
        raise ValueError(f"{path} has {size} bytes and not {file.size}")
    with open_parquet(store, path) as parquet:
        if parquet.metadata.num_rows != file.rows:
            raise ValueError(f"{path} has {parquet.metadata.num_rows} rows and not {file.rows}")
        if not parquet.schema_arrow.equals(plain_lists(spec.schema)):
            raise ValueError(f"{path} has other columns than the table {file.table}")
        stats = json.loads(file.stats)
        if stats["numRecords"] != file.rows:
            raise ValueError(f"{path} is described with {stats['numRecords']} rows and has {file.rows}")
        columns = [*spec.key, *([spec.content] if spec.content else [])]
        return parquet.read(columns)

"""Rows of some computations. Where the log says that a file holds those alone, no fingerprint is read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from etl.lake import Lake
from etl.parquet import open_parquet, with_lengths
from etl.table import computed_by
from schemas.tables import subset

_AT_ONCE = 8


def read_computed(lake: Lake, name: str, columns: Sequence[str], fingerprints: Sequence[str]) -> pa.Table:
    """As `lake.table(name).read(columns, computed_by(fingerprints))`, for tables of many millions of rows."""
    table = lake.table(name)
    schema = subset(table.spec.schema, columns)
    if not table.exists():
        return schema.empty_table()
    there = pa.table(table.delta().get_add_actions(flatten=True))
    bounds = ("min.fingerprint", "max.fingerprint")
    if not {*bounds} <= set(there.column_names):
        return table.read(columns, computed_by(fingerprints))
    wanted = set(fingerprints)
    # By name, for the same rows in the same order every time.
    files = sorted(zip(*(there.column(c).to_pylist() for c in ("path", *bounds)), strict=True))

    def read(path: str, low: str | None, high: str | None) -> pa.Table:
        if low is not None and high is not None and not any(low <= value <= high for value in wanted):
            return schema.empty_table()
        alone = low is not None and low == high
        path = f"{name}/{path}"
        with open_parquet(lake.store, path) as parquet:
            names = [c for c in columns if c in parquet.schema_arrow.names]
            rows = parquet.read([*names, *([] if alone or "fingerprint" in names else ["fingerprint"])])
        if not alone:
            rows = rows.filter(computed_by(fingerprints))
        for added in schema:
            if added.name not in names:  # the file is older than the column
                rows = rows.append_column(added, pa.nulls(rows.num_rows, added.type))
        return with_lengths(path, rows.select(columns))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return pa.concat_tables([schema.empty_table(), *pool.map(read, *zip(*files, strict=True))])

"""Releases of rows that are given, without the tables that they would come from."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.lake import Lake
from etl.query import Release


def publish_rows(
    lake: Lake, parts: Iterable[pa.Table], name: str = "1.0.0", group_rows: int | None = None
) -> Release:
    """A release of these rows of `dataset`, a file for each part, in row groups of so many."""
    table = lake.table("dataset")
    with pytest.MonkeyPatch.context() as patch:
        if group_rows is not None:
            write = pq.write_table
            patch.setattr(pq, "write_table", lambda *a, **k: write(*a, **k | {"row_group_size": group_rows}))
        files = [table.write(rows, place) for place, rows in enumerate(parts)]
    row = {
        "release": name,
        "dataset_version": table.replace(files).version,
        "manifest_path": "files/releases/none.json",
        "manifest_sha256": "0" * 64,
        "policy": "none",
        "selection": "0" * 16,
        "rows": sum(file.rows for file in files),
        "notes": None,
        "created_at": datetime.now(UTC),
    }
    releases = lake.table("releases")
    releases.append(pa.Table.from_pylist([row], schema=releases.spec.schema))
    return lake.release(name)

"""Puts the rows of many small Parquet files into few large ones, in one commit that changes no row."""

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads

from etl.table import LakeTable
from schemas.errors import LakeError

TARGET_BYTES = 128 * 2**20
TARGET_ROWS = 1_000_000
"""Memory holds the rows of one new file, and texts take far less room in Parquet than there."""

MIN_FILES = 8
"""Fewer are left as they are: the old files stay as long as a release pins their version."""


@dataclass(frozen=True)
class Bundle:
    """Files of a table that together make one.

    Attributes:
        paths: in the order in which their rows go into it.
        bytes, rows: in all of them.
    """

    paths: tuple[str, ...]
    bytes: int
    rows: int


def bundles(table: LakeTable) -> list[Bundle]:
    """What compaction would do to the newest version; empty when its files are large or few."""
    if not table.exists():
        return []
    files = table.described()
    files = files[(files["size_bytes"] < TARGET_BYTES // 2) & (files["num_records"] < TARGET_ROWS // 2)]
    # Rows that are asked for together come to lie together: readers skip the row groups of the others.
    together = f"min.{_together(table)}"
    keys = [together] if together in files.columns else []
    files = files.sort_values([*keys, "modification_time", "path"])
    made: list[Bundle] = []
    start, size, rows = 0, 0, 0
    columns = (files[name] for name in ("size_bytes", "num_records"))
    for at, (more, records) in enumerate(zip(*columns, strict=True)):
        if size + more > TARGET_BYTES or rows + records > TARGET_ROWS:
            made.append(_bundle(files.iloc[start:at]))
            start, size, rows = at, 0, 0
        size, rows = size + more, rows + records
    made.append(_bundle(files.iloc[start:]))
    return [bundle for bundle in made if len(bundle.paths) >= MIN_FILES]


def compact(table: LakeTable, bundle: Bundle) -> bool:
    """Makes one file of a bundle; False when another process was first, and nothing was changed."""
    there = {path: number for number, path in enumerate(bundle.paths)}
    whole = table.dataset()
    fragments = {
        there[path]: fragment
        for fragment in whole.get_fragments()
        if (path := f"{table.name}/{fragment.path.rsplit('/', 1)[1]}") in there
    }
    if len(fragments) < len(there):
        return False
    ordered = [fragments[number] for number in sorted(fragments)]
    rows = pads.FileSystemDataset(ordered, whole.schema, whole.format, table.store.arrow).to_table()
    if rows.num_rows != bundle.rows:
        raise LakeError(
            f"table {table.name}: {len(there)} files have {rows.num_rows} rows, not {bundle.rows}"
        )
    note = {"posedreamer.compacted": str(len(there))}
    return table.rearrange(bundle.paths, [table.write(_sorted(table, rows))], note) is not None


def _together(table: LakeTable) -> str:
    """The column that readers ask by: whose rows are wanted, and nobody else's."""
    return "fingerprint" if "fingerprint" in table.spec.schema.names else table.spec.key[0]


def _sorted(table: LakeTable, rows: pa.Table) -> pa.Table:
    """Stable: what is alike stays in the order in which it was committed."""
    return rows.sort_by(_together(table))


def _bundle(files: pd.DataFrame) -> Bundle:
    return Bundle(tuple(files["path"]), int(files["size_bytes"].sum()), int(files["num_records"].sum()))

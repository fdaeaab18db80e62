"""Reads slices of one version of a table: what holds no wanted row is not opened, or not decoded.

Each step costs less than it saves: the log's statistics leave out files, the footers' leave out row groups,
and where arrays are wanted the condition is tried alone first, so that only row groups with a wanted row are
decoded whole. Arrays are read as the plain lists that they are in the files, and get their lengths when the
rows that nobody wants are gone.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from etl.parquet import plain_lists
from etl.store import Store
from etl.table import LakeTable
from schemas.errors import LakeError
from schemas.tables import subset

_FORMAT = pads.ParquetFileFormat()
_THREADS = 8


@dataclass(frozen=True)
class RowGroup:
    """A row group that holds wanted rows.

    Attributes:
        path: its file, relative to the lake.
        number: its place in the file.
        rows: how many of its rows are wanted.
    """

    path: str
    number: int
    rows: int


class Scan:
    """One version of a table, opened once: the log and every footer are read once."""

    def __init__(self, table: LakeTable, version: int) -> None:
        self.schema = table.spec.schema
        self._name = f"version {version} of the table {table.name}"
        self._plain = plain_lists(self.schema)
        self._arrow = table.store.arrow
        actions = pa.table(table.delta(version).get_add_actions(flatten=True))
        # Delta lists files in no order; readers want the same rows in the same order every time.
        self._facts = actions.sort_by("path")
        self.paths = [f"{table.name}/{name}" for name in self._facts.column("path").to_pylist()]
        full = [table.store.full(path) for path in self.paths]
        self._fragments = [_FORMAT.make_fragment(path, self._arrow) for path in full]

    def to_table(
        self, columns: Sequence[str], condition: pads.Expression | None = None, limit: int | None = None
    ) -> pa.Table:
        """The wanted rows in the table's order, arrays as fixed-size lists. Raises LakeError for a file that
        is gone or damaged."""
        with self._reading():
            rows = self._rows(columns, condition, limit)
            names = list(columns)
            if limit is None:
                found = rows.to_table(columns=names, filter=condition)
            else:
                found = rows.head(limit, columns=names, filter=condition)
            return found.cast(subset(self.schema, names))

    def batches(self, columns: Sequence[str], condition: pads.Expression | None = None) -> Iterator[pa.Table]:
        """The same in pieces of a row group at the most, one of them in memory at a time."""
        with self._reading():
            for file in self._rows(columns, condition, None).get_fragments():
                # Row groups and not files: Arrow reads far ahead within what it is given, up to a gigabyte.
                for group in file.split_by_row_group(condition, self._plain):
                    for batch in group.to_batches(self._plain, columns=list(columns), filter=condition):
                        if batch.num_rows:
                            yield pa.Table.from_batches([batch]).cast(subset(self.schema, columns))

    def dataset(self, columns: Sequence[str]) -> pads.Dataset:
        """All rows, arrays as plain lists, for engines that push their conditions down."""
        return self._of(self._fragments).replace_schema(subset(self._plain, columns))

    def files(self, condition: pads.Expression | None = None) -> list[str]:
        """Paths, relative to the lake, of the files that may hold wanted rows."""
        return [self.paths[i] for i in self._files(condition)]

    def row_groups(self, condition: pads.Expression | None = None) -> list[RowGroup]:
        """Row groups that hold wanted rows, in the table's order. Reads the condition's columns alone."""
        with self._reading():
            return [RowGroup(self.paths[i], number, rows) for i, number, rows in self._groups(condition)]

    def _rows(
        self, columns: Sequence[str], condition: pads.Expression | None, limit: int | None
    ) -> pads.Dataset:
        """What has to be decoded to find these rows."""
        if condition is None:
            return self._of(self._fragments)
        if not any(pa.types.is_nested(self.schema.field(name).type) for name in columns):
            return self._of([self._fragments[i] for i in self._files(condition)])
        wanted: dict[int, list[int]] = {}
        found = 0
        for i, number, rows in self._groups(condition):
            if limit is not None and found >= limit:
                break
            wanted.setdefault(i, []).append(number)
            found += rows
        return self._of([self._fragments[i].subset(row_group_ids=ids) for i, ids in wanted.items()])

    def _groups(self, condition: pads.Expression | None) -> list[tuple[int, int, int]]:
        """File, row group and number of wanted rows, where there are any."""
        files = self._files(condition)
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(lambda i: self._fragments[i].ensure_complete_metadata(), files))
        parts = {i: self._fragments[i] for i in files}
        if condition is not None:
            parts = {i: part.subset(filter=condition, schema=self._plain) for i, part in parts.items()}
        groups = [(i, group.id, group.num_rows) for i, part in parts.items() for group in part.row_groups]
        if condition is None:
            return groups
        hits = self._of([part for part in parts.values() if part.row_groups]).to_table(
            columns={"hit": condition}
        )
        passed = np.cumsum(np.append(0, hits.column("hit").fill_null(False).to_numpy()))
        ends = np.cumsum(np.append(0, [rows for *_, rows in groups])).astype(np.int64)
        counts = np.diff(passed[ends]).tolist()
        return [(i, number, n) for (i, number, _), n in zip(groups, counts, strict=True) if n]

    def _files(self, condition: pads.Expression | None) -> list[int]:
        """Files that may hold wanted rows, by the log's statistics."""
        everything = list(range(len(self.paths)))
        if condition is None:
            return everything
        # An expression does not say which columns it reads. One too many does no harm.
        said = str(condition)
        named = [f for f in self.schema if f.name in said and not pa.types.is_nested(f.type)]
        promises = [self._bounds(field) for field in named]
        # A path of a number, as the fragments that are kept are told apart by their paths alone.
        fragments = [
            _FORMAT.make_fragment(str(i), pafs.LocalFileSystem(), _all_of([p[i] for p in promises]))
            for i in everything
        ]
        kept = pads.FileSystemDataset(fragments, self._plain, _FORMAT, pafs.LocalFileSystem())
        return [int(fragment.path) for fragment in kept.get_fragments(filter=condition)]

    def _bounds(self, field: pa.Field) -> list[pads.Expression | None]:
        """What the log promises of a column, by file."""
        facts = [f"{kind}.{field.name}" for kind in ("min", "max", "null_count")]
        if not set(facts) <= set(self._facts.column_names):
            return [None] * len(self.paths)
        return [_bound(field, *row) for row in zip(*(self._facts.column(n) for n in facts), strict=True)]

    def _of(self, fragments: Sequence[pads.Fragment]) -> pads.Dataset:
        return pads.FileSystemDataset(list(fragments), self._plain, _FORMAT, self._arrow)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with reading(self._name):
            yield


def read_part(
    store: Store,
    path: str,
    row_groups: Sequence[int] | None,
    columns: Sequence[str],
    condition: pads.Expression | None,
    schema: pa.Schema,
) -> pa.Table:
    """Wanted rows of one file, in one thread: for worker processes, which share a machine.

    path: relative to the lake. row_groups: numbers of those to read, None for all. schema: of the table.
    """
    fragment = _FORMAT.make_fragment(store.full(path), store.arrow, row_groups=row_groups)
    part = pads.FileSystemDataset([fragment], plain_lists(schema), _FORMAT, store.arrow)
    with reading(path):
        found = part.to_table(columns=list(columns), filter=condition, use_threads=False)
        return found.cast(subset(schema, columns))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raises LakeError where Arrow cannot read a file, which its message names."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise LakeError(
            f"{what} cannot be read: {said}; `posedreamer release verify` lists every damaged file"
        ) from error


def _bound(field: pa.Field, low: pa.Scalar, high: pa.Scalar, nulls: pa.Scalar) -> pads.Expression | None:
    column = pads.field(field.name)
    if not low.is_valid or not high.is_valid or not nulls.is_valid:
        return None
    # A long text's bounds are cut in the log, the upper one so that it stays above.
    within = (column >= _typed(low, field)) & (column <= _typed(high, field))
    return within | column.is_null() if nulls.as_py() else within


def _typed(value: pa.Scalar, field: pa.Field) -> pa.Scalar:
    return value if value.type == field.type else pa.scalar(value.as_py(), field.type)


def _all_of(promises: Sequence[pads.Expression | None]) -> pads.Expression | None:
    joined: Any = None
    for promise in promises:
        if promise is not None:
            joined = promise if joined is None else joined & promise
    return joined

"""Where the rows of a stage are, so that a worker reads just the rows of its partition.

The driver holds ids and places only (a dozen bytes a row); label arrays and texts go from Parquet to the
worker that needs them. Places name files of one version, so a run reads one state of the lake.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.parquet import open_parquet, with_lengths
from etl.store import Store
from etl.table import LakeTable


@dataclass(frozen=True)
class Take:
    """Rows of one file, in ascending order."""

    path: str
    rows: np.ndarray


@dataclass(frozen=True)
class Slice:
    """Columns of some rows of one table; `order` brings what the takes give into the partition's order."""

    takes: tuple[Take, ...]
    order: np.ndarray
    columns: tuple[str, ...]

    def read(self, store: Store) -> pa.Table:
        parts = [_take(store, take, self.columns) for take in self.takes]
        return pa.concat_tables(parts).take(pa.array(self.order))


@dataclass(frozen=True)
class Partition:
    """Input rows of one task: slices of lake tables side by side, or rows that came from elsewhere.

    Attributes:
        attempts: (N,) which try this is for each row, first is 1.
    """

    slices: tuple[Slice, ...]
    listed: pa.Table | None
    attempts: np.ndarray

    def read(self, store: Store) -> pa.Table:
        if self.listed is not None:
            return self.listed
        columns: dict[str, pa.ChunkedArray] = {}
        for part in self.slices:
            rows = part.read(store)
            columns |= {name: rows.column(name) for name in rows.column_names}
        return pa.table(columns)


class Located:
    """Ids of a table's rows and their places.

    fingerprints, contents: the computations and the files they read to look at; None: all. Of rows with the
    same id the first counts.

    Attributes:
        keys: (N,) int64 ids, in file order.
    """

    def __init__(
        self,
        table: LakeTable,
        key: str,
        fingerprints: Sequence[str] | None = None,
        contents: Sequence[int] | None = None,
    ) -> None:
        self.table = table
        self.files = table.files()
        keys, files, rows = [], [], []
        allowed = {
            name: pa.array(values, kind)
            for name, values, kind in (
                ("fingerprint", fingerprints, pa.string()),
                ("content_id", contents, pa.int64()),
            )
            if values is not None
        }
        for number, path in enumerate(self.files):
            with open_parquet(table.store, path) as parquet:
                read = parquet.read([key, *allowed])
            mine = np.ones(read.num_rows, bool)
            for name, values in allowed.items():
                mine &= pc.is_in(read.column(name), values).to_numpy()
            place = np.flatnonzero(mine)
            keys.append(read.column(key).to_numpy()[place])
            files.append(np.full(len(place), number, np.int32))
            rows.append(place)
        self.keys = np.concatenate([np.empty(0, np.int64), *keys])
        self._file = np.concatenate([np.empty(0, np.int32), *files])
        self._row = np.concatenate([np.empty(0, np.int64), *rows])
        repeated = pd.Index(self.keys).duplicated()
        if repeated.any():
            self.keys, self._file, self._row = (a[~repeated] for a in (self.keys, self._file, self._row))

    def find(self, ids: np.ndarray) -> np.ndarray:
        """(M,) position of each id, -1 where the table has none."""
        return pd.Index(self.keys).get_indexer(pd.Index(ids))

    def values(self, column: str) -> np.ndarray:
        """One int64 column of all rows, in the order of `keys`."""
        out = np.empty(len(self.keys), np.int64)
        for number, path in enumerate(self.files):
            mine = self._file == number
            with open_parquet(self.table.store, path) as parquet:
                out[mine] = parquet.read([column]).column(column).to_numpy()[self._row[mine]]
        return out

    def slice(self, positions: np.ndarray, columns: Sequence[str]) -> Slice:
        """The rows at these positions, in this order."""
        files, rows = self._file[positions], self._row[positions]
        order = np.lexsort((rows, files))
        takes = []
        for number in np.unique(files):
            mine = rows[order][files[order] == number]
            takes.append(Take(self.files[number], mine))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return Slice(tuple(takes), back, tuple(columns))


def _take(store: Store, take: Take, columns: Sequence[str]) -> pa.Table:
    """Rows of a file, reading only the row groups they are in."""
    with open_parquet(store, take.path) as parquet:
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        group = np.searchsorted(starts, take.rows, side="right") - 1
        wanted = np.unique(group)
        offset = np.zeros(len(sizes), np.int64)
        offset[wanted] = np.concatenate([[0], np.cumsum(np.asarray(sizes)[wanted])[:-1]])
        rows = parquet.read_row_groups(wanted.tolist(), columns=list(columns))
        return with_lengths(take.path, rows.take(pa.array(take.rows - starts[group] + offset[group])))

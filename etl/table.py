"""One Delta table of the lake: read it, and commit files to it with the checks that Delta does not make."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from etl.keys import Keys, may_hold, row_keys
from etl.parquet import DataFile, open_parquet, read_keys, with_lengths, write_parquet
from etl.store import Store
from schemas.errors import ConflictError, LakeError
from schemas.ids import hex_id
from schemas.tables import TABLES, TableSpec
from schemas.where import parse_where

if TYPE_CHECKING:
    import dask.dataframe as dd

_FOREVER = "interval 36500 days"
_CONFIGURATION = {
    # Every version stays readable: delta-rs would otherwise drop old log entries at checkpoints.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": _FOREVER,
    "delta.deletedFileRetentionDuration": _FOREVER,
    "delta.checkpointInterval": "20",
}
_WRITER = "posedreamer"
"""One application id a table: two commits made from the same version conflict, so that the loser checks
for duplicate rows again. Delta alone would accept both."""

_ATTEMPTS = 50
_AT_ONCE = 3


@dataclass(frozen=True)
class Commit:
    """What a commit did. `version` is None when every row was there already."""

    version: int | None
    rows: int
    repeated: int


class LakeTable:
    """A table by name. Opening it does no I/O; it is created by its first commit."""

    def __init__(self, store: Store, name: str) -> None:
        if name not in TABLES:
            raise LakeError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
        self.store = store
        self.name = name
        self._keys = Keys()

    @property
    def spec(self) -> TableSpec:
        return TABLES[self.name]

    @cached_property
    def uri(self) -> str:
        return self.store.uri(self.name)

    def exists(self) -> bool:
        return DeltaTable.is_deltatable(self.uri, self.store.delta_options)

    def delta(self, version: int | None = None) -> DeltaTable:
        """The deltalake object. Raises LakeError when the table or the version is not there."""
        try:
            return DeltaTable(self.uri, version=version, storage_options=self.store.delta_options)
        except TableNotFoundError as error:
            raise LakeError(f"the lake {self.store.url} has no table {self.name} yet") from error
        except Exception as error:
            if version is None:
                raise
            raise LakeError(f"table {self.name} has no version {version}: {error}") from error

    def version(self) -> int | None:
        """Newest version; None before the first commit."""
        return self.delta().version() if self.exists() else None

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Commits, newest first, with their `version`; a commit's annotations are at the top level."""
        newest = self.version()
        if newest is None:
            return []
        oldest = -1 if limit is None else max(newest - limit, -1)
        commits = []
        for version in range(newest, oldest, -1):
            found = self._commit_info(version)
            if found is None:  # another tool has cleaned the log up
                break
            commits.append({**found, "version": version})
        return commits

    def _commit_info(self, version: int) -> dict[str, Any] | None:
        """What the log says of one commit; None when it has no such version.

        Not by deltalake's `history`: it lists the newest commits and counts their numbers down from the
        version that was opened, so a commit in between shifts all of them.
        """
        try:
            data = self.store.read(f"{self.name}/_delta_log/{version:020d}.json")
        except FileNotFoundError:
            return None
        for line in data.splitlines():
            if b'"commitInfo"' in line and (info := json.loads(line).get("commitInfo")) is not None:
                return info
        return {}

    def files(self, version: int | None = None) -> list[str]:
        """Paths of the version's Parquet files, relative to the lake, in a stable order."""
        if version is None and not self.exists():
            return []
        return _files(self.delta(version), self.name)

    def described(self, version: int | None = None) -> pd.DataFrame:
        """What the log says of the version's files: `path` relative to the lake, `size_bytes`, `num_records`,
        `modification_time` in ms, and a column's bounds, such as `min.oks`; in the order of `files`."""
        actions = pa.table(self.delta(version).get_add_actions(flatten=True)).to_pandas()
        actions["path"] = [f"{self.name}/{path}" for path in actions["path"]]
        return actions.sort_values("path").reset_index(drop=True)

    def dataset(self, version: int | None = None) -> pads.Dataset:
        """A pyarrow dataset with our schema, so that label arrays are fixed-size lists; lazy."""
        schema = self.spec.schema
        if version is None and not self.exists():
            return pads.dataset(schema.empty_table())
        found = self.delta(version).to_pyarrow_dataset(schema=schema)
        fragments = [
            found.format.make_fragment(
                self.store.full(f"{self.name}/{fragment.path}"),
                filesystem=self.store.arrow,
                partition_expression=fragment.partition_expression,
            )
            # Delta lists files in no order; readers want the same rows in the same order every time.
            for fragment in sorted(found.get_fragments(), key=lambda fragment: fragment.path)
        ]
        return pads.FileSystemDataset(fragments, schema, found.format, self.store.arrow)

    def read(
        self,
        columns: Sequence[str] | None = None,
        where: str | pads.Expression | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Rows as an Arrow table; columns and condition are pushed down to the files.

        where: an Arrow expression, or a text such as "oks >= 0.8 and persons == 1".
        """
        names = list(self.spec.schema.names if columns is None else columns)
        unknown = [n for n in names if n not in self.spec.schema.names]
        if unknown:
            raise LakeError(f"table {self.name} has no columns {unknown}; it has {self.spec.schema.names}")
        condition = parse_where(where, self.spec.schema) if isinstance(where, str) else where
        return self.dataset(version).to_table(columns=names, filter=condition)

    def count(self) -> int:
        """Number of rows, from the log alone."""
        if not self.exists():
            return 0
        return sum(pa.table(self.delta().get_add_actions(flatten=True)).column("num_records").to_pylist())

    def to_pandas(
        self, columns: Sequence[str] | None = None, where: str | pads.Expression | None = None
    ) -> pd.DataFrame:
        return self.read(columns, where).to_pandas()

    def dask(self, columns: Sequence[str] | None = None, version: int | None = None) -> "dd.DataFrame":
        """A Dask dataframe of one version with a partition a file, in Arrow dtypes."""
        import dask.dataframe as dd

        names = list(self.spec.schema.names if columns is None else columns)
        empty = pa.schema([self.spec.schema.field(n) for n in names]).empty_table()
        meta = empty.to_pandas(types_mapper=pd.ArrowDtype)
        files = self.files(version)
        if not files:
            return dd.from_pandas(meta, npartitions=1)
        return dd.from_map(_read_file, files, store=self.store, columns=names, meta=meta)

    def write(self, rows: pa.Table, place: int | None = None, group_rows: int | None = None) -> DataFile:
        """Writes rows to a new file that waits for `commit`; readers see files in the order of `place`."""
        return write_parquet(self.store, self.name, rows, place, group_rows)

    def append(self, rows: pa.Table, note: Mapping[str, str] | None = None) -> Commit:
        """Writes and commits a few rows; rows that are there already are left out."""
        return self.commit([self.write(rows)], note) if rows.num_rows else Commit(None, 0, 0)

    def commit(self, files: Sequence[DataFile], note: Mapping[str, str] | None = None) -> Commit:
        """Makes the files part of the table in one version.

        Every file is checked first: it is there with the described size, rows and columns. Rows whose key
        is in the table already are left out when they are the same row. Raises LakeError for a damaged
        file or a key that stands for two different rows; then nothing is committed.
        """
        for _ in range(_ATTEMPTS):
            delta = self._open_or_create()
            self._refresh_keys(delta, files)
            kept, repeated, keys = self._without_repeats(files, self._keys)
            if not kept:
                return Commit(None, 0, repeated)
            version = self._transact(delta, kept, [], note)
            if version is not None:
                # The next commit need not read these files again.
                self._keys.add([f"{self.name}/{f.name}" for f in kept], keys.keys, keys.ids, keys.contents)
                return Commit(version, sum(f.rows for f in kept), repeated)
        raise self._busy()

    def replace(
        self,
        files: Sequence[DataFile],
        note: Mapping[str, str] | None = None,
        unless: Callable[[int], None] = lambda version: None,
    ) -> Commit:
        """Makes the next version hold the rows of these files and no others; older versions keep theirs.

        Checks as `commit` does. Raises LakeError for a damaged file, for two rows with one key, and when
        there are no files; then nothing is committed.

        unless: is told the version that the commit will follow, and raises when that must not be.
        """
        if not files:
            raise LakeError(f"table {self.name}: nothing was committed: no files to replace its rows with")
        kept, repeated, _ = self._without_repeats(files, Keys())
        if repeated:
            raise LakeError(f"table {self.name}: nothing was committed: {repeated} rows are there twice")
        for _ in range(_ATTEMPTS):
            delta = self._open_or_create()
            unless(delta.version())
            replaced = [path.removeprefix(f"{self.name}/") for path in _files(delta, self.name)]
            version = self._transact(delta, kept, replaced, note)
            if version is not None:
                return Commit(version, sum(f.rows for f in kept), 0)
        raise self._busy()

    def rearrange(
        self, old: Sequence[str], new: Sequence[DataFile], note: Mapping[str, str] | None = None
    ) -> int | None:
        """Puts files in the place of others that hold the same rows; the version, or None when one of the
        old ones is no longer part of the table, and nothing was changed.

        The commit says that it changes no data: who follows the table for new rows passes it over. Another
        process that commits meanwhile sees that files are gone, and reads the keys anew.
        """
        for _ in range(_ATTEMPTS):
            delta = self._open_or_create()
            if not set(old) <= set(_files(delta, self.name)):
                return None
            names = [path.removeprefix(f"{self.name}/") for path in old]
            version = self._transact(delta, new, names, note, changed=False)
            if version is not None:
                return version
        raise self._busy()

    def _transact(
        self,
        delta: DeltaTable,
        added: Sequence[DataFile],
        removed: Sequence[str],
        note: Mapping[str, str] | None,
        changed: bool = True,
    ) -> int | None:
        """Commits on top of the version that `delta` has read; None when another writer was first.

        changed: whether the rows are others than before.
        """
        mark = uuid.uuid4().hex
        rows = str(sum(f.rows for f in added))
        number = (delta.transaction_version(_WRITER) or 0) + 1
        properties = CommitProperties(
            custom_metadata={"posedreamer.commit": mark, "posedreamer.rows": rows, **(note or {})},
            app_transactions=[Transaction(_WRITER, number)],
            max_commit_retries=100,
        )
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [RemoveAction(name, changed, now) for name in removed]
        actions += [AddAction(f.name, f.size, {}, f.modified, changed, f.stats) for f in added]
        try:
            delta.create_write_transaction(
                actions,
                mode="append",
                schema=Schema.from_arrow(self.spec.schema),
                commit_properties=properties,
            )
        except CommitFailedError:
            return None
        # The object does not learn which version it made, and the newest may be another writer's.
        version = delta.version()
        while (commit := self._commit_info(version := version + 1)) is not None:
            if commit.get("posedreamer.commit") == mark:
                return version
        raise LakeError(f"table {self.name}: the commit {mark} is not in the table's log")

    def _busy(self) -> ConflictError:
        return ConflictError(
            f"table {self.name}: {_ATTEMPTS} commits in a row met another writer; run it again"
        )

    def _open_or_create(self) -> DeltaTable:
        """The newest version, with all columns. Raises LakeError when it lacks one that cannot be NULL."""
        wanted = Schema.from_arrow(self.spec.schema)
        for _ in range(_ATTEMPTS):
            try:
                delta = DeltaTable.create(
                    self.uri,
                    wanted,
                    mode="ignore",
                    configuration=_CONFIGURATION,
                    storage_options=self.store.delta_options,
                )
            except CommitFailedError:
                continue  # another writer made it at the same moment: now it is there
            there = {f.name for f in delta.schema().fields}
            lacking = [f for f in wanted.fields if f.name not in there]
            if not lacking:
                return delta
            required = [f.name for f in lacking if not f.nullable]
            if required:
                raise LakeError(
                    f"table {self.name} was made without the columns {', '.join(required)}, which cannot be "
                    "NULL; go on in a new lake, or with the posedreamer that made this one"
                )
            # Delta takes files with more columns than the table has, and then shows them to nobody.
            try:
                delta.alter.add_columns(lacking)
            except DeltaError:
                # Another writer may have been first; what else is wrong is wrong every time.
                now = {f.name for f in self.delta().schema().fields}
                if any(f.name not in now for f in lacking):
                    raise
        raise self._busy()

    def _refresh_keys(self, delta: DeltaTable, coming: Sequence[DataFile]) -> None:
        """Reads the keys of the files that may hold a row of those that are coming."""
        files = _files(delta, self.name)
        if not self._keys.seen.issubset(files):
            self._keys = Keys()  # a row of a file that was taken out is new when it comes again
        there = pa.table(delta.get_add_actions(flatten=True))
        # What an id stands for is asked of all rows with the id, whatever else their keys are.
        may = may_hold(there, coming, self.spec.key[:1] if self.spec.content else self.spec.key)
        near = {f"{self.name}/{path}" for path in there.column("path").filter(pa.array(may)).to_pylist()}
        fresh = [f for f in files if f not in self._keys.seen and f in near]
        parts = []
        for path in fresh:
            with open_parquet(self.store, path) as parquet:
                parts.append(self._keyed(parquet.read(self._key_columns)))
        if parts:
            self._keys.add(fresh, *(np.concatenate(column) for column in zip(*parts, strict=True)))

    @property
    def _key_columns(self) -> list[str]:
        return [*self.spec.key, *([self.spec.content] if self.spec.content else [])]

    def _keyed(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) uint64 keys, and (N,) uint64 ids and (N,) int64 contents, empty where the table has none."""
        keys = row_keys(rows.select(list(self.spec.key)))
        if not self.spec.content:
            return keys, np.empty(0, np.uint64), np.empty(0, np.int64)
        ids = row_keys(rows.select([self.spec.key[0]]))
        return keys, ids, rows.column(self.spec.content).to_numpy()

    def _read_keys(self, file: DataFile) -> pa.Table:
        if file.table != self.name:
            raise LakeError(f"table {self.name}: nothing was committed: {file.name} is of {file.table}")
        try:
            return read_keys(self.store, file)
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise LakeError(f"table {self.name}: nothing was committed: {error}") from error

    def _without_repeats(self, files: Sequence[DataFile], there: Keys) -> tuple[list[DataFile], int, Keys]:
        """The files less the rows that are there or in an earlier file, the number of those, and the keys
        of the others; a file is rewritten if need be."""
        kept: list[DataFile] = []
        repeated = 0
        new = Keys()
        if not self.spec.content:
            # All at once, for there are seldom repeats, and to look for them file by file takes long.
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                parts = list(pool.map(lambda file: self._keyed(self._read_keys(file))[0], files))
            new.keys = np.sort(np.concatenate([np.empty(0, np.uint64), *parts]))
            if there.disjoint(new.keys):
                return list(files), 0, new
            new = Keys()
        for file in files:
            rows = self._read_keys(file)
            keys, ids, contents = self._keyed(rows)
            within = Keys()
            within.add([], keys, ids, contents)
            for before in (there, new, within):
                clash = before.clash(ids, contents)
                if len(clash):
                    key = rows.column(self.spec.key[0])[int(clash[0])].as_py()
                    shown = hex_id(key) if isinstance(key, int) else key
                    raise LakeError(
                        f"table {self.name}: nothing was committed: {self.spec.key[0]} {key} ({shown}) "
                        "stands for two different rows, a collision of identities"
                    )
            known = there.has(keys) | new.has(keys)
            known |= ~np.isin(np.arange(len(keys)), np.unique(keys, return_index=True)[1])
            repeated += int(known.sum())
            if known.any():
                if known.all():
                    continue
                with open_parquet(self.store, f"{self.name}/{file.name}") as parquet:
                    file = self.write(parquet.read().filter(pa.array(~known)))
                keys, ids, contents = (a[~known] if len(a) else a for a in (keys, ids, contents))
            new.add([], keys, ids, contents)
            kept.append(file)
        return kept, repeated, new


def computed_by(fingerprints: Sequence[str], contents: Sequence[int] | None = None) -> pads.Expression:
    """Condition for `read`: rows of these computations, and if given of these files."""
    where = pads.field("fingerprint").isin(pa.array(fingerprints, pa.string()))
    return (
        where if contents is None else where & pads.field("content_id").isin(pa.array(contents, pa.int64()))
    )


def _files(delta: DeltaTable, table: str) -> list[str]:
    names: Iterator[str] = (os.path.basename(uri) for uri in delta.file_uris())  # noqa: PTH119 (a URI)
    return [f"{table}/{name}" for name in sorted(names)]


def _read_file(path: str, store: Store, columns: list[str]) -> pd.DataFrame:
    with open_parquet(store, path) as parquet:
        return with_lengths(path, parquet.read(columns)).to_pandas(types_mapper=pd.ArrowDtype)

"""A stage: input rows, less the rows already computed with this fingerprint, through a UDF, into tables.

    pending rows -> Dask partitions -> UDF on workers -> Parquet -> one commit per batch of partitions

This is the only place where that happens; `etl.stages` says what the stages are.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.compute import DATA_FILE_COLUMNS, OUTCOME, compute
from etl.fingerprints import explain, register
from etl.lake import Lake
from etl.parquet import DataFile
from etl.rows import Located, Partition
from etl.store import Store
from etl.table import computed_by
from etl.workers import Workers
from schemas.errors import StageError
from schemas.fingerprint import Fingerprint
from udfs.udf import Udf

COMMIT_SECONDS = 10.0
"""Finished partitions wait at most about this long for their commit, so a crash loses little."""


@dataclass(frozen=True)
class Join:
    """Columns of another table for every input row, by its id; `fingerprints` picks the computations.

    The id is a column of the input table, or of `through`, a table that was joined before this one.
    """

    table: str
    on: str
    columns: tuple[str, ...]
    fingerprints: tuple[str, ...] | None = None
    through: str | None = None


@dataclass(frozen=True)
class Stage:
    """What a stage computes from what.

    Attributes:
        name: what users call it.
        udf: the computation; its first input is the key of the input rows.
        table: where its rows go; other tables it writes are committed before.
        source: name of the input table, or the input rows themselves.
        columns: columns of the input table.
        source_fingerprints: the input rows to use, where the table holds several computations.
        source_contents: the files whose rows to use, where the table holds what was read.
        joins: columns of other tables.
        upstream: fingerprints that the result depends on, by stage name.
        expected: ids to number of output rows that each should have; None: one.
        partition_rows: input rows of one task and one file.
    """

    name: str
    udf: Udf
    table: str
    source: str | pa.Table
    columns: tuple[str, ...] = ()
    source_fingerprints: tuple[str, ...] | None = None
    source_contents: tuple[int, ...] | None = None
    joins: tuple[Join, ...] = ()
    upstream: Mapping[str, str] = field(default_factory=dict)
    expected: Callable[[np.ndarray], np.ndarray] | None = None
    partition_rows: int = 256

    @property
    def key(self) -> str:
        return self.udf.inputs[0]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return self.udf.fingerprint(self.upstream)


@dataclass(frozen=True)
class Pending:
    """The rows that a stage will compute, and why.

    Attributes:
        total: input rows there are.
        new, stale, failed: ids never computed, computed otherwise, and failed before with this fingerprint.
        attempts: how often each of `failed` has been tried.
        rows: output rows that `new` and `stale` lack.
        why_stale: what differs between the newest other computation and this one.
    """

    total: int
    new: np.ndarray
    stale: np.ndarray
    failed: np.ndarray
    attempts: np.ndarray
    rows: int
    why_stale: str = ""

    @property
    def done(self) -> int:
        return self.total - len(self.new) - len(self.stale) - len(self.failed)


@dataclass
class Progress:
    """How far a stage is; handed to the `watch` callback after every partition."""

    stage: str
    total: int
    computed: int = 0
    failed: int = 0
    seconds: float = 0.0
    udf_seconds: float = 0.0
    commits: int = 0


def pending(lake: Lake, stage: Stage, coming: np.ndarray | None = None) -> Pending:
    """Compares the input rows with the rows computed so far.

    coming: (N,) ids of input rows that are not there yet, but will be when the stages before have run.
    """
    ids = _input_ids(lake, stage)
    if coming is not None:
        ids = np.union1d(ids, coming)
    value = stage.fingerprint.value
    table = lake.table(stage.table)
    columns = [stage.key, "fingerprint"]
    rows = table.read(columns) if table.exists() else table.spec.schema.empty_table().select(columns)
    mine = pc.equal(rows.column("fingerprint"), value).to_numpy()
    keys = rows.column(stage.key).to_numpy()
    have, counts = np.unique(keys[mine], return_counts=True)
    at = pd.Index(have).get_indexer(pd.Index(ids))
    wanted = np.ones(len(ids), np.int64) if stage.expected is None else stage.expected(ids)
    lacking = wanted - np.where(at >= 0, counts[at] if len(counts) else 0, 0)
    open_ids, lacking = ids[lacking > 0], lacking[lacking > 0]
    failed_ids, tries = _failures(lake, stage)
    at = pd.Index(failed_ids).get_indexer(pd.Index(open_ids))
    failed = open_ids[at >= 0]
    rest = open_ids[at < 0]
    stale = np.isin(rest, keys[~mine])
    others = rows.filter(pa.array(np.isin(keys, rest[stale]) & ~mine))
    why = explain(lake, others, stage.fingerprint) if stale.any() else ""
    rows = int(lacking[at < 0].sum())
    return Pending(len(ids), rest[~stale], rest[stale], failed, tries[at[at >= 0]], rows, why)


def run_stage(
    lake: Lake,
    stage: Stage,
    workers: Workers,
    *,
    retry: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Computes what is pending and commits it as it finishes.

    retry: also try the rows again that failed before. Raises StageError when the stage as a whole cannot
    go on; what was finished by then is committed.
    """
    todo = pending(lake, stage)
    ids, attempts = np.concatenate([todo.new, todo.stale]), np.ones(len(todo.new) + len(todo.stale), np.int32)
    if retry:
        ids = np.concatenate([ids, todo.failed])
        attempts = np.concatenate([attempts, todo.attempts + 1])
    partitions = partitions_of(lake, stage, ids, attempts)
    progress = Progress(stage.name, sum(len(p.attempts) for p in partitions))
    if not partitions:
        return progress
    watch(progress)
    register(lake, stage.fingerprint)
    started = last_commit = time.monotonic()
    batch: list[pd.DataFrame] = []
    try:
        for outcome in _outcomes(lake, stage, workers, partitions):
            batch.append(outcome)
            summary = outcome.iloc[0]
            progress.computed += int(summary["computed"])
            progress.failed += int(summary["failed"])
            progress.udf_seconds += float(summary["seconds"])
            progress.seconds = time.monotonic() - started
            watch(progress)
            if time.monotonic() - last_commit > COMMIT_SECONDS:
                progress.commits += _commit(lake, stage, batch)
                batch, last_commit = [], time.monotonic()
    finally:
        progress.commits += _commit(lake, stage, batch)
        progress.seconds = time.monotonic() - started
    watch(progress)
    return progress


def _input_ids(lake: Lake, stage: Stage) -> np.ndarray:
    if isinstance(stage.source, pa.Table):
        return stage.source.column(stage.key).to_numpy()
    table = lake.table(stage.source)
    if not table.exists():
        return np.empty(0, np.int64)
    where = None
    if stage.source_fingerprints is not None:
        where = computed_by(stage.source_fingerprints, stage.source_contents)
    return table.read([stage.key], where).column(stage.key).to_numpy()


def _failures(lake: Lake, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """Ids that failed with this fingerprint, and the number of tries of each."""
    table = lake.table("failures")
    if not table.exists():
        return np.empty(0, np.int64), np.empty(0, np.int32)
    where = (pc.field("stage") == stage.name) & (pc.field("fingerprint") == stage.fingerprint.value)
    rows = table.read(["row_id", "attempt"], where).to_pandas()
    tries = rows.groupby("row_id")["attempt"].max()
    return tries.index.to_numpy(np.int64), tries.to_numpy(np.int32)


def partitions_of(lake: Lake, stage: Stage, ids: np.ndarray, attempts: np.ndarray) -> list[Partition]:
    """Cuts the pending rows into tasks, in the order in which they lie in the input files."""
    if not len(ids):
        return []
    if isinstance(stage.source, pa.Table):
        at = pd.Index(stage.source.column(stage.key).to_numpy()).get_indexer(pd.Index(ids))
        cuts = [slice(i, i + stage.partition_rows) for i in range(0, len(ids), stage.partition_rows)]
        return [Partition((), stage.source.take(pa.array(at[cut])), attempts[cut]) for cut in cuts]
    source = Located(lake.table(stage.source), stage.key, stage.source_fingerprints, stage.source_contents)
    positions = source.find(ids)
    order = np.argsort(positions, kind="stable")
    positions, attempts = positions[order], attempts[order]
    joined = []
    found = {stage.source: (source, positions)}
    for join in stage.joins:
        there = Located(lake.table(join.table), join.on, join.fingerprints)
        base, rows = found[join.through or stage.source]
        wanted = base.keys if base is source and join.on == stage.key else base.values(join.on)
        at = np.full(len(rows), -1)
        at[rows >= 0] = there.find(wanted[rows[rows >= 0]])
        found[join.table] = there, at
        joined.append((there, at, join.columns))
    # A row whose labels failed has nothing to paint: it waits until they are there.
    ready = np.logical_and.reduce([np.ones(len(positions), bool), *(at >= 0 for _, at, _ in joined)])
    positions, attempts = positions[ready], attempts[ready]
    joined = [(there, at[ready], columns) for there, at, columns in joined]
    partitions = []
    for start in range(0, len(positions), stage.partition_rows):
        cut = slice(start, start + stage.partition_rows)
        own = source.slice(positions[cut], (stage.key, *stage.columns))
        others = tuple(there.slice(at[cut], columns) for there, at, columns in joined if columns)
        partitions.append(Partition((own, *others), None, attempts[cut]))
    return partitions


def _outcomes(
    lake: Lake, stage: Stage, workers: Workers, partitions: list[Partition]
) -> Iterator[pd.DataFrame]:
    """Maps the UDF over a Dask dataframe of the partitions; yields what each wrote, as they finish."""
    import dask.dataframe as dd
    from distributed import as_completed

    client = workers.client
    frame = dd.from_map(_read, partitions, store=lake.store, meta=pd.DataFrame(), enforce_metadata=False)
    described = frame.map_partitions(
        compute,
        stage=stage.name,
        table=stage.table,
        udf=stage.udf,
        fingerprint=stage.fingerprint.value,
        store=lake.store,
        meta=OUTCOME,
        enforce_metadata=False,
        token=uuid.uuid4().hex,
    )
    gpus = any("GPU" in w["resources"] for w in client.scheduler_info(n_workers=-1)["workers"].values())
    wants = {"GPU": 1} if gpus and stage.udf.accelerated else None
    futures = client.compute(described.to_delayed(), resources=wants)
    waiting = set(futures)
    try:
        # Results come in batches: fetching each by itself would cost two messages a partition.
        for future, outcome in as_completed(futures, with_results=True, raise_errors=False):
            if future.status == "error":
                error = future.exception()
                # What else is finished by now shall be committed before the stage stops.
                yield from (f.result() for f in waiting if f.status == "finished")
                if isinstance(error, StageError):
                    raise error
                raise StageError(
                    f"stage {stage.name} stopped: {type(error).__name__}: {error}. "
                    "What was finished is committed; run it again to go on"
                ) from error
            waiting.remove(future)
            yield outcome
            future.release()
    finally:
        client.cancel(futures, force=True)


def _read(partition: Partition, store: Store) -> pd.DataFrame:
    """A partition as a dataframe in Arrow dtypes, which hand over their buffers without a copy."""
    rows = partition.read(store)
    frame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    return frame.assign(_attempt=partition.attempts)


def _commit(lake: Lake, stage: Stage, batch: list[pd.DataFrame]) -> int:
    """Commits the files of finished partitions, the stage's own table last: it says what is done."""
    if not batch:
        return 0
    written = pd.concat(batch, ignore_index=True)
    written = written[written["name"] != ""]
    note = {"posedreamer.stage": stage.name, "posedreamer.fingerprint": stage.fingerprint.value}
    commits = 0
    for table in sorted(written["table"].unique(), key=lambda name: (name == stage.table, name)):
        mine = written.loc[written["table"] == table, DATA_FILE_COLUMNS]
        files = [DataFile(**facts) for facts in mine.to_dict("records")]
        commits += lake.table(table).commit(files, note).version is not None
    return commits

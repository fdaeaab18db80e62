"""What a worker does with one partition: apply the UDF in batches, find the rows that fail, write Parquet."""

import errno
import functools
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.parquet import DataFile, write_parquet
from etl.store import Store
from schemas.errors import ModelError, PosedreamerError, SchemaError, StageError
from schemas.tables import TABLES
from schemas.validate import validate
from udfs.memory import free_memory, is_out_of_memory
from udfs.udf import Apply, Udf, Worker

DATA_FILE_COLUMNS = [f.name for f in fields(DataFile)]

OUTCOME = pd.DataFrame(
    {
        **{f.name: pd.Series(dtype=object if f.type is str else np.int64) for f in fields(DataFile)},
        "computed": pd.Series(dtype=np.int64),
        "failed": pd.Series(dtype=np.int64),
        "seconds": pd.Series(dtype=np.float64),
    }
)
"""One row a written file; the first row also counts the partition's rows and the UDF's seconds."""

_LOADING = threading.Lock()
_ACCELERATOR = threading.Lock()
"""Held while a model that wants the GPU is loaded or runs: the workers of a scheduler that is already there
may have several threads, and a diffusion pipeline keeps its place among the steps in itself."""


def compute(
    frame: pd.DataFrame, *, stage: str, table: str, udf: Udf, fingerprint: str, store: Store
) -> pd.DataFrame:
    """Computes one partition and writes what came out; nothing is visible before the driver's commit."""
    attempts = frame["_attempt"].to_numpy(np.int32)
    rows = pa.Table.from_pandas(frame.drop(columns="_attempt"), preserve_index=False)
    lock = _ACCELERATOR if udf.accelerated else _LOADING
    with lock:  # the cache alone would let two threads load at once
        apply = _ready(udf, device_here(udf.accelerated), store, fingerprint)
    checked = functools.partial(_checked, apply, udf, table, fingerprint)
    results: list[dict[str, pa.Table]] = []
    failures: list[tuple[int, Exception]] = []
    seconds = 0.0
    for start in range(0, rows.num_rows, udf.batch_rows):
        batch = rows.slice(start, udf.batch_rows)
        failed_before = len(failures)
        with lock if udf.accelerated else nullcontext():
            began = time.perf_counter()
            results += _apply(checked, udf.name, batch, start, failures)
            seconds += time.perf_counter() - began
        _stop_if_all_fail(stage, batch.num_rows, failures[failed_before:])
    written = [write_parquet(store, name, part) for name, part in _gather(results).items() if part.num_rows]
    if failures:
        ids = rows.column(udf.inputs[0]).to_numpy()
        written.append(write_parquet(store, "failures", _failed(stage, fingerprint, ids, attempts, failures)))
    outcome = pd.DataFrame([f.as_dict() for f in written] or [{**DataFile("", "", 0, 0, "", 0).as_dict()}])
    outcome["computed"], outcome["failed"], outcome["seconds"] = 0, 0, 0.0
    outcome.loc[0, ["computed", "failed", "seconds"]] = [
        rows.num_rows - len(failures),
        len(failures),
        seconds,
    ]
    return outcome


def _ready(udf: Udf, device: str, store: Store, fingerprint: str) -> Apply:
    """The UDF with its models loaded: once a worker process, not once a partition."""
    return (_accelerated if udf.accelerated else _plain)(udf, Worker(device, store, fingerprint))


@functools.lru_cache(maxsize=8)
def _plain(udf: Udf, worker: Worker) -> Apply:
    return udf.setup(worker)


@functools.lru_cache(maxsize=1)
def _accelerated(udf: Udf, worker: Worker) -> Apply:
    # A worker outlives runs, whose models are large: those of the one before go first, as both may not fit.
    _accelerated.cache_clear()
    free_memory()
    return udf.setup(worker)


@functools.cache
def device_here(accelerated: bool = True) -> str:
    """The torch device that this process computes on; without torch for what wants none."""
    if not accelerated:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _checked(apply: Apply, udf: Udf, table: str, fingerprint: str, batch: pa.Table) -> dict[str, pa.Table]:
    """What the UDF gives, by table. Checked here, so that a row that breaks its schema fails alone."""
    result = apply(batch)
    if not isinstance(result, dict):
        key = udf.inputs[0]
        if not result.column(key).equals(batch.column(key)):
            raise StageError(
                f"{udf.name} version {udf.version} does not give one row per input row, in order"
            )
        result = {table: result}
    return {name: validate(name, _stamped(name, rows, fingerprint)) for name, rows in result.items()}


def _apply(
    checked: Callable[[pa.Table], dict[str, pa.Table]],
    name: str,
    batch: pa.Table,
    offset: int,
    failures: list[tuple[int, Exception]],
) -> list[dict[str, pa.Table]]:
    """Applies the UDF; halves the batch on an error until the row that causes it is alone."""
    try:
        return [checked(batch)]
    except (StageError, ModelError):
        raise
    except Exception as error:
        if batch.num_rows == 1:
            if is_out_of_memory(error):
                raise StageError(f"{name}: not enough memory for a single row: {error}") from error
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise StageError(f"{name}: the lake cannot be written: {error}") from error
            failures.append((offset, error))
            return []
        half = batch.num_rows // 2
        first = _apply(checked, name, batch.slice(0, half), offset, failures)
        return first + _apply(checked, name, batch.slice(half), offset + half, failures)


def _stop_if_all_fail(stage: str, rows: int, failures: list[tuple[int, Exception]]) -> None:
    """A batch in which every row meets the same unforeseen error has met a defect, not bad rows."""
    kinds = {type(error) for _, error in failures}
    unforeseen = all(kind is SchemaError or not issubclass(kind, PosedreamerError) for kind in kinds)
    if 1 < rows == len(failures) and len(kinds) == 1 and unforeseen:
        error = failures[0][1]
        raise StageError(
            f"stage {stage} stopped: every row of a batch failed with {type(error).__name__}: {error}"
        ) from error


def _gather(results: list[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    """Rows of all batches by table."""
    parts: dict[str, list[pa.Table]] = {}
    for result in results:
        for name, rows in result.items():
            parts.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def _stamped(table: str, rows: pa.Table, fingerprint: str) -> pa.Table:
    """The rows with the columns that no UDF fills in: the fingerprint, and NULL for what it does not say."""
    for field in TABLES[table].schema:
        if field.name in rows.column_names:
            continue
        if field.name == "fingerprint":
            rows = rows.append_column(field, pa.repeat(fingerprint, rows.num_rows))
        elif field.nullable:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def _failed(
    stage: str,
    fingerprint: str,
    ids: np.ndarray,
    attempts: np.ndarray,
    failures: list[tuple[int, Exception]],
) -> pa.Table:
    at = np.array([position for position, _ in failures])
    errors = [error for _, error in failures]
    n = len(at)
    return pa.table(
        {
            "stage": pa.repeat(stage, n),
            "row_id": ids[at],
            "fingerprint": pa.repeat(fingerprint, n),
            "status": pa.repeat("failed", n),
            "attempt": attempts[at],
            "error_code": [e.code if isinstance(e, PosedreamerError) else type(e).__name__ for e in errors],
            "message": [str(e)[:2000] or repr(e) for e in errors],
            "failed_at": pa.array([datetime.now(UTC)] * n, pa.timestamp("us", "UTC")),
        }
    )

"""Joins kept images with all that is known of them, in a given order and in bounded memory.

The tables are streamed once each. A row goes to every bucket that wants it, buckets lie on disk, and
then one bucket after the other is put together: memory holds ids, and the label arrays of one bucket.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from etl.places import places
from schemas.errors import LakeError
from schemas.ids import hex_id

BUCKET_ROWS = 20_000


@dataclass(frozen=True)
class Part:
    """Columns that one table contributes.

    Attributes:
        table: its name, for messages.
        rows: where they are.
        where: the rows to look at.
        key: the id column.
        wanted: (N,) int64, the id for every output row.
        columns: name in the table to name in the result.
    """

    table: str
    rows: pads.Dataset
    where: pads.Expression | None
    key: str
    wanted: np.ndarray
    columns: Mapping[str, str]


def join(parts: list[Part], bucket_rows: int = BUCKET_ROWS) -> Iterator[pa.Table]:
    """The parts side by side, N rows in the order of `wanted`, in tables of `bucket_rows`.

    Raises LakeError where a part lacks a row.
    """
    with tempfile.TemporaryDirectory(prefix="posedreamer-join-") as folder:
        spilled = [_spill(part, bucket_rows, Path(folder) / str(i)) for i, part in enumerate(parts)]
        for bucket in range(-(-len(parts[0].wanted) // bucket_rows)):
            columns: dict[str, pa.ChunkedArray] = {}
            for part, files in zip(parts, spilled, strict=True):
                rows = _gather(part, files[bucket], bucket * bucket_rows, bucket_rows)
                columns |= {name: rows.column(name) for name in part.columns.values()}
            yield pa.table(columns)


def look_up(rows: pa.Table, others: pa.Table, key: str, names: Sequence[str]) -> pa.Table:
    """The rows with columns of other rows that have the same key; NULL where there are none.

    Of several others with one key any will do: they are the same but for what computed them.
    """
    keys, first = np.unique(others.column(key).to_numpy(), return_index=True)
    at = places(rows.column(key).to_numpy(), keys)
    there = np.append(first, 0)[at]  # -1, for none, is masked
    taken = others.select(names).take(pa.array(there, mask=at < 0))
    for name in names:
        rows = rows.append_column(others.schema.field(name).with_nullable(True), taken.column(name))
    return rows


def _spill(part: Part, bucket_rows: int, folder: Path) -> list[Path]:
    """One Arrow file a bucket with the part's rows and `_place`, where in the bucket each belongs."""
    folder.mkdir()
    schema = pa.schema(
        [part.rows.schema.field(name).with_name(out) for name, out in part.columns.items()]
        + [pa.field("_place", pa.int64())]
    )
    order = np.argsort(part.wanted, kind="stable")
    wanted = part.wanted[order]
    files = [folder / f"{i}.arrow" for i in range(-(-len(wanted) // bucket_rows))]
    writers = [pa.ipc.new_file(file, schema) for file in files]
    try:
        names = [part.key, *(name for name in part.columns if name != part.key)]
        for batch in part.rows.to_batches(
            columns=names, filter=part.where, batch_readahead=2, fragment_readahead=1
        ):
            keys = batch.column(part.key).to_numpy()
            low, high = np.searchsorted(wanted, keys, "left"), np.searchsorted(wanted, keys, "right")
            counts = high - low
            if not counts.any():
                continue
            # A pose stands behind many samples: its row goes to every place that wants it.
            source = np.repeat(np.arange(len(keys)), counts)
            within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
            place = order[np.repeat(low, counts) + within]
            for bucket in np.unique(place // bucket_rows):
                mine = place // bucket_rows == bucket
                rows = batch.take(pa.array(source[mine]))
                arrays = [rows.column(name) for name in part.columns]
                at = pa.array(place[mine] - bucket * bucket_rows)
                writers[bucket].write_batch(pa.record_batch([*arrays, at], schema=schema))
    finally:
        for writer in writers:
            writer.close()
    return files


def _gather(part: Part, file: Path, start: int, bucket_rows: int) -> pa.Table:
    """The rows of a bucket in their places. Of rows with the same id and place the first counts."""
    with pa.OSFile(str(file)) as source:
        rows = pa.ipc.open_file(source).read_all()
    file.unlink()
    places, first = np.unique(rows.column("_place").to_numpy(), return_index=True)
    wanted = part.wanted[start : start + bucket_rows]
    if len(places) != len(wanted):
        lacking = np.setdiff1d(np.arange(len(wanted)), places)
        key = int(wanted[lacking[0]])
        raise LakeError(
            f"table {part.table} lacks {len(lacking)} rows, such as {part.key} {key} ({hex_id(key)}); "
            "`posedreamer run` computes what is missing"
        )
    return rows.take(pa.array(first))

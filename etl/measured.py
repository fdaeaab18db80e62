"""Images of a lake with what was measured on them, joined by id. Opens no image."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.computed import read_computed
from etl.lake import Lake
from etl.places import places
from schemas.errors import LakeError
from schemas.rule_columns import KEYS, RuleColumn, class_columns


def images_of(
    lake: Lake, image_fingerprint: str, sample_fingerprints: Sequence[str] | None, names: Sequence[str] = ()
) -> pa.Table:
    """`image_id` and `sample_id` of the images to decide on, and more columns, in the order of the table."""
    columns = ["image_id", "sample_id", *names]
    rows = read_computed(lake, "images", columns, [image_fingerprint])
    if sample_fingerprints is None:
        return rows
    planned = read_computed(lake, "samples", ["sample_id"], sample_fingerprints)
    there = _places(rows, planned, "sample_id") >= 0
    return rows if there.all() else rows.filter(pa.array(there))


def with_metrics(lake: Lake, rows: pa.Table, table: str, value: str, names: list[str]) -> pa.Table:
    """The rows that the metric table has, with its columns, in the same order."""
    measured = read_computed(lake, table, ["image_id", *names], [value])
    at = _places(rows, measured, "image_id")
    if len(at) and at.min() < 0:
        rows, at = rows.filter(pa.array(at >= 0)), at[at >= 0]
    for name in names:
        rows = rows.append_column(measured.schema.field(name), _taken(measured.column(name), at))
    return rows


def _places(rows: pa.Table, others: pa.Table, key: str) -> np.ndarray:
    return places(rows.column(key).to_numpy(), others.column(key).to_numpy())


def _taken(column: pa.ChunkedArray, at: np.ndarray) -> pa.Array:
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return whole.take(pa.array(at))


def with_facts(
    lake: Lake,
    rows: pa.Table,
    names: Sequence[str],
    image_fingerprint: str,
    sample_fingerprints: Sequence[str] | None,
) -> pa.Table:
    """The rows with columns of what stands behind them: sample, labels, pose, caption, and the image's own.

    rows: `image_id` and `sample_id`. Raises LakeError where a table lacks one of them.
    """
    known = class_columns()
    wanted: dict[str, list[str]] = {table: [] for table in KEYS}
    for name in names:
        if name not in rows.column_names:
            wanted[known[name].table].append(name)
    ids = [KEYS[table] for table in ("poses", "captions") if wanted[table]]
    read = wanted["samples"]
    wanted["samples"] = list(dict.fromkeys([*read, *(i for i in ids if i not in rows.column_names)]))
    fingerprints = {"images": [image_fingerprint], "samples": sample_fingerprints}
    if wanted["labels"]:
        fingerprints["labels"] = [labels_of(lake, image_fingerprint)]
    for table in ("images", "samples", "labels", "poses", "captions"):
        if wanted[table]:
            columns = [known[name] for name in wanted[table]]
            rows = _beside(lake, rows, table, fingerprints.get(table), columns, wanted[table])
    return rows.drop_columns([name for name in ids if name not in names])


def labels_of(lake: Lake, image_fingerprint: str) -> str:
    """What computed the labels that the images were painted from. Raises LakeError where nobody noted it."""
    table = lake.table("fingerprints")
    where = pc.field("fingerprint") == image_fingerprint
    found = table.read(["ingredients"], where).column("ingredients").to_pylist()
    value = json.loads(found[0]).get("upstream.labels") if found else None
    if value is None:
        raise LakeError(f"the lake {lake.url} does not say what labels the images {image_fingerprint} show")
    return value


def _beside(
    lake: Lake,
    rows: pa.Table,
    table: str,
    fingerprints: Sequence[str] | None,
    columns: Sequence[RuleColumn],
    names: Sequence[str],
) -> pa.Table:
    key = KEYS[table]
    read = list(dict.fromkeys([key, *(column.of for column in columns)]))
    read += ["fingerprint"] if table == "samples" else []
    if fingerprints is None:
        others = lake.table(table).read(read)
    else:
        others = read_computed(lake, table, read, fingerprints)
    # The same sample may be in the plans of several rounds: that of the lowest fingerprint counts.
    if table == "samples" and pc.count_distinct(others.column(key)).as_py() < others.num_rows:
        others = others.sort_by("fingerprint")
        others = others.take(pa.array(np.unique(others.column(key).to_numpy(), return_index=True)[1]))
    at = _places(rows, others, key)
    if len(at) and at.min() < 0:
        lacking = rows.column(key).filter(pa.array(at < 0))
        raise LakeError(f"table {table} lacks {len(lacking):,} rows, such as {key} {lacking[0].as_py()}")
    for name, column in zip(names, columns, strict=True):
        values = _taken(others.column(column.of), at)
        if column.item is not None:
            values = pc.list_element(values, column.item)
        rows = rows.append_column(name, values)
    return rows

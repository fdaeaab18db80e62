"""Images of a lake with what was measured on them, joined by id. Opens no image."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.lake import Lake
from etl.table import computed_by
from schemas.errors import LakeError
from schemas.rule_columns import KEYS, RuleColumn, class_columns


def images_of(lake: Lake, image_fingerprint: str, sample_fingerprints: Sequence[str] | None) -> pa.Table:
    """`image_id` and `sample_id` of the images to decide on, by id."""
    rows = lake.table("images").read(["image_id", "sample_id"], computed_by([image_fingerprint]))
    if sample_fingerprints is not None:
        planned = lake.table("samples").read(["sample_id"], computed_by(sample_fingerprints))
        rows = rows.filter(pc.is_in(rows.column("sample_id"), planned.column("sample_id")))
    return rows.sort_by("image_id")


def with_metrics(lake: Lake, rows: pa.Table, table: str, value: str, names: list[str]) -> pa.Table:
    """The rows that the metric table has, with its columns, in the same order."""
    measured = lake.table(table).read(["image_id", *names], computed_by([value]))
    at = pd.Index(measured.column("image_id").to_numpy()).get_indexer(
        pd.Index(rows.column("image_id").to_numpy())
    )
    rows = rows.filter(pa.array(at >= 0))
    taken = measured.select(names).take(pa.array(at[at >= 0]))
    for name in names:
        rows = rows.append_column(measured.schema.field(name), taken.column(name))
    return rows


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
    where = None if fingerprints is None else computed_by(fingerprints)
    read = list(dict.fromkeys([key, *(column.of for column in columns)]))
    tie = ["fingerprint"] if table == "samples" else []  # the same sample may be in plans of several rounds
    others = lake.table(table).read([*read, *tie], where)
    if tie:
        others = others.sort_by([(key, "ascending"), *((t, "ascending") for t in tie)])
    keys, first = np.unique(others.column(key).to_numpy(), return_index=True)
    at = pd.Index(keys).get_indexer(pd.Index(rows.column(key).to_numpy()))
    if (at < 0).any():
        lacking = rows.column(key).filter(pa.array(at < 0))
        raise LakeError(f"table {table} lacks {len(lacking):,} rows, such as {key} {lacking[0].as_py()}")
    taken = others.take(pa.array(first[at]))
    for name, column in zip(names, columns, strict=True):
        values = taken.column(column.of)
        if column.item is not None:
            values = pc.list_element(values, column.item)
        rows = rows.append_column(name, values)
    return rows

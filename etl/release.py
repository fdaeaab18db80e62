"""Publishes a selection: one version of the table `dataset`, a manifest, and a row in `releases`.

The row in `releases` is written last and makes the release; all before it may be done again. A process
killed on the way leaves at most a version of `dataset` that no release names, which the next attempt
with the same ingredients takes over.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.filter import Selection
from etl.fingerprints import software
from etl.join import Part, join
from etl.lake import Lake
from etl.parquet import DataFile
from etl.query import Release, release, releases
from etl.table import computed_by
from schemas.errors import ConfigError, ConflictError, InputError, LakeError
from schemas.fingerprint import fingerprint
from schemas.tables import DATASET, KEYPOINT_METRICS, LABEL_COLUMNS
from schemas.version import VERSION_PATTERN

VERSION = 1
METRIC_TABLE = "metrics_keypoints"
_BLOCK = 1 << 22


def create_release(
    lake: Lake, name: str, selection: Selection, *, label_fingerprint: str, notes: str | None = None
) -> Release:
    """Publishes the images that a selection keeps.

    Args:
        name: a semantic version that no release has.
        label_fingerprint: what computed the labels of the images.
        notes: the author's words.

    Raises:
        ConfigError: the name is no semantic version or is taken.
        InputError: the selection keeps nothing.
        LakeError: rows of the images are missing.
    """
    if not re.fullmatch(VERSION_PATTERN, name) or len(name) > 100:
        raise ConfigError(f"release {name!r} is no semantic version, such as 0.1.0 or 1.0.0-beta.1")
    _refuse_taken(lake, name)
    if not selection.kept:
        raise InputError(
            f"policy {selection.policy.name} keeps none of the {selection.images} images: nothing to publish"
        )
    recipe = _recipe(selection, label_fingerprint)
    version = _unnamed_version(lake, name, recipe)
    if version is None:
        inputs = {table: at for table, at in lake.tables().items() if table != "dataset"}
        files = list(_write(lake, inputs, selection, label_fingerprint))
        note = {
            "posedreamer.release": name,
            "posedreamer.recipe": recipe,
            "posedreamer.inputs": json.dumps(inputs),
        }
        version = lake.table("dataset").replace(files, note).version
        assert version is not None  # replace commits or raises
    path, digest = _write_manifest(lake, name, version, selection, label_fingerprint)
    row = {
        "release": name,
        "dataset_version": version,
        "manifest_path": path,
        "manifest_sha256": digest,
        "policy": selection.policy.name,
        "selection": selection.fingerprint,
        "rows": selection.kept,
        "notes": notes,
        "created_at": datetime.now(UTC),
    }
    table = lake.table("releases")
    if not table.append(pa.Table.from_pylist([row], schema=table.spec.schema)).rows:
        raise ConflictError(f"release {name} was published by another process meanwhile")
    return release(lake, name)


def list_releases(lake: Lake) -> list[Release]:
    """All published releases, oldest first."""
    return releases(lake)


def _refuse_taken(lake: Lake, name: str) -> None:
    names = [r.name for r in releases(lake)]
    if name in names:
        raise ConfigError(
            f"release {name} is there already and never changes; choose another name than {', '.join(names)}"
        )


def _recipe(selection: Selection, label_fingerprint: str) -> str:
    upstream = {"selection": selection.fingerprint, "labels": label_fingerprint}
    return fingerprint("release", VERSION, {}, upstream=upstream | dict(selection.metric_fingerprints)).value


def _unnamed_version(lake: Lake, name: str, recipe: str) -> int | None:
    """The version that an earlier attempt at this very release has committed."""
    for commit in lake.table("dataset").history():
        if commit.get("posedreamer.release") == name and commit.get("posedreamer.recipe") == recipe:
            return int(commit["version"])
    return None


def _write(
    lake: Lake, inputs: Mapping[str, int], selection: Selection, label_fingerprint: str
) -> Iterator[DataFile]:
    """Writes the joined rows, those of a source together and the best first: readers skip the rest.

    inputs: version of every table to read.
    """
    metric = selection.metric_fingerprints.get(METRIC_TABLE)
    if metric is None:
        raise InputError(f"a release publishes the rows of {METRIC_TABLE}; the selection has none")
    lacking = [table for table in ("samples", "poses", "captions", "labels") if table not in inputs]
    if lacking:
        raise LakeError(f"the lake {lake.url} has no tables {', '.join(lacking)} yet; `posedreamer run`")
    ids = _order(lake, inputs, selection, metric)
    constants = {
        "generator_fingerprint": selection.image_fingerprint,
        "label_fingerprint": label_fingerprint,
        "metric_fingerprint": metric,
    }

    def part(table: str, key: str, names: list[str], value: str | None = None, **renamed: str) -> Part:
        where = None if value is None else computed_by([value])
        columns = {n: n for n in names} | renamed
        return Part(table, lake.table(table).dataset(inputs[table]), where, key, ids[key], columns)

    parts = [
        part(
            "images",
            "image_id",
            ["image_id", "sample_id", "image_path", "image_sha256", "generator", "seed"],
            selection.image_fingerprint,
        ),
        part("samples", "sample_id", ["pose_id", "caption_id", "prompt", "round"]),
        part("poses", "pose_id", ["source", "sequence", "frame"]),
        part("captions", "caption_id", [], text="caption"),
        part(METRIC_TABLE, "image_id", [f.name for f in KEYPOINT_METRICS], metric),
        part("labels", "sample_id", [f.name for f in LABEL_COLUMNS], label_fingerprint),
    ]
    table = lake.table("dataset")
    for place, rows in enumerate(join(parts)):
        for name, value in constants.items():
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        yield table.write(rows.select(DATASET.names), place)


def _order(lake: Lake, inputs: Mapping[str, int], selection: Selection, metric: str) -> dict[str, np.ndarray]:
    """Ids of the kept images by column, sorted by source, then OKS from the best, then id."""
    where = (pc.field("selection") == selection.fingerprint) & pc.field("keep")
    decided = lake.table("selections")
    kept = decided.read(["image_id", "sample_id"], where, inputs[decided.name]).to_pandas()
    if len(kept) != selection.kept:
        raise LakeError(f"selection {selection.fingerprint} has {len(kept)} rows and not {selection.kept}")
    for table, key, columns, condition in (
        ("samples", "sample_id", ["pose_id", "caption_id"], None),
        ("poses", "pose_id", ["source"], None),
        (METRIC_TABLE, "image_id", ["oks"], computed_by([metric])),
    ):
        rows = lake.table(table).read([key, *columns], condition, inputs.get(table)).to_pandas()
        kept = kept.merge(rows.drop_duplicates(key), on=key, how="left", indicator=True)
        lacking = kept.loc[kept.pop("_merge") != "both", key]
        if len(lacking):
            raise LakeError(f"table {table} lacks {len(lacking)} rows, such as {key} {lacking.iloc[0]}")
    kept = kept.sort_values(["source", "oks", "image_id"], ascending=[True, False, True], na_position="last")
    keys = ["image_id", "sample_id", "pose_id", "caption_id"]
    return {key: kept[key].to_numpy(np.int64) for key in keys}


def _write_manifest(
    lake: Lake, name: str, version: int, selection: Selection, label_fingerprint: str
) -> tuple[str, str]:
    """Path and SHA-256 of the manifest."""
    table = lake.table("dataset")
    commit = next(c for c in table.history() if c["version"] == version)
    images = table.read(["image_path", "image_sha256"], version=version)
    facts: dict[str, Any] = {
        "release": name,
        "rows": images.num_rows,
        "dataset_version": version,
        "committed_at": pd.Timestamp(commit["timestamp"], unit="ms", tz="UTC").isoformat(),
        "table_versions": json.loads(commit["posedreamer.inputs"]),
        "policy": selection.policy.model_dump(mode="json", exclude_none=True),
        "fingerprints": {
            "selection": selection.fingerprint,
            "policy": selection.policy.fingerprint.value,
            "images": selection.image_fingerprint,
            "labels": label_fingerprint,
            **selection.metric_fingerprints,
        },
        "software": software(),
        "dataset_files": {path: _file_sha256(lake, path) for path in table.files(version)},
        "image_files": dict(zip(*(images.column(c).to_pylist() for c in images.column_names), strict=True)),
    }
    data = json.dumps(facts, indent=1, ensure_ascii=False).encode()
    # Two processes that publish different rows under one name must not overwrite each other's manifest.
    path = f"files/releases/{name}/manifest-{version}.json"
    lake.store.write(path, data)
    return path, hashlib.sha256(data).hexdigest()


def _file_sha256(lake: Lake, path: str) -> str:
    digest = hashlib.sha256()
    with lake.store.fs.open(lake.store.full(path), "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()

"""Publishes a selection: one version of the table `dataset`, a manifest, and a row in `releases`.

The row in `releases` is written last and makes the release; all before it may be done again. A process
killed on the way leaves at most a version of `dataset` that no release names, which the next attempt
with the same ingredients takes over.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from etl.release_events import NO_PARENT, read_states
from etl.table import computed_by
from etl.verify import THREADS, file_sha256
from schemas.errors import ConfigError, ConflictError, InputError, LakeError
from schemas.fingerprint import fingerprint
from schemas.metrics import METRICS
from schemas.tables import DATASET, LABEL_COLUMNS
from schemas.version import VERSION_PATTERN

VERSION = 2
METRIC_TABLE = "metrics_keypoints"


def create_release(
    lake: Lake,
    name: str,
    selection: Selection,
    *,
    label_fingerprint: str,
    notes: str | None = None,
    parent: str | None = None,
) -> Release:
    """Publishes the images that a selection keeps.

    Args:
        name: a semantic version that no release has or had.
        label_fingerprint: what computed the labels of the images.
        notes: the author's words.
        parent: the release that this one follows, by name or tag, by default the newest; `none`: none.

    Raises:
        ConfigError: the name is no semantic version or is taken.
        ConflictError: another process publishes under this name at the same time.
        InputError: the selection keeps nothing.
        LakeError: rows of the images are missing, or the parent is.
    """
    if not re.fullmatch(VERSION_PATTERN, name) or len(name) > 100:
        raise ConfigError(f"release {name!r} is no semantic version, such as 0.1.0 or 1.0.0-beta.1")
    _refuse_taken(lake, name)
    follows = _parent(lake, parent)
    if not selection.kept:
        raise InputError(
            f"policy {selection.policy.name} keeps none of the {selection.images} images: nothing to publish"
        )
    recipe = _recipe(selection, label_fingerprint)
    before = lake.table("dataset").version()
    inputs = {table: at for table, at in lake.tables().items() if table != "dataset"}
    version = _unnamed_version(lake, name, recipe, inputs)
    if version is None:
        files = list(_write(lake, inputs, selection, label_fingerprint))
        note = {
            "posedreamer.release": name,
            "posedreamer.recipe": recipe,
            "posedreamer.inputs": json.dumps(inputs),
        }

        def unless(newest: int) -> None:
            _refuse_rival(lake, name, newest - (-1 if before is None else before))

        version = lake.table("dataset").replace(files, note, unless).version
        assert version is not None  # replace commits or raises
    path, digest = _write_manifest(lake, name, version, selection, label_fingerprint, follows)
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
        "parent": follows,
        "metrics": " ".join(_metrics(selection)),
    }
    table = lake.table("releases")
    if not table.append(pa.Table.from_pylist([row], schema=table.spec.schema)).rows:
        raise ConflictError(f"release {name} was published by another process meanwhile")
    return release(lake, name)


def list_releases(lake: Lake) -> list[Release]:
    """All published releases, oldest first."""
    return releases(lake)


def _refuse_taken(lake: Lake, name: str) -> None:
    rows = lake.table("releases").read(["release", "created_at"]).sort_by("created_at")
    names = rows.column("release").to_pylist()
    if name not in names:
        return
    gone = name in read_states(lake).deleted
    was = "was deleted, and its name is not used again" if gone else "is there already and never changes"
    raise ConfigError(f"release {name} {was}; choose another name than {', '.join(names)}")


def _refuse_rival(lake: Lake, name: str, commits: int) -> None:
    """Raises ConflictError when one of the newest commits is another process's attempt at this release."""
    newest = lake.table("dataset").history(commits) if commits else []
    if any(commit.get("posedreamer.release") == name for commit in newest):
        raise ConflictError(f"release {name} is being published by another process; nothing was done here")


def _parent(lake: Lake, parent: str | None) -> str | None:
    """Name of the release that a new one follows."""
    if parent == NO_PARENT:
        return None
    there = releases(lake)
    if parent is None:
        return there[-1].name if there else None
    return release(lake, parent).name


def _recipe(selection: Selection, label_fingerprint: str) -> str:
    upstream = {"selection": selection.fingerprint, "labels": label_fingerprint}
    return fingerprint("release", VERSION, {}, upstream=upstream | dict(selection.metric_fingerprints)).value


def _unnamed_version(lake: Lake, name: str, recipe: str, inputs: Mapping[str, int]) -> int | None:
    """The version that an earlier attempt at this very release has committed, if all is still as it was.

    Of an older version that no release names, of `dataset` or of what it was made from, maintenance may be
    removing the files.
    """
    made = {"release": name, "recipe": recipe, "inputs": json.dumps(inputs)}
    for commit in lake.table("dataset").history(1):
        if all(commit.get(f"posedreamer.{key}") == value for key, value in made.items()):
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
        *(
            part(table, "image_id", [f.name for f in METRICS[name]], selection.metric_fingerprints[table])
            for name, table in _metrics(selection).items()
        ),
        part("labels", "sample_id", [f.name for f in LABEL_COLUMNS], label_fingerprint),
    ]
    table = lake.table("dataset")
    for place, rows in enumerate(join(parts)):
        for name, value in constants.items():
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        for field in DATASET:
            if field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        yield table.write(rows.select(DATASET.names), place)


def _metrics(selection: Selection) -> dict[str, str]:
    """Tables of the metrics that the release has columns of, by name."""
    tables = {name: f"metrics_{name}" for name in METRICS}
    return {name: table for name, table in tables.items() if table in selection.metric_fingerprints}


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
    lake: Lake, name: str, version: int, selection: Selection, label_fingerprint: str, parent: str | None
) -> tuple[str, str]:
    """Path and SHA-256 of the manifest.

    It vouches for the Parquet files, and their rows for images and control images: no list of millions here.
    """
    table = lake.table("dataset")
    commit = next(c for c in table.history() if c["version"] == version)
    files = table.files(version)
    with ThreadPoolExecutor(THREADS) as threads:
        digests = list(threads.map(lambda path: file_sha256(lake.store, path), files))
    facts: dict[str, Any] = {
        "release": name,
        "parent": parent,
        "rows": selection.kept,
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
        "dataset_files": dict(zip(files, digests, strict=True)),
    }
    data = json.dumps(facts, indent=1, ensure_ascii=False).encode()
    digest = hashlib.sha256(data).hexdigest()
    # Two processes that publish under one name must not overwrite each other's manifest.
    path = f"files/releases/{name}/manifest-{version}-{digest[:16]}.json"
    lake.store.write(path, data)
    return path, digest

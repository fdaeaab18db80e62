"""What maintenance has to keep: the versions that releases pin, their files, and the pictures these name."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from etl.lake import Lake
from etl.listing import Entry
from etl.parquet import open_parquet
from etl.release_events import read_states
from schemas.errors import LakeError
from schemas.tables import TABLES


@dataclass(frozen=True)
class Versions:
    """What the releases need.

    Attributes:
        pinned: versions by table; the newest of each is needed too.
        manifests: paths.
        releases: names of all releases that there ever were.
        gone: those that need nothing any more.
    """

    pinned: Mapping[str, set[int]]
    manifests: frozenset[str]
    releases: frozenset[str]
    gone: frozenset[str]


def kept_versions(lake: Lake, limit: datetime) -> Versions:
    """The versions that releases pin; one that was deleted after `limit` may be being read, and counts still.

    Raises LakeError when a manifest is missing or damaged.
    """
    deleted = read_states(lake).deleted
    rows = lake.table("releases").read().to_pylist()
    gone = {name for name, deletion in deleted.items() if deletion.at <= limit}
    pinned: defaultdict[str, set[int]] = defaultdict(set)
    manifests = set()
    for row in rows:
        if row["release"] in gone:
            continue
        pinned["dataset"].add(row["dataset_version"])
        manifests.add(row["manifest_path"])
        for table, version in _table_versions(lake, row, row["release"] in deleted).items():
            pinned[table].add(version)
    names = frozenset(row["release"] for row in rows)
    return Versions(pinned, frozenset(manifests), names, frozenset(gone))


def _table_versions(lake: Lake, release: Mapping[str, Any], deleted: bool) -> dict[str, int]:
    path = release["manifest_path"]
    try:
        data = lake.store.read(path)
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() == release["manifest_sha256"]:
        return json.loads(data)["table_versions"]
    if deleted:
        return {}
    raise LakeError(
        f"release {release['release']}: what it pins cannot be told, as its manifest {path} is missing or "
        "damaged; nothing was removed. Bring it back from a copy, or give the release up: "
        f"posedreamer release delete {release['release']}"
    )


def needed_files(lake: Lake, versions: Versions) -> dict[str, set[str]]:
    """Paths of the Parquet files of all kept versions, by table."""
    needed = {}
    for name in TABLES:
        table = lake.table(name)
        needed[name] = set(table.files()).union(*(table.files(v) for v in sorted(versions.pinned[name])))
    return needed


@dataclass(frozen=True)
class NamedFiles:
    """Files that rows name. Memory holds eight bytes for each.

    Attributes:
        hashes: (N,) uint64, sorted, of their paths. Another path with the hash of one of them counts as
            named, and is kept.
    """

    hashes: np.ndarray

    @classmethod
    def of(cls, lake: Lake, needed: Mapping[str, set[str]], table: str, column: str) -> "NamedFiles":
        """Those in a column of a table and of the releases, whose paths are nearly all in the table."""
        named = cls(_unique([_hashes_in(lake, path, column) for path in sorted(needed[table])]))
        more = (_hashes_in(lake, path, column) for path in sorted(needed["dataset"]))
        return cls(_unique([named.hashes, *(hashes[~named._has(hashes)] for hashes in more)]))

    def has(self, entries: Sequence[Entry]) -> np.ndarray:
        """(N,) bool: the files that are named."""
        return self._has(_hashes([entry.path for entry in entries]))

    def _has(self, hashes: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self.hashes, hashes)
        at[at == len(self.hashes)] = 0
        return self.hashes[at] == hashes if len(self.hashes) else np.zeros(len(hashes), bool)


def _hashes_in(lake: Lake, path: str, column: str) -> np.ndarray:
    try:
        with open_parquet(lake.store, path) as parquet:
            return _hashes(parquet.read([column]).column(column).to_pylist())
    except FileNotFoundError as error:
        raise LakeError(f"{path} is missing, so which files its rows name cannot be told") from error


def _hashes(paths: Sequence[str]) -> np.ndarray:
    return pd.util.hash_array(np.array(paths, object), categorize=False)


def _unique(hashes: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))

"""What identifies the rows of a table, so that a commit finds the same row again, and collisions of ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.parquet import DataFile
from schemas.ids import mix


@dataclass
class Keys:
    """What identifies the rows already in a table, read once a file.

    Attributes:
        seen: the files.
        keys: (N,) uint64, sorted, over all key columns: the same again is a repeat.
        ids: (M,) uint64, sorted, of the first key column alone, where the table says what it stands for.
        contents: (M,) int64, of each id: another one is a collision.
    """

    seen: set[str] = field(default_factory=set)
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    contents: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, files: Sequence[str], keys: np.ndarray, ids: np.ndarray, contents: np.ndarray) -> None:
        self.seen.update(files)
        self.keys = np.sort(np.concatenate([self.keys, keys]), kind="stable")
        ids = np.concatenate([self.ids, ids])
        order = np.argsort(ids, kind="stable")
        self.ids, self.contents = ids[order], np.concatenate([self.contents, contents])[order]

    def has(self, keys: np.ndarray) -> np.ndarray:
        """(N,) bool: the keys that are there."""
        return _find(self.keys, keys) >= 0

    def disjoint(self, keys: np.ndarray) -> bool:
        """Whether these sorted keys are all different, and none of them is there."""
        everything = np.sort(np.concatenate([self.keys, keys])) if len(self.keys) else keys
        return not (everything[1:] == everything[:-1]).any()

    def clash(self, ids: np.ndarray, contents: np.ndarray) -> np.ndarray:
        """Positions of the ids that are there with another content."""
        at = _find(self.ids, ids)
        hit = np.flatnonzero(at >= 0)
        return hit[self.contents[at[hit]] != contents[hit]]


def _find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """First position of each wanted value in the sorted known ones, -1 where it is not there."""
    at = np.searchsorted(known, wanted)
    at[at == len(known)] = 0
    return np.where(known[at] == wanted, at, -1) if len(known) else np.full(len(wanted), -1)


def row_keys(columns: pa.Table) -> np.ndarray:
    """(N,) uint64: an id as it is, or a 64-bit hash over several columns.

    It is the sum of what each column adds. The first id goes in as it is, being a hash already.
    """
    keys = np.zeros(columns.num_rows, np.uint64)
    whole = False
    for place, column in enumerate(columns.columns):
        if pa.types.is_int64(column.type) and not column.null_count and not whole:
            keys += column.to_numpy().view(np.uint64)
            whole = True
            continue
        encoded = pa.concat_arrays(column.chunks or [pa.array([], column.type)]).dictionary_encode()
        values = pd.util.hash_array(encoded.dictionary.to_numpy(False), categorize=False)
        null = mix(np.zeros(1, np.int64), "no key", place)
        hashes = np.append(mix(values.view(np.int64), "key", place), null)
        keys += hashes[pc.fill_null(encoded.indices, len(values)).to_numpy()]
    return keys


def may_hold(there: pa.Table, files: Sequence[DataFile], columns: Sequence[str]) -> np.ndarray:
    """(F,) bool: the files of a table that may hold a key of these new files, by the ranges of key columns.

    there: `get_add_actions(flatten=True)`. Without a range, a file may hold anything.
    """
    may = np.ones(there.num_rows, bool)
    stats = [json.loads(file.stats) for file in files]
    for name in columns:
        low, high = ([s[side][name] for s in stats if name in s[side]] for side in ("minValues", "maxValues"))
        if len(low) < len(stats) or not {f"min.{name}", f"max.{name}"} <= set(there.column_names):
            continue
        above = pc.greater_equal(there.column(f"max.{name}"), min(low))
        below = pc.less_equal(there.column(f"min.{name}"), max(high))
        may &= pc.fill_null(pc.and_(above, below), True).to_numpy()
    return may

"""What stands in the lake's other tables beside the rows of a release, at the versions that it pins."""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from etl.query import Release
from etl.scan import Scan
from schemas.tables import TABLES


class Wanted:
    """Different ids of a release's rows, sorted, and how many rows have each."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids, self.rows = np.unique(ids, return_counts=True)

    def places(self, ids: np.ndarray) -> np.ndarray:
        """(N,) int64: place of each id among these; -1 where it is none of them."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)


class Pinned:
    """The lake's other tables as they were when the release was made; one that was not there is empty."""

    def __init__(self, release: Release, versions: Mapping[str, int]) -> None:
        self.release, self.versions = release, versions

    def batches(
        self, table: str, columns: Sequence[str], where: pads.Expression | None = None
    ) -> Iterator[pa.Table]:
        if table in self.versions:
            yield from Scan(self.release.lake.table(table), self.versions[table]).batches(columns, where)

    def matches(
        self, table: str, columns: Sequence[str], wanted: Wanted, where: pads.Expression | None = None
    ) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Rows of a table that the release wants, and their places; the key is the table's own."""
        key = TABLES[table].key[0]
        for rows in self.batches(table, list(dict.fromkeys([key, *columns])), where):
            at = wanted.places(rows.column(key).to_numpy())
            if (at >= 0).any():
                yield rows.filter(pa.array(at >= 0)), at[at >= 0]

    def once(
        self, table: str, columns: Sequence[str], wanted: Wanted, where: pads.Expression | None = None
    ) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """The same with each id once, and how many rows of the release it stands for.

        An id stands for what the row says, so of two rows with one id any will do.
        """
        seen = np.zeros(len(wanted.ids), bool)
        for rows, at in self.matches(table, columns, wanted, where):
            first = np.unique(at, return_index=True)[1]
            first = np.sort(first[~seen[at[first]]])
            seen[at[first]] = True
            yield rows.take(pa.array(first)), wanted.rows[at[first]]

    def contents(self, table: str, wanted: Wanted) -> np.ndarray:
        """Ids of all files that the wanted rows were read from, sorted."""
        found = [np.empty(0, np.int64)]
        for rows, _ in self.matches(table, ["content_id"], wanted):
            found.append(np.unique(rows.column("content_id").drop_null().to_numpy()))
        return np.unique(np.concatenate(found))

    def ingredients(self, prints: Mapping[str, str]) -> dict[str, dict[str, object]]:
        """What fingerprints stand for, by the name that the manifest gives each."""
        where = pc.field("fingerprint").isin(list(prints.values()))
        known: dict[str, dict[str, object]] = {}
        for rows in self.batches("fingerprints", ["fingerprint", "ingredients"], where):
            known |= {r["fingerprint"]: json.loads(r["ingredients"]) for r in rows.to_pylist()}
        return {name: {"fingerprint": value, **known.get(value, {})} for name, value in prints.items()}

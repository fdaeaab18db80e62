"""Reads published releases: columns and conditions are pushed down to the files."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.release_events import States, read_states, unknown_release
from schemas.errors import DeprecatedRelease, InputError
from schemas.smplx_params import SMPLX_PARAMS
from schemas.tables import DATASET
from schemas.where import parse_where
from schemas.yaml_file import did_you_mean

if TYPE_CHECKING:
    from etl.lake import Lake

Where: TypeAlias = str | pc.Expression | None
"""A text such as "oks >= 0.8 and source in ('amass', 'demo')", an Arrow expression, or no condition."""


@dataclass(frozen=True)
class Release:
    """One published release: a version of the table `dataset` that never changes.

    Attributes:
        name: semantic version.
        dataset_version: version of the Delta table `dataset` that holds exactly this release's rows.
        rows: their number; also `len(release)`.
        parent: the release that it follows.
        tags, deprecated: its tags, and why it is deprecated, when it was opened.
    """

    lake: "Lake"
    name: str
    dataset_version: int
    rows: int
    policy: str
    selection: str
    manifest_path: str
    manifest_sha256: str
    notes: str | None
    created_at: pd.Timestamp
    parent: str | None = None
    tags: tuple[str, ...] = ()
    deprecated: str | None = None

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"Release({self.name!r}, rows={self.rows}, lake={self.lake.url!r})"

    @property
    def columns(self) -> list[str]:
        """Names of all columns; `release.schema` says what they hold."""
        return list(DATASET.names)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema; units and meaning are in the fields' metadata."""
        return DATASET

    def manifest(self) -> dict[str, Any]:
        """What the release was made of: policy, fingerprints, software, SHA-256 of every file."""
        return json.loads(self.lake.store.read(self.manifest_path))

    def to_arrow(
        self, columns: Sequence[str] | None = None, where: Where = None, limit: int | None = None
    ) -> pa.Table:
        """Rows by source, those with the highest OKS first; label arrays are fixed-size lists.

        Raises InputError for an unknown column and ConfigError for a wrong condition.
        """
        names = self._known(columns)
        condition = parse_where(where, DATASET) if isinstance(where, str) else where
        dataset = self.lake.table("dataset").dataset(self.dataset_version)
        if limit is None:
            return dataset.to_table(columns=names, filter=condition)
        if limit < 0:
            raise InputError(f"limit is {limit}; it is the number of rows to read at the most")
        return dataset.scanner(columns=names, filter=condition).head(limit)

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        where: Where = None,
        limit: int | None = None,
        arrays: Literal["list", "numpy"] = "list",
    ) -> pd.DataFrame:
        """Rows as a dataframe.

        arrays: what a label array is in its column. `list`: Arrow lists, cheap; `numpy`: one float32
        array a row, a view of one (N, k) array; a NULL list is None.
        """
        if arrays not in ("list", "numpy"):
            raise InputError(f"arrays is {arrays!r}; it is list or numpy")
        rows = self.to_arrow(columns, where, limit)
        lists = [f.name for f in rows.schema if pa.types.is_fixed_size_list(f.type)]
        if arrays == "list":
            return rows.to_pandas(
                types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_nested(kind) else None
            )
        frame = rows.drop_columns(lists).to_pandas()
        views = {name: _views(rows.column(name)) for name in lists}
        return frame.assign(**views)[rows.column_names]

    def array(self, column: str, where: Where = None, limit: int | None = None) -> np.ndarray:
        """One column as NumPy.

        Label arrays come in the shape of what they hold: `joints_3d` (N, 127, 3), `joints_2d` (N, 127, 2),
        `keypoints` (N, 17, 3), `body_pose` (N, 63); single values as (N,). NULL lists are rows of NaN.
        """
        return _shaped(column, self.to_arrow([column], where, limit).column(column))

    def smplx(self, where: Where = None, limit: int | None = None) -> dict[str, np.ndarray]:
        """SMPL-X parameters as (N, k) float32 arrays by name, ready for `smplx`'s forward call."""
        rows = self.to_arrow(list(SMPLX_PARAMS), where, limit)
        return {name: _matrix(rows.column(name)) for name in SMPLX_PARAMS}

    def _known(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return self.columns
        if isinstance(columns, str):
            raise InputError(f"columns is the text {columns!r}; give a list of names")
        for name in columns:
            if name not in DATASET.names:
                raise InputError(f"a release has no column {name!r}{did_you_mean(name, DATASET.names)}")
        return list(columns)


def releases(lake: "Lake") -> list[Release]:
    """All published releases but the deleted ones, oldest first."""
    states = read_states(lake)
    rows = lake.table("releases").read().sort_by("created_at").to_pylist()
    return [_release(lake, row, states) for row in rows if row["release"] not in states.deleted]


def release(lake: "Lake", name: str) -> Release:
    """One release by name or tag; warns when it is deprecated. Raises LakeError when there is none."""
    states = read_states(lake)
    found = states.tags.get(name, name)
    rows = lake.table("releases").read(where=pc.field("release") == found).to_pylist()
    if not rows or found in states.deleted:
        raise unknown_release(lake, states, name)
    if found in states.deprecated:
        said = f"release {found} is deprecated: {states.deprecated[found]}"
        warnings.warn(said, DeprecatedRelease, stacklevel=3)
    return _release(lake, rows[0], states)


def releases_frame(lake: "Lake") -> pd.DataFrame:
    """All published releases but the deleted ones as a dataframe, oldest first.

    `tags` are those of each, with spaces between; `deprecated` says why, and is None for the others.
    """
    states = read_states(lake)
    frame = lake.table("releases").read().sort_by("created_at").to_pandas()
    frame = frame[~frame["release"].isin(list(states.deleted))].reset_index(drop=True)
    tags = [" ".join(states.tags_of(name)) for name in frame["release"]]
    why = [states.deprecated.get(name) for name in frame["release"]]
    return frame.assign(tags=pd.Series(tags, dtype=object), deprecated=pd.Series(why, dtype=object))


def _release(lake: "Lake", row: dict[str, Any], states: States) -> Release:
    facts = {k: v for k, v in row.items() if k not in ("release", "created_at")}
    name, created = row["release"], pd.Timestamp(row["created_at"])
    tags, why = states.tags_of(name), states.deprecated.get(name)
    return Release(lake, name, created_at=created, tags=tags, deprecated=why, **facts)


def _shaped(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_pandas().to_numpy()
    matrix = _matrix(column)
    point = 2 if name.endswith("_2d") else 3 if name.endswith("_3d") or name == "keypoints" else None
    return matrix if point is None else matrix.reshape(len(matrix), matrix.shape[1] // point, point)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """(N, k) of a column of fixed-size lists, a copy of its own that may be written to."""
    length, kind = column.type.list_size, column.type.value_type.to_pandas_dtype()
    if not column.null_count:
        parts = [pc.list_flatten(chunk).to_numpy() for chunk in column.chunks]
        return np.concatenate([np.empty(0, kind), *parts]).reshape(-1, length)
    # Flattening leaves NULL rows out, which would shift all that follow.
    matrix = np.full((len(column), length), np.nan, kind)
    matrix[column.is_valid().to_numpy()] = pc.list_flatten(column).to_numpy().reshape(-1, length)
    return matrix


def _views(column: pa.ChunkedArray) -> pd.Series:
    cells = np.empty(len(column), object)
    valid = column.is_valid().to_numpy()
    for i, row in enumerate(_matrix(column)):
        cells[i] = row if valid[i] else None
    return pd.Series(cells, dtype=object)

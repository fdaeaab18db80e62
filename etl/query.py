"""Reads published releases: columns and conditions are pushed down to the files."""

import hashlib
import json
import reprlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.arrays import Arrays, matrix, shaped, to_frame
from etl.pictures import Pictures
from etl.release_events import States, read_states, unknown_release
from etl.scan import Scan, read_part
from etl.sql import Parameters, run_sql
from etl.store import Store
from schemas.errors import ConfigError, DeprecatedRelease, InputError, LakeError
from schemas.smplx_params import SMPLX_PARAMS
from schemas.tables import DATASET, published, subset
from schemas.where import parse_where
from schemas.yaml_file import did_you_mean

if TYPE_CHECKING:
    import dask.dataframe as dd
    from PIL import Image

    from etl.lake import Lake
    from etl.torch_dataset import RowDataset, StreamDataset, Transform

Where: TypeAlias = str | pc.Expression | None
"""A text such as "oks >= 0.8 and source in ('amass', 'demo')", an Arrow expression, or no condition."""

Ids: TypeAlias = Sequence[int] | np.ndarray | pd.Series | None
"""Image ids, in the order in which their rows are wanted; the same may come twice."""


@dataclass(frozen=True)
class Release:
    """One published release: a version of the table `dataset` that never changes.

    `Lake(path).release("1.0.0")` opens one. Its rows come by source, those with the highest OKS first.

    All methods choose rows in the same way. `where` is a text such as
    `"oks >= 0.8 and persons == 1 and source in ('amass', 'demo')"`, made of comparisons, `in`, `is None`,
    `and`, `or` and `not` (a comparison leaves NULL out), or an Arrow expression such as
    `pc.field("persons") == 1`. Only files and row groups that may hold such rows are read. Where a method
    takes `ids`, it takes image ids instead, for their rows in that order. `columns` are some of
    `release.columns`; no others are read.

    All raise InputError for an unknown column or id, ConfigError for a wrong condition, and LakeError for a
    file of the table that is gone or damaged.

    Attributes:
        name: semantic version.
        dataset_version: version of the Delta table `dataset` that holds exactly this release's rows.
        rows: their number; also `len(release)`.
        parent: the release that it follows.
        metrics: what was measured of its images is among its columns: keypoints, and what its policy reads.
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
    metrics: tuple[str, ...] = ("keypoints",)
    tags: tuple[str, ...] = ()
    deprecated: str | None = None

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"Release({self.name!r}, rows={self.rows}, lake={self.lake.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "scan"}

    @property
    def columns(self) -> list[str]:
        """Names of all columns; `release.schema` says what they hold."""
        return list(self.schema.names)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema; units and meaning are in the fields' metadata."""
        return published(self.metrics)

    @cached_property
    def scan(self) -> Scan:
        """The files behind it, opened once: a second question is answered sooner."""
        return Scan(self.lake.table("dataset"), self.dataset_version)

    def condition_on(self, where: Where) -> pc.Expression | None:
        """The condition as an Arrow expression. Raises ConfigError for a wrong one."""
        if where is None:
            return None
        if isinstance(where, str):
            try:
                return parse_where(where, self.schema)
            except ConfigError as error:
                parse_where(where, DATASET)  # raises where it is wrong for every release
                raise ConfigError(f"{error}; {self._has}") from error
        if not isinstance(where, pc.Expression):
            raise ConfigError(
                f"where: a {type(where).__name__} is no condition; give a text such as 'oks >= 0.8', or an "
                "Arrow expression"
            )
        try:
            self.schema.empty_table().filter(where)
        except (pa.ArrowException, TypeError) as error:
            raise ConfigError(f"where: {where} is no condition on a release: {error}") from error
        return where

    def manifest(self) -> dict[str, Any]:
        """What the release was made of: policy, fingerprints, software, SHA-256 of every file.

        Raises LakeError when it is gone or is not the one that was published.
        """
        try:
            data = self.lake.store.read(self.manifest_path)
        except FileNotFoundError:
            raise LakeError(f"release {self.name}: its manifest {self.manifest_path} is gone") from None
        if hashlib.sha256(data).hexdigest() != self.manifest_sha256:
            raise LakeError(
                f"release {self.name}: {self.manifest_path} is not the manifest that was published: its "
                "SHA-256 differs"
            )
        return json.loads(data)

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        where: Where = None,
        limit: int | None = None,
        *,
        ids: Ids = None,
    ) -> pa.Table:
        """Rows as an Arrow table; label arrays are fixed-size lists of float32.

        limit: the number of rows to read at the most, the first of those that `where` lets through.
        """
        names = self._known(columns)
        if limit is not None and limit < 0:
            raise InputError(f"limit is {limit}; it is the number of rows to read at the most")
        if ids is None:
            return self.scan.to_table(names, self.condition_on(where), limit)
        if where is not None:
            raise InputError("ids and where were both given; ids alone name the rows")
        return self._by_id(names, ids, limit)

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        where: Where = None,
        limit: int | None = None,
        arrays: Arrays = "list",
        *,
        ids: Ids = None,
    ) -> pd.DataFrame:
        """Rows as a dataframe.

        arrays: what a label array is in its column. `list`: Arrow lists, cheap; `numpy`: one float32 array a
        row, a view of one (N, k) array; a NULL list is None.
        """
        return to_frame(self.to_arrow(columns, where, limit, ids=ids), arrays)

    def array(
        self, column: str, where: Where = None, limit: int | None = None, *, ids: Ids = None
    ) -> np.ndarray:
        """One column as NumPy.

        Label arrays come in the shape of what they hold: `joints_3d` (N, 127, 3), `joints_2d` (N, 127, 2),
        `keypoints` (N, 17, 3), `body_pose` (N, 63); single values as (N,). NULL lists are rows of NaN.
        """
        return shaped(column, self.to_arrow([column], where, limit, ids=ids).column(column))

    def sql(self, query: str, parameters: Parameters = None, arrays: Arrays = "list") -> pd.DataFrame:
        """What one SELECT of DuckDB's SQL answers; the release is the table `release`.

        Every other table of the lake goes by its name, at the version that the release was made from:

            release.sql("select source, count(*) n, median(oks) oks from release group by source")
            release.sql("select oks, steps from release join images using (image_id) where persons = 1")

        parameters: values for `?` or `$name` in the query. arrays: as in `to_pandas`.

        SQL reads these tables and nothing else: no file, no address, no variable. Raises ConfigError for
        wrong SQL, for anything but one SELECT, and where DuckDB (the extra `sql`) is not installed.
        """
        return to_frame(run_sql(self, query, parameters), arrays)

    def dask(self, columns: Sequence[str] | None = None, where: Where = None) -> "dd.DataFrame":
        """Rows as a Dask dataframe in Arrow types, a partition a file; files without wanted rows have none.

        Nothing but the log is read before it is computed, on the workers of any scheduler.
        """
        import dask.dataframe as dd

        names, condition = self._known(columns), self.condition_on(where)
        meta = subset(DATASET, names).empty_table().to_pandas(types_mapper=pd.ArrowDtype)
        files = self.scan.files(condition)
        if not files:
            return dd.from_pandas(meta, npartitions=1)
        return dd.from_map(
            _read_frame, files, columns=names, store=self.lake.store, condition=condition, meta=meta
        )

    def images(
        self,
        ids: Ids = None,
        *,
        where: Where = None,
        limit: int | None = None,
        check: bool = False,
    ) -> Pictures:
        """The photographs as PIL images, each opened when it is indexed: `release.images(ids)[0]`.

        check: compare each file's SHA-256 with the published one. What is wrong with a file is said when it
        is indexed, by a RowError that names it.
        """
        rows = self.to_arrow(["image_id", "image_path", "image_sha256"], where, limit, ids=ids)
        found, paths, sha256 = (rows.column(i).to_pylist() for i in range(3))
        return Pictures(self.lake.store, found, paths, sha256 if check else None)

    def smplx(
        self, ids: Ids = None, *, where: Where = None, limit: int | None = None
    ) -> dict[str, np.ndarray]:
        """SMPL-X parameters as (N, k) float32 arrays by name; camera space, radians and metres.

        The `smplx` package takes them as they are, and its joints are then `joints_3d`:

            smplx.create("models", "smplx", batch_size=len(ids), use_pca=False, flat_hand_mean=True,
                         **release.smplx(ids))()

        The column `gender` says which of the body models a row is for.
        """
        rows = self.to_arrow(list(SMPLX_PARAMS), where, limit, ids=ids)
        return {name: matrix(rows.column(name)) for name in SMPLX_PARAMS}

    def show(self, n: int = 12, where: Where = None, *, columns: int = 4, tile: int = 160) -> "Image.Image":
        """A contact sheet of `n` rows, spread evenly over those that `where` lets through.

        Each is its control image, its photograph and the detected keypoints over caption and OKS. columns:
        samples side by side; tile: size of one picture, pixels.
        """
        from etl.sheet import release_sheet, spread

        found = self.to_arrow(["image_id"], where).column("image_id").to_numpy()
        if n < 1 or not len(found):
            raise InputError(
                f"nothing to show: {len(found)} rows of release {self.name} were found, n is {n}"
            )
        return release_sheet(self, found[spread(n, len(found))], columns, tile)

    def torch(
        self,
        columns: Sequence[str] | None = None,
        where: Where = None,
        transform: "Transform | None" = None,
        *,
        iterable: bool = False,
        images: bool = True,
        shuffle: bool = False,
        seed: int = 0,
    ) -> "RowDataset | StreamDataset":
        """A `torch.utils.data.Dataset` of samples, decoded where a DataLoader's workers run.

        A sample is a dictionary: `image`, a uint8 tensor (H, W, 3), RGB; and each column by name, label
        arrays in their shapes (`joints_3d` float32 (127, 3)), numbers as tensors of no dimension in the
        column's type, texts as `str`. A missing measurement is NaN.

        Args:
            columns: by default `image_id` and all label arrays.
            transform: called with every sample in the worker, and what it returns is the sample: the place to
                crop and augment image and labels together. A function of a module, if workers are to be
                started other than by fork.
            iterable: False: rows by index, for a DataLoader's own shuffling and samplers. The chosen columns
                are laid out in a temporary file that all workers map, so memory does not grow with rows.
                True: rows as a stream from the table's files, which starts at once and takes no disk space.
            images: False leaves `image` out and reads no image file.
            shuffle: for the stream: another order every epoch, by `seed`; rows of eight row groups are mixed.
                Call the dataset's `set_epoch(n)` before every epoch.

        A stream is divided among the workers of a DataLoader and the ranks of `torch.distributed` (if it is
        initialised before this call) so that together they see each row once; shares differ by one row at the
        most. Rows by index are divided by the DataLoader, and among ranks by its `DistributedSampler`.
        """
        from etl.torch_dataset import Decoder, RowDataset, StreamDataset

        names = _tensor_columns() if columns is None else self._known(columns)
        condition, decoder = self.condition_on(where), Decoder(self.lake.store, names, transform, images)
        if iterable:
            return StreamDataset(self, decoder, condition, shuffle=shuffle, seed=seed)
        if shuffle:
            raise InputError(
                "rows by index are shuffled by DataLoader(shuffle=True); shuffle is for the stream"
            )
        return RowDataset(self, decoder, condition)

    def _by_id(self, names: list[str], ids: Ids, limit: int | None) -> pa.Table:
        wanted = np.asarray(ids)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind != "i"):
            raise InputError(f"ids is {reprlib.repr(ids)}; it is a list of image ids, whole numbers")
        wanted = wanted[:limit].astype(np.int64)
        columns = names if "image_id" in names else [*names, "image_id"]
        rows = self.scan.to_table(columns, pc.field("image_id").isin(pa.array(np.unique(wanted), pa.int64())))
        at = pd.Index(rows.column("image_id").to_numpy()).get_indexer(pd.Index(wanted))
        if (at < 0).any():
            lacking = np.unique(wanted[at < 0])
            more = f" and {len(lacking) - 1} more of the ids" if len(lacking) > 1 else ""
            raise InputError(f"release {self.name} has no image {lacking[0]}{more}")
        return rows.select(names).take(pa.array(at))

    def _known(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return self.columns
        if isinstance(columns, str):
            raise InputError(f"columns is the text {columns!r}; give a list of names")
        there = set(self.columns)
        for name in columns:
            if name not in there:
                raise InputError(f"release {self.name} has no column {name!r}{self._instead(name)}")
        names = list(dict.fromkeys(columns))
        if len(names) < len(columns):
            raise InputError(f"columns names a column twice: {', '.join(columns)}")
        return names

    def _instead(self, name: str) -> str:
        if name in DATASET.names:
            return f"; {self._has}"
        return did_you_mean(name, self.columns)

    @property
    def _has(self) -> str:
        return (
            f"release {self.name} was published with no other metrics than {', '.join(self.metrics)}; a "
            "new one has those that its policy reads"
        )


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
    facts = {k: v for k, v in row.items() if k not in ("release", "created_at", "metrics")}
    metrics = tuple((row["metrics"] or "keypoints").split())
    name, created = row["release"], pd.Timestamp(row["created_at"])
    tags, why = states.tags_of(name), states.deprecated.get(name)
    return Release(lake, name, created_at=created, metrics=metrics, tags=tags, deprecated=why, **facts)


def _tensor_columns() -> list[str]:
    labels = [f.name for f in DATASET if pa.types.is_fixed_size_list(f.type) and not f.nullable]
    return ["image_id", *labels]


def _read_frame(path: str, columns: list[str], store: Store, condition: pc.Expression | None) -> pd.DataFrame:
    rows = read_part(store, path, None, columns, condition, DATASET)
    return rows.to_pandas(types_mapper=pd.ArrowDtype)

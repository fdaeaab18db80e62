"""Releases as PyTorch datasets: rows by index, or as a stream."""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from etl.arrays import matrix, point_shape
from etl.pictures import read_image
from etl.scan import RowGroup, read_part
from etl.store import Store
from schemas.errors import InputError, LakeError
from schemas.tables import DATASET, subset

if TYPE_CHECKING:
    from etl.query import Release

Sample: TypeAlias = dict[str, Any]
Transform: TypeAlias = Callable[[Sample], Any]

_MIXED = 8
"""Row groups whose rows a shuffled stream draws from at a time: 40,000 rows, of some hundred MB with all
label arrays. Rows of one row group are alike, as a release is sorted."""


@dataclass
class Decoder:
    """Makes samples of rows, in whichever process it is called.

    Attributes:
        names: columns of a sample.
        transform: called with every sample; None leaves it as it is.
        images: whether a sample has its image.
    """

    store: Store
    names: list[str]
    transform: Transform | None
    images: bool
    _process: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        for name in self.names:
            whole = DATASET.field(name)
            if whole.nullable and (pa.types.is_integer(whole.type) or pa.types.is_boolean(whole.type)):
                raise InputError(
                    f"column {name} can be NULL, and a tensor of {whole.type} cannot; leave it out"
                )

    @property
    def columns(self) -> list[str]:
        """Columns to read: those of a sample, and where its image is."""
        return [*self.names, *({"image_path"} - set(self.names) if self.images else ())]

    def sample(self, rows: Mapping[str, Any], at: int) -> Any:
        """One sample of `arrays_of` some rows. Raises RowError for an image file that is gone or damaged."""
        if self._process != os.getpid():
            # A file system with connections must not be shared with the process that it was forked from.
            self.store, self._process = Store(self.store.url, self.store.options), os.getpid()
        made: Sample = {}
        if self.images:
            made["image"] = torch.from_numpy(read_image(self.store, rows["image_path"][at].as_py()).copy())
        for name in self.names:
            value = rows[name][at]
            made[name] = value.as_py() if isinstance(value, pa.Scalar) else torch.tensor(value)
        return made if self.transform is None else self.transform(made)


class RowDataset(Dataset):
    """Rows by index. The columns lie in a temporary Arrow file that every process maps into its memory;
    it goes when the dataset does that made it. `TMPDIR` says where it lies."""

    def __init__(self, release: "Release", decoder: Decoder, condition: pc.Expression | None) -> None:
        self._decoder = decoder
        handle, path = tempfile.mkstemp(prefix="posedreamer-", suffix=".arrow")
        os.close(handle)
        self.path = Path(path)
        weakref.finalize(self, _remove, self.path, os.getpid())
        columns = self._decoder.columns
        sizes = [0]
        with pa.ipc.new_file(path, subset(DATASET, columns)) as file:
            for rows in release.scan.batches(columns, condition):
                file.write_table(_without_nulls(rows))
                sizes.append(rows.num_rows)
        self._ends = np.cumsum(sizes)
        self._batches: dict[int, dict[str, Any]] = {}
        self._file: Any = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, at: int) -> Any:
        place = at + len(self) if at < 0 else at
        if not 0 <= place < len(self):
            raise IndexError(f"row {at} of {len(self)}")
        batch = int(np.searchsorted(self._ends, place, "right")) - 1
        return self._decoder.sample(self._rows(batch), place - int(self._ends[batch]))

    def _rows(self, batch: int) -> dict[str, Any]:
        if batch not in self._batches:
            if self._file is None:
                try:
                    self._file = pa.ipc.open_file(pa.memory_map(str(self.path)))
                except FileNotFoundError:
                    raise LakeError(
                        f"{self.path} is gone: it lives as long as the dataset that made it, on its machine; "
                        "make the dataset here with release.torch"
                    ) from None
            self._batches[batch] = _arrays_of(pa.Table.from_batches([self._file.get_batch(batch)]))
        return self._batches[batch]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_batches": {}, "_file": None}


class StreamDataset(IterableDataset):
    """Rows as a stream, in the release's order or shuffled, divided among workers and ranks.

    Attributes:
        rank, world_size: of `torch.distributed` where and when this was made; 0 and 1 without it.
    """

    def __init__(
        self,
        release: "Release",
        decoder: Decoder,
        condition: pc.Expression | None,
        *,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self._decoder = decoder
        self._condition = condition
        self._groups = release.scan.row_groups(condition)
        self._shuffle, self._seed = shuffle, seed
        # Workers that live for several epochs see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        together = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if together else 0
        self.world_size = distributed.get_world_size() if together else 1

    def set_epoch(self, epoch: int) -> None:
        """Sets what the order of a shuffled stream depends on, besides the seed."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Rows of this rank, over all its workers."""
        begin, end = self._share(self.rank, self.world_size)
        return end - begin

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        begin, end = self._share(self.rank * workers + mine, self.world_size * workers)
        order = np.random.default_rng([self._seed, int(self._epoch)])
        groups = self._groups
        if self._shuffle:
            groups = [groups[i] for i in order.permutation(len(groups))]
        ends = np.cumsum([group.rows for group in groups])
        # Of each row group the part of its rows that falls into this share.
        parts = [
            (group, max(begin - (at - group.rows), 0), min(end - (at - group.rows), group.rows))
            for group, at in zip(groups, ends.tolist(), strict=True)
            if at > begin and at - group.rows < end
        ]
        together = _MIXED if self._shuffle else 1
        for start in range(0, len(parts), together):
            rows = pa.concat_tables([self._read(*part) for part in parts[start : start + together]])
            arrays = _arrays_of(rows.combine_chunks())
            places = order.permutation(rows.num_rows) if self._shuffle else np.arange(rows.num_rows)
            for place in places.tolist():
                yield self._decoder.sample(arrays, place)

    def _read(self, group: RowGroup, begin: int, end: int) -> pa.Table:
        columns, store = self._decoder.columns, self._decoder.store
        rows = read_part(store, group.path, [group.number], columns, self._condition, DATASET)
        return _without_nulls(rows.slice(begin, end - begin))

    def _share(self, number: int, of: int) -> tuple[int, int]:
        total = sum(group.rows for group in self._groups)
        return total * number // of, total * (number + 1) // of


def _without_nulls(rows: pa.Table) -> pa.Table:
    """Missing floats, alone and in label arrays, as NaN; missing texts as empty ones."""
    for at, whole in enumerate(rows.schema):
        column = rows.column(at)
        if not column.null_count:
            continue
        if pa.types.is_fixed_size_list(whole.type):
            values = pa.array(matrix(column).ravel(), whole.type.value_type)
            full = pa.FixedSizeListArray.from_arrays(values, type=whole.type)
        else:
            full = column.fill_null("" if pa.types.is_string(whole.type) else float("nan"))
        rows = rows.set_column(at, whole, full)
    return rows


def _arrays_of(rows: pa.Table) -> dict[str, Any]:
    """Columns as NumPy views in the shapes of samples, texts as Arrow arrays.

    rows: of one chunk a column at the most, without NULL.
    """
    made: dict[str, Any] = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        values = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        if pa.types.is_fixed_size_list(values.type):
            shape = point_shape(name, values.type)
            made[name] = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), *shape)
        elif pa.types.is_string(values.type):
            made[name] = values
        else:
            made[name] = values.to_numpy(zero_copy_only=False)
    return made


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # and not a worker that was forked from it
        path.unlink(missing_ok=True)

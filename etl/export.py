"""Writes a release in formats that others read: which rows, in what order, resumable, with checksums.

Rows go in the release's order. Every step of a format goes through them in pieces, and a piece depends on
its rows alone, so an export that was killed ends in the same bytes as one that was not.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from etl.exports import bedlam, coco, hdf5, huggingface, parquet, webdataset
from etl.exports.folder import Folder
from etl.exports.pieces import Piece, Step
from etl.query import Release
from schemas.errors import ConfigError, InputError, StageError
from schemas.tables import DATASET, subset
from schemas.yaml_file import did_you_mean

VERSION = 2
"""Raise it when a format changes: a folder that was begun before is refused."""

FORMATS: Mapping[str, tuple[Step, ...]] = {
    "webdataset": webdataset.STEPS,
    "datasets": huggingface.STEPS,
    "coco": coco.STEPS,
    "npz": bedlam.STEPS,
    "hdf5": hdf5.STEPS,
    "parquet": parquet.STEPS,
}
"""Formats by name; the module of each says what is in its files."""

_SHAPING = ("posedreamer", "numpy", "pyarrow")
"""Packages whose versions shape the bytes of every format."""


@dataclass(frozen=True)
class Export:
    """A finished export.

    Attributes:
        folder: where it is.
        rows, files, bytes: what is in it, without `SHA256SUMS` and `manifest.json`.
        fresh: False when it was complete before.
    """

    folder: Path
    rows: int
    files: int
    bytes: int
    fresh: bool


def export_release(
    release: Release,
    format: str,
    out: Path,
    *,
    where: str | None = None,
    rows: int | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Export:
    """Writes the rows of a release, or those that a condition finds, to a folder.

    Called again after it was killed, with the same arguments, it goes on. At the end `SHA256SUMS` has the
    digest of every file and `manifest.json` says what the export is of.

    Args:
        format: one of FORMATS.
        out: a folder of this machine that is new, empty or has a part of this very export.
        where: a condition such as "oks >= 0.8".
        rows: of one file of webdataset, datasets and npz.
        watch: called with the number of rows done, over all steps, and their total.

    Raises:
        ConfigError: an argument is wrong, or the folder holds something else.
        ConflictError: another process exports to the folder.
        InputError: no row meets the condition.
        LakeError: an image is missing or damaged; its name is said.
        StageError: the folder cannot be written.
    """
    steps = _steps(format, rows)
    _refuse_inside_lake(release, out)
    found = _Rows(release, where)
    if not found.total:
        raise InputError(f"no row of release {release.name} meets {where!r}: nothing to export")
    folder = Folder(out, _facts(release, format, steps, where, found.total))
    progress = _Progress(len(steps) * found.total, watch)
    try:
        with folder.opened() as complete:
            if complete:
                progress.add(progress.total)
            else:
                _write(release, steps, found, folder, progress)
            manifest = folder.manifest()
    except OSError as error:
        raise StageError(f"the export to {out} stopped: {error}; the same command goes on") from error
    return Export(out, found.total, manifest["files"], manifest["bytes"], not complete)


def _steps(format: str, rows: int | None) -> tuple[Step, ...]:
    if format not in FORMATS:
        near = did_you_mean(format, FORMATS)
        raise ConfigError(f"there is no export format {format!r}{near}; there are {', '.join(FORMATS)}")
    steps = FORMATS[format]
    for package in {step.needs for step in steps} - {None}:
        if importlib.util.find_spec(str(package)) is None:
            raise ConfigError(f"the format {format} needs {package}: pip install 'posedreamer[export]'")
    if rows is None:
        return steps
    sized = [name for name, others in FORMATS.items() if any(step.sized for step in others)]
    if format not in sized:
        raise ConfigError(f"the format {format} has no number of rows a file; {', '.join(sized)} have")
    if rows < 1:
        raise ConfigError(f"rows is {rows}; a file has at least 1")
    return tuple(replace(step, rows=rows) if step.sized else step for step in steps)


def _refuse_inside_lake(release: Release, out: Path) -> None:
    """Maintenance of a lake removes what it does not know from the folders of tables."""
    if "://" in str(out) or ":/" in str(out):
        raise ConfigError(f"{out} is a URL; an export goes to a folder of this machine")
    if release.lake.store.local and out.resolve().is_relative_to(
        Path(release.lake.store.full("lake.json")).parent.resolve()
    ):
        raise ConfigError(f"{out} is inside the lake {release.lake.url}; choose a folder outside it")


def _facts(
    release: Release, format: str, steps: Sequence[Step], where: str | None, total: int
) -> dict[str, Any]:
    packages = [*_SHAPING, *(step.needs for step in steps if step.needs)]
    return {
        "release": release.name,
        "format": format,
        "where": where,
        "rows": total,
        "rows_a_file": next((step.rows for step in steps if step.sized), None),
        "dataset_version": release.dataset_version,
        "release_manifest_sha256": release.manifest_sha256,
        "policy": release.policy,
        "export_version": VERSION,
        "software": {name: importlib.metadata.version(name) for name in packages},
    }


def _write(
    release: Release,
    steps: Sequence[Step],
    found: "_Rows",
    folder: Folder,
    progress: "_Progress",
) -> None:
    """Writes the pieces that are not there, and finishes."""
    pieces: list[str] = []
    for step in steps:
        size = min(step.rows or found.total, found.total)
        names = [f"{step.name}-{i:07d}" for i in range(-(-found.total // size))]
        # Pieces are finished one after the other, so those that are there are the first.
        first = next((i for i, name in enumerate(names) if not folder.has(name)), len(names))
        start = min(first * size, found.total)
        progress.add(start)
        schema = subset(release.schema, step.columns or release.columns)
        stream = _Stream(found.batches(schema.names, start), step.block, progress)
        for i in range(first, len(names)):
            tables = stream.take(min(size, found.total - i * size))
            piece = Piece(i, len(names), schema, tables, folder, release)
            step.write(piece)
            folder.note(names[i], piece.digests)
        pieces += names
    folder.finish(pieces)


class _Rows:
    """The rows of a release that meet a condition, in the release's order.

    Attributes:
        total: their number.
    """

    def __init__(self, release: Release, where: str | None) -> None:
        self._condition = release.condition_on(where)
        dataset = release.lake.table("dataset").dataset(release.dataset_version)
        # Row groups and not files: Arrow reads far ahead within what it is given.
        self._groups = [
            group for file in dataset.get_fragments() for group in file.split_by_row_group(schema=DATASET)
        ]
        # `count_rows` of a row group answers for its whole file (pyarrow 26).
        self._counts = [sum(map(len, self._scan(group, []))) for group in self._groups]
        self.total = sum(self._counts)

    def _scan(self, group: pads.Fragment, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return group.to_batches(schema=DATASET, columns=list(columns), filter=self._condition)

    def batches(self, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
        """The rows from `start` on; row groups that end before it are not read."""
        for group, count in zip(self._groups, self._counts, strict=True):
            if start >= count:
                start -= count
                continue
            for batch in self._scan(group, columns):
                yield batch.slice(start)
                start = max(start - batch.num_rows, 0)


@dataclass
class _Progress:
    total: int
    watch: Callable[[int, int], None]
    done: int = 0

    def add(self, rows: int) -> None:
        self.done += rows
        self.watch(self.done, self.total)


@dataclass
class _Stream:
    """Rows of a step, which one piece after the other takes from."""

    batches: Iterator[pa.RecordBatch]
    block: int
    progress: _Progress
    held: pa.Table | None = None

    def take(self, rows: int) -> Iterator[pa.Table]:
        """The next rows in tables of `block`, the last one shorter.

        A table begins where its piece or the table before it says, and is one chunk: what is written of
        it does not depend on how the lake's files are cut.
        """
        while rows:
            wanted = min(rows, self.block)
            while self.held is None or self.held.num_rows < wanted:
                more = pa.Table.from_batches([next(self.batches)])
                self.held = more if self.held is None else pa.concat_tables([self.held, more])
            yield self.held.slice(0, wanted).combine_chunks()
            self.held = self.held.slice(wanted)
            self.progress.add(wanted)
            rows -= wanted

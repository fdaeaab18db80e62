"""Reads the files of a source into `poses` or `captions`; what is refused is kept in `rejected`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, NamedTuple

import fsspec
import pyarrow as pa

from schemas.errors import ConfigError, InputError
from schemas.ids import text_hash, text_id
from schemas.source import CaptionSource, PoseSource, Rejection
from schemas.tables import SOURCES, TABLES
from udfs.udf import Apply, Udf, Worker

_SUFFIXES = {
    "poses": (".npz", ".parquet"),
    "captions": (".json", ".jsonl", ".csv", ".parquet"),
}

# What names a source or its place does not change what is read from a file.
_NO_PARAMETERS = {"path", "licence"}


class Read(NamedTuple):
    """What was read: the settings it was read with, and the files."""

    fingerprints: tuple[str, ...]
    contents: tuple[int, ...]

    @property
    def digest(self) -> str:
        return text_hash(*sorted(self.fingerprints), *self.contents).hex()


@dataclass(frozen=True, kw_only=True)
class ReadFiles(Udf):
    """One row of `sources` a file, and the poses or captions in it.

    A file that is of no use as a whole is one row of `rejected`; a file that cannot be opened fails, and
    is tried again with `--retry`.
    """

    name: ClassVar[str] = "read"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ("file_id", "source", "path", "bytes", "modified", "url")
    outputs: ClassVar[pa.Schema] = SOURCES
    batch_rows: ClassVar[int] = 1

    source: PoseSource | CaptionSource

    def parameters(self) -> Mapping[str, object]:
        return self.source.model_dump(exclude=_NO_PARAMETERS)

    def setup(self, worker: Worker) -> Apply:
        def apply(rows: pa.Table) -> dict[str, pa.Table]:
            (row,) = rows.to_pylist()
            fs, name = fsspec.core.url_to_fs(row["url"])
            return self._read(row, fs.cat_file(name))

        return apply

    def _read(self, row: dict[str, Any], data: bytes) -> dict[str, pa.Table]:
        try:
            content = self._content(data, row["path"])
        except InputError as error:
            content = _Content("", None, (Rejection(None, error.code, str(error)),), "unread", {})
        of_file = {k: row[k] for k in ("file_id", "source", "path")}
        rejected = [
            {**of_file, "row": r.row, "error_code": r.error_code, "message": r.message}
            for r in content.rejected
        ]
        sha256 = hashlib.sha256(data).hexdigest()
        content_id = text_id("content", row["source"], row["path"], sha256)
        read = {
            **of_file,
            "content_id": content_id,
            "bytes": row["bytes"],
            "modified": row["modified"],
            "sha256": sha256,
            "licence": self.source.licence,
            "kind": content.kind,
            "rows": content.rows.num_rows if content.rows is not None else 0,
            "rejected": len(rejected),
            "facts": json.dumps(content.facts, sort_keys=True),
        }
        tables = {
            "rejected": pa.Table.from_pylist(rejected, _unstamped("rejected")),
            "sources": pa.Table.from_pylist([read], _unstamped("sources")),
        }
        if content.rows is None:
            return tables
        origin = pa.array([content_id] * content.rows.num_rows, pa.int64())
        return {content.table: content.rows.append_column("content_id", origin), **tables}

    def _content(self, data: bytes, path: str) -> "_Content":
        if isinstance(self.source, PoseSource):
            from udfs.pose_files import read_pose_file

            poses = read_pose_file(data, path, self.source)
            return _Content("poses", poses.poses, poses.rejected, poses.kind, poses.facts)
        from udfs.caption_files import read_caption_file

        captions = read_caption_file(data, path, self.source)
        return _Content("captions", captions.captions, captions.rejected, captions.kind, captions.facts)


class _Content(NamedTuple):
    """What a file held; `rows` is None when it is of no use as a whole."""

    table: str
    rows: pa.Table | None
    rejected: Sequence[Rejection]
    kind: str
    facts: Mapping[str, object]


def _unstamped(table: str) -> pa.Schema:
    """The table's schema without `fingerprint`, which the stage adds."""
    return pa.schema([f for f in TABLES[table].schema if f.name != "fingerprint"])


def list_files(source: PoseSource | CaptionSource) -> pa.Table:
    """The files of a source, sorted by path: the input rows of `ReadFiles`.

    A folder is walked; other suffixes than those of the source's kinds are passed over. Raises ConfigError
    when there is nothing at the path, or nothing that could be read.
    """
    key = "poses" if isinstance(source, PoseSource) else "captions"
    fs, root = fsspec.core.url_to_fs(source.path)
    root = root.rstrip("/")
    try:
        found = fs.find(root, detail=True)
    except FileNotFoundError:
        found = {}
    single = set(found) == {root}
    suffixes = _SUFFIXES[key]
    files = {name: info for name, info in found.items() if single or name.lower().endswith(suffixes)}
    if not files:
        raise ConfigError(
            f"{key} source {source.name}: no {' or '.join(suffixes)} file at {source.path}"
            if found
            else f"{key} source {source.name}: there is no {source.path}"
        )
    rows = []
    for name, info in sorted(files.items()):
        path = PurePosixPath(name).name if single else str(PurePosixPath(name).relative_to(root))
        modified = str(next((info[k] for k in ("ETag", "etag", "mtime", "LastModified") if k in info), ""))
        rows.append(
            {
                "file_id": text_id("file", source.name, path, info["size"], modified),
                "source": source.name,
                "path": path,
                "bytes": info["size"],
                "modified": modified,
                "url": fs.unstrip_protocol(name),
            }
        )
    return pa.Table.from_pylist(rows)

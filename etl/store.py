"""The lake's files: bytes at relative paths below one fsspec URL."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow.fs as pafs
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import LakeError

_S3_NAMES = {
    "key": "AWS_ACCESS_KEY_ID",
    "secret": "AWS_SECRET_ACCESS_KEY",
    "token": "AWS_SESSION_TOKEN",
    "endpoint_url": "AWS_ENDPOINT_URL",
    "region": "AWS_REGION",
    "region_name": "AWS_REGION",
    "anon": "AWS_SKIP_SIGNATURE",
}


@dataclass(frozen=True)
class Store:
    """Where a lake is: a folder or any fsspec URL. Picklable, so workers open it too.

    Attributes:
        url: the root.
        options: fsspec's storage options, such as `key`, `secret` and `endpoint_url` of s3.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, place: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> "Store":
        """The store at a local path (made absolute) or a URL."""
        text = os.fspath(place)
        url = text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())
        return cls(url, dict(options or {}))

    def __hash__(self) -> int:
        return hash(self.url)

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        return fsspec.core.url_to_fs(self.url, **self.options)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return self._opened[0]

    @property
    def local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    @cached_property
    def arrow(self) -> pafs.FileSystem:
        """The file system for pyarrow's datasets, a native one where Arrow has it.

        Arrow's background threads still read ahead while the interpreter shuts down. When the files are
        Python objects, as deltalake's and fsspec's are, that ends some processes with an abort or a
        segmentation fault after all work is done.
        """
        if self.local:
            return pafs.LocalFileSystem()
        if self.url.startswith("s3://"):
            return pafs.S3FileSystem(**_arrow_s3(self.delta_options or {}))
        return pafs.PyFileSystem(pafs.FSSpecHandler(self.fs))

    @property
    def delta_options(self) -> dict[str, str] | None:
        """The same credentials under the names that delta-rs knows."""
        if not self.url.startswith("s3://"):
            return {k: str(v) for k, v in self.options.items()} or None
        named = {_S3_NAMES.get(k, k): str(v) for k, v in self.options.items() if not isinstance(v, dict)}
        named |= {_S3_NAMES.get(k, k): str(v) for k, v in self.options.get("client_kwargs", {}).items()}
        named.pop("client_kwargs", None)
        endpoint = named.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL", "")
        if endpoint.startswith("http://"):
            named["AWS_ALLOW_HTTP"] = "true"
        if endpoint and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & set(os.environ):
            named.setdefault("AWS_REGION", "us-east-1")
        return named or None

    def full(self, path: str) -> str:
        """The file system's own name of a relative path. Raises LakeError when it would leave the lake."""
        parts = PurePosixPath(path).parts
        if (
            not parts
            or path.startswith("/")
            or ".." in parts
            or "\\" in path
            or "://" in path
            or "\0" in path
        ):
            raise LakeError(f"path {path!r} is not a path below the lake {self.url}")
        return f"{self._opened[1].rstrip('/')}/{'/'.join(parts)}"

    def uri(self, path: str) -> str:
        """Address of a relative path for libraries that open URLs themselves."""
        self.full(path)
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        return self.fs.cat_file(self.full(path))

    def exists(self, path: str) -> bool:
        try:
            return self.fs.info(self.full(path))["type"] == "file"
        except FileNotFoundError:
            return False

    def write(self, path: str, data: bytes) -> None:
        """Writes all bytes or nothing: a local file is written aside and renamed, an object put whole."""
        full = self.full(path)
        if not self.local:
            self.fs.pipe_file(full, data)
            return
        with _aside(Path(full), data) as aside:
            aside.replace(full)

    def create(self, path: str, data: bytes) -> bool:
        """Writes as `write` does and answers True, or leaves the file that is there and answers False.

        On a local disk one of several processes wins. Elsewhere two that look at once may both write.
        """
        full = self.full(path)
        if self.exists(path):
            return False
        if not self.local:
            self.fs.pipe_file(full, data)
            return True
        with _aside(Path(full), data) as aside:
            try:
                os.link(aside, full)  # a rename would replace what is there
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links
                aside.replace(full)
        return True


@contextmanager
def _aside(target: Path, data: bytes) -> Iterator[Path]:
    """The bytes in a file beside the target, gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        aside.write_bytes(data)
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _arrow_s3(options: Mapping[str, str]) -> dict[str, Any]:
    """delta-rs's names for credentials as pyarrow's; what is not given comes from the environment."""
    named: dict[str, Any] = {
        "access_key": options.get("AWS_ACCESS_KEY_ID"),
        "secret_key": options.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": options.get("AWS_SESSION_TOKEN"),
        "region": options.get("AWS_REGION") or os.environ.get("AWS_REGION"),
        "anonymous": str(options.get("AWS_SKIP_SIGNATURE", "")).lower() == "true" or None,
    }
    endpoint = options.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        named |= {"endpoint_override": host, "scheme": scheme or "https"}
    return {k: v for k, v in named.items() if v is not None}

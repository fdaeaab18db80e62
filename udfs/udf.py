"""The shape of everything that is computed on rows."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

import pyarrow as pa

from schemas.errors import ModelError
from schemas.fingerprint import Fingerprint, fingerprint


class Files(Protocol):
    """Bytes at paths relative to the lake. Writing is atomic: a reader sees all of a file or none.

    `create` leaves a file that is there already, and answers whether it wrote.
    """

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes) -> None: ...

    def create(self, path: str, data: bytes) -> bool: ...


@dataclass(frozen=True)
class Worker:
    """What a UDF may use where it runs: a torch device, the lake's files, and what its rows are stamped with.

    Attributes:
        device: torch device string.
        files: bytes at lake-relative paths.
        fingerprint: of the stage, upstream included.
    """

    device: str
    files: Files
    fingerprint: str = ""


Rows: TypeAlias = pa.Table | dict[str, pa.Table]
"""What a batch computes: rows for the stage's table, or rows for several tables by name."""

Apply: TypeAlias = Callable[[pa.Table], Rows]


@dataclass(frozen=True, kw_only=True)
class Udf(ABC):
    """A computation on batches of rows: its dataclass fields are all its parameters.

    Class attributes:
        name, version: raise the version when the answer changes.
        inputs: columns it reads, the key of its rows first.
        outputs: columns it writes, the same key first. The stage adds `fingerprint`.
        batch_rows: rows that one call sees at the most.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[pa.Schema]
    batch_rows: ClassVar[int] = 64

    @property
    def accelerated(self) -> bool:
        """Whether it wants the worker's GPU; others never make a worker import torch."""
        return False

    def models(self) -> Mapping[str, str]:
        """Digests of the model files it computes with, by role."""
        return {}

    def parameters(self) -> Mapping[str, object]:
        """What shapes the answer. Override to leave out what does not, such as the place of a model file."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @abstractmethod
    def setup(self, worker: Worker) -> Apply:
        """Loads what it needs, once a worker process, and returns the function that maps batches.

        A row that cannot be computed: raise `schemas.errors.RowError`; the stage then halves the batch
        until it has found the row, so no UDF keeps books of its own.
        """

    def fingerprint(self, upstream: Mapping[str, str] | None = None) -> Fingerprint:
        """Covers name, version, parameters, model digests and the fingerprints it builds on."""
        return fingerprint(self.name, self.version, self.parameters(), self.models(), upstream)


def bytes_digest(data: bytes) -> str:
    """BLAKE2b (128 bits, hex), as `file_digest` has it of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """BLAKE2b (128 bits, hex) of a model file's bytes. Raises ModelError when it is missing."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

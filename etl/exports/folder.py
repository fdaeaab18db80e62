"""The folder that an export grows in: whole files under their names, and a note of every finished piece.

What is not finished lies in `.export`, which goes when the manifest is there. A file is written aside and
renamed, and a piece is noted after its files, so a process killed anywhere leaves pieces that are either
noted and whole or written again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, ConflictError

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
_STATE = ".export"


class Folder:
    """A local folder with one export in it.

    Attributes:
        path: the folder.
        facts: what makes this export another than others; JSON values.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.facts = dict(facts)
        self._state = path / _STATE

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Begins or goes on; yields whether the export is complete already.

        Raises ConfigError where the folder holds something else, ConflictError while another process
        exports to it.
        """
        if self._is_mine(self.path / MANIFEST):
            shutil.rmtree(self._state, ignore_errors=True)
            yield True
            return
        begun = self._state / "export.json"
        if not self._is_mine(begun) and self.path.exists() and not _is_empty(self.path):
            raise ConfigError(f"{self.path} is there and is no export; choose another folder")
        self._state.mkdir(parents=True, exist_ok=True)
        with _alone(self._state / "lock", self.path):
            self._write(begun, _json(self.facts))
            yield False

    def has(self, piece: str) -> bool:
        """Whether a piece is finished."""
        return (self._state / piece).exists()

    def note(self, piece: str, digests: Mapping[str, str]) -> None:
        """Says that a piece is finished; digests: SHA-256 by path of the files that it has."""
        lines = "".join(f"{digest}  {path}\n" for path, digest in digests.items())
        self._write(self._state / piece, lines.encode())

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """A place to write a file at, one at a time; it gets its name when all of it is written."""
        aside = self._state / "unfinished"
        yield aside
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(target)

    def finish(self, pieces: Sequence[str]) -> None:
        """Writes the checksums and, last of all, the manifest.

        pieces: all of them, in order. Raises ConfigError when a finished file is gone.
        """
        files, size = 0, 0
        with self.file(SUMS) as aside, aside.open("wb") as out:
            for piece in pieces:
                data = (self._state / piece).read_bytes()
                out.write(data)
                for line in data.decode().splitlines():
                    files, size = files + 1, size + self._size(line.partition("  ")[2])
        with (self.path / SUMS).open("rb") as sums:
            digest = hashlib.file_digest(sums, "sha256").hexdigest()
        manifest = {**self.facts, "files": files, "bytes": size, "sha256sums_sha256": digest}
        with self.file(MANIFEST) as aside:
            aside.write_bytes(_json(manifest))
        shutil.rmtree(self._state)

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.path / MANIFEST).read_bytes())

    def _size(self, path: str) -> int:
        try:
            return (self.path / path).stat().st_size
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self.path} has lost {path}, which was exported already; remove the folder and export again"
            ) from error

    def _is_mine(self, file: Path) -> bool:
        """Whether a file of facts is there; another export's is refused."""
        try:
            found = json.loads(file.read_bytes())
            known = found.keys() >= {"release", "format"}
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (ValueError, AttributeError):
            known = False
        if not known:
            raise ConfigError(f"{file} is no export's; choose another folder")
        other = [f"{k} {found.get(k)!r} and not {v!r}" for k, v in self.facts.items() if found.get(k) != v]
        if other:
            raise ConfigError(
                f"{self.path} has another export in it, with {', '.join(other)}; choose another folder or "
                "remove that one"
            )
        return True

    def _write(self, target: Path, data: bytes) -> None:
        aside = self._state / "note"
        aside.write_bytes(data)
        aside.replace(target)


def _is_empty(path: Path) -> bool:
    """Whether there is no more than what a process leaves that is killed when it begins."""
    return path.is_dir() and all(entry.name == _STATE for entry in path.iterdir())


def _json(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n"


@contextmanager
def _alone(lock: Path, folder: Path) -> Iterator[None]:
    """Keeps a second process out; the system lets go of it when a process ends, however it ends."""
    import fcntl

    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(f"another process exports to {folder} right now") from error
        yield

"""A lake: Delta tables and files below one folder or URL."""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etl.store import Store
from etl.table import LakeTable
from schemas.errors import LakeError
from schemas.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

    from etl.query import Release

_MARKER = "lake.json"
FORMAT = 1


class Lake:
    """Opens a lake for reading and writing.

    Args:
        place: a folder or an fsspec URL such as `s3://bucket/lake`.
        options: fsspec storage options; environment variables work too.

    Raises:
        LakeError: there is no lake at the place.
    """

    def __init__(self, place: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> None:
        self.store = Store.at(place, options)
        marker = _marker(self.store)
        if marker is None:
            raise LakeError(
                f"{self.store.url} is not a lake (it has no {_MARKER}); `posedreamer run` makes one"
            )
        try:
            found = json.loads(marker)["format"]
        except (ValueError, TypeError, KeyError) as error:
            raise LakeError(f"{self.store.url}: {_MARKER} is damaged: {error!r}") from error
        if found != FORMAT:
            raise LakeError(f"{self.store.url} has lake format {found}, this software reads {FORMAT}")
        self._tables: dict[str, LakeTable] = {}

    @classmethod
    def create(cls, place: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> "Lake":
        """Opens the lake at the place, after making it when there is none.

        Raises LakeError when the place holds something else, or cannot be written.
        """
        store = Store.at(place, options)
        if _marker(store) is None:
            root = store.full(_MARKER).rsplit("/", 1)[0]
            if store.fs.exists(root) and any(map(_is_content, store.fs.ls(root, detail=False))):
                raise LakeError(f"{store.url} is not empty and not a lake; choose another place")
            try:
                store.write(_MARKER, json.dumps({"format": FORMAT, "software": "posedreamer"}).encode())
            except Exception as error:  # every file system has errors of its own
                raise LakeError(f"no lake can be made at {store.url}: {error}") from error
        return cls(place, options)

    @staticmethod
    def is_at(place: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> bool:
        """Whether there is a lake at the place."""
        return _marker(Store.at(place, options)) is not None

    @property
    def url(self) -> str:
        return self.store.url

    def table(self, name: str) -> LakeTable:
        """One of the lake's tables; `Lake.tables()` lists those that hold rows."""
        if name not in self._tables:
            self._tables[name] = LakeTable(self.store, name)
        return self._tables[name]

    def tables(self) -> dict[str, int]:
        """Names of the tables that exist, with their newest version."""
        versions = {name: self.table(name).version() for name in TABLES}
        return {name: version for name, version in versions.items() if version is not None}

    def releases(self) -> "pd.DataFrame":
        """All published releases, oldest first."""
        from etl.query import releases_frame

        return releases_frame(self)

    def release(self, name: str) -> "Release":
        """A published release by name, to read. Raises LakeError when there is none of that name."""
        from etl.query import release

        return release(self, name)

    def __repr__(self) -> str:
        return f"Lake({self.url!r})"


def _marker(store: Store) -> bytes | None:
    """What says that there is a lake; None where there is none. A place out of reach is no empty place."""
    try:
        return store.read(_MARKER)
    except FileNotFoundError:
        return None
    except Exception as error:  # every file system has errors of its own
        raise LakeError(f"{store.url} cannot be read: {error}") from error


def _is_content(path: str) -> bool:
    """Whether a file is more than what a killed process leaves of the marker."""
    return not path.rsplit("/", 1)[-1].startswith(f".{_MARKER}.")

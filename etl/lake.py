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
        try:
            found = json.loads(self.store.read(_MARKER))["format"]
        except FileNotFoundError as error:
            raise LakeError(
                f"{self.store.url} is not a lake (it has no {_MARKER}); `posedreamer run` makes one"
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise LakeError(f"{self.store.url}: {_MARKER} is damaged: {error!r}") from error
        if found != FORMAT:
            raise LakeError(f"{self.store.url} has lake format {found}, this software reads {FORMAT}")
        self._tables: dict[str, LakeTable] = {}

    @classmethod
    def create(cls, place: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> "Lake":
        """Opens the lake at the place, after making it when there is none.

        Raises LakeError when the place holds something else.
        """
        store = Store.at(place, options)
        if not store.exists(_MARKER):
            root = store.full(_MARKER).rsplit("/", 1)[0]
            if store.fs.exists(root) and store.fs.ls(root):
                raise LakeError(f"{store.url} is not empty and not a lake; choose another place")
            store.write(_MARKER, json.dumps({"format": FORMAT, "software": "posedreamer"}).encode())
        return cls(place, options)

    @staticmethod
    def is_at(place: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> bool:
        """Whether there is a lake at the place."""
        return Store.at(place, options).exists(_MARKER)

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

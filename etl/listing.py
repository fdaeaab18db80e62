"""What lies in a folder of the lake, as the file system says now."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from etl.store import Store

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class Entry:
    """A file or a folder.

    Attributes:
        path: relative to the lake.
        size: bytes; 0 of a folder.
        modified: when it was last written; a folder's tells nothing.
    """

    path: str
    size: int
    modified: datetime
    folder: bool

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def since(self, time: datetime | None) -> "Entry":
        """The same as if it was modified at that time, where that is later."""
        return self if time is None else replace(self, modified=max(self.modified, time))


def listed(store: Store, folder: str) -> list[Entry]:
    """Files and folders in a folder, by name; none where there is no such folder. "" is the lake itself."""
    root = store.full(f"{folder}/x" if folder else "x").rsplit("/", 1)[0]
    try:
        # An object store's listing is kept from one call to the next unless told otherwise.
        found = store.fs.ls(root, detail=True, refresh=True)
    except FileNotFoundError:
        return []
    entries = []
    for info in found:
        full = info["name"].rstrip("/")
        if full.strip("/") == root.strip("/"):  # an empty object that stands for the folder
            continue
        is_folder = info["type"] == "directory"
        name = full.rsplit("/", 1)[-1]
        path = f"{folder}/{name}" if folder else name
        when = datetime.fromtimestamp(0, UTC) if is_folder else _modified(store, path, info)
        entries.append(Entry(path, 0 if is_folder else int(info["size"] or 0), when, is_folder))
    return sorted(entries, key=lambda entry: entry.path)


def modified_now(store: Store, path: str) -> datetime:
    """When a file was last written. Raises FileNotFoundError."""
    return _modified(store, path, store.fs.info(store.full(path), refresh=True))


def _modified(store: Store, path: str, info: Mapping[str, Any]) -> datetime:
    found = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if found is None:
        found = store.fs.modified(store.full(path))
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    time = datetime.fromisoformat(found) if isinstance(found, str) else found
    return time if time.tzinfo else time.replace(tzinfo=UTC)

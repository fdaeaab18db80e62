"""Proves that a release still is what was published: manifest, table version and every byte of every file."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from etl.lake import Lake
from etl.query import Release
from schemas.errors import LakeError

_THREADS = 8


@dataclass(frozen=True)
class Fault:
    """A file of a release that is not what was published."""

    path: str
    what: str


def verify_release(
    lake: Lake, name: str, watch: Callable[[int, int], None] = lambda done, total: None
) -> list[Fault]:
    """Everything wrong with a release; empty when it is intact.

    watch: called with the number of files checked and their total. Raises LakeError when there is no
    release of that name.
    """
    release = lake.release(name)
    try:
        data = lake.store.read(release.manifest_path)
    except FileNotFoundError:
        return [Fault(release.manifest_path, "the manifest is missing")]
    if hashlib.sha256(data).hexdigest() != release.manifest_sha256:
        return [Fault(release.manifest_path, "the manifest is not the one that was published")]
    manifest = json.loads(data)
    files: dict[str, str] = manifest["dataset_files"]
    rows = _check(lake, files, watch)
    if not rows:
        # What is whole can be read: whether it says the same, and where the control images are.
        rows = [Fault("dataset", what) for what in _version_faults(lake, release, files)]
    pictures: dict[str, str] = dict(manifest["image_files"])
    if not rows:
        controls = release.to_arrow(["control_path", "control_sha256"])
        pictures |= dict(zip(*(c.to_pylist() for c in controls.columns), strict=True))
    return rows + _check(lake, pictures, watch)


def _check(lake: Lake, files: Mapping[str, str], watch: Callable[[int, int], None]) -> list[Fault]:
    """Faults of the files, given the SHA-256 of each."""
    faults = []
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(lambda item: _file_fault(lake, *item), sorted(files.items()))
        for done, fault in enumerate(found, 1):
            watch(done, len(files))
            if fault:
                faults.append(fault)
    return faults


def _version_faults(lake: Lake, release: Release, files: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the version of `dataset`, its files being whole."""
    table = lake.table("dataset")
    try:
        listed = table.files(release.dataset_version)
    except LakeError as error:
        yield str(error)
        return
    if set(listed) != set(files):
        yield f"version {release.dataset_version} lists other files than were published"
        return
    rows = table.dataset(release.dataset_version).count_rows()
    if rows != release.rows:
        yield f"version {release.dataset_version} has {rows} rows and not {release.rows}"


def _file_fault(lake: Lake, path: str, sha256: str) -> Fault | None:
    try:
        data = lake.store.read(path)
    except FileNotFoundError:
        return Fault(path, "is missing")
    if hashlib.sha256(data).hexdigest() != sha256:
        return Fault(path, "is not the file that was published: its SHA-256 differs")
    return None

"""Proves that a release still is what was published: manifest, table versions, every byte of every file."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from etl.lake import Lake
from etl.parquet import named_sha256, open_parquet
from etl.query import Release
from etl.store import Store
from schemas.errors import LakeError

THREADS = 8
_BLOCK = 1 << 22
_PICTURES = {"image_path": "image_sha256", "control_path": "control_sha256"}


@dataclass(frozen=True)
class Fault:
    """A file of a release that is not what was published."""

    path: str
    what: str


def file_sha256(store: Store, path: str) -> str:
    """SHA-256 of a file of any size, block by block. Raises FileNotFoundError."""
    digest = hashlib.sha256()
    with store.fs.open(store.full(path), "rb", block_size=_BLOCK) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def verify_release(
    lake: Lake, name: str, watch: Callable[[int, int], None] = lambda done, total: None
) -> list[Fault]:
    """Everything wrong with a release; empty when it is intact.

    The manifest vouches for the release's Parquet files, and the rows of those for images and control
    images: a picture that only a damaged Parquet file names is not looked at. The files of the other tables,
    at the versions that the manifest pins, are named by the SHA-256 of their bytes.

    watch: called with the number of files checked and their total. Raises LakeError when there is no
    release of that name.
    """
    release = lake.release(name)
    try:
        manifest = release.manifest()
    except LakeError as error:
        return [Fault(release.manifest_path, str(error))]
    files: dict[str, str] = manifest["dataset_files"]
    with ThreadPoolExecutor(THREADS) as threads:
        lacking, pinned = _pinned_files(lake, manifest["table_versions"], threads)
        done, total = 0, len(files) + len(pinned) + len(_PICTURES) * release.rows

        def check(wanted: Iterable[tuple[str, str]]) -> Iterator[Fault]:
            nonlocal done
            for fault in threads.map(lambda item: _file_fault(lake, *item), wanted):
                done += 1
                watch(done, total)
                if fault:
                    yield fault

        faults = list(check(sorted(files.items())))
        if not faults:
            # What is whole can be read: whether it says the same.
            faults += [Fault("dataset", what) for what in _version_faults(lake, release, files)]
        damaged = {fault.path for fault in faults}
        faults += lacking
        faults += check(pinned)
        for path in sorted(files.keys() - damaged):
            with open_parquet(lake.store, path) as parquet:
                rows = parquet.read([*_PICTURES, *_PICTURES.values()])
            for column, digest in _PICTURES.items():
                found = (rows.column(c).to_pylist() for c in (column, digest))
                faults += check(zip(*found, strict=True))
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


def _pinned_files(
    lake: Lake, versions: Mapping[str, int], threads: ThreadPoolExecutor
) -> tuple[list[Fault], list[tuple[str, str]]]:
    """The pinned versions' files that are not there or have another size, and the others with their SHA-256.

    A file whose name does not tell it, from an older version of this software, is not among the others.
    """
    faults, others = [], []
    for name, version in versions.items():
        try:
            files = lake.table(name).described(version)
        except LakeError as error:
            faults.append(Fault(name, str(error)))
            continue
        sizes = list(threads.map(lambda path: _size(lake.store, path), files["path"]))
        for path, size, published in zip(files["path"], sizes, files["size_bytes"], strict=True):
            if size is None:
                what = f"is missing: version {version} of {name}, which the release pins, has it"
                faults.append(Fault(path, what))
            elif size != published:
                faults.append(Fault(path, f"has {size} bytes and not {published}"))
            elif (digest := named_sha256(path)) is not None:
                others.append((path, digest))
    return faults, others


def _size(store: Store, path: str) -> int | None:
    try:
        return store.fs.info(store.full(path))["size"]
    except FileNotFoundError:
        return None


def _file_fault(lake: Lake, path: str, sha256: str) -> Fault | None:
    try:
        found = file_sha256(lake.store, path)
    except FileNotFoundError:
        return Fault(path, "is missing")
    except OSError as error:
        return Fault(path, f"cannot be read: {error}")
    if found != sha256:
        return Fault(path, "is not the file that was published: its SHA-256 differs")
    return None

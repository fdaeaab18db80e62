"""Keeps a lake tidy while others read and write it: compaction, vacuum, and the sweep of what crashes left.

A file goes only when no kept version of any table names it, and when it has been of no use for longer than
the age: since it was written, or since it was taken out of its table. A running process names files that
it wrote within the age, and a running reader files that were in a table within it; so both are let alone.
"""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from etl.compact import bundles, compact
from etl.lake import Lake
from etl.listing import Entry, listed, modified_now
from etl.needed import NamedFiles, Versions, kept_versions, needed_files
from schemas.tables import TABLES

AGE = timedelta(days=7)
_THREADS = 8

What: TypeAlias = Literal["compact", "vacuum", "sweep", "unknown"]

_STAGING = re.compile(r"\..+\.[0-9a-f]{32}\.tmp|.+#\d+")
"""What a killed writer leaves: of `Store.write`, and of delta-rs."""
_PARQUET = re.compile(r"part-(\d+-)?[0-9a-f]{32}(-[0-9a-f]{64})?\.parquet")
_LOG = re.compile(r"\d{20}\.[^#]+|_last_checkpoint")
_PICTURE = re.compile(r"[0-9a-f]{16}\.(jpg|png)")
_PLAN = re.compile(r"captions-[0-9a-f]+\.arrow|files-[0-9a-f]{16}\.json")
_REFERENCES = re.compile(r"poses-[0-9a-f]+\.arrow")
_MODEL = re.compile(r"[^.#][^#]*")
_MANIFEST = r"manifest-.+\.json"
_CARD = r"card.*\.(md|html)"
_FOLDERS = {f"files/{name}" for name in ("images", "controls", "plan", "releases", "mining")}


@dataclass
class Finding:
    """Files of one folder that maintenance does the same with.

    Attributes:
        what: `compact`: small files that become few large ones; `vacuum`: files of versions that nobody
            keeps; `sweep`: what no row names; `unknown`: of an origin that nobody here knows, left alone.
        place: folder, relative to the lake.
        files, bytes: of them; of an unknown folder neither is known, and it counts as one file.
        example: path of one.
    """

    what: What
    place: str
    files: int
    bytes: int
    example: str

    @property
    def frees(self) -> int:
        """Bytes that are free afterwards; compaction's old files are vacuumed when they are old enough."""
        return self.bytes if self.what in ("vacuum", "sweep") else 0


def maintain(lake: Lake, *, older_than: timedelta = AGE, apply: bool = False) -> list[Finding]:
    """Tidies the lake, or says what that would do.

    Every version that a release pins stays readable, and so does the newest of every table. Safe next to
    readers and writers, as long as none of them takes longer than the age from writing a file to committing
    it, or from opening a version to reading it.

    Args:
        older_than: the age.
        apply: do it; else nothing is written or removed.

    Raises:
        LakeError: what has to be kept cannot be told, such as by a damaged manifest; nothing was removed.
    """
    limit = datetime.now(UTC) - older_than
    versions = kept_versions(lake, limit)
    needed = needed_files(lake, versions)
    pictures = {
        "files/images": NamedFiles.of(lake, needed, "images", "image_path"),
        "files/controls": NamedFiles.of(lake, needed, "labels", "control_path"),
    }
    found = list(_compaction(lake, apply))
    with ThreadPoolExecutor(_THREADS) as threads:
        sweep = _Sweep(lake, limit, threads if apply else None)
        sweep.rest("", [e for e in listed(lake.store, "") if e.name not in {*TABLES, "files", "lake.json"}])
        sweep.rest("files", [e for e in listed(lake.store, "files") if e.path not in _FOLDERS])
        for name in TABLES:
            _table(sweep, name, needed[name])
        for folder, named in pictures.items():
            _pictures(sweep, folder, named)
        _manifests(sweep, versions)
        sweep.rest("files/plan", listed(lake.store, "files/plan"), _PLAN)
        _mining(sweep)
    return found + list(sweep.findings.values())


def _compaction(lake: Lake, apply: bool) -> Iterator[Finding]:
    for name in TABLES:
        if name == "dataset":  # each release is a version of its own, which stays as it is
            continue
        table = lake.table(name)
        made = [bundle for bundle in bundles(table) if not apply or compact(table, bundle)]
        if made:
            files, size = sum(len(b.paths) for b in made), sum(b.bytes for b in made)
            yield Finding("compact", name, files, size, made[0].paths[0])


class _Sweep:
    """Removes what is old enough, and counts.

    Args:
        limit: what was modified later stays.
        threads: what removes; None: only count.
    """

    def __init__(self, lake: Lake, limit: datetime, threads: ThreadPoolExecutor | None) -> None:
        self.lake, self.limit, self.threads = lake, limit, threads
        self.findings: dict[tuple[What, str], Finding] = {}

    def drop(self, what: What, place: str, entries: Iterable[Entry]) -> None:
        """Files of no use any more."""
        old = [entry for entry in entries if entry.modified <= self.limit]
        if self.threads is not None:
            gone = self.threads.map(self._removed, old)
            old = [entry for entry, done in zip(old, gone, strict=True) if done]
        self._note(what, place, old)

    def rest(self, place: str, entries: Iterable[Entry], known: re.Pattern[str] | None = None) -> None:
        """Files of which the known ones stay, staging files go, and all others are told of."""
        others = [e for e in entries if e.folder or known is None or not known.fullmatch(e.name)]
        staging = [not e.folder and _STAGING.fullmatch(e.name) is not None for e in others]
        self.drop("sweep", place, [e for e, is_staging in zip(others, staging, strict=True) if is_staging])
        unknown = [e for e, is_staging in zip(others, staging, strict=True) if not is_staging]
        self._note("unknown", place, unknown)

    def _removed(self, entry: Entry) -> bool:
        # A writer may have found it meanwhile and written it again, to name it in a row.
        store = self.lake.store
        try:
            if modified_now(store, entry.path) > self.limit:
                return False
            store.fs.rm_file(store.full(entry.path))
        except FileNotFoundError:
            return False
        return True

    def _note(self, what: What, place: str, entries: list[Entry]) -> None:
        if not entries:
            return
        first = entries[0].path + ("/" if entries[0].folder else "")
        found = self.findings.setdefault((what, place), Finding(what, place, 0, 0, first))
        found.files += len(entries)
        found.bytes += sum(entry.size for entry in entries)


def _table(sweep: _Sweep, name: str, needed: set[str]) -> None:
    """Parquet files that no kept version has, and those that never were in one. The log stays whole."""
    log = f"{name}/_delta_log"
    entries = listed(sweep.lake.store, log)
    sweep.rest(log, entries, _LOG)
    spare = [e for e in listed(sweep.lake.store, name) if e.path not in needed and e.path != log]
    if not spare:
        return
    added, removed = _logged(sweep.lake, entries)
    # Who opened a version before reads it still: the age counts from when the file was taken out.
    old = [e.since(removed[e.name]) for e in spare if e.name in removed]
    sweep.drop("vacuum", name, old)
    others = [e for e in spare if e.name not in added]
    sweep.drop("sweep", name, [e for e in others if _PARQUET.fullmatch(e.name) and not e.folder])
    sweep.rest(name, others, _PARQUET)


def _logged(lake: Lake, log: Iterable[Entry]) -> tuple[set[str], dict[str, datetime]]:
    """Names of all files that a table ever had, and when those were taken out that it has no more."""
    added: set[str] = set()
    removed: dict[str, datetime] = {}
    for entry in log:
        if not re.fullmatch(r"\d{20}\.json", entry.name):
            continue
        for line in lake.store.read(entry.path).splitlines():
            if line.startswith(b'{"add"'):
                name = json.loads(line)["add"]["path"]
                added.add(name)
                removed.pop(name, None)
            elif line.startswith(b'{"remove"'):
                action = json.loads(line)["remove"]
                at = action.get("deletionTimestamp", 0) / 1000
                removed[action["path"]] = datetime.fromtimestamp(at, UTC)
    return added, removed


def _pictures(sweep: _Sweep, folder: str, named: NamedFiles) -> None:
    """Pictures that no row names, a folder of them at a time: there may be millions."""
    for group in _folders(sweep, folder, r"[0-9a-f]{16}"):
        for part in _folders(sweep, group, r"[0-9a-f]{2}"):
            entries = listed(sweep.lake.store, part)
            pictures = [e for e in entries if _PICTURE.fullmatch(e.name) and not e.folder]
            spare = [e for e, is_named in zip(pictures, named.has(pictures), strict=True) if not is_named]
            sweep.drop("sweep", folder, spare)
            sweep.rest(folder, entries, _PICTURE)


def _folders(sweep: _Sweep, folder: str, pattern: str, known: re.Pattern[str] | None = None) -> list[str]:
    """Folders in a folder that has, but for known files, nothing else."""
    entries = listed(sweep.lake.store, folder)
    found = {e.path for e in entries if e.folder and re.fullmatch(pattern, e.name)}
    sweep.rest(folder, [e for e in entries if e.path not in found], known)
    return sorted(found)


def _mining(sweep: _Sweep) -> None:
    """What curriculum rounds learnt, which may be asked for again: only staging files go."""
    place = "files/mining"
    for model in _folders(sweep, place, r"oks-[0-9a-f]{16}", _REFERENCES):
        sweep.rest(model, listed(sweep.lake.store, model), _MODEL)


def _manifests(sweep: _Sweep, versions: Versions) -> None:
    """Manifests of releases that are gone, with their cards, and of attempts that came to nothing."""
    place = "files/releases"
    entries = listed(sweep.lake.store, place)
    sweep.rest(place, [e for e in entries if not (e.folder and e.name in versions.releases)])
    for folder in (e for e in entries if e.folder and e.name in versions.releases):
        gone = folder.name in versions.gone
        known = re.compile(f"{_MANIFEST}|{_CARD}")
        files = [e for e in listed(sweep.lake.store, folder.path) if e.path not in versions.manifests]
        spare = re.compile(known if gone else _MANIFEST)
        sweep.drop("sweep", folder.path, [e for e in files if spare.fullmatch(e.name) and not e.folder])
        sweep.rest(folder.path, files, known)

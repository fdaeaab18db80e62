"""What became of releases after they were published: tags, deprecations, deletions.

A row of `releases` never changes. What happens later is a numbered event in `release_events`; the state of
a release is its row and its events.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.errors import ConfigError, ConflictError, LakeError

if TYPE_CHECKING:
    from etl.lake import Lake

NO_PARENT = "none"
"""In the place of a parent's name: the release follows none."""

_TAG = r"[A-Za-z][A-Za-z0-9._-]{0,63}"
_ATTEMPTS = 50


@dataclass(frozen=True)
class Deletion:
    """When and why a release was deleted."""

    at: datetime
    reason: str | None


@dataclass(frozen=True)
class States:
    """What all events so far add up to.

    Attributes:
        events: their number.
        tags: tag to the release that it names.
        deprecated: release to the reason.
        deleted: release to its deletion.
    """

    events: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    deprecated: Mapping[str, str] = field(default_factory=dict)
    deleted: Mapping[str, Deletion] = field(default_factory=dict)

    def tags_of(self, name: str) -> tuple[str, ...]:
        """Tags of a release, sorted."""
        return tuple(sorted(tag for tag, release in self.tags.items() if release == name))


def read_states(lake: "Lake") -> States:
    """The state of all releases now. A lake made before there were events has none."""
    rows = lake.table("release_events").read().sort_by("number").to_pylist()
    tags: dict[str, str] = {}
    deprecated: dict[str, str] = {}
    deleted: dict[str, Deletion] = {}
    for row in rows:
        name, event = row["release"], row["event"]
        if event == "tag":
            tags[row["tag"]] = name
        elif event == "untag":
            tags.pop(row["tag"], None)
        elif event == "deprecate":
            deprecated[name] = row["reason"]
        else:
            deleted[name] = Deletion(row["at"], row["reason"])
            tags = {tag: release for tag, release in tags.items() if release != name}
    return States(rows[-1]["number"] + 1 if rows else 0, tags, deprecated, deleted)


def tag_release(lake: "Lake", name: str, tag: str) -> None:
    """Gives a release a second name, such as `stable`; another release that has it loses it.

    Raises ConfigError for a tag that is no word or looks like a version, LakeError for an unknown release.
    """
    if not re.fullmatch(_TAG, tag) or tag == NO_PARENT:
        raise ConfigError(
            f"tag {tag!r} is no tag; it begins with a letter, goes on with letters, digits, '.', '_' or '-', "
            f"has at most 64 of them and is not {NO_PARENT!r}"
        )

    def event(states: States) -> dict[str, object]:
        return {"release": _there(lake, states, name), "event": "tag", "tag": tag}

    _record(lake, event)


def untag_release(lake: "Lake", tag: str) -> None:
    """Takes a tag from the release that has it. Raises LakeError when none has."""

    def event(states: States) -> dict[str, object]:
        if tag not in states.tags:
            there = ", ".join(sorted(states.tags)) or "none"
            raise LakeError(f"no release is tagged {tag!r}; tags are {there}")
        return {"release": states.tags[tag], "event": "untag", "tag": tag}

    _record(lake, event)


def deprecate_release(lake: "Lake", name: str, reason: str) -> None:
    """Advises against a release: it reads as before, with a warning that says why."""
    if not reason.strip():
        raise ConfigError(f"release {name} is not deprecated without a reason; say what is wrong with it")

    def event(states: States) -> dict[str, object]:
        return {"release": _there(lake, states, name), "event": "deprecate", "reason": reason.strip()}

    _record(lake, event)


def delete_release(lake: "Lake", name: str, *, force: bool = False, reason: str | None = None) -> None:
    """Takes a release off the list for good; `posedreamer maintain` removes what it alone needs, in time.

    Its name is never used again. Raises ConfigError, unless `force`, while it is tagged or another release's
    parent; LakeError when it is not there.
    """

    def event(states: States) -> dict[str, object]:
        there = _there(lake, states, name)
        children = [
            r["release"]
            for r in lake.table("releases").read(["release", "parent"]).to_pylist()
            if r["parent"] == there and r["release"] not in states.deleted
        ]
        holds = [f"the parent of {', '.join(sorted(children))}"] if children else []
        tags = states.tags_of(there)
        holds += [f"tagged {', '.join(tags)}"] if tags else []
        if holds and not force:
            raise ConfigError(f"release {there} is {' and '.join(holds)}; --force deletes it all the same")
        return {"release": there, "event": "delete", "reason": reason}

    _record(lake, event)


def _there(lake: "Lake", states: States, name: str) -> str:
    """The release of this name, which no tag can stand for here: that may be moving."""
    if name not in lake.table("releases").read(["release"]).column(0).to_pylist() or name in states.deleted:
        raise unknown_release(lake, states, name)
    return name


def unknown_release(lake: "Lake", states: States, name: str) -> LakeError:
    """What to say of a name that no release has, or has no longer."""
    if name in states.deleted:
        gone = states.deleted[name]
        why = f": {gone.reason}" if gone.reason else ""
        return LakeError(f"release {name} was deleted on {gone.at:%Y-%m-%d}{why}")
    rows = lake.table("releases").read(["release", "created_at"]).sort_by("created_at")
    names = [n for n in rows.column("release").to_pylist() if n not in states.deleted]
    there = f"there are {', '.join(names)}" if names else "none was published yet"
    tags = f", and the tags {', '.join(sorted(states.tags))}" if states.tags else ""
    return LakeError(f"the lake {lake.url} has no release {name!r}; {there}{tags}")


def _record(lake: "Lake", event: Callable[[States], dict[str, object]]) -> None:
    """Appends the event that is made from the state it is the next of.

    Of two processes that append the same number one wins, and the other decides again on the new state.
    """
    table = lake.table("release_events")
    for _ in range(_ATTEMPTS):
        states = read_states(lake)
        row = {"number": states.events, "tag": None, "reason": None, **event(states), "at": datetime.now(UTC)}
        if table.append(pa.Table.from_pylist([row], schema=table.spec.schema)).rows:
            return
    raise ConflictError(f"{_ATTEMPTS} events in a row met another process's; run it again")

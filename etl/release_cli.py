"""`posedreamer release`: publish, look at, describe, compare, name, deprecate, delete and verify releases."""

import warnings
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from etl.display import checking, console, errors, show_funnel, show_table
from etl.options import DEFAULT_FILE, PipelineOption, PolicyOption
from schemas.errors import ConfigError, DeprecatedRelease, LakeError

if TYPE_CHECKING:
    from etl.lake import Lake
    from etl.query import Release

releases = typer.Typer(no_args_is_help=True, help="Publish, compare, name and verify releases.")

Name = Annotated[str, typer.Argument(help="name of the release, or a tag")]
OwnName = Annotated[str, typer.Argument(help="name of the release")]
_SHIFTS = 20
_QUARTILES = ["q25", "q50", "q75"]


@releases.command()
def create(
    name: Annotated[str, typer.Argument(help="a semantic version, such as 0.1.0")],
    pipeline: PipelineOption = DEFAULT_FILE,
    policy: PolicyOption = None,
    notes: Annotated[
        Path | None, typer.Option(help="a text file with your words on it", exists=True, dir_okay=False)
    ] = None,
    parent: Annotated[
        str | None, typer.Option(help="release that it follows, or none; by default the newest")
    ] = None,
    card: Annotated[bool, typer.Option(help="write its dataset card beside its manifest")] = True,
) -> None:
    """Publish what a policy keeps as the next version of the table `dataset`."""
    from etl.card_page import write_card
    from etl.lake import Lake
    from etl.run import publish, select_images
    from etl.settings import load_pipeline

    settings = load_pipeline(pipeline)
    lake = Lake(settings.lake)
    words = None if notes is None else _read_notes(notes)
    selection = select_images(lake, settings, policy)
    show_funnel(selection)
    made = publish(lake, settings, selection, name, words, parent)
    console.print(
        f"published release {made.name}: {made.rows:,} rows, dataset version {made.dataset_version}"
    )
    if card:
        console.print(f"its dataset card is {lake.url}/{write_card(made)[-1]}", soft_wrap=True)


def _read_notes(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--notes {path}: cannot be read as UTF-8 text: {error}") from error


@releases.command("list")
def list_(pipeline: PipelineOption = DEFAULT_FILE) -> None:
    """List the releases, oldest first."""
    from etl.release import list_releases

    names = ("release", "rows", "policy", "dataset version", "created (UTC)", "parent", "status", "notes")
    rows = [
        (r.name, r.rows, r.policy, r.dataset_version, _minute(r), r.parent or "-", _status(r), r.notes or "")
        for r in list_releases(_lake(pipeline))
    ]
    show_table("Releases", names, rows)


@releases.command()
def show(name: Name, pipeline: PipelineOption = DEFAULT_FILE) -> None:
    """Show what a release was made of: rows, policy, fingerprints, table versions, software."""
    import yaml

    release = _lake(pipeline).release(name)
    manifest = release.manifest()
    facts: dict[str, object] = {
        "status": _status(release),
        "created (UTC)": _minute(release),
        "parent": release.parent or "-",
        "rows": release.rows,
        "dataset version": release.dataset_version,
        "Parquet files": len(manifest["dataset_files"]),
        "manifest": release.manifest_path,
        "manifest SHA-256": release.manifest_sha256,
        "notes": release.notes or "-",
    }
    show_table(f"Release {release.name}", ("fact", "value"), list(facts.items()))
    for title, key in (
        ("Fingerprints", "fingerprints"),
        ("Table versions", "table_versions"),
        ("Software", "software"),
    ):
        show_table(title, ("name", "value"), list(manifest[key].items()))
    console.print("[bold]Policy[/]")
    console.print(yaml.safe_dump(manifest["policy"], sort_keys=False, allow_unicode=True), markup=False)


@releases.command()
def card(
    name: Name,
    pipeline: PipelineOption = DEFAULT_FILE,
    out: Annotated[
        Path | None, typer.Option(help="folder; by default beside the manifest in the lake")
    ] = None,
) -> None:
    """Write the dataset card of a release, card.md and card.html: what is in it, and where that is from."""
    from etl.card_page import write_card

    lake = _lake(pipeline)
    for path in write_card(lake.release(name), out):
        console.print(f"wrote {path if out else f'{lake.url}/{path}'}", soft_wrap=True)


@releases.command()
def diff(a: Name, b: Name, pipeline: PipelineOption = DEFAULT_FILE) -> None:
    """Compare two releases: rows added, removed and changed, why, and how their numbers shifted."""
    from etl.release_diff import REASONS, diff_releases

    found = diff_releases(_lake(pipeline), a, b)
    rows = [
        (r["change"], r["rows"], REASONS[r["reason"]], r["rule"] if isinstance(r["rule"], str) else "")
        for r in found.counts().to_dict("records")
    ]
    show_table(f"From {a} to {b}", ("change", "rows", "why", "rejected where it is absent by"), rows)
    console.print(f"{found.unchanged:,} rows are the same in both")
    if found.causes:
        show_table("What differs", ("what", "from -> to"), list(found.causes.items()))
    order = found.shifts.sort_values("ks", ascending=False, kind="stable").head(_SHIFTS)
    shifts = [
        (
            *(s[name] for name in ("column", "source", "rows_a", "rows_b")),
            *(" -> ".join(_numbers(s, names, side) for side in "ab") for names in (["mean"], _QUARTILES)),
            s["ks"],
        )
        for s in order.to_dict("records")
        if s["ks"] > 0
    ]
    names = ("column", "source", f"rows {a}", f"rows {b}", "mean", "quartiles", "KS")
    show_table("Shifts of distributions, the largest first", names, shifts)


@releases.command()
def tag(
    name: OwnName,
    tag: Annotated[str, typer.Argument(help="a second name, such as stable, which moves to this release")],
    pipeline: PipelineOption = DEFAULT_FILE,
) -> None:
    """Give a release a name that may move, such as `stable`."""
    from etl.release_events import tag_release

    tag_release(_lake(pipeline), name, tag)
    console.print(f"{tag} is release {name} now")


@releases.command()
def untag(
    tag: Annotated[str, typer.Argument(help="the tag")], pipeline: PipelineOption = DEFAULT_FILE
) -> None:
    """Take a tag away from the release that has it."""
    from etl.release_events import untag_release

    untag_release(_lake(pipeline), tag)
    console.print(f"no release is tagged {tag} any more")


@releases.command()
def deprecate(
    name: OwnName,
    reason: Annotated[str, typer.Option(help="what is wrong with it", show_default=False)],
    pipeline: PipelineOption = DEFAULT_FILE,
) -> None:
    """Advise against a release: it reads as before, with a warning that says why."""
    from etl.release_events import deprecate_release

    deprecate_release(_lake(pipeline), name, reason)
    console.print(f"release {name} is deprecated")


@releases.command()
def delete(
    name: OwnName,
    force: Annotated[
        bool, typer.Option("--force", help="even if it is tagged or another one's parent")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="why")] = None,
    pipeline: PipelineOption = DEFAULT_FILE,
) -> None:
    """Delete a release for good. Its name is never used again."""
    from etl.release_events import delete_release

    delete_release(_lake(pipeline), name, force=force, reason=reason)
    console.print(f"release {name} is deleted; `posedreamer maintain` frees what it alone needed, in time")


@releases.command()
def verify(name: Name, pipeline: PipelineOption = DEFAULT_FILE) -> None:
    """Check that every file of a release is still what was published, byte by byte."""
    from etl.verify import verify_release

    lake = _lake(pipeline)
    with checking(f"release {name}") as watch:
        faults = verify_release(lake, name, watch)
    if faults:
        show_table("Faults", ("file", "what is wrong"), [(f.path, f.what) for f in faults])
        raise LakeError(f"release {name} is damaged: {len(faults)} faults")
    console.print(f"Release {name} is intact.")


@contextmanager
def deprecations() -> Iterator[None]:
    """Says in a sentence that a deprecated release was opened; other warnings stay as they are."""
    other = warnings.showwarning

    def say(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, DeprecatedRelease):
            errors.print(f"[bold yellow]warning:[/] {escape(str(message))}", soft_wrap=True)
        else:
            other(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = say
        yield


def _lake(pipeline: Path) -> "Lake":
    from etl.lake import Lake
    from etl.settings import load_pipeline

    return Lake(load_pipeline(pipeline).lake)


def _status(release: "Release") -> str:
    said = [f"deprecated: {release.deprecated}"] if release.deprecated else []
    return "; ".join([*release.tags, *said]) or "-"


def _minute(release: "Release") -> str:
    return f"{release.created_at:%Y-%m-%d %H:%M}"


def _numbers(row: Mapping[Hashable, Any], names: list[str], side: str) -> str:
    return "/".join(f"{row[f'{name}_{side}']:.4g}" for name in names)

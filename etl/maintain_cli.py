"""`posedreamer maintain`: keep a lake tidy while others use it."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from etl.display import console, show_table
from etl.options import DEFAULT_FILE, PipelineOption
from schemas.errors import ConfigError

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LEAST = timedelta(hours=1)
_MOST = timedelta(weeks=5_200)
_SAID = {
    "compact": "small files into large ones",
    "vacuum": "files of versions that no release pins",
    "sweep": "left by crashes: no row names it",
    "unknown": "of unknown origin: left alone",
}


def maintain(
    pipeline: PipelineOption = DEFAULT_FILE,
    apply: Annotated[
        bool, typer.Option("--apply", help="do it; without this it is only said what would be done")
    ] = False,
    older_than: Annotated[
        str, typer.Option(help="age of what may go, such as 12h, 7d or 2w: longer than any run or read takes")
    ] = "7d",
) -> None:
    """Compact tables, remove files that no release and no table needs, and sweep what crashes left."""
    from etl.lake import Lake
    from etl.maintain import maintain as tidy
    from etl.settings import load_pipeline

    age = _age(older_than)
    lake = Lake(load_pipeline(pipeline).lake)
    with console.status("looking through the lake"):
        found = tidy(lake, older_than=age, apply=apply)
    rows = [(f.what, f.place or ".", f.files, _size(f.bytes), _SAID[f.what], f.example) for f in found]
    show_table("Maintenance", ("what", "where", "files", "size", "why", "such as"), rows)
    size = _size(sum(f.frees for f in found))
    if apply:
        console.print(f"Freed {size}.")
    else:
        console.print(f"Would free {size}; nothing was changed. To do it: posedreamer maintain --apply")


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if not found:
        raise ConfigError(f"--older-than {text}: no age; give hours, days or weeks, such as 12h, 7d or 2w")
    age = int(found[1]) * _UNITS[found[2]]
    if age > _MOST:
        raise ConfigError(f"--older-than {text}: that is before there were lakes; give a century or less")
    if age < _LEAST:
        raise ConfigError(
            f"--older-than {text}: a running process may be about to name files that it wrote minutes ago; "
            "give 1h or more"
        )
    return age


def _size(size: float) -> str:
    if size < 1000:
        return f"{size:,.0f} B"
    units = ["kB", "MB", "GB", "TB"]
    while (size := size / 1000) >= 1000 and len(units) > 1:
        units.pop(0)
    return f"{size:,.1f} {units[0]}"

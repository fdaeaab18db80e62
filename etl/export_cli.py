"""`posedreamer export`: a release in the formats that other tools read."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from etl.display import checking, console
from etl.options import DEFAULT_FILE, PipelineOption


def export(
    release: Annotated[str, typer.Argument(help="name of the release")],
    format: Annotated[
        Literal["webdataset", "datasets", "coco", "npz", "hdf5", "parquet"],
        typer.Option(help="what to write"),
    ],
    out: Annotated[Path, typer.Option(help="folder to write to", show_default=False)],
    where: Annotated[
        str | None, typer.Option(help='the rows to take, such as "oks >= 0.8"; by default all')
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="rows of one file of webdataset, datasets and npz", show_default=False)
    ] = None,
    pipeline: PipelineOption = DEFAULT_FILE,
) -> None:
    """Write a release for other tools, with checksums; after a stop the same command goes on."""
    from etl.export import export_release
    from etl.lake import Lake
    from etl.settings import load_pipeline

    found = Lake(load_pipeline(pipeline).lake).release(release)
    with checking(f"release {release} as {format}") as watch:
        done = export_release(found, format, out, where=where, rows=rows, watch=watch)
    if not done.fresh:
        console.print(f"{out} has this export already.", markup=False, soft_wrap=True)
    console.print(
        f"{done.rows:,} rows in {done.files:,} files, {done.bytes / 1e6:,.1f} MB. To check them: "
        f"cd {out} && sha256sum -c SHA256SUMS",
        markup=False,
        soft_wrap=True,
    )

"""The `posedreamer` command. Everything heavy is imported by the command that needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.align_cli import align, evaluate
from etl.display import (
    FAILED_ROWS,
    console,
    show_error,
    show_funnel,
    show_picks,
    show_plan,
    show_preferences,
    show_table,
    watching,
)
from etl.export_cli import export
from etl.filter_cli import filter_
from etl.maintain_cli import maintain
from etl.mine_cli import mine
from etl.options import DEFAULT_FILE, PipelineFile
from etl.release_cli import deprecations, releases
from etl.train_cli import train
from schemas.errors import ConfigError, LakeError, PosedreamerError

if TYPE_CHECKING:
    from etl.filter import Selection
    from etl.lake import Lake
    from schemas.pipeline import Pipeline

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="SMPL-X poses and captions in; a versioned dataset of labelled photographs of people out.",
)
app.add_typer(releases, name="release")
app.add_typer(filter_, name="filter")
app.add_typer(train, name="train")
app.add_typer(mine, name="mine")
app.command()(align)
app.command()(evaluate)
app.command()(maintain)
app.command()(export)


def main() -> None:
    """Runs the command line; what is wrong is said in a sentence, not in a traceback."""
    try:
        with deprecations():
            app()
    except PosedreamerError as error:
        show_error(str(error))
        raise SystemExit(1) from error


@app.command()
def init(file: PipelineFile = DEFAULT_FILE) -> None:
    """Write a commented pipeline file."""
    from etl.templates import PIPELINE

    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(PIPELINE)
    except FileExistsError as error:
        raise ConfigError(f"{file} is there already; choose another name or remove it") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no folder {file.parent}") from error
    console.print(f"wrote {file}; now: posedreamer run {file}")


@app.command()
def plan(file: PipelineFile = DEFAULT_FILE) -> None:
    """Say what a run would compute, and why, without computing it."""
    from etl.run import plan_pipeline
    from etl.settings import load_pipeline

    show_plan(plan_pipeline(load_pipeline(file)))


@app.command()
def run(
    file: PipelineFile = DEFAULT_FILE,
    retry: Annotated[
        bool, typer.Option("--retry", help="also try the rows again that failed before")
    ] = False,
    scheduler: Annotated[str | None, typer.Option(help="address of a Dask scheduler")] = None,
    workers: Annotated[int | None, typer.Option(help="worker processes on this machine", min=0)] = None,
    no_dpo: Annotated[
        bool, typer.Option("--no-dpo", help="paint without the adapter that is called dpo")
    ] = False,
    rounds: Annotated[int | None, typer.Option(help="only the first rounds of the curriculum")] = None,
) -> None:
    """Compute what is missing, from reading the sources to the release."""
    from etl.lake import Lake
    from etl.run import run_stages, select_images
    from etl.settings import load_pipeline

    pipeline = load_pipeline(file)
    given = {k: v for k, v in (("scheduler", scheduler), ("workers", workers)) if v is not None}
    if given:
        pipeline = pipeline.model_copy(update={"cluster": pipeline.cluster.model_copy(update=given)})
    if no_dpo:
        pipeline = _without_dpo(pipeline, file)
    if rounds is not None:
        pipeline = pipeline.first_rounds(rounds)
    lake = Lake.create(pipeline.lake)
    with watching() as watch:
        report = run_stages(lake, pipeline, retry=retry, watch=watch)
    if report.picked:
        show_picks(report.picked)
    if report.stages:
        rows = [
            (s.stage, s.computed, s.failed, s.computed / max(s.seconds, 1e-9), s.seconds)
            for s in report.stages
        ]
        show_table("Computed", ("stage", "rows", "failed", "rows a second", "seconds"), rows)
    else:
        console.print(f"Nothing to compute: the lake {lake.url} is up to date.")
    try:
        selection = select_images(lake, pipeline)
        show_funnel(selection)
        if pipeline.release:
            _publish_once(lake, pipeline, selection, pipeline.release)
    finally:
        # Also where they are the reason why there is nothing to select or to publish.
        if report.failed:
            _show_failures(report.failed, file)
    if report.failed:
        raise typer.Exit(FAILED_ROWS)


@app.command()
def status(file: PipelineFile = DEFAULT_FILE) -> None:
    """Say where things stand: rows of every table, failures, releases, and what is left to do."""
    from etl.lake import Lake
    from etl.run import failures_by_code, plan_pipeline
    from etl.settings import load_pipeline

    pipeline = load_pipeline(file)
    lake = Lake(pipeline.lake)
    rows = [(name, lake.table(name).count(), version) for name, version in lake.tables().items()]
    show_table(f"Lake {lake.url}", ("table", "rows", "version"), rows)
    failures = failures_by_code(lake)
    if failures:
        show_table("Failures so far", ("stage", "error", "rows", "example"), failures)
    show_plan(plan_pipeline(pipeline))


@app.command()
def preferences(
    file: PipelineFile = DEFAULT_FILE,
    policy: Annotated[
        str | None, typer.Option(help="paper or a file with a preference policy; by default paper")
    ] = None,
) -> None:
    """Choose preference pairs among images of one sample: write them and show why samples gave none."""
    from etl.lake import Lake
    from etl.run import choose_preferences
    from etl.settings import load_pipeline

    settings = load_pipeline(file)
    show_preferences(choose_preferences(Lake(settings.lake), settings, policy))


@app.command()
def sheet(
    file: PipelineFile = DEFAULT_FILE,
    out: Annotated[Path, typer.Option(help="PNG file to write")] = Path("contact_sheet.png"),
    release: Annotated[str | None, typer.Option(help="name; by default the newest release")] = None,
    n: Annotated[int, typer.Option("-n", help="number of samples", min=1, max=400)] = 24,
) -> None:
    """Draw a contact sheet of a release: control image, image and detected keypoints."""
    from etl.lake import Lake
    from etl.release import list_releases
    from etl.settings import load_pipeline
    from etl.sheet import contact_sheet

    lake = Lake(load_pipeline(file).lake)
    names = [r.name for r in list_releases(lake)]
    if not names:
        raise LakeError(f"the lake {lake.url} has no release to draw; `posedreamer release create`")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}")
    contact_sheet(lake, release=release or names[-1], n=n).save(out, "PNG")
    console.print(f"wrote {out}")


def _without_dpo(pipeline: "Pipeline", file: Path) -> "Pipeline":
    from schemas.pipeline import DPO

    without = pipeline.without_adapter(DPO)
    if without == pipeline:
        raise ConfigError(f"--no-dpo: the generator of {file} has no adapter with `name: {DPO}` to leave out")
    return without


def _publish_once(lake: "Lake", pipeline: "Pipeline", selection: "Selection", name: str) -> None:
    """Publishes under the name of the pipeline file unless that was done before."""
    from etl.card_page import write_card
    from etl.release import list_releases
    from etl.run import publish

    there = next((r for r in list_releases(lake) if r.name == name), None)
    if there is None:
        there = publish(lake, pipeline, selection, name)
        console.print(
            f"Published release {name}: {there.rows:,} rows, version {there.dataset_version} of dataset."
        )
        console.print(f"Its dataset card is {lake.url}/{write_card(there)[-1]}", soft_wrap=True)
    elif there.selection == selection.fingerprint:
        console.print(f"Release {name} is up to date.")
    else:
        console.print(
            f"Release {name} was published with another selection and never changes; give `release:` another "
            "name to publish this one."
        )


def _show_failures(failed: dict[str, int], file: Path) -> None:
    said = ", ".join(f"{count} in {stage}" for stage, count in failed.items())
    show_error(
        f"rows failed: {said}. The table `failures` says why (posedreamer status {file}); "
        f"to try them again: posedreamer run {file} --retry"
    )

"""The `posedreamer` command. Everything heavy is imported by the command that needs it."""

from pathlib import Path
from typing import Annotated

import typer

from etl.display import console, show_error, show_plan, show_table, watching
from schemas.errors import PosedreamerError

FAILED_ROWS = 3
"""Exit code of a run that ended with failed rows; 1 is an error that stopped it, 2 a wrong command line."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="SMPL-X poses and captions in; a versioned dataset of labelled photographs of people out.",
)
releases = typer.Typer(no_args_is_help=True, help="Publish and list releases.")
app.add_typer(releases, name="release")

PipelineFile = Annotated[Path, typer.Argument(help="the pipeline file")]
PipelineOption = Annotated[Path, typer.Option("--pipeline", "-p", help="the pipeline file")]
PolicyOption = Annotated[
    str | None, typer.Option(help="strict, lenient or a policy file; by default the pipeline's")
]
DEFAULT_FILE = Path("pipeline.yaml")


def main() -> None:
    """Runs the command line; what is wrong is said in a sentence, not in a traceback."""
    try:
        app()
    except PosedreamerError as error:
        show_error(str(error))
        raise SystemExit(1) from error


@app.command()
def init(file: PipelineFile = DEFAULT_FILE) -> None:
    """Write a commented pipeline file."""
    from etl.templates import PIPELINE
    from schemas.errors import ConfigError

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
) -> None:
    """Compute what is missing, from reading the sources to the release."""
    from etl.lake import Lake
    from etl.run import publish, run_stages
    from etl.settings import load_pipeline

    pipeline = load_pipeline(file)
    given = {k: v for k, v in (("scheduler", scheduler), ("workers", workers)) if v is not None}
    if given:
        pipeline = pipeline.model_copy(update={"cluster": pipeline.cluster.model_copy(update=given)})
    lake = Lake.create(pipeline.lake)
    with watching() as watch:
        report = run_stages(lake, pipeline, retry=retry, watch=watch)
    if report.stages:
        rows = [
            (s.stage, s.computed, s.failed, s.computed / max(s.seconds, 1e-9), s.seconds)
            for s in report.stages
        ]
        show_table("Computed", ("stage", "rows", "failed", "rows a second", "seconds"), rows)
    else:
        console.print(f"Nothing to compute: the lake {lake.url} is up to date.")
    published = publish(lake, pipeline)
    _show_funnel(published.selection)
    if published.release:
        console.print(published.release)
    if report.failed:
        _show_failures(report.failed, file)
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


def _show_failures(failed: dict[str, int], file: Path) -> None:
    said = ", ".join(f"{count} in {stage}" for stage, count in failed.items())
    show_error(
        f"rows failed: {said}. The table `failures` says why (posedreamer status {file}); "
        f"to try them again: posedreamer run {file} --retry"
    )

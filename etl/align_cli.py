"""`posedreamer align` and `posedreamer evaluate`: teach a model what its metrics prefer; what it gained."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from etl.display import FAILED_ROWS, console, show_error, show_preferences, show_table, training, watching
from etl.options import DEFAULT_FILE, PipelineFile
from etl.train_cli import STOPPED, stopping, training_settings
from schemas.errors import ConfigError
from schemas.pipeline import DPO
from schemas.training import DpoTraining

if TYPE_CHECKING:
    from etl.evaluate import Evaluation
    from etl.stage import Progress


OutFolder = Annotated[Path, typer.Option(help="folder of adapter, table and sheet", show_default=False)]


def align(
    out: OutFolder,
    file: PipelineFile = DEFAULT_FILE,
    candidates: Annotated[int, typer.Option(help="images of each sample to choose from")] = 4,
    held_out: Annotated[float, typer.Option(help="share to compare on, which is not learnt from")] = 0.2,
    split: Annotated[
        Literal["pose", "sequence"], typer.Option(help="what is held out: single poses or whole sequences")
    ] = "sequence",
    share: Annotated[float, typer.Option(help="of the poses to use at all")] = 1.0,
    test_seed: Annotated[
        int | None, typer.Option(help="plan seed of the comparison; by default the pipeline's plus 1")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="paper or a file with a preference policy")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of training settings; options go before it")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="training steps")] = None,
    beta: Annotated[float | None, typer.Option(help="how strongly it is held to the base")] = None,
    winner_weight: Annotated[float | None, typer.Option(help="weight of the winners' own loss")] = None,
    reference_weight: Annotated[
        float | None, typer.Option(help="weight of staying with the base at all noise levels")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="pairs of one forward pass")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="the highest of the schedule")] = None,
    rank: Annotated[int | None, typer.Option(help="of the LoRA")] = None,
    seed: Annotated[int | None, typer.Option(help="of the training")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="train on the CPU even where there is a GPU")] = False,
) -> None:
    """Make candidates, choose the preferred ones, train an adapter on them and compare it with the base."""
    from etl.align import AlignSettings
    from etl.align import align as run_alignment
    from etl.lake import Lake
    from etl.settings import load_pipeline
    from etl.side_by_side import write_evaluation

    settings = AlignSettings(candidates, held_out, split, share, test_seed, policy)
    trained = training_settings(
        DpoTraining,
        config,
        steps=steps,
        beta=beta,
        winner_weight=winner_weight,
        reference_weight=reference_weight,
        batch_size=batch_size,
        learning_rate=learning_rate,
        rank=rank,
        seed=seed,
    )
    pipeline = load_pipeline(file)
    done = run_alignment(
        pipeline,
        out,
        settings,
        trained,
        cpu=cpu,
        watching=_watching,
        tutoring=_tutoring,
        chose=show_preferences,
    )
    if done.evaluation is None or done.adapter is None:
        console.print(
            f"Stopped at step {done.training.step:,} of {trained.steps:,}; the same command goes on."
        )
        raise typer.Exit(STOPPED)
    _show(done.evaluation)
    for path in write_evaluation(Lake(pipeline.lake), done.evaluation, out):
        console.print(f"wrote {path}")
    console.print(
        "To paint with the adapter, put it under `generator` in the pipeline file:\n"
        f"  adapters: [{{name: {DPO}, path: {done.adapter.absolute()}}}]",
        markup=False,
        soft_wrap=True,
    )
    if done.failed:
        rows = ", ".join(f"{count} in {stage}" for stage, count in done.failed.items())
        show_error(f"rows failed and were left out: {rows}. The table `failures` says why")
        raise typer.Exit(FAILED_ROWS)


def evaluate(
    base: Annotated[Path, typer.Argument(help="a pipeline file that was run")],
    aligned: Annotated[Path, typer.Argument(help="one with the same lake and plan and another generator")],
    out: Annotated[Path | None, typer.Option(help="folder for the table and a side-by-side sheet")] = None,
    unit: Annotated[
        Literal["pose", "sequence"] | None,
        typer.Option(help="what the bootstrap draws; by default sequences where there are 8, else poses"),
    ] = None,
) -> None:
    """Compare the images of two pipelines that differ in their generator alone."""
    from etl.evaluate import evaluate_pipelines
    from etl.lake import Lake
    from etl.settings import load_pipeline
    from etl.side_by_side import write_evaluation

    one, other = load_pipeline(base), load_pipeline(aligned)
    if one.lake != other.lake:
        raise ConfigError(f"{base} and {aligned} have different lakes: put both generators' images in one")
    lake = Lake(one.lake)
    found = evaluate_pipelines(lake, one, other, unit)
    _show(found)
    if out is not None:
        for path in write_evaluation(lake, found, out):
            console.print(f"wrote {path}")


def _show(evaluation: "Evaluation") -> None:
    names = ("measure", "base", "aligned", "difference", "95 % interval", "n")
    show_table("Base and aligned on the same samples", names, list(evaluation.table()))
    for note in evaluation.notes():
        console.print(note)
    for line in evaluation.verdict():
        console.print(line)


@contextmanager
def _watching(name: str) -> "Iterator[Callable[[Progress], None]]":
    console.print(f"[bold]{name}[/]")
    with watching() as watch:
        yield watch


@contextmanager
def _tutoring() -> (
    "Iterator[tuple[Callable[[str, int, int, Mapping[str, float]], None], Callable[[], bool]]]"
):
    console.print("[bold]training[/]")
    with stopping() as stop, training() as watch:
        yield watch, stop

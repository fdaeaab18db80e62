"""`posedreamer mine`: learn which poses come out badly, and score poses by it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.display import console, show_table, watching
from etl.options import DEFAULT_FILE, PipelineOption
from schemas.ids import hex_id

if TYPE_CHECKING:
    from etl.mining import Mining
    from schemas.pipeline import Pipeline

mine = typer.Typer(help="Learn which poses come out badly, and score all poses by it.")


@mine.callback(invoke_without_command=True)
def mine_(context: typer.Context, pipeline: PipelineOption = DEFAULT_FILE) -> None:
    """Score every pose: predicted OKS, novelty, plausibility; show the hardest."""
    if context.invoked_subcommand is not None:
        return
    from etl.mine import hardest

    mining = _scored(*_learnt(pipeline))
    columns = [
        "source",
        "sequence",
        "frame",
        "predicted_oks",
        "predicted_oks_spread",
        "novelty",
        "plausibility",
    ]
    rows = [
        (hex_id(row["pose_id"]), *(row[name] for name in columns))
        for row in hardest(mining).to_dict("records")
    ]
    names = ("pose", "source", "sequence", "frame", "OKS", "spread", "novelty", "plausible")
    show_table("Hardest poses by predicted OKS; novelty in metres", names, rows)


@mine.command()
def train(pipeline: PipelineOption = DEFAULT_FILE) -> None:
    """Train a model of the OKS that poses reach on what was measured, and show how good it is."""
    mining, _ = _learnt(pipeline)
    model = mining.model
    show_table("Held-out poses", ("measure", "value"), list(vars(model.held_out).items()))
    console.print(f"the model lies in {mining.lake.url}/{mining.folder}", soft_wrap=True)


@mine.command()
def report(
    out: Annotated[Path, typer.Option(help="folder for the plots and the page", show_default=False)],
    pipeline: PipelineOption = DEFAULT_FILE,
) -> None:
    """Plot predicted and measured OKS, what predicts it, OKS by round, and the hardest poses."""
    from etl.mine import report as write

    mining = _scored(*_learnt(pipeline))
    for path in write(mining, out):
        console.print(f"wrote {path}")


def _learnt(file: Path) -> "tuple[Mining, Pipeline]":
    from etl.lake import Lake
    from etl.mine import learn
    from etl.mining import need
    from etl.settings import load_pipeline

    need()
    pipeline = load_pipeline(file)
    with console.status("learning from what was measured"):
        return learn(Lake(pipeline.lake), pipeline), pipeline


def _scored(mining: "Mining", pipeline: "Pipeline") -> "Mining":
    from etl.mine import score

    with watching() as watch:
        score(mining, pipeline, watch)
    return mining

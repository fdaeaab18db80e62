"""`posedreamer train`: a control model or a preference adapter from the rows of a lake."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from pydantic import ValidationError

from etl.display import console, show_table, training
from schemas.errors import ConfigError
from schemas.training import ControlTraining, DpoTraining, TrainingSettings

if TYPE_CHECKING:
    from etl.train import Report

STOPPED = 130
"""Exit code of a training that was told to stop before its end."""

train = typer.Typer(no_args_is_help=True, help="Train the pipeline file's diffusion model on rows of a lake.")

Settings = TypeVar("Settings", bound=TrainingSettings)

PipelineFile = Annotated[Path, typer.Argument(help="the pipeline file, whose generator is the base")]
Out = Annotated[Path, typer.Option(help="folder of the result, log and checkpoint", show_default=False)]
Config = Annotated[Path | None, typer.Option(help="YAML file of training settings, which options override")]
Data = Annotated[
    Path | None, typer.Option(help="pipeline file whose lake to learn from; by default the first")
]
Steps = Annotated[int | None, typer.Option(help="optimiser steps in all")]
BatchSize = Annotated[int | None, typer.Option(help="rows or pairs of one forward pass")]
Accumulation = Annotated[
    int | None, typer.Option("--gradient-accumulation", help="forward passes of one step")
]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="the highest of the schedule")]
Rank = Annotated[int | None, typer.Option(help="of the LoRA")]
Precision = Annotated[
    Literal["no", "bf16", "fp16"] | None, typer.Option(help="of the forward pass; fp16 on a GPU only")
]
Seed = Annotated[int | None, typer.Option(help="of data order, noise and the LoRA's start")]
Cpu = Annotated[bool, typer.Option("--cpu", help="train on the CPU even where there is a GPU")]


@train.command()
def control(
    out: Out,
    file: PipelineFile = Path("pipeline.yaml"),
    config: Config = None,
    data: Data = None,
    release: Annotated[str | None, typer.Option(help="learn the rows of this release only")] = None,
    full: Annotated[bool, typer.Option("--full", help="train all of the model, not a LoRA")] = False,
    steps: Steps = None,
    batch_size: BatchSize = None,
    gradient_accumulation: Accumulation = None,
    learning_rate: Rate = None,
    rank: Rank = None,
    mixed_precision: Precision = None,
    seed: Seed = None,
    cpu: Cpu = False,
) -> None:
    """Teach the model to follow control images: a LoRA, or with --full the whole small model."""
    from etl.settings import load_pipeline
    from etl.train import train_control

    settings = training_settings(
        ControlTraining,
        config,
        full=full or None,
        steps=steps,
        batch_size=batch_size,
        gradient_accumulation=gradient_accumulation,
        learning_rate=learning_rate,
        rank=rank,
        mixed_precision=mixed_precision,
        seed=seed,
    )
    pipeline, other = load_pipeline(file), load_pipeline(data) if data else None
    with stopping() as stop, training() as watch:
        report = train_control(
            pipeline, settings, out, data=other, release=release, cpu=cpu, watch=watch, stop=stop
        )
    _show(report, settings)


@train.command()
def dpo(
    out: Out,
    file: PipelineFile = Path("pipeline.yaml"),
    config: Config = None,
    data: Data = None,
    selection: Annotated[
        str | None,
        typer.Option(help="which choice of pairs; by default the newest, where one policy chose"),
    ] = None,
    beta: Annotated[float | None, typer.Option(help="how strongly it is held to the base")] = None,
    winner_weight: Annotated[float | None, typer.Option(help="weight of the winners' own loss")] = None,
    reference_weight: Annotated[
        float | None, typer.Option(help="weight of staying with the base at all noise levels")
    ] = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    gradient_accumulation: Accumulation = None,
    learning_rate: Rate = None,
    rank: Rank = None,
    mixed_precision: Precision = None,
    seed: Seed = None,
    cpu: Cpu = False,
) -> None:
    """Teach the model the preferences of the lake: a LoRA beside the adapters that it has."""
    from etl.settings import load_pipeline
    from etl.train import train_dpo

    settings = training_settings(
        DpoTraining,
        config,
        beta=beta,
        winner_weight=winner_weight,
        reference_weight=reference_weight,
        steps=steps,
        batch_size=batch_size,
        gradient_accumulation=gradient_accumulation,
        learning_rate=learning_rate,
        rank=rank,
        mixed_precision=mixed_precision,
        seed=seed,
    )
    pipeline, other = load_pipeline(file), load_pipeline(data) if data else None
    with stopping() as stop, training() as watch:
        report = train_dpo(
            pipeline, settings, out, data=other, selection=selection, cpu=cpu, watch=watch, stop=stop
        )
    _show(report, settings)


def training_settings(kind: type[Settings], config: Path | None, **given: object) -> Settings:
    """The settings of a file, or the defaults, with what the options say in their place."""
    from schemas.yaml_file import load_yaml

    settings = kind()
    if config is not None:
        try:
            settings = load_yaml(config.read_text("utf-8"), str(config), kind)
        except FileNotFoundError as error:
            raise ConfigError(f"--config {config}: no such file") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {config}: cannot be read: {error}") from error
    options = {name: value for name, value in given.items() if value is not None}
    try:
        return kind.model_validate({**settings.model_dump(), **options})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        if not wrong["loc"]:  # of several settings together
            raise ConfigError(wrong["msg"].removeprefix("Value error, ")) from error
        name = str(wrong["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{name}: {wrong['msg']}, not {wrong['input']!r}") from error


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Asks a training to stop after its step at the first Ctrl-C or SIGTERM, so that it can be gone on with.

    A second one ends it at once; the checkpoint before stays.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(report: "Report", settings: TrainingSettings) -> None:
    if report.values:
        show_table("Measured", ("what", "value"), [(k, float(v)) for k, v in sorted(report.values.items())])
    rows = f"{report.learnt:,} rows learnt, {report.held_out:,} held out"
    if "selection" in report.source:
        rows += f", of the choice of pairs {report.source['selection']}"
    if report.path is None:
        console.print(f"Stopped at step {report.step:,} of {settings.steps:,}; the same command goes on.")
        raise typer.Exit(STOPPED)
    console.print(f"Trained {report.step:,} steps ({rows}); wrote {report.path}")

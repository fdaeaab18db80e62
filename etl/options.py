"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

PipelineFile = Annotated[Path, typer.Argument(help="the pipeline file")]
PipelineOption = Annotated[Path, typer.Option("--pipeline", "-p", help="the pipeline file")]
PolicyOption = Annotated[
    str | None, typer.Option(help="strict, lenient or a policy file; by default the pipeline's")
]
DEFAULT_FILE = Path("pipeline.yaml")

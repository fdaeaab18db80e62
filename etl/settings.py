"""Reads a pipeline file and places its relative paths."""

import importlib.resources
from pathlib import Path

from schemas.errors import ConfigError
from schemas.pipeline import DiffusionSettings, Pipeline
from schemas.yaml_file import load_yaml

BUNDLED = "bundled"
"""`path: bundled` names the poses that come with the project."""


def load_pipeline(file: Path) -> Pipeline:
    """The pipeline in a YAML file. Raises ConfigError naming file, line and key."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; `posedreamer init {file}` writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    return _placed(load_yaml(text, str(file), Pipeline), file.absolute().parent)


def _placed(pipeline: Pipeline, folder: Path) -> Pipeline:
    """The same pipeline with its relative paths made absolute."""

    def place(path: str) -> str:
        if path == BUNDLED:
            return str(importlib.resources.files("etl") / "data" / "poses")
        return path if "://" in path else str(folder / Path(path).expanduser())

    changes: dict[str, object] = {
        "lake": place(pipeline.lake),
        "poses": tuple(s.model_copy(update={"path": place(s.path)}) for s in pipeline.poses),
        "captions": tuple(
            s if s.kind == "grammar" else s.model_copy(update={"path": place(s.path)})
            for s in pipeline.captions
        ),
    }
    if pipeline.body.model != "standin":
        changes["body"] = pipeline.body.model_copy(update={"model": place(pipeline.body.model)})
    keypoints = pipeline.metrics.keypoints
    if keypoints.weights != "default":
        placed = keypoints.model_copy(update={"weights": place(keypoints.weights)})
        changes["metrics"] = pipeline.metrics.model_copy(update={"keypoints": placed})
    if isinstance(pipeline.generator, DiffusionSettings):
        changes["generator"] = _placed_models(pipeline.generator, folder)
    if pipeline.policy.endswith((".yaml", ".yml")):
        changes["policy"] = place(pipeline.policy)
    return pipeline.model_copy(update=changes)


def _placed_models(settings: DiffusionSettings, folder: Path) -> DiffusionSettings:
    """With relative paths made absolute. What has the form owner/name and is no path here stays a hub id."""
    from udfs.hub import is_hub_id

    def place(model: str, packaged: str = "") -> str:
        path = folder / Path(model).expanduser()
        return model if model == packaged or (is_hub_id(model) and not path.exists()) else str(path)

    return settings.model_copy(
        update={
            "model": place(settings.model, "nano"),
            "controlnet": None if settings.controlnet is None else place(settings.controlnet),
            "adapters": tuple(
                a.model_copy(update={"path": place(a.path, "nano-dpo")}) for a in settings.adapters
            ),
        }
    )

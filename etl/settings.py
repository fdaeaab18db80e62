"""Reads a pipeline file and places its relative paths."""

import importlib.resources
from pathlib import Path

from schemas.errors import ConfigError
from schemas.pipeline import DEFAULT, DiffusionSettings, MetricSettings, Pipeline
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
    changes["metrics"] = _placed_metrics(pipeline.metrics, folder)
    if isinstance(pipeline.generator, DiffusionSettings):
        changes["generator"] = _placed_models(pipeline.generator, folder)
    if pipeline.policy.endswith((".yaml", ".yml")):
        changes["policy"] = place(pipeline.policy)
    return pipeline.model_copy(update=changes)


def _place_model(model: str, folder: Path, packaged: str = "") -> str:
    """Absolute, but for what comes with the package, and for a hub's owner/name that is no path here."""
    from udfs.hub import is_hub_id

    path = folder / Path(model).expanduser()
    return model if model == packaged or (is_hub_id(model) and not path.exists()) else str(path)


def _placed_metrics(metrics: MetricSettings, folder: Path) -> MetricSettings:
    changes: dict[str, object] = {}
    if metrics.keypoints.weights != DEFAULT:
        weights = str(folder / Path(metrics.keypoints.weights).expanduser())
        changes["keypoints"] = metrics.keypoints.model_copy(update={"weights": weights})
    for name in ("silhouette", "head_pose", "caption_match"):
        asked = getattr(metrics, name)
        if asked is not None:
            model = _place_model(asked.model, folder, DEFAULT)
            changes[name] = asked.model_copy(update={"model": model})
    return metrics.model_copy(update=changes)


def _placed_models(settings: DiffusionSettings, folder: Path) -> DiffusionSettings:
    def place(model: str, packaged: str = "") -> str:
        return _place_model(model, folder, packaged)

    return settings.model_copy(
        update={
            "model": place(settings.model, "nano"),
            "controlnet": None if settings.controlnet is None else place(settings.controlnet),
            "adapters": tuple(
                a.model_copy(update={"path": place(a.path, "nano-dpo")}) for a in settings.adapters
            ),
        }
    )

"""The guidance that a diffusion pipeline paints with, where it has one."""

import inspect

from schemas.errors import ModelError
from schemas.pipeline import DiffusionSettings
from udfs.model_files import read_json
from udfs.pipelines import PipelineFolder, find_controlnet, pipeline_class

_AS_INPUT = ("FluxControlPipeline", "FluxControlNetPipeline")
"""Pipelines that give it to their networks as a number, to those that have an embedding for it."""


def guidance_scale(s: DiffusionSettings, class_name: str, folder: PipelineFolder) -> float | None:
    """What the settings ask for, else the pipeline's own default; None where no network reads it.

    Imports diffusers only for the default. Raises ModelError for one that would be ignored in silence.
    """
    if class_name in _AS_INPUT and not _has_embedding(s, folder):
        if s.guidance_scale is not None:
            raise ModelError(
                f"{folder.path}: its transformer has no guidance embedding (nor has FLUX.1-schnell's), so "
                "guidance_scale does nothing; leave it out"
            )
        return None
    if s.guidance_scale is not None:
        return s.guidance_scale
    return own_default("guidance_scale", class_name, folder)


def own_default(argument: str, class_name: str, folder: PipelineFolder) -> float | None:
    """What a pipeline's call takes for a number that it is not given; None where it takes none."""
    own = inspect.signature(pipeline_class(class_name, folder.path).__call__).parameters.get(argument)
    return None if own is None or own.default is None else float(own.default)


def _has_embedding(s: DiffusionSettings, folder: PipelineFolder) -> bool:
    net = folder.path / "controlnet"
    if s.controlnet is not None:
        net = find_controlnet(s.controlnet, s.controlnet_revision)
    configs = (folder.path / "transformer" / "config.json", net / "config.json")
    return any(read_json(file).get("guidance_embeds", False) for file in configs if file.is_file())

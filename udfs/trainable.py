"""The pipeline file's diffusion model as a training takes it: its adapters active, apart and frozen."""

from typing import TYPE_CHECKING

from schemas.errors import ModelError
from schemas.pipeline import DiffusionSettings
from udfs.guidance import guidance_scale
from udfs.pipelines import PipelineFolder

if TYPE_CHECKING:
    from torch import dtype

    from udfs.flow_matching import Flow


def find_trainable(settings: DiffusionSettings) -> tuple[PipelineFolder, str]:
    """The folder and the class of a model that can be trained; nothing of it is loaded.

    Raises ModelError for a model that is no FLUX control pipeline.
    """
    folder = PipelineFolder.find(settings.model, settings.revision)
    name = settings.pipeline or folder.class_name
    if name != "FluxControlPipeline" or settings.controlnet is not None:
        extra = " with a ControlNet" if settings.controlnet else ""
        raise ModelError(
            f"{folder.path}: is a {name}{extra}; training supports FluxControlPipeline: the nano model, "
            "FLUX.1-dev (with pipeline: FluxControlPipeline) and models made from it"
        )
    return folder, name


def load_trainable(settings: DiffusionSettings, device: str) -> "Flow":
    """Loads the model on the CPU, with the text length and guidance that it paints with.

    device: where it will be trained, which decides what `dtype: auto` means. Raises ModelError as
    `find_trainable` does, before anything is loaded.
    """
    from udfs.flow_matching import Flow
    from udfs.lora_stack import LoraFile, stack
    from udfs.prompts import Prompts

    folder, name = find_trainable(settings)
    guidance = guidance_scale(settings, name, folder)
    pipe = folder.load(name, _dtype(settings.dtype, device))
    loras = [LoraFile.find(adapter, i) for i, adapter in enumerate(settings.adapters)]
    # Not fused: full training must see them, and a preference training measures against them.
    stack(pipe, loras, fuse=False)
    length = Prompts.of(pipe, settings.max_sequence_length, None, False).length
    assert length is not None
    # A transformer without guidance is told none, whatever the number.
    given = {} if guidance is None else {"guidance_scale": guidance}
    return Flow(pipe, max_sequence_length=length, **given)


def _dtype(name: str, device: str) -> "dtype":
    import torch

    if name == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    if name == "float16" and device == "cpu":
        raise ModelError("dtype float16 needs a GPU; use auto, float32 or bfloat16 on a CPU")
    return getattr(torch, name)

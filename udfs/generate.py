"""Paints with a diffusion model: any text-to-image pipeline of diffusers that has a control input."""

import hashlib
import inspect
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from schemas.errors import ModelError, RowError
from schemas.pipeline import DiffusionSettings
from udfs import hub
from udfs.generator import Generator, Paint, Painted
from udfs.guidance import guidance_scale, own_default
from udfs.lora_stack import LoraFile, stack
from udfs.model_files import digest_of, read_json
from udfs.picture import decode
from udfs.pipelines import (
    Pipe,
    PipelineFolder,
    check_controlnet,
    control_argument,
    files_read,
    find_controlnet,
    load_controlnet,
    pipeline_class,
    with_controlnet,
)
from udfs.udf import Files, Worker

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from udfs.prompts import Prompts


_SCALES = (
    ("true_cfg_scale", "true_cfg_scale"),
    ("conditioning_scale", "controlnet_conditioning_scale"),
)
"""Settings and the call arguments that they are, whose defaults the pipeline has."""


@dataclass(frozen=True, kw_only=True)
class Diffusion(Generator):
    """Photographs by a diffusion model, from the prompt, the control image and the seed of each sample.

    The fingerprint covers what the model is (every file that is loaded, by content and not by place, and the
    adapters' weights) and what it is asked for. It does not cover what changes the pixels by rounding alone:
    batch_rows, compile, offload, the device, and what `dtype: auto` means on it. A lake of a million images
    shall not be stale because a machine has less memory. Each row tells device, dtype, the size of its batch
    and its place in it instead, which is what it takes to make the very same pixels again.

    How far an image depends on its batch: its noise comes from a generator of its own on the CPU, the same on
    every device and beside whichever rows; FLUX's control image is encoded to the mean of the autoencoder's
    posterior, without dice. What remains is that sums in batches of another size round otherwise: at most
    1 of 255 in float32 on the CPU; on a GPU in half precision single pixels may differ visibly.

    Fields:
        settings: as in the pipeline file, its paths absolute.
        digests: of the model files, by role, that a worker has to find too; None compares nothing.
    """

    name: ClassVar[str] = "diffusers"
    version: ClassVar[int] = 1
    columns: ClassVar[tuple[str, ...]] = (
        "seed",
        "prompt",
        "image_height",
        "image_width",
        "control_path",
        "control_sha256",
    )
    accelerated: ClassVar[bool] = True
    exact: ClassVar[bool] = False

    settings: DiffusionSettings = field(default_factory=DiffusionSettings)
    # The fingerprint holds them already.
    digests: tuple[tuple[str, str], ...] | None = field(default=None, compare=False, repr=False)

    @property
    def batch_rows(self) -> int:
        return self.settings.batch_rows

    @property
    def steps(self) -> int | None:
        return self.settings.steps

    @property
    def guidance_scale(self) -> float | None:
        return self._guidance

    @cached_property
    def _guidance(self) -> float | None:
        folder = self._folder()
        return guidance_scale(self.settings, self._class_name(folder), folder)

    def pinned(self) -> "Diffusion":
        """The same with the hub's models at the commits that are here now, and with the digests of all files,
        so that all workers take those and no others."""
        s = self.settings
        changes: dict[str, Any] = {}
        if hub.is_fetched(s.model):
            changes["revision"] = self._folder().path.name
        if s.controlnet is not None and hub.is_fetched(s.controlnet):
            changes["controlnet_revision"] = find_controlnet(s.controlnet, s.controlnet_revision).name
        changes["adapters"] = tuple(
            a.model_copy(update={"revision": lora.path.parent.name}) if hub.is_fetched(a.path) else a
            for a, lora in zip(s.adapters, self._loras(), strict=True)
        )
        pinned = replace(self, settings=s.model_copy(update=changes))
        return replace(pinned, digests=tuple(sorted(pinned.models().items())))

    def models(self) -> Mapping[str, str]:
        s = self.settings
        folder = self._folder()
        found = folder.digests()
        if s.controlnet is not None:
            net = find_controlnet(s.controlnet, s.controlnet_revision)
            found["controlnet"] = digest_of(net, files_read(net))
        for i, lora in enumerate(self._loras()):
            lora.check(folder.path)
            found[f"adapter_{i}"] = lora.digest()
        return found

    def check(self, device: str | None = None) -> None:
        super().check(device)
        s = self.settings
        if device is not None:
            _dtype(s.dtype, device)
        for model, revision, setting in (
            (s.model, s.revision, "revision"),
            (s.controlnet, s.controlnet_revision, "controlnet_revision"),
            *((a.path, a.revision, "the adapter's revision") for a in s.adapters),
        ):
            if model is not None and revision is not None and not hub.is_fetched(model):
                raise ModelError(f"{model}: is no repository, so it has no revisions; leave {setting} out")
        folder = self._folder()
        name = self._class_name(folder)
        _check_pipeline(self._asked(), pipeline_class(name, folder.path), folder)
        if name == "FluxControlPipeline" and not s.adapters:
            _check_channels(folder)

    def parameters(self) -> Mapping[str, object]:
        s = self.settings
        apart = {"name", "model", "revision", "controlnet", "controlnet_revision", "adapters"}
        by_rounding = {"batch_rows", "compile", "offload"}
        asked = s.model_dump(mode="json", exclude=apart | by_rounding)
        weights = [a.weight for a in s.adapters]
        folder = self._folder()
        name = self._class_name(folder)
        # Written down, what holds anyway is no other setting.
        if s.pipeline == folder.class_name:
            asked["pipeline"] = None
        for setting, argument in _SCALES:
            if asked[setting] is not None and asked[setting] == own_default(argument, name, folder):
                asked[setting] = None
        return {**asked, "guidance_scale": self.guidance_scale, "adapter_weights": weights}

    def load(self, worker: Worker) -> Paint:
        import torch

        s = self._asked()
        dtype = _dtype(s.dtype, worker.device)
        self._compare()
        folder = self._folder()
        name = self._class_name(folder)
        _check_pipeline(s, pipeline_class(name, folder.path), folder)
        given = {}
        if s.controlnet is not None:
            net = find_controlnet(s.controlnet, s.controlnet_revision)
            given["controlnet"] = load_controlnet(net, dtype)
        pipe = folder.load(name, dtype, **given)
        loras = self._loras()
        stack(pipe, loras, fuse=dtype == torch.float32)
        _check_control(pipe, folder)
        _place(pipe, s, worker.device)
        return _Painter.of(pipe, s, worker, dtype)

    def _asked(self) -> DiffusionSettings:
        """The settings with the guidance that they come to."""
        return self.settings.model_copy(update={"guidance_scale": self.guidance_scale})

    def _compare(self) -> None:
        """Raises ModelError when a file here is another than the one that the fingerprint names."""
        if self.digests is None:
            return
        wanted, here = dict(self.digests), dict(self.models())
        for role in sorted(wanted | here):
            if wanted.get(role) != here.get(role):
                raise ModelError(
                    f"{self.settings.model}: its {role} on {socket.gethostname()} is not the one that the "
                    "run began with; put the same files on all machines, and run again if they were changed"
                )

    def _folder(self) -> PipelineFolder:
        s = self.settings
        return PipelineFolder.find(s.model, s.revision, () if s.controlnet is None else ("controlnet",))

    def _class_name(self, folder: PipelineFolder) -> str:
        s = self.settings
        name = s.pipeline or folder.class_name
        return name if s.controlnet is None else with_controlnet(name)

    def _loras(self) -> list[LoraFile]:
        return [LoraFile.find(adapter, i) for i, adapter in enumerate(self.settings.adapters)]


@dataclass(frozen=True)
class _Painter:
    """A loaded pipeline.

    Attributes:
        control: name of the call argument that takes the control image.
        asked: call arguments that are the same for all rows.
        device: what a row says it was painted on.
    """

    pipe: Pipe
    prompts: "Prompts"
    files: Files
    control: str
    asked: Mapping[str, Any]
    device: str
    dtype: str

    @classmethod
    def of(cls, pipe: Pipe, s: DiffusionSettings, worker: Worker, dtype: "torch.dtype") -> "_Painter":
        import torch

        from udfs.prompts import AT_ONCE, Prompts

        takes = inspect.signature(pipe.__call__).parameters
        given = {
            "num_inference_steps": s.steps,
            "guidance_scale": s.guidance_scale,
            "true_cfg_scale": s.true_cfg_scale,
            "controlnet_conditioning_scale": s.conditioning_scale,
        }
        asked = {name: value for name, value in given.items() if name in takes and value is not None}
        mixes = ((s.true_cfg_scale if "true_cfg_scale" in takes else s.guidance_scale) or 1) > 1
        at_once = min(s.batch_rows, AT_ONCE)
        prompts = Prompts.of(pipe, s.max_sequence_length, s.negative_prompt, mixes, at_once)
        on_gpu = worker.device.startswith("cuda")
        device = torch.cuda.get_device_name(worker.device) if on_gpu else worker.device
        control = control_argument(type(pipe))
        assert control is not None
        kind = str(dtype).removeprefix("torch.")
        return cls(pipe, prompts, worker.files, control, asked, device, kind)

    def __call__(self, rows: pa.Table) -> Painted:
        import torch

        height, width = int(rows["image_height"][0].as_py()), int(rows["image_width"][0].as_py())
        self._check_size(height, width)
        texts = rows["prompt"].to_pylist()
        for text in texts:
            if not text.strip():
                raise RowError("the prompt is empty; give the sample a caption")
        with torch.inference_mode():
            images = self.pipe(
                height=height,
                width=width,
                # On the CPU: a device of another make would draw other numbers from the same seed.
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in rows["seed"].to_pylist()],
                output_type="pt",
                **{self.control: self._controls(rows, height, width)},
                **self.prompts.encoded(texts),
                **self.asked,
            )
            pixels = _pixels(images)
        lengths = {text: self.prompts.measured(text) for text in dict.fromkeys(texts)}
        return Painted(
            pixels,
            self.device,
            self.dtype,
            [lengths[text].tokens for text in texts],
            [lengths[text].truncated for text in texts],
        )

    def _check_size(self, height: int, width: int) -> None:
        """Raises ModelError for a size that the patches do not fit into: it would be rounded in silence."""
        step = self.pipe.image_processor.config.vae_scale_factor
        if height % step or width % step:
            raise ModelError(
                f"{type(self.pipe).__name__} paints multiples of {step} pixels, not {height} x {width}; "
                "change plan.image_size"
            )

    def _controls(self, rows: pa.Table, height: int, width: int) -> Any:
        from PIL import Image

        places = zip(rows["control_path"].to_pylist(), rows["control_sha256"].to_pylist(), strict=True)
        read = [_control(self.files, path, digest, height, width) for path, digest in places]
        images = [Image.fromarray(pixels) for pixels in read]
        if type(self.pipe).__name__ != "FluxControlPipeline":
            return images  # the pipeline's own preprocessing knows the range that its ControlNet reads
        # Given as an image, it would be sampled from the posterior, with the generator of the noise.
        pipe = self.pipe
        tensor = pipe.image_processor.preprocess(images, height, width).to(
            pipe._execution_device, pipe.vae.dtype
        )
        latents = pipe.vae.encode(tensor).latent_dist.mode()
        latents = (latents - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
        return pipe._pack_latents(latents, *latents.shape)


def _pixels(output: Any) -> np.ndarray:
    """(N, H, W, 3) uint8 of a pipeline's answer. Raises RowError for images that it blacked out or lost."""
    import torch

    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise RowError("the pipeline's safety checker blacked the image out; another seed may pass")
    images = output.images.float()
    if not torch.isfinite(images).all():
        raise RowError("the model gave pixels that are no numbers; use dtype bfloat16 or float32")
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _control(files: Files, path: str, digest: str, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8. Raises RowError naming the file when it is not what the labels speak of."""
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise RowError(
            f"{path}: the control image is not there; delete the label's row to draw it again"
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise RowError(f"{path}: the control image is not the one that its labels were made with")
    pixels, _ = decode(data, path)
    if pixels.shape[:2] != (height, width):
        there = " x ".join(map(str, pixels.shape[:2]))
        raise RowError(
            f"{path}: the control image has {there} pixels, the image shall have {height} x {width}"
        )
    return pixels


def _check_pipeline(s: DiffusionSettings, kind: type["DiffusionPipeline"], folder: PipelineFolder) -> None:
    """Raises ModelError for what configurations alone show to go wrong.

    s: with the guidance that is painted with, the pipeline's own where none was asked for.
    """
    _check_asked(s, kind)
    unet = folder.path / "unet" / "config.json"
    distilled = unet.is_file() and read_json(unet).get("time_cond_proj_dim") is not None
    if s.negative_prompt is not None and distilled:
        raise ModelError(
            f"{folder.path}: its UNet takes the guidance as an input (time_cond_proj_dim), so "
            f"{kind.__name__} does not read a negative_prompt; leave it out"
        )
    _check_scheduler(kind, folder)
    net = None if s.controlnet is None else find_controlnet(s.controlnet, s.controlnet_revision)
    check_controlnet(kind, folder, net)


_DRAWS = re.compile(r"Ancestral|LCM|TCD|SDE")
"""In names of schedulers that add noise at every step."""


def _check_scheduler(kind: type["DiffusionPipeline"], folder: PipelineFolder) -> None:
    """Raises ModelError for a scheduler that draws numbers which the seed of an image does not reach."""
    name = folder.components.get("scheduler", ("", ""))[1]
    file = folder.path / "scheduler" / "scheduler_config.json"
    config = read_json(file) if file.is_file() else {}
    asked = config.get("stochastic_sampling") or str(config.get("algorithm_type")).startswith("sde")
    # FLUX and Stable Diffusion 3 hand no generator on to the scheduler; an SDE has a source of its own.
    given = hasattr(kind, "prepare_extra_step_kwargs") and name != "DPMSolverSDEScheduler"
    if (asked or _DRAWS.search(name)) and not given:
        raise ModelError(
            f"{file}: {name} draws noise at every step, and {kind.__name__} does not give it the image's "
            "seed, so that no image could be painted again; take a scheduler without noise"
            + (", or set stochastic_sampling to false" if config.get("stochastic_sampling") else "")
        )


def _check_asked(s: DiffusionSettings, kind: type["DiffusionPipeline"]) -> None:
    """Raises ModelError for settings that the pipeline would refuse, or ignore in silence."""
    takes = set(inspect.signature(kind.__call__).parameters)
    for setting, argument, hint in (
        (s.negative_prompt, "negative_prompt", "leave negative_prompt out"),
        (s.true_cfg_scale, "true_cfg_scale", "leave true_cfg_scale out"),
        (s.guidance_scale, "guidance_scale", "leave guidance_scale out"),
        (s.conditioning_scale, "controlnet_conditioning_scale", "the weight of a control LoRA does that"),
        (s.max_sequence_length, "max_sequence_length", "its encoders read what they were made for"),
    ):
        if setting is not None and argument not in takes:
            raise ModelError(f"{kind.__name__} takes no {argument}; {hint}")
    if (s.true_cfg_scale or 1) > 1 and s.negative_prompt is None:
        raise ModelError(f"{kind.__name__} reads true_cfg_scale only with a negative_prompt; '' will do")
    if s.negative_prompt is not None:
        name = "true_cfg_scale" if "true_cfg_scale" in takes else "guidance_scale"
        if (getattr(s, name) or 1) <= 1:
            raise ModelError(f"{kind.__name__} reads a negative_prompt only with a {name} over 1")


def _check_channels(folder: PipelineFolder) -> None:
    """Raises ModelError for a FLUX base whose configuration has no channels for the control image."""
    has = read_json(folder.path / "transformer" / "config.json").get("in_channels")
    latents = read_json(folder.path / "vae" / "config.json").get("latent_channels")
    if isinstance(has, int) and isinstance(latents, int) and has != 8 * latents:
        raise _no_channels(folder, has, 8 * latents)


def _no_channels(folder: PipelineFolder, has: int, need: int) -> ModelError:
    return ModelError(
        f"{folder.path}: its transformer reads {has} channels, not the {need} of image and control; "
        "add a control LoRA"
    )


def _check_control(pipe: Pipe, folder: PipelineFolder) -> None:
    """Raises ModelError for a base that has no way in for the control image."""
    transformer = getattr(pipe, "transformer", None)
    if type(pipe).__name__ == "FluxControlPipeline" and transformer is not None:
        need, has = 8 * pipe.vae_latent_channels, transformer.x_embedder.in_features
        if has != need:
            raise _no_channels(folder, has, need)


def _place(pipe: Pipe, s: DiffusionSettings, device: str) -> None:
    """Puts the pipeline on its device."""
    if s.compile:
        (pipe.transformer if hasattr(pipe, "transformer") else pipe.unet).compile()
    if device == "cpu" or s.offload == "none":
        pipe.to(device)
    elif s.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)


def _dtype(name: str, device: str) -> "torch.dtype":
    import torch

    if name == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    if name == "float16" and device == "cpu":
        raise ModelError("dtype float16 needs a GPU; use auto, float32 or bfloat16 on a CPU")
    return getattr(torch, name)

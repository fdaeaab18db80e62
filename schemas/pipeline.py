"""The pipeline file: what goes in, what is computed from it with which settings, and where it goes."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.curriculum import Curriculum
from schemas.errors import ConfigError
from schemas.plan import Plan
from schemas.source import CaptionSource, GrammarSource, PoseSource
from schemas.version import Version


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BodySettings(_Settings):
    """The SMPL-X body: `standin`, or the path of a licensed file such as SMPLX_NEUTRAL.npz."""

    model: str = "standin"


class ShadedSettings(_Settings):
    """The built-in renderer: the clothed, lit body over a procedural background."""

    name: Literal["shaded"] = "shaded"


class AdapterSettings(_Settings):
    """A LoRA on a diffusion model.

    Attributes:
        path: `nano-dpo`, a safetensors file, a folder with one, or an id of the Hugging Face Hub.
        weight: how strongly it acts; 1 is as trained.
        name: what it is called, such as `dpo`, which `posedreamer run --no-dpo` leaves out.
        weight_name: the file, where a folder or repository has several.
        revision: branch, tag or commit of a repository.
    """

    path: str
    weight: float = Field(default=1.0, allow_inf_nan=False)
    name: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    weight_name: str | None = Field(default=None, pattern=r"^[^/\\]+\.safetensors$")
    revision: str | None = None


class DiffusionSettings(_Settings):
    """A diffusion model with a control input, run by diffusers.

    Attributes:
        model: `nano`, a pipeline's folder, or an id of the Hugging Face Hub, with `revision`.
        pipeline: diffusers' class to load it with, where the folder names another, such as FluxPipeline for
            a base to which a control LoRA is added.
        controlnet: folder or hub id of a ControlNet to add to a base pipeline.
        adapters: LoRAs, all of them active.
        dtype: `auto` is bfloat16 on a GPU and float32 on a CPU.
        steps: of denoising.
        guidance_scale: as the pipeline has it: FLUX reads it as an input, Stable Diffusion mixes with it. By
            default the pipeline's own. A FLUX model without an embedding for it, as `nano`, takes none.
        true_cfg_scale: of pipelines that mix with a negative prompt beside `guidance_scale`.
        conditioning_scale: how strongly a ControlNet acts.
        max_sequence_length: tokens that a T5 encoder reads of a prompt; by default as many as its tokenizer
            was saved for.
        negative_prompt: what shall not be seen.
        batch_rows: images in one call, halved where memory does not suffice.
        compile: compiles the denoiser: minutes at the start of each worker, then faster.
        offload: keeps parts of the model in the host's memory while they wait: `model` whole networks,
            `sequential` single layers. A CPU has nothing to offload.
    """

    name: Literal["diffusers"] = "diffusers"
    model: str = "nano"
    revision: str | None = None
    pipeline: str | None = Field(default=None, pattern=r"^[A-Za-z0-9]+Pipeline$")
    controlnet: str | None = None
    controlnet_revision: str | None = None
    adapters: tuple[AdapterSettings, ...] = ()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    steps: int = Field(default=4, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    true_cfg_scale: float | None = Field(default=None, ge=1, le=100)
    conditioning_scale: float | None = Field(default=None, ge=0, le=10)
    max_sequence_length: int | None = Field(default=None, ge=1, le=512)
    negative_prompt: str | None = None
    batch_rows: int = Field(default=8, ge=1, le=1024)
    compile: bool = False
    offload: Literal["none", "model", "sequential"] = "none"

    @model_validator(mode="after")
    def _adapter_names_differ(self) -> "DiffusionSettings":
        # As they are called where they have no name of their own.
        names = [a.name or f"adapter_{i}" for i, a in enumerate(self.adapters)]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"adapters: the name {', '.join(sorted(twice))} is taken twice")
        return self

    @model_validator(mode="after")
    def _revision_of_something(self) -> "DiffusionSettings":
        if self.controlnet_revision is not None and self.controlnet is None:
            raise ValueError("controlnet_revision: there is no controlnet")
        return self


DPO = "dpo"
"""Name of the adapter that was trained on preferences; `posedreamer run --no-dpo` leaves it out."""

GeneratorSettings = Annotated[ShadedSettings | DiffusionSettings, Field(discriminator="name")]


class ImageSettings(_Settings):
    """How images are encoded; `quality` is JPEG's."""

    format: Literal["jpeg", "png"] = "jpeg"
    quality: int = Field(default=92, ge=1, le=95)


DEFAULT = "default"
"""Names the model of a metric that comes with the package."""


class KeypointSettings(_Settings):
    """The keypoint detector: `default`, or the path of other weights for the same network."""

    weights: str = DEFAULT


class ModelSettings(_Settings):
    """The model that a metric looks with.

    Attributes:
        model: `default`, the small one that comes with the package, or a transformers checkpoint: a folder,
            or an id of the Hugging Face Hub.
        revision: branch, tag or commit of a repository of the hub.
    """

    model: str = DEFAULT
    revision: str | None = None


def _asked(value: object) -> object:
    """`true` asks for the default model, `false` for nothing."""
    if isinstance(value, bool):
        return ModelSettings() if value else None
    if isinstance(value, str | int | float):
        raise ValueError(f"is {value!r}; write true, or {{model: a folder or hub id}}")
    return value


_Asked = Annotated[ModelSettings | None, BeforeValidator(_asked)]


class MetricSettings(_Settings):
    """What is measured on every image. `true` asks for a metric with its default model.

    Attributes:
        keypoints: people, and the object keypoint similarity of the labelled one; always measured.
        colors: whether it has the colours that its caption names.
        image_quality: sharpness, exposure, colourfulness, traces of JPEG.
        silhouette: whether the person fills what the labels' body fills.
        head_pose: whether the head is turned as the labels' is.
        caption_match: whether it shows the scene and the light that the caption says.
    """

    keypoints: KeypointSettings = KeypointSettings()
    colors: bool = False
    image_quality: bool = False
    silhouette: _Asked = None
    head_pose: _Asked = None
    caption_match: _Asked = None


class ClusterSettings(_Settings):
    """Where it is computed; none of this changes a result.

    Attributes:
        scheduler: address of a Dask scheduler, such as tcp://host:8786; none starts workers here.
        workers: worker processes here; one a core by default.
        partition_rows: rows of one task and of one file.
    """

    scheduler: str | None = None
    workers: int | None = Field(default=None, ge=0)
    partition_rows: int = Field(default=64, ge=1, le=100_000)


class Pipeline(_Settings):
    """One pipeline. Relative paths are relative to the folder of the file."""

    lake: str
    poses: tuple[PoseSource, ...] = Field(min_length=1)
    captions: tuple[GrammarSource | CaptionSource, ...] = (GrammarSource(),)
    plan: Plan = Plan()
    curriculum: Curriculum | None = None
    body: BodySettings = BodySettings()
    # What the weight of the nano model's own adapter does is measured in udfs/weights/nano_dpo.md.
    generator: GeneratorSettings = DiffusionSettings(
        adapters=(AdapterSettings(name=DPO, path="nano-dpo", weight=4),)
    )
    image: ImageSettings = ImageSettings()
    metrics: MetricSettings = MetricSettings()
    policy: str = "strict"
    release: Version | None = None
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _names_differ(self) -> "Pipeline":
        for kind, names in (("poses", self.poses), ("captions", self.captions)):
            seen = [source.name for source in names]
            twice = {name for name in seen if seen.count(name) > 1}
            if twice:
                raise ValueError(f"{kind}: the name {', '.join(sorted(twice))} is taken twice")
        return self

    @model_validator(mode="after")
    def _quotas_of_sources(self) -> "Pipeline":
        if self.curriculum is not None:
            unknown = sorted(set(self.curriculum.quotas) - {source.name for source in self.poses})
            if unknown:
                raise ValueError(f"curriculum.quotas: no pose source is called {', '.join(unknown)}")
        return self

    def first_rounds(self, count: int) -> "Pipeline":
        """The same with the first rounds of its curriculum alone."""
        if self.curriculum is None:
            raise ConfigError(
                "there are no rounds: name them in the pipeline file, such as "
                "`curriculum: {rounds: [{budget: 500}, {budget: 500}]}`"
            )
        rounds = self.curriculum.rounds
        if not 1 <= count <= len(rounds):
            raise ConfigError(f"--rounds {count}: the pipeline file has {len(rounds)} rounds")
        cut = self.curriculum.model_copy(update={"rounds": rounds[:count]})
        return self.model_copy(update={"curriculum": cut})

    def without_adapter(self, name: str) -> "Pipeline":
        """The same with no adapter of that name; itself where there is none. `nano-dpo` is called dpo."""
        if not isinstance(self.generator, DiffusionSettings):
            return self
        names = [a.name or (DPO if a.path == "nano-dpo" else None) for a in self.generator.adapters]
        kept = tuple(a for a, mine in zip(self.generator.adapters, names, strict=True) if mine != name)
        return self.model_copy(update={"generator": self.generator.model_copy(update={"adapters": kept})})

    @property
    def grammar(self) -> GrammarSource | None:
        """The grammar among the caption sources."""
        return next((c for c in self.captions if isinstance(c, GrammarSource)), None)

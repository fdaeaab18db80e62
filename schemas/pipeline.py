"""The pipeline file: what goes in, what is computed from it with which settings, and where it goes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class ImageSettings(_Settings):
    """How images are encoded; `quality` is JPEG's."""

    format: Literal["jpeg", "png"] = "jpeg"
    quality: int = Field(default=92, ge=1, le=95)


class KeypointSettings(_Settings):
    """The keypoint detector: `default`, or the path of other weights for the same network."""

    weights: str = "default"


class MetricSettings(_Settings):
    """What is measured on every image; `colors`: whether it has the colours that its caption names."""

    keypoints: KeypointSettings = KeypointSettings()
    colors: bool = False


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
    body: BodySettings = BodySettings()
    generator: ShadedSettings = ShadedSettings()
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

    @property
    def grammar(self) -> GrammarSource | None:
        """The grammar among the caption sources."""
        return next((c for c in self.captions if isinstance(c, GrammarSource)), None)

"""How poses and captions become samples: how many, which with which, seen from where."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

FOCAL_OF_SIZE = 890 / 1024
"""Focal length over image size of PoseDreamer's AMASS renders: 890 px at 1024 x 1024."""

Pairing = Literal["random", "all", "key", "grammar"]
Side = Annotated[int, Field(ge=16, le=4096)]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not all(math.isfinite(v) for v in value) or value[0] > value[1]:
        raise ValueError(f"{value[0]} to {value[1]} is no range: give [low, high]")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Closed interval [low, high]; equal ends mean a constant."""


class Camera(BaseModel):
    """The distribution that cameras are drawn from, uniformly and independently.

    Attributes:
        yaw: azimuth about the body's vertical axis, degrees; 0 sees the front.
        elevation: height angle, degrees; positive looks down.
        distance: from the pelvis, metres.
        focal: pixels at the full image, before any crop; None: 890/1024 of the longer side.
        margin: the image becomes the smallest square around the body grown by this fraction; None: no crop.
        each_draw: every draw of a pose and caption gets its own camera and shape; false: they share
            one and differ in nothing but the seed, as candidates for preference pairs must.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    yaw: Range = (-180.0, 180.0)
    elevation: Range = (-5.0, 15.0)
    distance: Range = (2.8, 3.2)
    focal: float | None = Field(default=None, ge=1)
    margin: float | None = Field(default=0.1, ge=0, le=4)
    each_draw: bool = True

    @field_validator("yaw")
    @classmethod
    def _yaw(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < -360 or value[1] > 360:
            raise ValueError("yaw lies within -360 to 360 degrees")
        return value

    @field_validator("elevation")
    @classmethod
    def _elevation(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < -89 or value[1] > 89:
            raise ValueError("elevation lies within -89 to 89 degrees: straight up and down have no azimuth")
        return value

    @field_validator("distance")
    @classmethod
    def _distance(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < 0.1 or value[1] > 1000:
            raise ValueError("distance lies within 0.1 to 1000 metres")
        return value


class Part(BaseModel):
    """Some of the poses: those whose hash, a number in [0, 1), lies from `low` up to but not at `high`.

    Two parts that don't overlap share no pose; with `by: sequence` no pose sequence either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(default=0.0, ge=0, le=1)
    high: float = Field(default=1.0, ge=0, le=1)
    by: Literal["pose", "sequence"] = "pose"

    @model_validator(mode="after")
    def _holds_something(self) -> "Part":
        if self.low >= self.high:
            raise ValueError(f"no pose lies between {self.low} and {self.high}: low must be below high")
        return self


class Plan(BaseModel):
    """What samples are made of the poses and captions at hand.

    Attributes:
        pairing: `grammar` makes captions for each pose; `random` takes `captions_per_pose` of the
            ingested ones; `all` takes each of them; `key` those whose key is the pose's sequence, or
            its sequence and frame as "sequence:frame".
        captions_per_pose: for `grammar` and `random`.
        draws: samples of each pose-caption pair.
        image_size: height, width, pixels.
        betas: `keep` the pose's shape, or `resample` each coefficient uniformly in [-1, 1].
        prompt: the sentence around the caption; `{caption}` is where it goes.
        round: curriculum round.
        part: plan these poses alone, such as those to train on; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairing: Pairing = "grammar"
    captions_per_pose: int = Field(default=1, ge=1, le=1000)
    draws: int = Field(default=1, ge=1, le=1000)
    camera: Camera = Camera()
    image_size: tuple[Side, Side] = (128, 128)
    betas: Literal["keep", "resample"] = "resample"
    prompt: str = (
        "A realistic full-body photograph of {caption}. One person, the whole body in the frame, in focus."
    )
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    round: int = Field(default=0, ge=0, lt=2**31)
    part: Part | None = None

    @field_validator("prompt")
    @classmethod
    def _one_caption(cls, value: str) -> str:
        if value.count("{caption}") != 1:
            raise ValueError("prompt must hold {caption} exactly once")
        return value

    @property
    def focal(self) -> float:
        """Focal length in pixels before any crop."""
        given = self.camera.focal
        return FOCAL_OF_SIZE * max(self.image_size) if given is None else given

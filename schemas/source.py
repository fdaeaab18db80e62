"""Where poses and captions come from: the sources that a pipeline file names."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A source's name is part of ids and of messages: letters, digits, dot, dash, underscore."""

Probability = Annotated[float, Field(ge=0, le=1)]


class PoseSource(BaseModel):
    """SMPL-X poses in a file, or in all files of a folder.

    `path` is a local path or an fsspec URL. `every` keeps frames 0, n, 2n, ...; `target_fps` does the
    same in terms of the file's own frame rate; `frames_per_sequence` keeps that many frames at random,
    the same ones every time, because they follow from `seed` and the sequence's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SourceName
    path: str = Field(min_length=1)
    kind: Literal["auto", "amass", "smplx", "parquet"] = "auto"
    every: int = Field(default=1, ge=1)
    target_fps: float | None = Field(default=None, gt=0)
    frames_per_sequence: int | None = Field(default=None, ge=1)
    seed: int = 0
    up: Literal["auto", "y", "z", "-y"] = "auto"
    gender: Literal["neutral", "female", "male"] | None = None
    num_expression: int = Field(default=10, ge=0, le=10)
    licence: str = ""

    @model_validator(mode="after")
    def _one_way_to_choose_frames(self) -> "PoseSource":
        chosen = [
            name
            for name, said in (
                ("every", self.every != 1),
                ("target_fps", self.target_fps is not None),
                ("frames_per_sequence", self.frames_per_sequence is not None),
            )
            if said
        ]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} choose frames in different ways: keep one of them")
        return self


class CaptionSource(BaseModel):
    """Captions in a file: COCO's JSON, or one caption a row in CSV, JSON lines or Parquet.

    `text_column` holds the caption and `key_column` what it belongs to (without one, the row's number);
    COCO's JSON has both: the caption and its image id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SourceName
    path: str = Field(min_length=1)
    kind: Literal["auto", "coco", "csv", "jsonl", "parquet"] = "auto"
    text_column: str = "caption"
    key_column: str | None = None
    licence: str = ""


class GrammarSource(BaseModel):
    """Captions made for each pose by the built-in grammar, and how often it says what.

    Scene, top and bottom with their colours are always said. How many captions a pose gets is the plan's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SourceName = "grammar"
    kind: Literal["grammar"] = "grammar"
    demographic: Probability = 0.6
    hair: Probability = 0.4
    shoes: Probability = 0.5
    lighting: Probability = 0.8
    camera: Probability = 0.7
    realism: Probability = 0.7


@dataclass(frozen=True)
class Rejection:
    """A row of an input file that was refused: its frame or line (None: the whole file), and why."""

    row: int | None
    error_code: str
    message: str

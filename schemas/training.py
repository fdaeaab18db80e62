"""How a control or preference model is trained: what the file given to `posedreamer train --config` holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention projections of every block, which a LoRA adapts unless other layers are named."""

_NOT_IDENTITY = {"steps", "checkpoint_every", "log_every", "tensorboard"}


class TrainingSettings(BaseModel):
    """What both trainings share.

    Attributes:
        steps: optimiser steps in all; a finished training goes on when this is raised and called again.
        batch_size: rows, or pairs, of one forward pass and of one process.
        gradient_accumulation: forward passes of one optimiser step.
        learning_rate, schedule, warmup_steps: the rate rises in a line over the warm-up, then stays, or falls
            along a cosine to zero at `steps`.
        rank, alpha, targets: of the LoRA; alpha is the rank unless given.
        mixed_precision: `bf16` and `fp16` run the forward pass in half precision, fp16 on a GPU only.
        gradient_checkpointing: trades time for memory: activations are computed again on the way back.
        timestep_mean, timestep_std: of the logit-normal noise levels.
        timestep_shift: `pipeline` moves levels as the sampler does for the image's size; `none` leaves them.
        held_out: share of the poses that are kept out of training and measured at every checkpoint.
        tensorboard: whether to log for TensorBoard too; by default where it is installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=4, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    rank: int = Field(default=32, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    targets: tuple[str, ...] = Field(default=ATTENTION, min_length=1)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    timestep_mean: float = 0.0
    timestep_std: float = Field(default=1.0, gt=0)
    timestep_shift: Literal["pipeline", "none"] = "pipeline"
    held_out: float = Field(default=0.05, ge=0, le=0.5)
    seed: int = Field(default=0, ge=0, lt=2**63)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=10, ge=1)
    tensorboard: bool | None = None

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _plain_no(cls, value: object) -> object:
        # YAML reads an unquoted no as false.
        return "no" if value is False else value

    @property
    def identity(self) -> dict[str, object]:
        """What shapes the weights at a given step: a checkpoint belongs to exactly one of these."""
        facts = self.model_dump(mode="json", exclude=_NOT_IDENTITY)
        # Where the cosine ends decides every rate before it.
        return {**facts, "steps": self.steps} if self.schedule == "cosine" else facts


class ControlTraining(TrainingSettings):
    """Training on (control image, image, caption) rows; `full` trains all of the transformer, not a LoRA."""

    full: bool = False

    @model_validator(mode="after")
    def _lora_or_all(self) -> "ControlTraining":
        for name in ("rank", "alpha", "targets"):
            if self.full and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of a LoRA, and full trains all of the model instead")
        return self


class DpoTraining(TrainingSettings):
    """Training on preferences.

    Attributes:
        beta: how strongly the model is held to the one it starts from; higher holds more.
        winner_weight: weight of the winner's own flow-matching loss. The preference loss alone can be lowered
            by making losers worse and winners no better; this term pulls towards winners.
        reference_weight: weight of the mean squared difference between the velocities of the model and of the
            one it starts from, at levels from all of the sampler's way, whichever the pairs are learnt at. It
            holds what the preferences say nothing about, where `winner_weight` pulls all seeds towards the
            few winners.
    """

    learning_rate: float = Field(default=5e-5, gt=0)
    beta: float = Field(default=100.0, gt=0)
    winner_weight: float = Field(default=0.0, ge=0)
    reference_weight: float = Field(default=0.0, ge=0)

    @property
    def identity(self) -> dict[str, object]:
        facts = super().identity
        if self.reference_weight:
            # It held at the levels of the pairs alone once: such a training is another one.
            facts["reference_levels"] = "sampler"
        else:
            # Trainings that began before there was one go on.
            del facts["reference_weight"]
        return facts

"""What a training step minimises: the flow-matching loss of a picture, or the preference loss of a pair."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from udfs.adapters import Lora
from udfs.dpo import Errors, preference_loss
from udfs.encoded import Batch
from udfs.flow_matching import Flow, Prompts, noised, velocity_error


class Objective(Protocol):
    """The loss of a batch, and scalars to log of it.

    model: the transformer, wrapped for training; noise: (B, L, C); levels: (B,); generator: on the CPU, for
    what an objective draws besides.
    """

    def __call__(
        self, model: nn.Module, batch: Batch, noise: Tensor, levels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass(frozen=True)
class ControlObjective:
    """Flow matching of images, given their control images and prompts. size: height and width, pixels."""

    flow: Flow
    size: tuple[int, int]

    def __call__(
        self, model: nn.Module, batch: Batch, noise: Tensor, levels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        latents = batch.latents[:, 0]
        points = noised(latents, noise, levels)
        said = self.flow.velocity(points, batch.control, batch.prompts, levels, self.size, model)
        loss = velocity_error(said, latents, noise).mean()
        return loss, {"loss": loss.detach()}


@dataclass(frozen=True)
class DpoObjective:
    """Flow-DPO of pairs. The reference is the same transformer without the LoRA that is trained.

    winner_weight, reference_weight: see `schemas.training.DpoTraining`. Logged are the `PreferenceLoss`,
    `drift`, the mean squared difference of the velocities from the reference's where pairs are learnt, and
    with a reference_weight `held_drift`, the same at levels from all of the sampler's way.
    """

    flow: Flow
    size: tuple[int, int]
    lora: Lora
    beta: float
    winner_weight: float = 0.0
    reference_weight: float = 0.0

    def __call__(
        self, model: nn.Module, batch: Batch, noise: Tensor, levels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        pictures = torch.cat([batch.latents[:, 0], batch.latents[:, 1]])
        noises = noise.repeat(2, 1, 1)

        def errors(said: Tensor) -> Errors:
            return Errors(*velocity_error(said, pictures, noises).chunk(2))

        said, before = self._both(lambda: self.velocity(model, batch, pictures, noises, levels))
        found = preference_loss(
            errors(said), errors(before), beta=self.beta, winner_weight=self.winner_weight
        )
        logged = vars(found) | {"drift": _difference(said, before)}
        loss = found.loss
        if self.reference_weight:
            held = self.held_drift(model, batch, generator)
            loss = loss + self.reference_weight * held
            logged |= {"loss": loss, "held_drift": held}
        return loss, {name: value.detach() for name, value in logged.items()}

    def held_drift(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared difference of the velocities from the reference's, between noise and one picture of
        each pair, winner or loser, at levels as dense as the sampler's."""
        count, device = len(batch.latents), batch.latents.device
        place = torch.randint(2, (count,), generator=generator).to(device)
        pictures = batch.latents[torch.arange(count, device=device), place]
        noise = torch.randn(pictures.shape, generator=generator).to(device)
        # In (0, 1]: the shift divides by the level.
        drawn = 1 - torch.rand(count, generator=generator)
        levels = self.flow.shift(drawn, pictures.shape[1]).to(device)
        points = noised(pictures, noise, levels)
        said, before = self._both(
            lambda: self.flow.velocity(points, batch.control, batch.prompts, levels, self.size, model)
        )
        return _difference(said, before)

    def _both(self, ask: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """What the trained model says, and the reference."""
        with self.lora.left_out(), torch.no_grad():
            before = ask()
        return ask(), before

    def velocity(
        self, model: nn.Module, batch: Batch, pictures: Tensor, noises: Tensor, levels: Tensor
    ) -> Tensor:
        """(2B, L, C) what the model says of B winners and B losers, both at the same noise and levels."""
        both = levels.repeat(2)
        prompts = Prompts(batch.prompts.tokens.repeat(2, 1, 1), batch.prompts.pooled.repeat(2, 1))
        points, control = noised(pictures, noises, both), batch.control.repeat(2, 1, 1)
        return self.flow.velocity(points, control, prompts, both, self.size, model)


def _difference(said: Tensor, before: Tensor) -> Tensor:
    return (said.float() - before.float()).square().mean()

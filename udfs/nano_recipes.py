"""How the nano model is trained: how many steps, on what, how fast."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from udfs.nano_model import CONFIGS, NanoConfig


@dataclass(frozen=True)
class Phase:
    """Optimiser steps on pictures of one size, `batch` at a time.

    `first` is the share of the transformer's examples that are at the noise which the sampler begins with.
    """

    size: int
    steps: int
    batch: int
    first: float = 0.0


@dataclass(frozen=True)
class Stage:
    """Phases over which the learning rate rises to `rate` and falls again to nearly nothing.

    `shoes` is how much more the feet count in pictures whose captions name a colour for shoes.
    """

    phases: tuple[Phase, ...]
    rate: float = 2e-3
    shoes: float = 0.0


@dataclass(frozen=True)
class TextPhase:
    """Optimiser steps on `batch` captions at a time."""

    steps: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training. Small pictures come first: what captions and control images mean is learned sooner on them.

    Attributes:
        model: sizes; see `udfs.nano_model`.
        renders: pictures that it learns from, of the model's size.
        vae: phases of the autoencoder.
        decoder: phases in which its decoder goes on alone; its `shoes` are everybody's.
        text: steps of the text encoders on captions alone.
        transformer: stages of the transformer.
        vae_rate, text_rate: highest learning rates.
        sampling_steps: of the sampler, for the figures and grids on the way.
        seed: of renders, weights, order and noise.
    """

    model: NanoConfig
    renders: int
    vae: tuple[Phase, ...]
    decoder: Stage
    text: TextPhase
    transformer: tuple[Stage, ...]
    vae_rate: float = 2e-3
    text_rate: float = 2e-3
    sampling_steps: int = 4
    seed: int = 7

    @property
    def facts(self) -> dict[str, object]:
        return dataclasses.asdict(self)


RECIPES: Mapping[str, Recipe] = {
    "128": Recipe(
        model=CONFIGS["128"],
        renders=16_384,
        vae=(Phase(64, 900, 32), Phase(128, 600, 16)),
        decoder=Stage((Phase(128, 2_400, 16),), rate=1e-3, shoes=12.0),
        text=TextPhase(400, 128),
        transformer=(
            Stage((Phase(64, 1_600, 32, first=1 / 3), Phase(128, 4_800, 24, first=1 / 3))),
            Stage((Phase(128, 4_800, 24, first=1 / 3),), rate=1e-3, shoes=12.0),
            Stage((Phase(128, 2_400, 24, first=1 / 3),), rate=1e-3, shoes=36.0),
        ),
    ),
    "192": Recipe(
        model=CONFIGS["192"],
        renders=65_536,
        vae=(Phase(96, 6_000, 64), Phase(192, 4_000, 32)),
        decoder=Stage((Phase(192, 8_000, 32),), rate=1e-3, shoes=12.0),
        text=TextPhase(2_000, 256),
        transformer=(
            Stage((Phase(96, 40_000, 128, first=1 / 3), Phase(192, 20_000, 64, first=1 / 3))),
            Stage((Phase(192, 20_000, 64, first=1 / 3),), rate=1e-3, shoes=12.0),
        ),
    ),
    "tiny": Recipe(
        model=CONFIGS["tiny"],
        renders=64,
        vae=(Phase(32, 4, 4),),
        decoder=Stage((Phase(32, 4, 4),), rate=1e-3, shoes=12.0),
        text=TextPhase(4, 4),
        transformer=(
            Stage((Phase(16, 2, 4), Phase(32, 2, 4, first=1 / 2))),
            Stage((Phase(32, 2, 4),), rate=1e-3, shoes=12.0),
        ),
    ),
}
"""By what `--config` says: 128 takes hours on two cores (3.5), 192 wants a GPU, tiny is for tests."""


def steps_of(phases: Sequence[Phase]) -> int:
    """Steps of all phases together."""
    return sum(phase.steps for phase in phases)


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that a step, counted from 0, belongs to."""
    for phase in phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    raise IndexError(step)


def stage_at(stages: Sequence[Stage], step: int) -> tuple[Stage, int]:
    """The stage that a step belongs to, and which of the stage's own it is; both count from 0."""
    for stage in stages:
        steps = steps_of(stage.phases)
        if step < steps:
            return stage, step
        step -= steps
    raise IndexError(step)

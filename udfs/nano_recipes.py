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
        text: steps of the text encoders on captions alone.
        transformer: phases of the transformer.
        vae_rate, text_rate, rate: highest learning rates.
        sampling_steps: of the sampler, for the figures and grids on the way.
        seed: of renders, weights, order and noise.
    """

    model: NanoConfig
    renders: int
    vae: tuple[Phase, ...]
    text: TextPhase
    transformer: tuple[Phase, ...]
    vae_rate: float = 2e-3
    text_rate: float = 2e-3
    rate: float = 2e-3
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
        text=TextPhase(400, 128),
        transformer=(Phase(64, 1_600, 32, first=1 / 3), Phase(128, 4_800, 24, first=1 / 3)),
    ),
    "192": Recipe(
        model=CONFIGS["192"],
        renders=65_536,
        vae=(Phase(96, 6_000, 64), Phase(192, 4_000, 32)),
        text=TextPhase(2_000, 256),
        transformer=(Phase(96, 40_000, 128, first=1 / 3), Phase(192, 20_000, 64, first=1 / 3)),
    ),
    "tiny": Recipe(
        model=CONFIGS["tiny"],
        renders=64,
        vae=(Phase(32, 4, 4),),
        text=TextPhase(4, 4),
        transformer=(Phase(16, 2, 4), Phase(32, 2, 4, first=1 / 2)),
    ),
}
"""By what `--config` says: 128 takes two hours on two cores, 192 wants a GPU, tiny is for tests."""


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

"""Rounds: how many poses each one gets, and by what they are chosen."""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.regressor import RegressorSettings
from schemas.source import SourceName

HARD, UNCERTAIN, NOVEL, RANDOM = "hard", "uncertain", "novel", "random"
REASONS = (HARD, UNCERTAIN, NOVEL, RANDOM)
"""Why a pose was picked, in the order in which they choose."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mix(_Settings):
    """Shares of a round's budget, by what chooses; they are scaled to add up to 1. None named is all random.

    Attributes:
        hard: lowest predicted OKS.
        uncertain: largest spread of the predictions.
        novel: farthest from every pose that was generated before.
        random: any.
    """

    hard: float = Field(default=0.0, ge=0, le=1)
    uncertain: float = Field(default=0.0, ge=0, le=1)
    novel: float = Field(default=0.0, ge=0, le=1)
    random: float = Field(default=0.0, ge=0, le=1)

    def counts(self, budget: int) -> dict[str, int]:
        """The budget by reason, largest remainders first; adds up to it. All zero is all random."""
        shares = [getattr(self, reason) for reason in REASONS]
        if not sum(shares):
            shares[REASONS.index(RANDOM)] = 1.0
        exact = [budget * share / sum(shares) for share in shares]
        counts = [math.floor(e) for e in exact]
        order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
        for i in order[: budget - sum(counts)]:
            counts[i] += 1
        return dict(zip(REASONS, counts, strict=True))


class Round(_Settings):
    """One round.

    Attributes:
        budget: poses that it gets.
        mix: what chooses them. The first round is random whatever it says: nothing was measured yet.
        captions_per_pose: None: the plan's.
    """

    budget: int = Field(default=256, ge=1, le=10_000_000)
    mix: Mix = Mix(hard=0.5, novel=0.25, random=0.25)
    captions_per_pose: int | None = Field(default=None, ge=1, le=1000)


def _shares(value: dict[str, float]) -> dict[str, float]:
    for name, share in value.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: {share} is no share: give a number from 0 to 1")
    return value


class Curriculum(_Settings):
    """How the poses of each round are chosen from what the rounds before it measured.

    Attributes:
        rounds: in order.
        spacing: no two poses of a round are nearer to each other than this: root mean square distance of
            22 joints, the pelvis in one place and upright, metres.
        quotas: the most that a source may have of a round's budget, by its name; others may have all.
        min_plausibility: poses below it are never picked; 0 takes all.
        regressor: how the model is trained that predicts OKS.
        views: directions that a candidate's OKS is predicted from, drawn from the plan's camera.
        seed: of everything that is left to chance.
    """

    rounds: tuple[Round, ...] = Field(min_length=1, max_length=1000)
    spacing: float = Field(default=0.05, ge=0, le=2)
    quotas: Annotated[dict[SourceName, float], AfterValidator(_shares)] = {}
    min_plausibility: float = Field(default=0.3, ge=0, le=1)
    regressor: RegressorSettings = RegressorSettings()
    views: int = Field(default=2, ge=1, le=64)
    seed: int = Field(default=0, ge=0, lt=2**63)

"""Preference optimisation of a flow-matching model.

Flow-DPO (Liu et al., "Improving Video Generation with Human Feedback", 2025; after Wallace et al.,
"Diffusion Model Alignment Using Direct Preference Optimization", 2024): the model shall fit the preferred
picture better, and the other one worse, than the model it started from does. All four errors of a pair are
taken at one noise and one noise level, so that they differ by the pictures and the models alone.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Errors:
    """(B,) mean squared velocity errors of B pairs under one model."""

    winner: Tensor
    loser: Tensor


@dataclass(frozen=True)
class PreferenceLoss:
    """The loss of B pairs and what it is made of, all scalars.

    Attributes:
        loss: to be minimised.
        preference: the preference term alone; ln 2 while model and reference are the same.
        accuracy: share of pairs whose winner gained on the loser; ties count half.
        winner, loser: mean errors under the trained model.
        winner_change, loser_change: the same less the reference's. A training that works lowers the first;
            one that only raises the second has made losers worse and winners no better.
    """

    loss: Tensor
    preference: Tensor
    accuracy: Tensor
    winner: Tensor
    loser: Tensor
    winner_change: Tensor
    loser_change: Tensor


def preference_loss(
    model: Errors, reference: Errors, *, beta: float, winner_weight: float = 0.0
) -> PreferenceLoss:
    """-logsigmoid(-beta / 2 * ((model's - reference's error on winners) - (the same on losers))), the mean.

    winner_weight: adds this times the winner's own error, so that winners are learnt and not only preferred.
    """
    winner = model.winner - reference.winner
    loser = model.loser - reference.loser
    gained = loser - winner
    preference = -logsigmoid(beta / 2 * gained).mean()
    correct = (gained > 0).to(gained.dtype) + 0.5 * (gained == 0).to(gained.dtype)
    return PreferenceLoss(
        loss=preference + winner_weight * model.winner.mean() if winner_weight else preference,
        preference=preference.detach(),
        accuracy=correct.mean().detach(),
        winner=model.winner.mean().detach(),
        loser=model.loser.mean().detach(),
        winner_change=winner.mean().detach(),
        loser_change=loser.mean().detach(),
    )

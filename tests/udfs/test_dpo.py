import math

import pytest
import torch

from udfs.dpo import Errors, preference_loss


def errors(winner, loser):
    return Errors(torch.tensor(winner, dtype=torch.float64), torch.tensor(loser, dtype=torch.float64))


def test_a_case_by_hand():
    # Winner: 0.5 - 0.6 = -0.1. Loser: 0.9 - 0.7 = 0.2. -10 / 2 * (-0.1 - 0.2) = 1.5.
    found = preference_loss(errors([0.5], [0.9]), errors([0.6], [0.7]), beta=10.0)
    assert float(found.loss) == pytest.approx(math.log(1 + math.exp(-1.5)), abs=1e-12)
    assert float(found.winner_change) == pytest.approx(-0.1)
    assert float(found.loser_change) == pytest.approx(0.2)
    assert float(found.winner) == 0.5
    assert float(found.loser) == 0.9
    assert float(found.accuracy) == 1
    weighted = preference_loss(errors([0.5], [0.9]), errors([0.6], [0.7]), beta=10.0, winner_weight=3.0)
    assert float(weighted.loss) == pytest.approx(math.log(1 + math.exp(-1.5)) + 1.5, abs=1e-12)
    assert float(weighted.preference) == pytest.approx(float(found.loss))


def test_the_loss_of_a_batch_is_the_mean_of_its_pairs():
    model, reference = errors([0.5, 0.2], [0.9, 0.3]), errors([0.6, 0.1], [0.7, 0.3])
    alone = [
        preference_loss(
            Errors(model.winner[i : i + 1], model.loser[i : i + 1]),
            Errors(reference.winner[i : i + 1], reference.loser[i : i + 1]),
            beta=7.0,
        )
        for i in range(2)
    ]
    both = preference_loss(model, reference, beta=7.0)
    assert float(both.loss) == pytest.approx(sum(float(a.loss) for a in alone) / 2, abs=1e-12)
    assert float(both.accuracy) == 0.5


def test_a_model_that_is_the_reference_has_loss_ln_2_and_no_preference():
    same = errors([0.5, 0.1], [0.9, 0.4])
    found = preference_loss(same, same, beta=100.0)
    assert float(found.loss) == pytest.approx(math.log(2), abs=1e-12)
    assert float(found.accuracy) == 0.5


def test_making_only_losers_worse_is_told_from_making_winners_better():
    reference = errors([0.5], [0.5])
    worse_losers = preference_loss(errors([0.5], [0.7]), reference, beta=10.0)
    better_winners = preference_loss(errors([0.3], [0.5]), reference, beta=10.0)
    assert float(worse_losers.loss) == pytest.approx(float(better_winners.loss))
    assert float(worse_losers.winner_change) == 0
    assert float(better_winners.winner_change) < 0


@pytest.mark.parametrize("winner_weight", [0.0, 0.3])
def test_the_gradient_agrees_with_finite_differences(winner_weight):
    """Through velocities, as in training: the errors are of a small model of the velocity."""
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 3, 5, generator=rng, dtype=torch.float64)
    weights = torch.randn(5, 5, generator=rng, dtype=torch.float64)
    target = torch.randn(2, 3, 5, generator=rng, dtype=torch.float64)

    def of(w):
        error = ((pictures @ w - target) ** 2).mean(2)
        return Errors(error[0], error[1])

    def loss(w):
        return preference_loss(of(w), of(weights), beta=4.0, winner_weight=winner_weight).loss

    moved = (weights + 0.1 * torch.randn(5, 5, generator=rng, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(moved), moved)
    step = 1e-6
    for i, j in ((0, 0), (2, 3), (4, 1)):
        shift = torch.zeros(5, 5, dtype=torch.float64)
        shift[i, j] = step
        with torch.no_grad():
            numeric = float(loss(moved + shift) - loss(moved - shift)) / (2 * step)
        assert float(gradient[i, j]) == pytest.approx(numeric, rel=1e-5, abs=1e-9)


def test_a_preference_that_is_far_off_neither_overflows_nor_loses_its_gradient():
    winner = torch.tensor([1000.0], requires_grad=True)
    found = preference_loss(
        Errors(winner, torch.zeros(1)), Errors(torch.zeros(1), torch.zeros(1)), beta=100.0
    )
    assert float(found.loss.detach()) == pytest.approx(50_000)
    found.loss.backward()
    assert float(winner.grad) == pytest.approx(50)

"""A curriculum's settings: how a budget is shared out, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.curriculum import RANDOM, REASONS, Curriculum, Mix, Round

shares = st.floats(0, 1, allow_nan=False)


@given(st.integers(0, 10_000), shares, shares, shares, shares)
def test_a_budget_is_shared_out_to_the_last_pose(budget, hard, uncertain, novel, random):
    mix = Mix(hard=hard, uncertain=uncertain, novel=novel, random=random)
    counts = mix.counts(budget)
    assert tuple(counts) == REASONS
    assert sum(counts.values()) == budget
    total = hard + uncertain + novel + random
    if total > 1e-6:
        for reason in REASONS:
            assert abs(counts[reason] - budget * getattr(mix, reason) / total) < 1 + 1e-6


def test_a_mix_of_nothing_is_random():
    assert Mix().counts(7)[RANDOM] == 7


def test_a_quota_that_is_no_share_is_refused():
    with pytest.raises(ValidationError, match="amass"):
        Curriculum(rounds=(Round(),), quotas={"amass": 1.5})

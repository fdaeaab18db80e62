"""Preference pairs: which image of a group wins, at bounds, in ties, and where scores are missing."""

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import ConfigError
from schemas.policy import Rule
from schemas.preference import (
    CAPPED,
    CLOSE,
    FEW,
    PAIRED,
    POOR,
    UNFIT,
    PreferencePolicy,
    choose_pairs,
    parse_preference_policy,
)

BASE = PreferencePolicy(name="p")


def choose(policy, *groups, ids=None, persons=None, sequence=None):
    """Pairs of groups of scores, as (winner, loser) rows, and the outcomes."""
    group = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    scores = [s for g in groups for s in g]
    n = len(scores)
    columns = pa.table(
        {
            "oks": pa.array(scores, pa.float32()),
            "persons": pa.array(persons or [1] * n, pa.int32()),
        }
    )
    ids = np.arange(n) if ids is None else np.asarray(ids)
    sequence = np.zeros(len(groups), int) if sequence is None else np.asarray(sequence)
    found = choose_pairs(policy, group, sequence, ids, columns)
    return list(zip(found.winner.tolist(), found.loser.tolist(), strict=True)), found


def test_the_best_is_preferred_to_the_worst():
    pairs, found = choose(BASE, [0.6, 0.9, 0.2, 0.7], [0.8, 0.3])
    assert pairs == [(1, 2), (4, 5)]
    assert found.gap.tolist() == pytest.approx([0.7, 0.5])
    assert found.gap.dtype == np.float32
    assert (found.gap == found.winner_score - found.loser_score).all()
    assert found.outcome.tolist() == [PAIRED, PAIRED]


def test_more_pairs_go_inwards_while_they_are_far_enough_apart():
    scores = [0.9, 0.1, 0.8, 0.3, 0.62, 0.6]
    assert choose(BASE.model_copy(update={"max_pairs": 9}), scores)[0] == [(0, 1), (2, 3)]
    assert choose(BASE.model_copy(update={"max_pairs": 1}), scores)[0] == [(0, 1)]


def test_bounds_are_compared_as_float32_columns_hold_them():
    """0.8 - 0.75 is above 0.05 in float32, 0.65 - 0.6 is below it: what counts is the stored gap."""
    above, below = np.float32(0.8) - np.float32(0.75), np.float32(0.65) - np.float32(0.6)
    assert above >= np.float32(0.05) > below
    _, found = choose(BASE, [0.8, 0.75], [0.65, 0.6])
    assert found.outcome.tolist() == [PAIRED, CLOSE]
    exact = BASE.model_copy(update={"min_gap": float(below)})
    assert choose(exact, [0.65, 0.6])[1].outcome.tolist() == [PAIRED]
    _, found = choose(BASE, [0.5, 0.1], [np.nextafter(np.float32(0.5), np.float32(0)), 0.1])
    assert found.outcome.tolist() == [PAIRED, POOR]


def test_ties_go_to_the_smaller_id_in_any_order_of_rows():
    pairs, _ = choose(BASE, [0.9, 0.9, 0.2, 0.2], ids=[7, 5, 4, 3])
    assert pairs == [(1, 3)]
    pairs, _ = choose(BASE, [0.2, 0.9, 0.2, 0.9], ids=[3, 5, 4, 7])
    assert pairs == [(1, 0)]


def test_equal_scores_are_no_preference():
    assert choose(BASE, [0.9, 0.9, 0.9])[1].outcome.tolist() == [CLOSE]


def test_a_missing_score_is_the_worst_or_left_out():
    zero, found = choose(BASE, [0.9, None, 0.3])
    assert zero == [(0, 1)]
    assert found.loser_score.tolist() == [0.0]
    skip = BASE.model_copy(update={"missing": "skip"})
    pairs, found = choose(skip, [0.9, None, 0.3], [0.9, None], [None, None])
    assert pairs == [(0, 2)]
    assert found.outcome.tolist() == [PAIRED, FEW, FEW]
    assert choose(BASE, [None, None])[1].outcome.tolist() == [POOR]


def test_a_lone_image_has_nobody_to_be_compared_with():
    assert choose(BASE, [0.9], [0.9, 0.1])[1].outcome.tolist() == [FEW, PAIRED]


def test_rules_for_winners_leave_losers_alone():
    alone = BASE.model_copy(update={"winner": (Rule(column="persons", equals=1),)})
    pairs, _ = choose(alone, [0.9, 0.8, 0.1], persons=[2, 1, 3])
    assert pairs == [(1, 2)]
    assert choose(alone, [0.9, 0.1], persons=[2, 2])[1].outcome.tolist() == [UNFIT]


def test_a_sequence_gives_its_widest_pairs():
    capped = BASE.model_copy(update={"max_pairs_per_sequence": 2})
    pairs, found = choose(
        capped, [0.9, 0.8], [0.9, 0.1], [0.9, 0.5], [0.9, 0.8], sequence=[4, 4, 4, 5]
    )  # fmt: skip
    assert pairs == [(2, 3), (4, 5), (6, 7)]
    assert found.outcome.tolist() == [CAPPED, PAIRED, PAIRED, PAIRED]


def test_no_images_no_pairs():
    pairs, found = choose(BASE)
    assert pairs == []
    assert len(found.outcome) == 0


def test_choices_equal_a_loop_over_groups():
    rng = np.random.default_rng(5)
    policy = BASE.model_copy(update={"max_pairs": 3, "min_gap": 0.1})
    groups = [rng.random(rng.integers(1, 7)).round(2).tolist() for _ in range(300)]
    ids = rng.permutation(sum(map(len, groups)))
    pairs, _ = choose(policy, *groups, ids=ids)
    wanted, start = [], 0
    for scores in groups:
        rows = range(start, start + len(scores))
        score = dict(zip(rows, map(np.float32, scores), strict=True))
        best = sorted(rows, key=lambda i: (-score[i], ids[i]))
        worst = sorted(rows, key=lambda i: (score[i], ids[i]))
        for a, b in list(zip(best, worst, strict=True))[:3]:
            if score[a] - score[b] >= np.float32(0.1) and score[a] >= 0.5:
                wanted.append((a, b))
        start += len(scores)
    assert pairs == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"score": "person_score"},
        {"min_gap": 0.06},
        {"min_winner": 0.4},
        {"max_pairs": 2},
        {"max_pairs_per_sequence": 3},
        {"missing": "skip"},
        {"winner": (Rule(column="persons", equals=1),)},
    ],
)
def test_every_ingredient_alone_changes_the_fingerprint(change):
    assert BASE.model_copy(update=change).fingerprint.value != BASE.fingerprint.value


def test_names_and_reasons_change_nothing():
    words = {"name": "q", "description": "d"}
    assert BASE.model_copy(update=words).fingerprint.value == BASE.fingerprint.value
    rules = [Rule(column="persons", equals=1, reason=r) for r in ("", "why")]
    a, b = (BASE.model_copy(update={"winner": (rule,)}) for rule in rules)
    assert a.fingerprint.value == b.fingerprint.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nscore: okss\n", "did you mean oks"),
        ("name: a\nscore: persons\n", "persons"),
        ("name: a\nmin_gap: 0\n", "min_gap"),
        ("name: a\nmin_gap: .nan\n", "min_gap"),
        ("name: a\nworst: true\n", "worst"),
        ("name: a\nmax_pairs: 0\n", "max_pairs"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_preference_policy(text, "a.yaml")

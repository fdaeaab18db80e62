"""A round's picks: every rule by hand, the whole against a plain and slow version of itself."""

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from schemas.curriculum import HARD, NOVEL, RANDOM, REASONS, UNCERTAIN, Curriculum, Mix, Round
from schemas.errors import InputError
from schemas.ids import mix
from udfs.picking import Candidates, pick
from udfs.random_poses import random_poses
from udfs.skeleton import descriptor

ALL = dict.fromkeys(REASONS, 0.0)


def line(places, **columns):
    """Candidates at these places of one axis, metres; ids count from 1."""
    n = len(places)
    points = np.zeros((n, 66), np.float32)
    points[:, 65] = places
    made = {name: np.array(column, np.float32) for name, column in columns.items() if name != "source"}
    source = np.array(columns.get("source", ["a"] * n), object)
    return Candidates(np.arange(1, n + 1), source, points, np.zeros(n, bool), **made)


def picked(candidates, budget, number=2, mix=None, **settings):
    settings = {"spacing": 0.05, "min_plausibility": 0.0} | settings
    round = Round(budget=budget, mix=mix or Mix())
    return pick(candidates, round, Curriculum(rounds=(round,), **settings), number)


def only(reason):
    return Mix(**(ALL | {reason: 1.0}))


def apart(n, **columns):
    return line(np.arange(n), **columns)


# Rules, one by one.


def test_the_first_round_is_random_whatever_its_mix():
    candidates = apart(50, plausibility=[0.1] * 10 + [0.9] * 40, source=["a", "b"] * 25)
    first = picked(candidates, 20, 1, only(HARD), min_plausibility=0.5, quotas={"a": 0.25})
    assert set(first.reason) == {RANDOM}
    assert len(first.rows) == 20
    assert first.rows.min() >= 10
    assert (candidates.source[first.rows] == "a").sum() == 5
    scored = replace(candidates, predicted_oks=np.linspace(0, 1, 50, dtype=np.float32))
    assert picked(scored, 20, 1, only(HARD)).reason.tolist() == [RANDOM] * 20


def test_random_follows_the_hash_of_id_seed_and_round_alone():
    candidates = apart(40)
    for seed, number in ((0, 1), (0, 2), (7, 1)):
        order = np.argsort(mix(candidates.pose_id, "pick", seed, number))
        assert picked(candidates, 10, number, seed=seed).rows.tolist() == order[:10].tolist()
    assert picked(candidates, 10, 1).rows.tolist() != picked(candidates, 10, 2).rows.tolist()


def test_each_reason_takes_what_it_is_there_for():
    candidates = apart(
        9,
        predicted_oks=[0.9, 0.1, 0.8, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9],
        spread=[0, 0, 0, 0, 0.3, 0.2, 0, 0, 0],
        novelty=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.7, 0.6],
    )
    found = picked(candidates, 6, mix=Mix(hard=1, uncertain=1, novel=1, random=0))
    by_reason = {r: found.rows[found.reason == r].tolist() for r in (HARD, UNCERTAIN, NOVEL)}
    assert by_reason == {HARD: [1, 3], UNCERTAIN: [4, 5], NOVEL: [7, 8]}
    assert found.short == {}


def test_reasons_take_turns_so_that_any_beginning_has_the_mix():
    n = 400
    scores = np.random.default_rng(0).random((3, n))
    candidates = apart(n, predicted_oks=scores[0], spread=scores[1], novelty=scores[2])
    wanted = Mix(hard=0.5, uncertain=0.1, novel=0.2, random=0.2)
    reasons = picked(candidates, 100, mix=wanted).reason.tolist()
    assert Counter(reasons) == wanted.counts(100)
    for end in range(10, 101, 10):
        seen = Counter(reasons[:end])
        for reason, count in wanted.counts(end).items():
            assert abs(seen[reason] - count) <= 1


def test_a_pose_that_two_reasons_want_is_picked_once():
    candidates = apart(4, predicted_oks=[0.1, 0.5, 0.6, 0.7], novelty=[0.9, 0.8, 0.2, 0.1])
    found = picked(candidates, 4, mix=Mix(hard=0.5, novel=0.5, random=0))
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert found.reason.tolist() == [HARD, NOVEL, HARD, NOVEL]


def test_ties_go_by_the_hash():
    candidates = apart(30, predicted_oks=[0.5] * 30, novelty=[0.2] * 30)
    order = np.argsort(mix(candidates.pose_id, "pick", 0, 2))[:8].tolist()
    assert picked(candidates, 8, mix=only(HARD)).rows.tolist() == order
    assert picked(candidates, 8, mix=only(NOVEL)).rows.tolist() == order


def test_nothing_is_nearer_than_the_spacing_to_a_pick_before_it():
    candidates = line([0, 0.04, 0.05, 0.09, 0.10, 0.3], predicted_oks=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert picked(candidates, 6, mix=only(HARD)).rows.tolist() == [0, 2, 4, 5]
    assert picked(candidates, 6, mix=only(HARD)).short == {"spacing": 2}
    assert picked(candidates, 6, mix=only(HARD), spacing=0).rows.tolist() == [0, 1, 2, 3, 4, 5]


def test_poses_alike_are_picked_again_only_without_spacing():
    candidates = line([0.2] * 5)
    assert len(picked(candidates, 5, spacing=0).rows) == 5
    assert len(picked(candidates, 5, spacing=1e-6).rows) == 1


def test_a_novel_pick_is_far_from_the_picks_before_it():
    # The first two are the farthest from what was generated, and near to each other.
    candidates = line([0.90, 0.80, 0.0, 0.30], novelty=[0.9, 0.8, 0.4, 0.3], predicted_oks=[0.5] * 4)
    assert picked(candidates, 3, mix=only(NOVEL)).rows.tolist() == [0, 2, 3]


def test_a_novel_pick_is_far_from_what_other_reasons_picked():
    candidates = line([0.0, 0.1, 0.5], predicted_oks=[0.1, 0.9, 0.9], novelty=[0.2, 0.6, 0.5])
    found = picked(candidates, 2, mix=Mix(hard=0.5, novel=0.5, random=0))
    assert found.rows.tolist() == [0, 2]


def test_what_is_no_news_is_not_novel():
    candidates = line([0, 1, 2], novelty=[0, 0, 0.3], predicted_oks=[0.5] * 3)
    assert picked(candidates, 3, mix=only(NOVEL)).reason.tolist() == [NOVEL, RANDOM, RANDOM]


def test_a_quota_is_a_share_of_the_budget_rounded_down():
    scores = np.linspace(0, 1, 300)
    candidates = apart(300, predicted_oks=scores, source=["a"] * 100 + ["b"] * 100 + ["c"] * 100)
    for quotas, counts in (
        ({"a": 0.29}, {"a": 29, "b": 71}),
        ({"a": 0.299, "b": 0}, {"a": 29, "c": 71}),
        ({}, {"a": 100}),
        ({"unknown": 0.1}, {"a": 100}),
    ):
        found = picked(candidates, 100, mix=only(HARD), quotas=quotas)
        assert Counter(candidates.source[found.rows]) == counts
        assert found.short == {}


def test_what_was_taken_or_is_implausible_is_never_picked():
    candidates = apart(6, plausibility=[0.2, 0.3, np.nan, 1, 1, 1], predicted_oks=np.arange(6) / 10)
    candidates = replace(candidates, taken=np.array([0, 0, 0, 1, 0, 0], bool))
    assert picked(candidates, 9, mix=only(HARD), min_plausibility=0.3).rows.tolist() == [1, 4, 5]
    assert picked(candidates, 9, mix=only(HARD), min_plausibility=0).rows.tolist() == [0, 1, 2, 4, 5]


def test_a_reason_without_scores_leaves_its_share_to_random():
    candidates = apart(30, predicted_oks=[0.1, 0.2] + [np.nan] * 28)
    found = picked(candidates, 20, mix=Mix(hard=0.5, uncertain=0.25, novel=0.25, random=0))
    assert Counter(found.reason) == {HARD: 2, RANDOM: 18}
    assert found.short == {}


def test_a_smaller_round_says_what_stood_against_it():
    candidates = line(
        [0, 1, 2, 3, 3.01, 4, 5, 6],
        plausibility=[1, 1, 1, 1, 1, 1, 0, 1],
        source=["a", "a", "a", "b", "b", "b", "b", "b"],
    )
    candidates = replace(candidates, taken=np.array([0] * 7 + [1], bool))
    found = picked(candidates, 8, min_plausibility=0.5, quotas={"a": 0.25})
    assert found.short == {"pool": 1, "plausibility": 1, "quotas": 1, "spacing": 1}
    assert len(found.rows) == 4


def test_an_empty_pool_gives_an_empty_round():
    found = picked(apart(0, predicted_oks=[], novelty=[]), 5)
    assert found.rows.dtype == np.int64
    assert (len(found.rows), len(found.reason), found.short) == (0, 0, {"pool": 5})


def test_bad_candidates_are_refused_and_named():
    twice = replace(apart(3), pose_id=np.array([4, 9, 4]))
    with pytest.raises(InputError, match="pose 4 more than once"):
        picked(twice, 2)
    broken = apart(3)
    broken.points[1, 7] = np.nan
    with pytest.raises(InputError, match="pose 2 has a joint that is not finite"):
        picked(broken, 2)


# The whole.


def plain(c, round, curriculum, number):
    """The rules as they are said, with a look at every candidate for every pick."""
    dice = mix(c.pose_id, "pick", curriculum.seed, number)
    plausible = np.ones(len(c.taken), bool) if c.plausibility is None else c.plausibility >= np.float32(0.3)
    left = {s: int(curriculum.quotas.get(s, 1) * round.budget + 1e-9) for s in set(c.source)}
    distances = cdist(c.points.astype(float), c.points.astype(float))
    counts = round.mix.counts(round.budget) if number > 1 and c.predicted_oks is not None else {}
    counts = counts or {RANDOM: round.budget}
    rows, reasons, had = [], [], Counter()
    while len(rows) < round.budget:
        waiting = [r for r in counts if had[r] < counts[r]]
        reason = min(waiting, key=lambda r: ((had[r] + 0.5) / counts[r], REASONS.index(r)))
        had[reason] += 1
        able = [
            i
            for i in np.flatnonzero(plausible & ~c.taken)
            if i not in rows and left[c.source[i]] and all(distances[i, rows] >= curriculum.spacing)
        ]
        if not able:
            break
        if reason == HARD:
            chosen = min(able, key=lambda i: (c.predicted_oks[i], dice[i]))
        elif reason == UNCERTAIN:
            chosen = min(able, key=lambda i: (-c.spread[i], dice[i]))
        elif reason == NOVEL:
            chosen = min(able, key=lambda i: (-min([c.novelty[i], *distances[i, rows]]), dice[i]))
        else:
            chosen = min(able, key=lambda i: dice[i])
        rows.append(chosen)
        reasons.append(reason)
        left[c.source[chosen]] -= 1
    return rows, reasons


@st.composite
def pools(draw):
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    clusters = rng.normal(size=(8, 66))[rng.integers(0, draw(st.integers(1, 8)), n)]
    points = (0.02 * clusters + 0.01 * rng.normal(size=(n, 66))).astype(np.float32)
    points *= draw(st.sampled_from([1, 10]))
    columns = rng.random((4, n), dtype=np.float32)
    ids = rng.choice(10**9, n, replace=False) - 5 * 10**8
    taken = rng.random(n) < draw(st.sampled_from([0, 0.2, 1]))
    candidates = Candidates(ids, rng.choice(np.array(["a", "b", "c"], object), n), points, taken, *columns)
    shares = {reason: draw(st.sampled_from([0, 0.2, 0.5, 1])) for reason in REASONS}
    round = Round(budget=draw(st.integers(1, 50)), mix=Mix(**shares))
    curriculum = Curriculum(
        rounds=(round,),
        spacing=draw(st.sampled_from([0, 0.06, 0.1, 0.12])),
        quotas=draw(st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([0, 0.1, 0.4, 1]))),
        seed=draw(st.integers(0, 3)),
    )
    return candidates, round, curriculum, draw(st.integers(1, 3))


@settings(max_examples=80, deadline=None)
@given(pools())
def test_it_picks_what_the_rules_say(pool):
    rows, reasons = plain(*pool)
    found = pick(*pool)
    assert found.rows.tolist() == rows
    assert found.reason.tolist() == reasons


@settings(max_examples=80, deadline=None)
@given(pools(), st.integers(0, 10**6))
def test_every_round_keeps_the_rules_and_knows_no_order(pool, seed):
    candidates, round, curriculum, number = pool
    found = pick(candidates, round, curriculum, number)
    rows = found.rows
    assert len(rows) == len(found.reason) == round.budget - sum(found.short.values())
    assert len(set(rows)) == len(rows)
    assert not candidates.taken[rows].any()
    assert (candidates.plausibility[rows] >= np.float32(curriculum.min_plausibility)).all()
    for source, share in curriculum.quotas.items():
        assert (candidates.source[rows] == source).sum() <= share * round.budget + 1e-9
    if len(rows) > 1:
        assert pdist(candidates.points[rows].astype(float)).min() >= curriculum.spacing * (1 - 1e-5)
    assert all(lost > 0 for lost in found.short.values())

    order = np.random.default_rng(seed).permutation(len(candidates.pose_id))
    moved = Candidates(*(getattr(candidates, f.name)[order] for f in fields(candidates)))
    again = pick(moved, round, curriculum, number)
    assert moved.pose_id[again.rows].tolist() == candidates.pose_id[rows].tolist()
    assert again.reason.tolist() == found.reason.tolist()
    assert again.short == found.short


def test_novel_picks_of_real_poses_reach_farther_than_random_ones():
    points = descriptor(random_poses(600, 3)["body_pose"])
    candidates = Candidates(
        np.arange(600),
        np.full(600, "a", object),
        points,
        np.zeros(600, bool),
        predicted_oks=np.full(600, 0.5, np.float32),
        novelty=np.full(600, 9, np.float32),
    )
    reach = {}
    for reason in (NOVEL, RANDOM):
        rows = picked(candidates, 60, mix=only(reason), spacing=0.02).rows
        reach[reason] = cdist(points, points[rows]).min(1).max()
        assert pdist(points[rows]).min() >= 0.02
    assert reach[NOVEL] < 0.9 * reach[RANDOM]

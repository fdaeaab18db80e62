import numpy as np
import pytest

from udfs.bootstrap import mean_interval


def test_independent_values_give_the_interval_of_the_normal_law():
    values = np.random.default_rng(1).normal(0.3, 2.0, 4000)
    found = mean_interval(values, np.arange(4000))
    half = 1.96 * values.std() / np.sqrt(4000)
    assert found.mean == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert (found.high + found.low) / 2 == pytest.approx(values.mean(), abs=half * 0.1)


def test_repeats_of_a_cluster_make_nothing_surer():
    values = np.random.default_rng(2).normal(0, 1, 300)
    once = mean_interval(values, np.arange(300))
    often = mean_interval(np.repeat(values, 9), np.repeat(np.arange(300), 9))
    naive = mean_interval(np.repeat(values, 9), np.arange(2700))
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=1e-9)
    assert naive.high - naive.low < (once.high - once.low) / 2.5


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(200):
        clusters = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        values = rng.normal(0, 1, 40)[clusters] + rng.normal(0, 0.5, len(clusters))
        found = mean_interval(values, clusters, resamples=400, seed=trial)
        inside += found.low <= 0 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_order_does_not_matter_and_the_seed_does():
    rng = np.random.default_rng(4)
    values, clusters = rng.random(50), rng.integers(0, 20, 50)
    order = rng.permutation(50)
    base = mean_interval(values, clusters)
    again = mean_interval(values[order], clusters[order])
    assert (base.low, base.high) == pytest.approx((again.low, again.high), abs=1e-12)
    assert mean_interval(values, clusters, seed=1).low != base.low


def test_no_values_have_no_interval():
    assert mean_interval(np.array([]), np.array([])) is None

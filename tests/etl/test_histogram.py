"""Streamed counts are NumPy's counts of all numbers at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.histogram import Histogram, width

NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)


def counted(values, pieces: int = 1, **options: bool) -> Histogram:
    made = Histogram(**options)
    for part in np.array_split(np.asarray(values, np.float64), pieces):
        made.add(part)
    return made


@given(NUMBERS, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_counts_and_sums_are_numpys(values, pieces):
    made = counted(values, pieces)
    edges, counts = made.bins(40)
    assert len(counts) <= 40
    np.testing.assert_array_equal(counts, np.histogram(values, edges)[0])
    assert (made.n, made.low, made.high) == (len(values), min(values), max(values))
    assert made.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)


@given(NUMBERS, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_quantiles_are_numpys_rounded_down(values, q):
    exact = np.quantile(values, q, method="inverted_cdf")
    span = max(max(values) - min(values), 1e-4 * max(map(abs, values)))
    found = counted(values, 3).quantile(q)
    assert exact - span / 800 <= found <= exact + 1e-12 * abs(exact)


def test_bins_are_round_and_few_whatever_the_range():
    rng = np.random.default_rng(0)
    for low, high, expected in (
        (0, 1, 0.02),
        (-180, 180, 10),
        (0.5, 1, 0.01),
        (2.8, 3.2, 0.01),
        (0, 3e6, 1e5),
    ):
        edges, counts = counted(np.append(rng.uniform(low, high, 5000), [low, high])).bins()
        assert edges[1] - edges[0] == pytest.approx(expected)
        assert (edges[0], edges[-1]) == pytest.approx((low, high))
        assert counts.sum() == 5002
    assert [width(step) for step in (-2, -1, 0, 1, 2, 3)] == [0.1, 0.2, 1, 2, 10, 20]


def test_the_order_of_the_batches_plays_no_part():
    rng = np.random.default_rng(1)
    values = rng.normal(size=4000) * 10.0 ** rng.integers(-3, 4, 4000)
    a, b = counted(np.sort(np.abs(values)), 30), counted(np.sort(np.abs(values))[::-1], 7)
    for x, y in zip(a.bins(), b.bins(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_weights_missing_numbers_and_whole_numbers():
    made = Histogram(whole=True)
    made.add(np.array([3, np.nan, 1, 3]), np.array([2, 5, 1, 0]))
    made.add(np.array([], np.float64))
    assert (made.n, made.missing, made.total, made.mean) == (3, 5, 7, 7 / 3)
    edges, counts = made.bins()
    assert edges.tolist() == [1, 2, 3, 4]
    assert counts.tolist() == [1, 0, 2]
    assert made.quantile(0.5) == 3
    nothing = Histogram()
    nothing.add(np.array([np.nan]))
    assert np.isnan([nothing.mean, nothing.low, nothing.quantile(0.5)]).all()


def test_memory_does_not_grow_with_rows_or_range():
    made = Histogram()
    for power in range(-30, 30):
        made.add(np.linspace(-1, 1, 1001) * 10.0**power)
    assert made.n == 60 * 1001
    assert len(made.bins(10**9)[1]) <= 4096

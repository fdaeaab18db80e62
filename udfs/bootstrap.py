"""How sure a difference is: the bootstrap over what was sampled (Efron 1979), vectorised."""

from dataclasses import dataclass

import numpy as np

_VALUES = 1 << 22
"""Counts that are held at once."""


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds it at the given level."""

    mean: float
    low: float
    high: float


def mean_interval(
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """The mean of N values and its percentile interval; None without values.

    Values of one cluster, such as several images of one pose, are no independent draws: whole clusters
    are drawn with replacement, and the mean of each resample is that over its values. The same arguments
    give the same interval, in whichever order the rows come.

    Args:
        values: (N,) finite.
        clusters: (N,) what each value belongs to.
        level: share of the resampled means inside of the interval.
    """
    if not len(values):
        return None
    _, of = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(of, np.asarray(values, np.float64)), np.bincount(of).astype(np.float64)
    n = len(sums)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _VALUES // n)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        counts = rng.multinomial(n, np.full(n, 1 / n), stop - start).astype(np.float64)
        means[start:stop] = (counts @ sums) / (counts @ sizes)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high))

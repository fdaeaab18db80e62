"""Counts numbers batch by batch in bins that widen as the range does: memory does not grow with rows."""

import math

import numpy as np

_MOST = 4096
"""Bins that are kept; quartiles are as fine as these."""
_FINEST = 1e-6
"""Width of the first bins, of the largest number of the first batch: about what float32 tells apart."""


class Histogram:
    """Counts of numbers in bins of width 1 or 2 times a power of ten, whose edges are multiples of it.

    Each of these widths divides the next, so bins can be joined without looking at the numbers again, and the
    result follows from the numbers alone.

    Args:
        whole: the numbers are whole, so no bin is narrower than 1.

    Attributes:
        n: how many numbers there were.
        missing: how many were NaN.
        total: their sum; low, high: the least and the greatest, NaN while there is none.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole
        self.n = self.missing = 0
        self.total = 0.0
        self.low = self.high = math.nan
        self._step = 0  # on the ladder of widths
        self._first = 0  # the first bin's left edge, in widths
        self._counts = np.zeros(0, np.int64)

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Counts N finite numbers, NaN where there is none. weights: (N,) int64, how often each counts."""
        values = np.asarray(values, np.float64)
        weights = np.ones(len(values), np.int64) if weights is None else weights
        missing = np.isnan(values)
        self.missing += int(weights[missing].sum())
        counted = ~missing & (weights > 0)
        values, weights = values[counted], weights[counted]
        if not len(values):
            return
        if not self.n:
            size = float(np.abs(values).max()) * _FINEST
            self._step = 0 if self.whole else _step(size or _FINEST)
        low, high = float(values.min()), float(values.max())
        self.low, self.high = float(np.fmin(self.low, low)), float(np.fmax(self.high, high))
        self.n += int(weights.sum())
        self.total += float(values @ weights)
        step = self._step
        while _place(self.high, step) - _place(self.low, step) >= _MOST:
            step += 1
        self._first, self._counts = _joined(self._first, self._counts, self._step, step)
        self._step = step
        first = int(_place(self.low, step))
        grown = np.zeros(int(_place(self.high, step)) - first + 1, np.int64)
        grown[self._first - first : self._first - first + len(self._counts)] = self._counts
        at = _places(values, step).astype(np.int64) - first
        grown += np.bincount(at, weights, len(grown)).astype(np.int64)
        self._first, self._counts = first, grown

    @property
    def mean(self) -> float:
        """NaN while there is no number."""
        return self.total / self.n if self.n else math.nan

    def quantile(self, q: float) -> float:
        """The q-quantile, rounded down by 1/800 of the range at the most; NaN while there is no number."""
        if not self.n:
            return math.nan
        at = int(np.searchsorted(np.cumsum(self._counts), q * self.n, "left"))
        return max(_edge(self._first + at, self._step), self.low)

    def bins(self, most: int = 50) -> tuple[np.ndarray, np.ndarray]:
        """(B + 1,) float64 edges and (B,) int64 counts of at most `most` bins of one width.

        A bin holds its left edge, the last one its right edge too.
        """
        step = self._step
        while True:
            first, counts = _joined(self._first, self._counts, self._step, step)
            if not self.whole and len(counts) > 1 and self.high == _edge(first + len(counts) - 1, step):
                counts = np.append(counts[:-2], counts[-2] + counts[-1])
            if len(counts) <= most:
                return np.array([_edge(first + i, step) for i in range(len(counts) + 1)]), counts
            step += 1


def width(step: int) -> float:
    """Width of a bin: 1, 2, 10, 20, 100 and so on, and 0.2, 0.1, 0.02 below."""
    tens, two = divmod(step, 2)
    return (1 + two) * 10.0**tens


def _step(size: float) -> int:
    """The widest step that is no wider than this."""
    step = 2 * math.floor(math.log10(size)) + 2
    while width(step) > size:
        step -= 1
    return step


def _place(value: float, step: int) -> float:
    return float(_places(np.array([value]), step)[0])


def _places(values: np.ndarray, step: int) -> np.ndarray:
    tens, two = divmod(step, 2)
    # 0.3 / 0.1 is less than 3: below one, numbers are multiplied by a whole number, which is exact.
    scaled = values * 10.0**-tens if tens < 0 else values / 10.0**tens
    return np.floor(scaled / (1 + two))


def _edge(place: int, step: int) -> float:
    tens, two = divmod(step, 2)
    return place * (1 + two) / 10.0**-tens if tens < 0 else place * (1 + two) * 10.0**tens


def _joined(first: int, counts: np.ndarray, step: int, wanted: int) -> tuple[int, np.ndarray]:
    """The first place and the counts when bins are joined to those of a wider step."""
    for at in range(step, wanted):
        factor = 5 if at % 2 else 2
        places = (first + np.arange(len(counts))) // factor
        first //= factor
        if len(counts):
            counts = np.bincount(places - first, counts).astype(np.int64)
    return first, counts

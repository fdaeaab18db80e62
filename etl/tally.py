"""Counts words batch by batch, in bounded memory."""

from collections import Counter

import numpy as np
import pyarrow as pa

_MOST = 10_000
"""Different words that are told apart; input decides how many there are, so something has to."""


class Tally:
    """How often each word comes.

    Attributes:
        counts: by word, of the first 10,000 different ones.
        others: rows with further words.
        missing: rows with none.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.others = self.missing = 0

    def add(self, words: pa.Array | pa.ChunkedArray, weights: np.ndarray | None = None) -> None:
        """Counts N words, NULL where there is none. weights: (N,) int64, how often each counts."""
        if not len(words):
            return
        if isinstance(words, pa.ChunkedArray):
            words = words.combine_chunks()
        coded = words.dictionary_encode(null_encoding="encode")
        found = np.bincount(coded.indices.to_numpy(), weights, len(coded.dictionary)).astype(np.int64)
        for word, count in zip(coded.dictionary.to_pylist(), found.tolist(), strict=True):
            if word is None:
                self.missing += count
            elif count and (word in self.counts or len(self.counts) < _MOST):
                self.counts[word] += count
            else:
                self.others += count

    @property
    def n(self) -> int:
        """Rows with a word."""
        return self.counts.total() + self.others

    @property
    def full(self) -> bool:
        """Whether there were more different words than are told apart."""
        return self.others > 0

    def top(self, most: int) -> list[tuple[str, int]]:
        """The most frequent words, the most frequent first."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]

"""Words are counted as pandas counts them, and there are never too many."""

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.tally import Tally


def test_counts_are_pandas_counts():
    rng = np.random.default_rng(0)
    words = pd.Series(rng.choice(["red", "blue", "blue green", None], 3000))
    made = Tally()
    for part in np.array_split(np.arange(3000), 7):
        made.add(pa.chunked_array([pa.array(words[part], from_pandas=True)]))
    assert made.counts == words.value_counts().to_dict()
    assert made.missing == words.isna().sum()
    assert made.n == words.notna().sum()
    assert made.top(2) == list(words.value_counts().head(2).items())


def test_weights_count_a_word_for_several_rows():
    made = Tally()
    made.add(pa.array(["a", None, "b", "a"]), np.array([2, 3, 0, 5]))
    assert (made.counts, made.missing, made.others) == ({"a": 7}, 3, 0)


def test_more_words_than_are_told_apart_are_counted_together():
    made = Tally()
    made.add(pa.array([f"word {i}" for i in range(9_999)] + ["often"] * 50))
    made.add(pa.array([f"new {i}" for i in range(500)] + ["often"]))
    assert len(made.counts) == 10_000
    assert made.full
    assert made.others == 500
    assert made.n == 10_550
    assert made.top(1) == [("often", 51)]

"""Ids are found wherever they lie, in runs or in no order."""

import numpy as np
import pandas as pd
import pytest

from etl.places import BLOCK, places


def _as_pandas(wanted: np.ndarray, known: np.ndarray) -> list[int]:
    return pd.Index(known).get_indexer(pd.Index(wanted)).tolist()


@pytest.fixture(scope="module")
def known() -> np.ndarray:
    return np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 9 * BLOCK + 17)


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: ids,
        lambda ids: np.concatenate([ids[5 * BLOCK + 3 :], ids[: 5 * BLOCK + 3]]),
        lambda ids: np.random.default_rng(1).permutation(ids),
        lambda ids: np.delete(ids, [0, 5, 200, 201, -1]),
        lambda ids: np.concatenate([ids, ids + 1, ids[:3]]),
        lambda ids: ids[-1:],
        lambda ids: ids[:0],
        lambda ids: ids[::-1],
    ],
    ids=["same", "turned", "random", "gaps", "strangers and repeats", "one", "none", "backwards"],
)
def test_places_are_those_that_pandas_finds(known, change):
    wanted = change(known)
    assert places(wanted, known).tolist() == _as_pandas(wanted, known)
    assert places(known, wanted[: len(known)]).tolist() == _as_pandas(known, wanted[: len(known)])


def test_a_handful_among_many_is_found():
    known = np.random.default_rng(2).permutation(np.arange(10_000))
    assert places(np.array([7, -1, 9999]), known).tolist() == _as_pandas(np.array([7, -1, 9999]), known)
    assert places(np.array([1]), known[:0]).tolist() == [-1]

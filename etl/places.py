"""Where ids lie in another table. Tables of a lake mostly lie in the same order, run after run, as one was
computed from the other; so ids are compared along the runs, and searched for only where that fails."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 64
"""A run is looked for at every such row, so those of this length are found."""

_LONG = 64 * BLOCK


def places(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) int64: the place of each wanted id among the known ones, -1 where it is not there.

    wanted: (N,) int64. known: (M,) int64, all different.
    """
    found = np.full(len(wanted), -1, np.int64)
    for block in (_LONG, BLOCK):
        _follow(wanted, known, block, found)
        rest = np.flatnonzero(found < 0)
        if len(rest) * 8 < len(wanted):
            break
    if len(rest):
        found[rest] = _search(wanted[rest], known)
    return found


def _follow(wanted: np.ndarray, known: np.ndarray, block: int, found: np.ndarray) -> None:
    """Looks for every block's first id and compares along from there; puts places into `found`."""
    starts = np.arange(0, len(wanted), block)
    begins = _search(wanted[starts], known)
    # Blocks that follow each other in both are one run.
    broken = np.flatnonzero(np.diff(begins) != block) + 1
    for first, after in pairwise([0, *broken.tolist(), len(starts)]):
        if first == after or begins[first] < 0:
            continue
        # It may have begun within the block before.
        before = min(block, int(starts[first]), int(begins[first]))
        low, begin = int(starts[first]) - before, int(begins[first]) - before
        here = wanted[low : low + before + (after - first) * block]
        there = known[begin : begin + len(here)]
        same = here[: len(there)] == there
        run = found[low : low + len(there)]
        run[same] = np.arange(begin, begin + len(there))[same]


def _search(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    if len(wanted) * 8 < len(known):
        different, which = np.unique(wanted, return_inverse=True)
        hit = pc.index_in(pa.array(known), pa.array(different))
        place = np.full(len(different), -1, np.int64)
        place[hit.drop_null().to_numpy()] = np.flatnonzero(hit.is_valid().to_numpy(False))
        return place[which]
    # A table of hashes of as many ids takes twice the time and memory of sorting them.
    order, turn = np.argsort(known), np.argsort(wanted)
    at = np.searchsorted(known[order], wanted[turn])
    at = order[np.minimum(at, max(len(known) - 1, 0))] if len(known) else at
    found = np.empty(len(wanted), np.int64)
    found[turn] = at
    found[(known[found] != wanted) if len(known) else slice(None)] = -1
    return found

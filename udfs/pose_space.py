"""Nearest neighbours and cells among many poses, as points of `skeleton.descriptor`, by faiss."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from schemas.errors import ConfigError, InputError
from udfs.threads import each

_QUERIES = 4096
"""Points that one search takes at least, while there are as many: faiss is several times slower on few."""

_CLOSEST = 4
"""Neighbours that faiss names; float32 squares are too rough to tell the nearest of poses like these."""

_PROBES = 32
"""Cells that an approximate search looks through: it finds the nearest pose in 98 of 100 searches of 10^6."""


class Neighbours:
    """Finds the nearest of N points; the same answer whatever the number of threads."""

    def __init__(self, points: np.ndarray, exact_up_to: int = 100_000) -> None:
        """points: (N, d) float32, N > 0. More than `exact_up_to` are searched approximately.

        Raises ConfigError when faiss is not installed.
        """
        faiss = _faiss()
        self._points = np.ascontiguousarray(points, np.float32)
        count, width = self._points.shape
        with _one_thread(faiss):
            self._index: Any = faiss.IndexFlatL2(width)
            if count > exact_up_to:
                # Cells round some of the points need no training, which would differ between machines.
                # A point twice would make an empty cell.
                middles = np.unique(self._points[_sample(count, round(4 * count**0.5))], axis=0)
                self._index.add(middles)
                self._index = faiss.IndexIVFFlat(self._index, width, len(middles))
                self._index.nprobe = _PROBES
            self._index.add(self._points)

    def __call__(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Q, d) float32 queries to (Q,) float64 distances and (Q,) int64 places of the nearest points.

        Of equally near points the first one.
        """
        faiss = _faiss()
        queries = np.ascontiguousarray(queries, np.float32)
        distance, nearest = np.empty(len(queries)), np.empty(len(queries), np.int64)
        pieces = np.array_split(np.arange(len(queries)), max(1, len(queries) // _QUERIES))

        def search(piece: int) -> None:
            rows = pieces[piece]
            with _one_thread(faiss):
                found = self._index.search(queries[rows], min(_CLOSEST, len(self._points)))[1]
            # An approximate search that finds fewer fills up with -1.
            found = np.sort(np.where(found < 0, found[:, :1], found), axis=1)
            off = np.linalg.norm(
                self._points[found].astype(np.float64) - queries[rows, None].astype(np.float64), axis=2
            )
            best = off.argmin(1)[:, None]
            distance[rows] = np.take_along_axis(off, best, 1)[:, 0]
            nearest[rows] = np.take_along_axis(found, best, 1)[:, 0]

        each(search, len(pieces))
        return distance, nearest


def cells(descriptors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count, d) float32 centroids of k-means on (N, d) descriptors; the same for the same seed.

    Raises InputError when there are fewer descriptors than cells.
    """
    if not 0 < count <= len(descriptors):
        raise InputError(f"{len(descriptors)} poses cannot make {count} cells: ask for fewer, at least one")
    faiss = _faiss()
    points = np.ascontiguousarray(descriptors, np.float32)
    with _one_thread(faiss):
        kmeans = faiss.Kmeans(points.shape[1], count, niter=20, seed=seed % 2**31, min_points_per_centroid=1)
        kmeans.train(points)
    return np.array(kmeans.centroids, np.float32)


def cell_of(descriptors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(N,) int64 places of the nearest of (count, d) centroids."""
    return Neighbours(centroids, exact_up_to=len(centroids))(descriptors)[1]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("faiss is not installed: pip install 'posedreamer[mine]'") from error
    return faiss


def _sample(count: int, size: int) -> np.ndarray:
    """`size` of `count` places, or all of them; always the same ones."""
    return np.random.default_rng(0).choice(count, min(size, count), replace=False)


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Within it faiss keeps to the calling thread: threads are ours to share out, and order sums alike."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

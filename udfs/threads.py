"""Independent pieces of one batch on the cores that this process may use."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def each(work: Callable[[int], None], count: int) -> None:
    """Calls work(0) ... work(count - 1), which must release the interpreter's lock to gain from threads.

    Numba's own thread pool may not be entered from several Dask threads at once; this may.
    OMP_NUM_THREADS is honoured because Dask sets it for its workers.
    """
    threads = min(count, int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    if threads <= 1:
        for i in range(count):
            work(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(count)))

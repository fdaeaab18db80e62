"""Independent pieces of one batch on the cores that this process may use."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def each(work: Callable[[int], None], count: int) -> None:
    """Calls work(0) ... work(count - 1), which must release the interpreter's lock to gain from threads.

    Numba's own thread pool may not be entered from several Dask threads at once; this may.
    OMP_NUM_THREADS is honoured because Dask sets it for its workers.
    """
    threads = min(count, _allowed())
    if threads <= 1:
        for i in range(count):
            work(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(count)))


def _allowed() -> int:
    # A list, such as "4,2", sets the levels of nested parallel regions; the first counts here.
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The Dask workers that compute: a local cluster, or one that is already there."""

import logging
import os
from types import TracebackType
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster


class Workers:
    """Starts a cluster when it is first needed, so that a run with nothing to do starts none.

    Args:
        scheduler: address of a running Dask scheduler; None starts a cluster on this machine.
        count: worker processes of the local cluster, by default one a core. 0 computes in this process,
            which a debugger can follow.
    """

    def __init__(self, scheduler: str | None = None, count: int | None = None) -> None:
        self.scheduler = scheduler
        self.count = count
        self._client: Client | None = None
        self._local: LocalCluster | None = None

    @property
    def client(self) -> "Client":
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> "Client":
        import dask
        from distributed import Client, LocalCluster

        if self.scheduler:
            try:
                return Client(self.scheduler, timeout=20)
            except OSError as error:
                raise ConfigError(f"no Dask scheduler answers at {self.scheduler}: {error}") from error
        count = (os.cpu_count() or 1) if self.count is None else self.count
        # One worker a core and one thread each: BLAS, torch and numba must not multiply that.
        limits = {f"distributed.nanny.pre-spawn-environ.{name}": 1 for name in _THREADS}
        with dask.config.set(limits):
            self._local = LocalCluster(
                n_workers=max(count, 1),
                threads_per_worker=1,
                processes=count > 0,
                memory_limit=0,
                dashboard_address=":0",  # any free port: two runs on one machine must not meet
                # What goes wrong comes back as an error; what is left are quarrels about closing connections.
                silence_logs=logging.CRITICAL,
            )
        return Client(self._local)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._local is not None:
            self._local.close()
            self._local = None


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

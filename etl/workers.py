"""The Dask workers that compute: a local cluster, or one that is already there."""

import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

ANSWER_SECONDS = 20
"""How long a scheduler may take to answer."""


class Workers:
    """Starts a cluster when it is first needed, so that a run with nothing to do starts none.

    Args:
        scheduler: address of a running Dask scheduler; None starts a cluster on this machine.
        count: worker processes of the local cluster, by default one a core, and one a GPU where there are
            more of those. 0 computes in this process, which a debugger can follow.
    """

    def __init__(self, scheduler: str | None = None, count: int | None = None) -> None:
        self.scheduler = scheduler
        self.count = count
        self._client: Client | None = None
        self._local: SpecCluster | None = None

    @property
    def client(self) -> "Client":
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> "Client":
        import dask
        from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

        if self.scheduler:
            try:
                return Client(self.scheduler, timeout=ANSWER_SECONDS)
            except OSError as error:
                raise ConfigError(f"no Dask scheduler answers at {self.scheduler}: {error}") from error
        # Any free port for the dashboard: two runs on one machine must not meet. What goes wrong comes back
        # as an error; what is left in the log are quarrels about closing connections.
        quiet = {"dashboard_address": ":0"}
        if self.count == 0:
            self._local = LocalCluster(
                1,
                processes=False,
                threads_per_worker=1,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
                **quiet,
            )
            return Client(self._local)
        gpus = gpu_names()
        count = max(os.cpu_count() or 1, len(gpus)) if self.count is None else self.count
        here = {"host": "127.0.0.1"}
        kinds = {
            i: {"cls": Nanny, "options": {**here, "silence_logs": logging.CRITICAL, **options}}
            for i, options in enumerate(worker_options(count, gpus))
        }
        # One worker a core and one thread each: BLAS, torch and numba must not multiply that.
        limits = {f"distributed.nanny.pre-spawn-environ.{name}": 1 for name in _THREADS}
        with dask.config.set(limits):
            self._local = SpecCluster(
                workers=kinds,
                scheduler={"cls": Scheduler, "options": {**here, "port": 0, "dashboard": True, **quiet}},
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


def worker_options(count: int, gpus: Sequence[str]) -> list[dict[str, Any]]:
    """Dask's options of each of `count` workers: one thread, and for the first ones a GPU of their own.

    What wants a GPU (`Udf.accelerated`) runs on those alone, a model a GPU; everything else on all workers.
    The others see no GPU, so that nothing they import takes memory there.
    """
    options: list[dict[str, Any]] = []
    for i in range(count):
        one: dict[str, Any] = {"nthreads": 1, "memory_limit": 0}
        if gpus:
            one["env"] = {"CUDA_VISIBLE_DEVICES": gpus[i] if i < len(gpus) else ""}
        if i < len(gpus):
            one["resources"] = {"GPU": 1}
        options.append(one)
    return options


def gpu_names() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. Does not import torch."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    tool = shutil.which("nvidia-smi")
    if tool is None or (allowed is not None and not allowed.strip()):
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []  # it is there without a driver, as in some containers
    found = [line for line in listed.splitlines() if line.startswith("GPU ")]
    if not found:
        return []
    if allowed is None:
        return [str(i) for i in range(len(found))]
    names = []
    for name in map(str.strip, allowed.split(",")):
        if not name or name.startswith("-") or (name.isdigit() and int(name) >= len(found)):
            break  # as CUDA does, which reads no further than the first that is none
        names.append(name)
    return names

"""Workers: here, or behind the address of a scheduler that is already there."""

from dataclasses import dataclass, replace
from typing import ClassVar

import dask
import numpy as np
import pytest
from distributed import LocalCluster, Worker, get_worker

from etl.stage import run_stage
from etl.workers import Workers
from schemas.errors import ConfigError
from tests.toy import Toy, toy_images, toy_stage


def test_a_scheduler_by_its_address(lake):
    lake.table("images").append(toy_images(np.arange(20)))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        with Workers(scheduler=cluster.scheduler_address) as workers:
            assert run_stage(lake, toy_stage(), workers).computed == 20
        with Workers(scheduler=cluster.scheduler_address) as again:
            assert len(again.client.scheduler_info()["workers"]) == 1, "a cluster that was there stays"


@dataclass(frozen=True, kw_only=True)
class OnGpu(Toy):
    """OKS is 1 where the worker has a GPU."""

    accelerated: ClassVar[bool] = True

    def setup(self, worker):
        def apply(rows):
            has = "GPU" in get_worker().state.total_resources
            return Toy(scale=float(has)).setup(worker)(rows)

        return apply


def test_a_gpu_stage_goes_to_the_workers_that_have_one(lake):
    lake.table("images").append(toy_images(np.arange(64)))
    stage = replace(toy_stage(4), udf=OnGpu())
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        cluster.worker_spec |= {
            name: {"cls": Worker, "options": {"nthreads": 1, "resources": resources}}
            for name, resources in (("with", {"GPU": 1}), ("without", {}))
        }
        cluster.sync(cluster._correct_state)
        with Workers(scheduler=cluster.scheduler_address) as workers:
            workers.client.wait_for_workers(2)
            assert run_stage(lake, stage, workers).computed == 64
    assert set(lake.table("metrics_keypoints").to_pandas(["oks"])["oks"]) == {1.0}


def test_no_scheduler_is_a_clear_error():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        Workers(scheduler="tcp://127.0.0.1:9") as workers,
        pytest.raises(ConfigError, match=r"127\.0\.0\.1:9"),
    ):
        _ = workers.client


def test_no_work_starts_no_cluster(lake):
    lake.table("images").append(toy_images(np.arange(3), "other"))
    with Workers(scheduler="tcp://127.0.0.1:9") as workers:
        assert run_stage(lake, toy_stage(), workers).total == 0

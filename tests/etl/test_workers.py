"""Workers: here, or behind the address of a scheduler that is already there."""

import os
from dataclasses import dataclass, replace
from typing import ClassVar

import dask
import numpy as np
import pytest
from distributed import LocalCluster, Worker, get_worker

from etl.stage import run_stage
from etl.workers import Workers, gpu_names, worker_options
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


def test_no_scheduler_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("etl.workers.ANSWER_SECONDS", 2)
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


def test_every_gpu_has_a_worker_of_its_own_and_every_core_a_worker():
    assert worker_options(2, []) == [{"nthreads": 1, "memory_limit": 0}] * 2, "nothing is hidden without GPUs"
    made = worker_options(4, ["2", "3"])
    assert [o["env"]["CUDA_VISIBLE_DEVICES"] for o in made] == ["2", "3", "", ""]
    assert [o.get("resources") for o in made] == [{"GPU": 1}, {"GPU": 1}, None, None]
    assert len(worker_options(1, ["0", "1"])) == 1


def _smi(folder, listing: str, monkeypatch, allowed: str | None) -> list[str]:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{listing}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    return gpu_names()


def test_gpus_are_those_that_the_process_may_use(tmp_path, monkeypatch):
    two = "GPU 0: A (UUID: x)\\nGPU 1: B (UUID: y)\\n"
    assert _smi(tmp_path, two, monkeypatch, None) == ["0", "1"]
    assert _smi(tmp_path, two, monkeypatch, "1") == ["1"]
    assert _smi(tmp_path, two, monkeypatch, "1, 0") == ["1", "0"]
    assert _smi(tmp_path, two, monkeypatch, "GPU-x") == ["GPU-x"]
    for none in ("", " ", "-1", "7", ",0"):
        assert _smi(tmp_path, two, monkeypatch, none) == [], none
    for first in ("0,", "0,-1,1", "0,2"):
        assert _smi(tmp_path, two, monkeypatch, first) == ["0"], first
    assert _smi(tmp_path, "No devices found\\n", monkeypatch, None) == []


def test_the_local_cluster_gives_a_gpu_stage_the_gpu_worker(lake, monkeypatch):
    monkeypatch.setattr("etl.workers.gpu_names", lambda: ["7"])
    lake.table("images").append(toy_images(np.arange(32)))
    with Workers(count=2) as workers:
        workers.client.wait_for_workers(2)
        seen = workers.client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert sorted(seen.values()) == ["", "7"]
        assert set(workers.client.run(lambda: os.environ["OMP_NUM_THREADS"]).values()) == {"1"}
        assert run_stage(lake, replace(toy_stage(4), udf=OnGpu()), workers).computed == 32
    assert set(lake.table("metrics_keypoints").to_pandas(["oks"])["oks"]) == {1.0}

"""One partition on a worker, whose process may have several threads."""

import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from etl.compute import compute
from tests.toy import Toy, toy_images

seen: list[str] = []
"""What the models below were asked, in order."""


@dataclass(frozen=True, kw_only=True)
class Stateful(Toy):
    """A model that keeps its place in itself, as a diffusion pipeline does."""

    accelerated: ClassVar[bool] = True

    def setup(self, worker):
        seen.append("load")
        time.sleep(0.05)
        busy = threading.Lock()

        def apply(rows):
            assert busy.acquire(blocking=False), "two threads run one model at once"
            time.sleep(0.02)
            busy.release()
            return Toy(scale=self.scale).setup(worker)(rows)

        return apply


@dataclass(frozen=True, kw_only=True)
class Plain(Stateful):
    """Another that no thread has to wait for."""

    accelerated: ClassVar[bool] = False

    def setup(self, worker):
        seen.append("load")
        time.sleep(0.05)
        both = threading.Barrier(2)

        def apply(rows):
            both.wait(timeout=20)
            return Toy(scale=self.scale).setup(worker)(rows)

        return apply


@pytest.mark.parametrize("kind", [Stateful, Plain])
def test_threads_share_a_model_that_is_loaded_once_and_wants_the_gpu_alone(lake, kind):
    seen.clear()
    udf = kind(scale=0.25)

    def one(i: int):
        rows = toy_images(np.arange(8 * i, 8 * i + 8)).to_pandas().assign(_attempt=1)
        return compute(
            rows[[*udf.inputs, "_attempt"]],
            stage="toy", table="metrics_keypoints", udf=udf, fingerprint=kind.__name__, store=lake.store,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(one, range(2)))
    assert [int(o.iloc[0]["failed"]) for o in outcomes] == [0, 0]
    assert seen == ["load"]


@dataclass(frozen=True, kw_only=True)
class Large(Toy):
    """A model that fits no memory beside another."""

    accelerated: ClassVar[bool] = True

    def setup(self, worker):
        seen.append(f"load {self.scale}")
        assert not [model for model in models if model() is not None], "two in memory at once"
        apply = Toy(scale=self.scale).setup(worker)
        models.append(weakref.ref(apply))
        return apply


models: list[weakref.ref] = []


def test_a_worker_keeps_one_large_model(lake):
    seen.clear()
    rows = toy_images(np.arange(4)).to_pandas().assign(_attempt=1)
    for scale in (0.25, 0.25, 0.5, 0.25):
        udf = Large(scale=scale)
        compute(
            rows[[*udf.inputs, "_attempt"]],
            stage="toy", table="metrics_keypoints", udf=udf, fingerprint="large", store=lake.store,
        )  # fmt: skip
    assert seen == ["load 0.25", "load 0.5", "load 0.25"]

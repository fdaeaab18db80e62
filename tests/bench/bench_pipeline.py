"""Rates of every stage over 2,000 samples, and what the pipeline adds around a generator.

python -m tests.bench.bench_pipeline [--samples 2000] [--workers 2] [--partition-rows 64]
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from etl.lake import Lake
from etl.run import publish, select_images
from etl.settings import load_pipeline
from etl.stage import Progress, run_stage
from etl.stages import Stages
from etl.workers import Workers
from tests.bench.blank import Blank
from udfs.images import Images
from udfs.random_poses import random_poses


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--partition-rows", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _bench(Path(folder), given.samples, given.workers, given.partition_rows)


def _bench(folder: Path, samples: int, count: int, partition_rows: int) -> None:
    np.savez(folder / "poses.npz", **random_poses(samples, 0))
    file = folder / "pipeline.yaml"
    file.write_text(
        "lake: lake\nposes: [{name: random, path: poses.npz}]\n"
        "plan: {image_size: [256, 256]}\ngenerator: {name: shaded}\n"
        f"cluster: {{partition_rows: {partition_rows}}}\n"
    )
    pipeline = load_pipeline(file)
    lake = Lake.create(pipeline.lake)
    stages = Stages(lake, pipeline)
    rows: list[Progress] = []
    with Workers(count=count) as workers:
        workers.client.wait_for_workers(count)
        for stage in stages:
            if stage.name == "samples":
                stages.record_files()
            rows.append(run_stage(lake, stage, workers))
        images = stages.images
        assert isinstance(images.udf, Images)
        blank = run_stage(lake, replace(images, name="blank", udf=Images(generator=Blank())), workers)
        # The second time the workers have loaded everything: what remains is the pipeline itself.
        warm = run_stage(
            lake, replace(images, name="blank", udf=Images(generator=Blank(), quality=91)), workers
        )
    print(f"{'stage':<14}{'rows':>8}{'seconds':>10}{'rows/s':>10}{'in UDF':>9}   ({count} workers)")
    for row in [*rows, blank, warm]:
        share = row.udf_seconds / count / row.seconds
        rate = row.computed / row.seconds
        print(f"{row.stage:<14}{row.computed:>8}{row.seconds:>10.1f}{rate:>10.0f}{share:>9.0%}")
    started = time.perf_counter()
    publish(lake, pipeline, select_images(lake, pipeline), "0.1.0")
    print(f"{'publish':<14}{samples:>8}{time.perf_counter() - started:>10.1f}")
    inside = warm.udf_seconds / count
    print(
        f"blank generator: outside UDF code {warm.seconds - inside:.2f} s, JPEGs {inside:.2f} s, "
        f"ratio {(warm.seconds - inside) / inside:.1%}"
    )


if __name__ == "__main__":
    main()

"""What the nano model paints against the renderer that it learned from: `python -m tests.bench.bench_nano`.

Both generators paint the same samples, two seeds each, of poses, captions, cameras and backgrounds that the
training never saw: poses drawn with another seed, and real ones from ../shared/data where that is present.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from etl.evaluate import evaluate_pipelines
from etl.lake import Lake
from etl.run import run_stages
from etl.settings import load_pipeline
from udfs.keypoint_renders import wild_poses
from udfs.pipelines import NANO
from udfs.random_poses import random_poses

DATA = Path(__file__).parents[3] / "shared" / "data"
SEED = 424_242
"""Far from the seeds that training draws its poses with."""

PIPELINE = """\
lake: lake
poses:
  - {{name: random, path: random.npz}}
  - {{name: wild, path: wild.npz}}
{real}plan:
  image_size: [{size}, {size}]
  draws: 2
  seed: {seed}
  camera: {{each_draw: false}}
generator: {generator}
metrics: {{colors: true}}
cluster: {{workers: 2}}
"""
REAL = """\
  - {{name: amass, path: {data}/amass_smplh_601frames.npz, frames_per_sequence: {n}}}
  - {{name: wholebody, path: {data}/smplx_wholebody_500.npz, frames_per_sequence: {n}}}
"""


def write_poses(folder: Path, count: int) -> None:
    for name, poses in (("random", random_poses), ("wild", wild_poses)):
        params = poses(count, SEED)
        params = {k: np.asarray(v, np.float32) for k, v in params.items() if k not in ("betas", "transl")}
        np.savez(folder / f"{name}.npz", **params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=128, help="poses of each kind")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures")
    parser.add_argument("--model", default="nano", help="nano, or another pipeline's folder")
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    out = sys.stdout.write
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_poses(folder, given.count)
        real = REAL.format(data=DATA, n=given.count) if DATA.is_dir() else ""
        sides = {}
        generators = {
            "shaded": "{name: shaded}",
            "nano": f"{{name: diffusers, model: {given.model}, steps: {given.steps}}}",
        }
        for name, generator in generators.items():
            file = folder / f"{name}.yaml"
            file.write_text(PIPELINE.format(real=real, size=given.size, seed=SEED, generator=generator))
            sides[name] = load_pipeline(file)
            began = time.perf_counter()
            report = run_stages(Lake.create(sides[name].lake), sides[name])
            for stage in report.stages:
                if stage.stage == "images":
                    out(f"{name}: {stage.computed / stage.seconds:.1f} images a second on two workers\n")
            out(f"{name}: {time.perf_counter() - began:.0f} s in all, failed {report.failed or 'nothing'}\n")
        lake = Lake(sides["shaded"].lake)
        found = evaluate_pipelines(lake, sides["shaded"], sides["nano"])
        out(found.markdown().replace("| base | aligned |", "| shaded | nano |"))
        shaded, nano = (float(found.rows[f"{side}_oks"].median()) for side in ("base", "aligned"))
        out(f"median OKS: shaded {shaded:.3f}, nano {nano:.3f}, {nano / shaded:.3f} of it\n")
    if given.model == "nano":
        weights = sum(f.stat().st_size for f in NANO.rglob("*.safetensors"))
        out(f"weights: {weights / 2**20:.1f} MiB\n")


if __name__ == "__main__":
    main()

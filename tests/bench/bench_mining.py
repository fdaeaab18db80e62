"""Does mining find poses that come out worse, how fast is scoring: `python -m tests.bench.bench_mining`.

Per seed: a first round at random, then two rival second rounds of one budget from one pool, mined and random,
painted and measured alike. Then the scorers' speed on 10^4 to 10^6 poses, and that of picking.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.lake import Lake
from etl.mine import learn
from etl.run import run_stages
from etl.settings import load_pipeline
from etl.table import computed_by
from schemas.curriculum import Curriculum, Round
from schemas.plan import Camera
from schemas.tables import POSES
from tests.bench.bench_nano import write_poses
from udfs.columns import list_column, matrix
from udfs.novelty import Novelty, references_file
from udfs.oks_regressor import model_digest
from udfs.picking import Candidates, pick
from udfs.plausibility import Plausibility
from udfs.pose_space import cell_of, cells
from udfs.predicted_oks import PredictedOks
from udfs.random_poses import random_poses
from udfs.skeleton import descriptor
from udfs.udf import Udf, Worker, bytes_digest

PIPELINE = """\
lake: lake
poses: [{{name: random, path: random.npz}}, {{name: wild, path: wild.npz}}]
generator: {generator}
curriculum:
  seed: {seed}
  rounds: [{{budget: {first}}}, {{budget: {second}{mix}}}]
cluster: {{workers: 2}}
"""
GENERATORS = {
    "nano": "{name: diffusers, adapters: [{name: dpo, path: nano-dpo}]}",
    "shaded": "{name: shaded}",
}
REJECTED = 0.8
CELLS = 64
REFERENCES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=int, default=1500, help="poses of each of two kinds to pick from")
    parser.add_argument("--first", type=int, default=300, help="poses of the first round")
    parser.add_argument("--second", type=int, default=150, help="poses of each second round")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--generator", choices=sorted(GENERATORS), default="nano")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_poses(folder, given.pool)
        lake = Lake.create(folder / "lake")
        if given.seeds:
            rows = [rival for seed in range(given.seeds) for rival in _rounds(folder, lake, given, seed)]
            table = pd.DataFrame(rows)
            _print(table)
            _print(table.groupby("second round").mean(numeric_only=True).drop(columns="seed").reset_index())
        if given.sizes:
            file = folder / "mined-0.yaml"
            if not file.is_file():
                file = _pipeline(folder, given, 0, "mined", "")
                run_stages(lake, load_pipeline(file).first_rounds(1))
            mining = learn(lake, load_pipeline(file))
            _speed(lake, mining.folder, given.sizes)


def _pipeline(folder: Path, given: argparse.Namespace, seed: int, name: str, mix: str) -> Path:
    file = folder / f"{name}-{seed}.yaml"
    generator = GENERATORS[given.generator]
    file.write_text(
        PIPELINE.format(generator=generator, seed=seed, first=given.first, second=given.second, mix=mix)
    )
    return file


def _rounds(folder: Path, lake: Lake, given: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for name, mix in (("random", ", mix: {random: 1}"), ("mined", "")):
        pipeline = load_pipeline(_pipeline(folder, given, seed, name, mix))
        report = run_stages(lake, pipeline)
        mining = learn(lake, pipeline)
        assert mining.measured is not None
        names = ["sample_id", "pose_id", "round", "pick_reason"]
        samples = lake.table("samples").read(names, computed_by(mining.measured.samples)).to_pandas()
        rows = mining.examples.select(["sample_id", "oks"]).to_pandas().merge(samples, on="sample_id")
        second = rows[rows["round"] == 2]
        if name == "mined":
            first_model = learn(lake, pipeline.first_rounds(1)).model
            found[0]["Spearman"] = first_model.held_out.spearman
        facts: dict[str, object] = {"seed": seed, "second round": name, "images": len(second)}
        facts |= {"mean OKS": second["oks"].mean(), "under 0.8, %": 100 * (second["oks"] < REJECTED).mean()}
        hard = second[second["pick_reason"] == "hard"]["oks"]
        facts |= {
            "hard picks' OKS": hard.mean(),
            "cells reached, %": _coverage(lake, rows["pose_id"].to_numpy()),
        }
        found.append(facts)
        sys.stdout.write(f"seed {seed}, {name}: {sum(s.seconds for s in report.stages):.0f} s\n")
    return found


def _coverage(lake: Lake, pose_ids: np.ndarray) -> float:
    """Per cent of the pool's k-means cells that a curriculum's poses reach, both rounds together."""
    poses = lake.table("poses").read(["pose_id", "body_pose"]).sort_by("pose_id")
    points = descriptor(matrix(poses, "body_pose"))
    cell = cell_of(points, cells(points, CELLS, 0))
    return 100 * len(np.unique(cell[np.isin(poses.column("pose_id").to_numpy(), pose_ids)])) / CELLS


def _speed(lake: Lake, folder: str, sizes: list[int]) -> None:
    index = lake.store.read(f"{folder}/model.json")
    seen = random_poses(REFERENCES, 99)["body_pose"]
    known = references_file(np.arange(REFERENCES), seen)
    lake.store.write("files/mining/bench.arrow", known)
    scorers: list[Udf] = [
        Plausibility(),
        Novelty(references="files/mining/bench.arrow", digest=bytes_digest(known)),
        PredictedOks(folder=folder, digest=model_digest(index), camera=Camera()),
    ]
    apply = {udf.name: udf.setup(Worker("cpu", lake.store)) for udf in scorers}
    poses = _table(random_poses(min(max(sizes), 20_000), 7))
    out = []
    for size in sizes:
        row: dict[str, object] = {"poses": size}
        total = 0.0
        for udf in scorers:
            began = time.perf_counter()
            for start in range(0, size, udf.batch_rows):
                at = np.arange(start, min(start + udf.batch_rows, size)) % poses.num_rows
                apply[udf.name](poses.take(pa.array(at)))
            seconds = time.perf_counter() - began
            total += seconds
            row[f"{udf.name}, rows/s"] = round(size / seconds)
        row |= {"all, s": total, "picking, s": _picking(size), "peak GB": _peak()}
        out.append(row)
    _print(pd.DataFrame(out))


def _table(params: dict[str, np.ndarray]) -> pa.Table:
    n = len(params["body_pose"])
    columns = {"pose_id": pa.array(np.arange(n))}
    for field in POSES:
        if pa.types.is_fixed_size_list(field.type):
            values = params.get(field.name, np.zeros((n, field.type.list_size)))
            columns[field.name] = list_column(np.asarray(values, np.float32), field.type)
    return pa.table(columns)


def _picking(size: int) -> float:
    rng = np.random.default_rng(0)
    points = descriptor(random_poses(min(size, 20_000), 3)["body_pose"])
    points = points[np.arange(size) % len(points)] + rng.normal(0, 0.02, (size, points.shape[1]))
    scores = [rng.random(size).astype(np.float32) for _ in range(4)]
    candidates = Candidates(
        np.arange(size), np.full(size, "pool"), points.astype(np.float32), np.zeros(size, bool), *scores
    )
    round_ = Round(budget=min(20_000, size // 5))
    began = time.perf_counter()
    pick(candidates, round_, Curriculum(rounds=(Round(), round_)), 2)
    return time.perf_counter() - began


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _print(table: pd.DataFrame) -> None:
    names = list(table.columns)
    sys.stdout.write("| " + " | ".join(names) + " |\n|" + "---|" * len(names) + "\n")
    for row in table.itertuples(index=False):
        cells_ = (f"{v:.3f}" if isinstance(v, float) and v == v else "" if v != v else str(v) for v in row)
        sys.stdout.write("| " + " | ".join(cells_) + " |\n")


if __name__ == "__main__":
    main()

"""Images a second of the diffusion generator, against loops that call the same pipeline themselves.

python -m tests.bench.bench_generate [--model FOLDER] [--config 128] [--images 64] [--batch 8] [--steps 4]

Without `--model`, the packaged nano model; where that is not there, random weights of a nano configuration,
which take the same time. Rates depend on the machine: what counts are the ratios, of interleaved rounds.
"""

import argparse
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from etl.store import Store
from schemas.pipeline import DiffusionSettings
from udfs.generate import Diffusion
from udfs.images import Images
from udfs.nano_model import CONFIGS, build, prompts
from udfs.picture import encode
from udfs.pipelines import NANO
from udfs.udf import Worker


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a FluxControlPipeline's folder")
    parser.add_argument("--config", choices=sorted(CONFIGS), default="128", help="size, without a model")
    parser.add_argument("--size", type=int, help="pixels a side, by default the configuration's")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--captions", type=int, help="distinct captions, by default one an image")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or (str(NANO) if NANO.is_dir() else str(Path(folder) / "model"))
        if not Path(model).exists():
            build(CONFIGS[given.config]).save_pretrained(model)
            print(f"random weights of the configuration {given.config}")
        _bench(Path(folder), model, given)


def _bench(folder: Path, model: str, given: argparse.Namespace) -> None:
    size = given.size or CONFIGS[given.config].size
    store = Store.at(folder / "lake")
    rows = _rows(store, given.images, given.captions or given.images, size)
    settings = DiffusionSettings(model=model, steps=given.steps, batch_rows=given.batch)
    generator = Diffusion(settings=settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paint = generator.load(Worker(device, store))
    pipe = paint.pipe
    length = paint.prompts.length
    texts = rows["prompt"].to_pylist()
    seeds = rows["seed"].to_pylist()
    paths = rows["control_path"].to_pylist()
    controls = [Image.open(io.BytesIO(store.read(path))).convert("RGB") for path in paths]
    batches = [slice(i, i + given.batch) for i in range(0, len(texts), given.batch)]

    def call(at: slice, pictures: list[Image.Image]) -> list[Image.Image]:
        generators = [torch.Generator("cpu").manual_seed(s) for s in seeds[at]]
        return pipe(
            prompt=texts[at], control_image=pictures, height=size, width=size, generator=generators,
            num_inference_steps=given.steps, guidance_scale=3.5, max_sequence_length=length,
        ).images  # fmt: skip

    def bare() -> None:
        for at in batches:
            call(at, controls[at])

    def bare_and_files() -> None:
        for at in batches:
            for seed, picture in zip(seeds[at], call(at, controls[at]), strict=True):
                store.write(f"bare/{seed}.jpg", encode(np.asarray(picture), "jpeg"))

    def alone() -> None:
        for i, path in enumerate(paths):
            picture = Image.open(store.full(path)).convert("RGB")
            call(slice(i, i + 1), [picture])[0].save(Path(store.full("controls")) / f"{seeds[i]}.jpg")

    def painter() -> None:
        paint.prompts._kept.clear()
        for at in batches:
            paint(rows.slice(at.start, given.batch))

    def painter_cached() -> None:
        for at in batches:
            paint(rows.slice(at.start, given.batch))

    rounds = 0

    def images() -> None:
        nonlocal rounds
        rounds += 1
        paint.prompts._kept.clear()
        udf = Images(generator=_Loaded(settings=settings, paint=paint))
        out = udf.setup(Worker(device, store, f"round{rounds}"))(rows)
        assert set(out["status"].to_pylist()) == {"generated"}

    loops: dict[str, Callable[[], None]] = {
        "bare loop, same batch": bare,
        "bare loop, files written": bare_and_files,
        "Diffusion": painter,
        "Diffusion, captions seen before": painter_cached,
        "Images (Diffusion, files, rows)": images,
        "one by one, as the reference": alone,
    }
    print(
        f"{len(texts)} images of {size} x {size}, {len(set(texts))} captions, batch {given.batch}, "
        f"{given.steps} steps, text length {length}, {device}, {paint.dtype}; "
        f"torch threads {torch.get_num_threads()}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS')}, "
        f"cores {len(os.sched_getaffinity(0))}, load {os.getloadavg()[0]:.1f}"
    )
    call(batches[0], controls[batches[0]])
    # Beside other programs the clock tells little; the processor's time is what this one used of it.
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    for _ in range(given.rounds):
        for name, loop in loops.items():
            began, worked = time.perf_counter(), time.process_time()
            loop()
            seconds[name].append((time.perf_counter() - began, time.process_time() - worked))
    base = np.array(seconds["bare loop, same batch"])
    print(f"{'':<34}{'images/s':>10}{'time':>10}{'CPU time':>10}   of the bare loop, median of rounds")
    for name, times in seconds.items():
        rate = len(texts) / statistics.median(wall for wall, _ in times)
        wall, cpu = np.median(np.array(times) / base, axis=0)
        print(f"{name:<34}{rate:>10.2f}{wall:>10.3f}{cpu:>10.3f}")


class _Loaded(Diffusion):
    """Does not load the model again for every round."""

    def __init__(self, settings: DiffusionSettings, paint: object) -> None:
        super().__init__(settings=settings)
        object.__setattr__(self, "paint", paint)

    def load(self, worker: Worker) -> object:
        return self.paint


def _rows(store: Store, n: int, captions: int, size: int) -> pa.Table:
    rng = np.random.default_rng(0)
    paths, digests = [], []
    for i in range(n):
        picture = np.zeros((size, size, 3), np.uint8)
        # A gradient on a box compresses about as a control image does.
        picture[size // 8 : -size // 8, size // 3 : -size // 3] = rng.integers(0, 200, 3)
        picture[..., 0] += np.linspace(0, 50, size).astype(np.uint8)[:, None] * (picture[..., 0] > 0)
        data = encode(picture, "png")
        paths.append(f"controls/{i}.png")
        digests.append(hashlib.sha256(data).hexdigest())
        store.write(paths[-1], data)
    texts = prompts()[:captions]
    return pa.table(
        {
            "sample_id": np.arange(n, dtype=np.int64),
            "seed": np.arange(n, dtype=np.int64),
            "prompt": [texts[i % captions] for i in range(n)],
            "image_height": np.full(n, size, np.int32),
            "image_width": np.full(n, size, np.int32),
            "control_path": paths,
            "control_sha256": digests,
        }
    )


if __name__ == "__main__":
    main()

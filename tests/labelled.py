"""Labelled images of which the right answer is known: the renderer's, of captioned poses."""

import numpy as np
import pyarrow as pa

from schemas.smplx_params import SMPLX_PARAMS
from schemas.source import GrammarSource
from udfs import grammar
from udfs.columns import list_column
from udfs.labels import Labels
from udfs.picture import encode
from udfs.random_poses import random_poses
from udfs.shaded import Shaded
from udfs.udf import Files, Worker

_LIST = pa.list_(pa.float32())


def labelled_images(files: Files, count: int, seed: int = 0, side: int = 128, **columns: object) -> pa.Table:
    """`count` rows with all that metrics read, `0.png` and so on in `files`; the same for the same arguments.

    columns: of the samples, to use as they are: (count,) or (count, k).
    """
    rng = np.random.default_rng([seed, 5])
    params = {k: v for k, v in random_poses(count, seed).items() if k in SMPLX_PARAMS and k != "transl"}
    params["betas"] = rng.uniform(-1, 1, (count, 10))
    given = {
        **params,
        "camera_yaw": rng.uniform(-np.pi, np.pi, count),
        "camera_elevation": rng.uniform(-0.1, 0.25, count),
        "camera_distance": rng.uniform(2.8, 3.2, count),
        "camera_focal": np.full(count, side * 0.87),
        "camera_margin": np.full(count, 0.1),
    } | columns
    arrays = {name: np.asarray(value, np.float32) for name, value in given.items()}
    said = grammar.captions(rng.integers(0, 1 << 60, count), GrammarSource())
    samples = pa.table(
        {
            "sample_id": np.arange(count),
            "gender": ["neutral"] * count,
            **{k: list_column(v, _LIST) if v.ndim == 2 else pa.array(v) for k, v in arrays.items()},
            "image_height": np.full(count, side, np.int32),
            "image_width": np.full(count, side, np.int32),
            "seed": rng.integers(0, 1 << 60, count),
            **{name: said[name] for name in said.column_names},
        }
    )
    worker = Worker("cpu", files)
    labels = Labels().setup(worker)(samples.select(Labels.inputs))
    kept = [name for name in samples.column_names if name not in labels.column_names]
    rows = labels
    for name in kept:
        rows = rows.append_column(name, samples[name])
    for k, pixels in enumerate(Shaded().load(worker)(rows).pixels):
        files.write(f"{k}.png", encode(pixels, "png"))
    rows = rows.append_column("image_path", pa.array([f"{k}.png" for k in range(count)]))
    return rows.append_column("image_id", pa.array(np.arange(count) + 100))

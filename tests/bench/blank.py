"""A generator that returns at once, to see what everything around a generator costs."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from udfs.generator import Generator, Paint, Painted
from udfs.udf import Worker


@dataclass(frozen=True, kw_only=True)
class Blank(Generator):
    """One picture of noise for every row: as much work for the JPEG encoder as a photograph."""

    name: ClassVar[str] = "blank"
    version: ClassVar[int] = 1
    columns: ClassVar[tuple[str, ...]] = ("seed", "image_height", "image_width")

    def load(self, worker: Worker) -> Paint:
        noise = np.random.default_rng(0).integers(96, 160, (256, 256, 3), np.uint8)
        return lambda rows: Painted(np.broadcast_to(noise, (rows.num_rows, *noise.shape)))

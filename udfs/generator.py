"""What paints the photograph of a sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa

from udfs.udf import Worker

Paint: TypeAlias = Callable[[pa.Table], np.ndarray]
"""Maps N rows with one image size to (N, H, W, 3) uint8 RGB."""


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """An image maker; its dataclass fields are its parameters, all of which shape the fingerprint.

    Class attributes:
        name, version: raise the version when its pictures change.
        columns: what it reads of `samples`, `labels` and `captions`.
        batch_rows: images painted in one call.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    columns: ClassVar[tuple[str, ...]]
    batch_rows: ClassVar[int] = 8

    steps: ClassVar[int | None] = None
    guidance_scale: ClassVar[float | None] = None

    def models(self) -> Mapping[str, str]:
        """Digests of the model files it paints with, by role."""
        return {}

    def parameters(self) -> Mapping[str, object]:
        """What shapes the picture."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @abstractmethod
    def load(self, worker: Worker) -> Paint:
        """Loads its models once a worker process and returns the function that paints.

        The picture of a row depends on that row alone, its `seed` included, not on the rows beside it.
        """

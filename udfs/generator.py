"""What paints the photograph of a sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa

from udfs.udf import Worker


@dataclass(frozen=True)
class Painted:
    """What one call painted, and what is worth knowing of it.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB.
        device: what painted, such as `cpu` or a GPU's name.
        dtype: numbers that the model computed with.
        prompt_tokens: of each whole prompt, special tokens included.
        prompt_truncated: whether the model read only the beginning of each.
    """

    pixels: np.ndarray
    device: str | None = None
    dtype: str | None = None
    prompt_tokens: Sequence[int] | None = None
    prompt_truncated: Sequence[bool] | None = None


Paint: TypeAlias = Callable[[pa.Table], Painted]
"""Paints N rows with one image size."""


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """An image maker; its dataclass fields are its parameters, all of which shape the fingerprint.

    Class attributes:
        name, version: raise the version when its pictures change.
        columns: what it reads of `samples`, `labels` and `captions`.
        accelerated: whether it wants the worker's GPU.
        exact: whether a row's pixels are the same to the last bit in whatever batch it comes.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    columns: ClassVar[tuple[str, ...]]
    accelerated: ClassVar[bool] = False
    exact: ClassVar[bool] = True

    @property
    def batch_rows(self) -> int:
        """Images painted in one call, while the memory suffices."""
        return 32

    @property
    def steps(self) -> int | None:
        """Denoising steps; None for a renderer."""
        return None

    @property
    def guidance_scale(self) -> float | None:
        """None for a renderer."""
        return None

    def models(self) -> Mapping[str, str]:
        """Digests of the model files it paints with, by role. Raises ModelError for files that cannot be."""
        return {}

    def check(self, device: str | None = None) -> None:
        """Looks for what would stop it, as far as that takes no model in memory. Raises ModelError.

        device: torch device string, where it is known what it will paint on.
        """
        self.models()

    def parameters(self) -> Mapping[str, object]:
        """What shapes the picture."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @abstractmethod
    def load(self, worker: Worker) -> Paint:
        """Loads its models once a worker process and returns the function that paints.

        The picture of a row depends on that row alone, its `seed` included, and not on the rows beside it,
        but for rounding where the generator is not `exact`.
        """

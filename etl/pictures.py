"""The photographs of a release, each read when it is asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from PIL import Image

from etl.store import Store
from schemas.errors import RowError
from udfs.picture import decode


@dataclass(frozen=True)
class Pictures(Sequence[Image.Image]):
    """A sequence of images that opens the one that is indexed; a slice of it opens none.

    Attributes:
        ids: image id of each.
        paths: file of each, relative to the lake.
        sha256: what each file's bytes hash to; None: do not check.

    Indexing raises RowError, which names the file, when it is gone, damaged, larger than the caps on bytes
    and pixels, or, where that is checked, not the file that was published.
    """

    store: Store
    ids: Sequence[int]
    paths: Sequence[str]
    sha256: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, at: int) -> Image.Image: ...
    @overload
    def __getitem__(self, at: slice) -> "Pictures": ...
    def __getitem__(self, at: int | slice) -> "Image.Image | Pictures":
        if isinstance(at, slice):
            sums = None if self.sha256 is None else self.sha256[at]
            return Pictures(self.store, self.ids[at], self.paths[at], sums)
        sha256 = None if self.sha256 is None else self.sha256[at]
        return Image.fromarray(read_image(self.store, self.paths[at], sha256))

    def __repr__(self) -> str:
        return f"Pictures({len(self)} images)"


def read_image(store: Store, path: str, sha256: str | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file of the lake. Raises RowError, naming it; see `Pictures`."""
    try:
        data = store.read(path)
    except FileNotFoundError:
        raise RowError(f"{path}: the image is not there; `posedreamer release verify` lists all") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise RowError(f"{path}: not the file that its row speaks of: its SHA-256 differs")
    return decode(data, path)[0]

"""Measures whether an image has the colours that its caption names, by looking where the label says.

A region's pixels vote for the colour words. What a word looks like is measured on lit renders, not taken
from a colour chart: shade and lamps make beige of white and black of navy. The pixels' distances are those
of a multivariate t in OKLab (Ottosson 2020), whose broad tails keep a strap or a stripe from deciding.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.errors import ModelError, RowError
from schemas.metrics import metric_outputs
from schemas.smplx_params import SMPLX_PARAMS
from udfs.body import Body, body_files
from udfs.color_regions import ATTRIBUTES, FEWEST, TOP, Tailor, color_regions
from udfs.columns import matrix, metric_rows
from udfs.light_color import linear
from udfs.picture import read_pictures
from udfs.udf import Apply, Udf, Worker, file_digest

REFERENCES = Path(__file__).parent / "weights" / "caption_colors.json"
"""What the words look like; `udfs.caption_color_references` measures it."""

KINDS = ("cloth", "cloth", "cloth", "background")
"""Which references each of ATTRIBUTES is read with: a wall is lit from edge to edge, a body is not."""

_TAILS = 4.0
"""Degrees of freedom of the t distribution."""

_PIXELS = 256
"""Pixels of a region that vote, evenly picked."""

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_LEVELS = linear(np.arange(256))


@dataclass(frozen=True)
class Palette:
    """What colour words look like in one kind of region.

    Attributes:
        words: K colour words.
        center: (K, 3) OKLab.
        covariance: (K, 3, 3).
    """

    words: tuple[str, ...]
    center: np.ndarray
    covariance: np.ndarray

    @classmethod
    def load(cls, path: Path = REFERENCES) -> dict[str, "Palette"]:
        """By kind of region. Raises ModelError."""
        try:
            data = json.loads(path.read_text("utf-8"))
            return {
                kind: cls(
                    tuple(data["words"]),
                    np.array(data[kind]["center"], np.float64).reshape(-1, 3),
                    np.array(data[kind]["covariance"], np.float64).reshape(-1, 3, 3),
                )
                for kind in sorted(set(KINDS))
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path}: no colour references ({error}); reinstall the package") from error

    def read(self, pixels: np.ndarray) -> str:
        """The word that (N, 3) uint8 RGB pixels of one thing are most likely to be called."""
        chosen = pixels[np.linspace(0, len(pixels) - 1, min(len(pixels), _PIXELS)).astype(int)]
        off = oklab(chosen)[:, None] - self.center
        square = np.einsum("nki,kij,nkj->nk", off, np.linalg.inv(self.covariance), off)
        width = 0.5 * np.log(np.linalg.det(self.covariance))
        likely = -(_TAILS + 3) / 2 * np.log1p(square / _TAILS) - width
        return self.words[int(likely.mean(0).argmax())]


def oklab(pixels: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 sRGB to OKLab, float64: lightness, green to red, blue to yellow."""
    return np.cbrt(_LEVELS[pixels] @ _TO_CONES.T) @ _TO_LAB.T


def read_colors(
    pictures: np.ndarray,
    regions: np.ndarray,
    said: Sequence[Mapping[str, str | None]],
    palettes: Mapping[str, Palette],
) -> list[dict[str, str | None]]:
    """The colour word of each of ATTRIBUTES that a caption names, read off the picture.

    None where the caption does not name it, and where fewer than six pixels show it.

    Args:
        pictures: (N, H, W, 3) uint8 RGB.
        regions: (N, H, W) int8, see `udfs.color_regions`.
        said: N captions' attributes.
    """
    out = []
    for picture, region, words in zip(pictures, regions, said, strict=True):
        row: dict[str, str | None] = dict.fromkeys(ATTRIBUTES)
        for place, (name, kind) in enumerate(zip(ATTRIBUTES, KINDS, strict=True), TOP):
            if words.get(name) is None:
                continue
            pixels = picture[region == place]
            if len(pixels) >= FEWEST:
                row[name] = palettes[kind].read(pixels)
        out.append(row)
    return out


def right(said: str | None, read: str | None) -> bool | None:
    """Whether what was read is what was said; None where one of them is not known."""
    return None if said is None or read is None else said == read


@dataclass(frozen=True, kw_only=True)
class CaptionColors(Udf):
    """Colours of clothes, shoes and background: the word read, and whether it is the caption's.

    A colour is measured where the caption names it and enough of it is in sight; else it is NULL. The
    background's is named by scenes with a plain wall alone.

    Fields:
        body_file: as in the labels; see `udfs.body.body_files`. Its content counts, not its place.

    Raises RowError, naming the file, for an image that cannot be read or has not the labels' size.
    """

    name: ClassVar[str] = "colors"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = (
        "image_id",
        "image_path",
        "gender",
        *SMPLX_PARAMS,
        "focal",
        "princpt",
        "image_height",
        "image_width",
        *ATTRIBUTES,
    )
    outputs: ClassVar[pa.Schema] = metric_outputs("colors")
    batch_rows: ClassVar[int] = 32
    accelerated: ClassVar[bool] = True

    body_file: Path | None = None

    def models(self) -> Mapping[str, str]:
        bodies = {f"body_{g}": file_digest(path) for g, path in body_files(self.body_file).items()}
        return bodies | {"references": file_digest(REFERENCES)}

    def parameters(self) -> Mapping[str, object]:
        return {}

    def setup(self, worker: Worker) -> Apply:
        tailors = {g: Tailor.load(Body.load(path)) for g, path in body_files(self.body_file).items()}
        palettes = Palette.load()

        def apply(rows: pa.Table) -> pa.Table:
            out: list[dict[str, object]] = [{} for _ in range(rows.num_rows)]
            of_kind: dict[tuple[str, int, int], list[int]] = {}
            keys = (rows[name].to_pylist() for name in ("gender", "image_height", "image_width"))
            for row, (gender, height, width) in enumerate(zip(*keys, strict=True)):
                gender = next(iter(tailors)) if len(tailors) == 1 else gender
                of_kind.setdefault((gender, height, width), []).append(row)
            for (gender, height, width), at in of_kind.items():
                if gender not in tailors:
                    raise RowError(f"no body for gender {gender}; there are {', '.join(tailors)}")
                group = rows.take(pa.array(at))
                for row, measured in zip(
                    at, _measure(group, tailors[gender], height, width, palettes, worker), strict=True
                ):
                    out[row] = measured
            return metric_rows(rows["image_id"], out, self.outputs)

        return apply


def _measure(
    rows: pa.Table,
    tailor: Tailor,
    height: int,
    width: int,
    palettes: Mapping[str, Palette],
    worker: Worker,
) -> list[dict[str, object]]:
    pictures = np.stack(read_pictures(worker.files, rows))
    params = {name: matrix(rows, name) for name in SMPLX_PARAMS}
    regions = color_regions(tailor, params, matrix(rows, "focal"), matrix(rows, "princpt"), height, width)
    said = rows.select(ATTRIBUTES).to_pylist()
    found = read_colors(pictures, regions, said, palettes)
    return [_row(words, seen) for words, seen in zip(said, found, strict=True)]


def _row(said: Mapping[str, str | None], read: Mapping[str, str | None]) -> dict[str, object]:
    verdicts = {name: right(said[name], read[name]) for name in ATTRIBUTES}
    known = [v for v in verdicts.values() if v is not None]
    row: dict[str, object] = {f"{name}_read": read[name] for name in ATTRIBUTES}
    row |= {f"{name}_right": verdict for name, verdict in verdicts.items()}
    return row | {"colors_right": sum(known) / len(known) if known else None}

"""Pictures as bytes: encoding, and decoding that trusts nothing."""

import io
import warnings
from typing import Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from schemas.errors import RowError
from udfs.udf import Files

Format = Literal["jpeg", "png"]
SUFFIX: dict[Format, str] = {"jpeg": "jpg", "png": "png"}
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20


def encode(pixels: np.ndarray, form: Format, quality: int = 92, comment: str = "") -> bytes:
    """(H, W, 3) uint8 RGB as a file's bytes; the same pixels give the same bytes."""
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    if form == "png":
        facts = PngInfo()
        if comment:
            facts.add_text("Comment", comment)
        # Level 1 takes a third of the default's time and costs a few per cent of size on flat renders.
        image.save(out, "PNG", compress_level=1, pnginfo=facts)
    else:
        # Colours at full resolution: at half of it, a shoe of a small figure takes those of the ground.
        image.save(out, "JPEG", quality=quality, subsampling="4:4:4", comment=comment.encode())
    return out.getvalue()


def decode(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """Pixels (H, W, 3) uint8 RGB and the comment of a JPEG or PNG file.

    Raises RowError, naming the file, when it is damaged, of another format, or larger than the caps that
    keep a hostile file from filling the memory.
    """
    if len(data) > MAX_BYTES:
        raise RowError(f"{name}: {len(data)} bytes are more than an image may have ({MAX_BYTES})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            if image.width * image.height > MAX_PIXELS:
                raise RowError(
                    f"{name}: {image.width} x {image.height} are more pixels than an image may have"
                )
            image.load()
    except RowError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise RowError(f"{name}: no intact JPEG or PNG image: {error}") from error
    comment = image.info.get("comment", image.info.get("Comment", b""))
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    return np.asarray(image.convert("RGB")), text


def read_picture(files: Files, path: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file of the lake.

    Raises RowError, naming the file, when it is not there, is damaged, or has not the labels' size.
    """
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise RowError(f"{path}: the image is not there; delete its row or paint it again") from None
    picture, _ = decode(data, path)
    if picture.shape[:2] != size:
        raise RowError(f"{path}: {picture.shape[0]} x {picture.shape[1]} pixels, its labels are for {size}")
    return picture


IMAGE = ("image_id", "image_path", "image_height", "image_width")
"""What a metric reads of an image's row, to look at it."""


def read_pictures(files: Files, rows: pa.Table) -> list[np.ndarray]:
    """`read_picture` of every row, by its `image_path`, `image_height` and `image_width`."""
    columns = (rows[name].to_pylist() for name in ("image_path", "image_height", "image_width"))
    return [read_picture(files, path, (h, w)) for path, h, w in zip(*columns, strict=True)]

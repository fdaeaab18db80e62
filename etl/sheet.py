"""Contact sheets: what a lake holds, to look at."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from etl.lake import Lake
from etl.pictures import read_image
from schemas.coco import KEYPOINT_NAMES, SKELETON
from schemas.errors import InputError

if TYPE_CHECKING:
    from etl.query import Release

_MARGIN, _GAP, _LINES = 14, 3, 2
_CHARACTERS = 400
_PAPER, _INK, _FAINT = (255, 255, 255), (38, 38, 38), (120, 120, 120)
_SIDES = {"left": (255, 140, 0), "right": (0, 190, 255), "": (90, 230, 110)}
"""The subject's left is orange and right is blue, as in most drawings of COCO's keypoints."""
_SEEN = 0.3
"""Keypoints below this confidence are not drawn, as in the reference's matching rule."""


@dataclass(frozen=True)
class Sample:
    """What the sheet shows of one image.

    Attributes:
        control, image: (H, W, 3) uint8 RGB.
        keypoints: (17, 3) x, y in pixels of `image` and confidence; None where nobody was matched.
        caption: any length; the sheet shows its beginning.
        oks: None where it could not be measured.
    """

    control: np.ndarray
    image: np.ndarray
    keypoints: np.ndarray | None
    caption: str
    oks: float | None


def contact_sheet(
    lake: Lake,
    *,
    release: str | None = None,
    image_ids: Sequence[int] | None = None,
    n: int = 24,
    columns: int = 4,
    tile: int = 160,
) -> Image.Image:
    """Control image, generated image and detected keypoints of some samples, as one picture.

    Args:
        release: show images of this release; without it, of the whole lake, rejected ones too.
        image_ids: show these, in this order; without them `n` spread evenly over what there is.
        columns: samples side by side.
        tile: size of one tile, pixels.

    Raises InputError when there is nothing to show.
    """
    if release is not None:
        published = lake.release(release)
        if image_ids is None:
            return published.show(n, columns=columns, tile=tile)
        return release_sheet(published, image_ids, columns, tile)
    rows = _measured(lake)
    ids = rows.column("image_id").to_numpy()
    if image_ids is not None:
        place = {int(key): i for i, key in enumerate(ids)}
        unknown = [key for key in image_ids if int(key) not in place]
        if unknown:
            raise InputError(f"there is no measured image {unknown[0]} ({len(unknown)} like it)")
        at = np.array([place[int(key)] for key in image_ids], np.int64)
    else:
        at = spread(n, len(ids))
    if not len(at):
        raise InputError(f"the lake {lake.url} has no measured images to show")
    return draw_sheet([_load(lake, row) for row in rows.take(pa.array(at)).to_pylist()], columns, tile)


def release_sheet(
    release: "Release", image_ids: Sequence[int] | np.ndarray, columns: int = 4, tile: int = 160
) -> Image.Image:
    """The same of these images of a release; reads their rows alone."""
    names = ["image_path", "control_path", "caption", "keypoints", "oks"]
    rows = release.to_arrow(names, ids=image_ids).to_pylist()
    return draw_sheet([_load(release.lake, row) for row in rows], columns, tile)


def spread(n: int, total: int) -> np.ndarray:
    """At the most `n` of `total` places, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(np.int64))


def draw_sheet(samples: Sequence[Sample], columns: int = 4, tile: int = 160) -> Image.Image:
    """Draws the samples row by row; each is three tiles over two lines of text."""
    return draw_strips([_strip(sample, tile) for sample in samples], columns, tile)


@dataclass(frozen=True)
class Strip:
    """Square tiles side by side over two lines of text.

    Attributes:
        tiles: pictures of one size.
        text: any length; the strip shows its beginning.
        note: a few words to the right of it.
    """

    tiles: Sequence[Image.Image]
    text: str
    note: str


def draw_strips(strips: Sequence[Strip], columns: int = 4, tile: int = 160) -> Image.Image:
    """Draws strips of equally many tiles row by row, `columns` of them side by side."""
    columns = max(1, min(columns, len(strips)))
    size = max(9, round(tile / 13))
    font = ImageFont.load_default(size)
    line = round(size * 1.35)
    many = max((len(strip.tiles) for strip in strips), default=1)
    width, height = many * tile + (many - 1) * _GAP, tile + _GAP + _LINES * line
    rows = -(-len(strips) // columns)
    sheet = Image.new(
        "RGB",
        (_MARGIN + columns * (width + _MARGIN), _MARGIN + rows * (height + _MARGIN)),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for i, strip in enumerate(strips):
        x = _MARGIN + i % columns * (width + _MARGIN)
        y = _MARGIN + i // columns * (height + _MARGIN)
        for k, picture in enumerate(strip.tiles):
            sheet.paste(picture, (x + k * (tile + _GAP), y))
        room = width - draw.textlength(strip.note, font) - size
        for number, text in enumerate(_wrapped(draw, strip.text, font, room)):
            draw.text((x, y + tile + _GAP + number * line), text, _INK, font)
        draw.text((x + width, y + tile + _GAP), strip.note, _FAINT, font, anchor="ra")
    return sheet


def _strip(sample: Sample, tile: int) -> Strip:
    control, image = square(sample.control, tile), square(sample.image, tile)
    drawn = with_keypoints(image, sample.keypoints, sample.image.shape[:2])
    score = "OKS not measured" if sample.oks is None else f"OKS {sample.oks:.2f}"
    return Strip((control, image, drawn), sample.caption, score)


def _measured(lake: Lake) -> pa.Table:
    """All measured images by id. Of several measurements or labels of one image, one is shown."""
    images = lake.table("images").read(["image_id", "sample_id", "image_path"])
    for table, key, columns in (
        ("metrics_keypoints", "image_id", ["keypoints", "oks"]),
        ("labels", "sample_id", ["control_path"]),
        ("samples", "sample_id", ["caption_id"]),
        ("captions", "caption_id", ["text"]),
    ):
        images = _beside(images, lake.table(table).read([key, *columns]), key)
    names = ["caption" if name == "text" else name for name in images.column_names]
    return images.rename_columns(names).sort_by("image_id")


def _beside(rows: pa.Table, others: pa.Table, key: str) -> pa.Table:
    """The rows that the other table has, with its columns."""
    known, first = np.unique(others.column(key).to_numpy(), return_index=True)
    at = pc.index_in(rows.column(key), pa.array(known, pa.int64())).combine_chunks()
    rows, at = rows.filter(at.is_valid()), at.drop_null().to_numpy()
    taken = others.take(pa.array(first[at]))
    for name in others.column_names:
        if name != key:
            rows = rows.append_column(name, taken.column(name))
    return rows


def _load(lake: Lake, row: dict[str, Any]) -> Sample:
    keypoints = None if row["keypoints"] is None else np.reshape(row["keypoints"], (-1, 3))
    control, image = (read_image(lake.store, row[p]) for p in ("control_path", "image_path"))
    return Sample(control, image, keypoints, row["caption"], row["oks"])


def square(pixels: np.ndarray, tile: int) -> Image.Image:
    """The picture in a square of this size, its sides in proportion."""
    image = Image.fromarray(pixels)
    image.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    if max(image.size) < tile:
        grow = tile / max(image.size)
        image = image.resize(
            (round(image.width * grow), round(image.height * grow)), Image.Resampling.BICUBIC
        )
    paper = Image.new("RGB", (tile, tile), (235, 235, 235))
    paper.paste(image, ((tile - image.width) // 2, (tile - image.height) // 2))
    return paper


def with_keypoints(picture: Image.Image, keypoints: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    """The square tile of an image with the limbs that the detector saw; drawn large and shrunk, for smooth
    lines.

    keypoints: (17, 3) x, y in pixels of the image and confidence; None leaves the tile as it is. size: height
    and width of the image.
    """
    if keypoints is None:
        return picture
    sharp, tile = 4, picture.width
    big = picture.resize((tile * sharp, tile * sharp), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(big)
    height, width = size
    scale = tile / max(width, height)
    offset = (tile - np.array([width, height]) * scale) / 2
    points = (keypoints[:, :2] * scale + offset) * sharp
    seen = keypoints[:, 2] >= _SEEN
    thick = max(2, round(tile * sharp / 70))
    for a, b in SKELETON:
        if seen[a] and seen[b]:
            sides = {_side(a), _side(b)}
            color = _SIDES[sides.pop() if len(sides) == 1 else ""]
            draw.line([tuple(points[a]), tuple(points[b])], color, thick)
    for k in np.flatnonzero(seen):
        x, y = points[k]
        draw.ellipse((x - thick, y - thick, x + thick, y + thick), _SIDES[_side(int(k))], _INK)
    return big.resize((tile, tile), Image.Resampling.LANCZOS)


def _side(keypoint: int) -> str:
    side = KEYPOINT_NAMES[keypoint].partition("_")[0]
    return side if side in _SIDES else ""


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Any, room: float) -> list[str]:
    """The beginning of a text in two lines of this width."""
    lines = [""]
    for word in _plain(text[:_CHARACTERS]).split():
        grown = f"{lines[-1]} {word}".strip()
        if draw.textlength(grown, font) <= room or not lines[-1]:
            lines[-1] = grown
        elif len(lines) < _LINES:
            lines.append(word)
        else:
            lines[-1] += " …"
            break
    return [_cut(draw, line, font, room) for line in lines]


def _plain(text: str) -> str:
    """Letters without their marks: Pillow's own font has none, and draws `café` with a box at its end."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _cut(draw: ImageDraw.ImageDraw, line: str, font: Any, room: float) -> str:
    if draw.textlength(line, font) <= room:
        return line
    while line and draw.textlength(line + "…", font) > room:
        line = line[:-1].rstrip(" …")
    return line + "…"

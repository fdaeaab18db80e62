"""What the image of a sample must show: SMPL-X in camera space, joints, keypoints, markers, control image."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.coco import SMPLX_INDEX
from schemas.errors import RowError
from schemas.ids import hex_id
from schemas.smplx_params import POSE_PARAMS
from schemas.tables import LABELS
from udfs.body import Body, body_files
from udfs.camera import boxes, camera_params, crop, project
from udfs.columns import list_column, matrix
from udfs.control import pncc_colors
from udfs.markers import marker_vertices
from udfs.raster import NEAR, frames_at_once, nearest, paint, rasterize
from udfs.threads import each
from udfs.udf import Apply, Udf, Worker, file_digest
from udfs.visibility import tolerances, visibility

SMALLEST_CROP = 50 / 1024
"""Share of the image before the crop: what is smaller in it is too far away to be a subject."""

_COMPRESSION = 1
"""zlib's level: level 6 takes twice as long to save a quarter."""

_POSE = ("betas", *POSE_PARAMS, "expression")


@dataclass(frozen=True, kw_only=True)
class Labels(Udf):
    """Labels and control images of a batch of samples.

    The camera looks at the pelvis, which stands at (0, 0, camera_distance) in camera space; the pose's
    own `transl` plays no part. Without `camera_margin` the principal point is the image's centre; with
    it the image is a crop around the body (see `udfs.camera.crop`), which moves the intrinsics alone.

    Fields:
        body_file: see `udfs.body.body_files`. The files' content counts, not their place: no parameter.

    `gender` of a label is the body that was posed: with one body for all rows, that body's, whatever the
    pose says.

    Raises RowError for a body that reaches behind the camera or misses the image, for a crop under 50
    pixels, and for a gender that has no body.
    """

    name: ClassVar[str] = "labels"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = (
        "sample_id",
        "gender",
        *_POSE,
        "camera_yaw",
        "camera_elevation",
        "camera_distance",
        "camera_focal",
        "camera_margin",
        "image_height",
        "image_width",
    )
    outputs: ClassVar[pa.Schema] = pa.schema([f for f in LABELS if f.name != "fingerprint"])
    accelerated: ClassVar[bool] = True

    body_file: Path | None = None

    def models(self) -> Mapping[str, str]:
        return {f"body_{gender}": file_digest(path) for gender, path in body_files(self.body_file).items()}

    def parameters(self) -> Mapping[str, object]:
        return {}

    def setup(self, worker: Worker) -> Apply:
        files = body_files(self.body_file)
        figures = {gender: Figure.load(path, worker.device) for gender, path in files.items()}
        folder = f"files/controls/{self.fingerprint().value}"
        return lambda table: _labels(table, figures, folder, worker)


@dataclass(frozen=True)
class Figure:
    """A body and what is derived from it once.

    Attributes:
        colors: (V, 3) float32, control colours.
        markers: (80,) int64, vertices.
        tolerance: (17,) metres, of `udfs.visibility`.
    """

    body: Body
    colors: np.ndarray
    markers: np.ndarray
    tolerance: np.ndarray

    @classmethod
    def load(cls, path: Path, device: str) -> "Figure":
        body = Body.load(path, device=device)
        return cls(body, pncc_colors(body), marker_vertices(body), tolerances(body))


def control_path(folder: str, sample_id: int) -> str:
    """Where a control image lies, relative to the lake; 256 folders keep listings short."""
    name = hex_id(sample_id)
    return f"{folder}/{name[:2]}/{name}.png"


@dataclass(frozen=True)
class _Seen:
    """B posed bodies before their cameras. Intrinsics are what float32 columns hold, as float64."""

    params: Mapping[str, np.ndarray]
    vertices: np.ndarray
    joints: np.ndarray
    focal: np.ndarray
    princpt: np.ndarray
    bbox: np.ndarray


def _labels(table: pa.Table, figures: Mapping[str, Figure], folder: str, worker: Worker) -> pa.Table:
    """Rows in the order of the table; bodies of one gender and images of one size go together."""
    groups: dict[tuple[str, int, int], list[int]] = {}
    columns = (table[name].to_pylist() for name in ("sample_id", "gender", "image_height", "image_width"))
    for row, (sample_id, gender, height, width) in enumerate(zip(*columns, strict=True)):
        if len(figures) == 1:
            gender = next(iter(figures))
        if gender not in figures:
            raise RowError(
                f"sample {hex_id(sample_id)}: its gender is {gender}, the body folder has "
                f"{', '.join(figures)}; add SMPLX_{gender.upper()}.npz or set one file for all"
            )
        groups.setdefault((gender, height, width), []).append(row)
    if not groups:
        return Labels.outputs.empty_table()
    parts = [
        _group(table.take(rows), gender, figures[gender], (height, width), folder, worker)
        for (gender, height, width), rows in groups.items()
    ]
    order = np.concatenate([np.array(rows) for rows in groups.values()])
    return pa.concat_tables(parts).take(np.argsort(order))


def _group(
    table: pa.Table, gender: str, figure: Figure, size: tuple[int, int], folder: str, worker: Worker
) -> pa.Table:
    ids = table["sample_id"].to_pylist()
    seen = _see(table, figure, size, ids)
    markers = seen.vertices[:, figure.markers]
    keypoints = project(seen.joints[:, SMPLX_INDEX], seen.focal, seen.princpt)
    paths = [control_path(folder, i) for i in ids]
    visible, coverage, digests = _draw(seen, figure, size, keypoints, ids, paths, worker)
    arrays: dict[str, object] = {
        "sample_id": ids,
        "gender": [gender] * len(ids),
        **seen.params,
        "focal": seen.focal,
        "princpt": seen.princpt,
        "image_height": np.full(len(ids), size[0]),
        "image_width": np.full(len(ids), size[1]),
        "bbox": seen.bbox,
        "joints_3d": seen.joints,
        "joints_2d": project(seen.joints, seen.focal, seen.princpt),
        "keypoints_2d": keypoints,
        "keypoints_visible": visible,
        "markers_3d": markers,
        "markers_2d": project(markers, seen.focal, seen.princpt),
        "coverage": coverage,
        "control_path": paths,
        "control_sha256": digests,
    }
    return pa.table([_column(arrays[f.name], f.type) for f in Labels.outputs], schema=Labels.outputs)


def _column(values: object, type: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(type):
        return list_column(np.asarray(values), type)
    return pa.array(values, type)


def _see(table: pa.Table, figure: Figure, size: tuple[int, int], ids: Sequence[int]) -> _Seen:
    """Poses the bodies in camera space and fits the intrinsics. Everything follows the stored float32."""
    height, width = size
    camera = {n: table[n].to_numpy() for n in ("camera_yaw", "camera_elevation", "camera_distance")}
    world = {name: matrix(table, name) for name in _POSE}
    pelvis = figure.body.pelvis(world["betas"], world["expression"])
    params = camera_params(world, pelvis, *camera.values())
    out = figure.body(params)
    _refuse(
        nearest(out.vertices) < NEAR,
        ids,
        "the body reaches behind the camera: raise camera_distance",
    )
    focal = np.repeat(table["camera_focal"].to_numpy().astype(np.float64)[:, None], 2, axis=1)
    princpt = np.tile(np.array([width / 2, height / 2]), (len(ids), 1))
    margin = table["camera_margin"].to_numpy(zero_copy_only=False).astype(np.float64)
    cropped = ~np.isnan(margin)
    if cropped.any():
        box = boxes(project(out.vertices, focal, princpt))
        extent = (box[:, 2:] - box[:, :2]).max(axis=1) * (1 + margin)
        _refuse(
            cropped & (extent < SMALLEST_CROP * max(height, width)),
            ids,
            f"the crop around the body is under {SMALLEST_CROP:.1%} of the image: raise camera_focal or "
            "come closer",
        )
        around = crop(box, focal, princpt, np.where(cropped, margin, 0), np.array([width, height]))
        focal = np.where(cropped[:, None], around[0], focal)
        princpt = np.where(cropped[:, None], around[1], princpt)
    focal = focal.astype(np.float32).astype(np.float64)
    princpt = princpt.astype(np.float32).astype(np.float64)
    box = boxes(project(out.vertices, focal, princpt))
    box = np.clip(box, 0, np.array([width, height, width, height]))
    _refuse((box[:, 2:] <= box[:, :2]).any(axis=1), ids, "the body is outside the image")
    bbox = np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1)
    return _Seen(params, out.vertices, out.joints, focal, princpt, bbox)


def _refuse(wrong: np.ndarray, ids: Sequence[int], why: str) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        more = f" (and {int(wrong.sum()) - 1} more of this batch)" if wrong.sum() > 1 else ""
        raise RowError(f"sample {hex_id(ids[first])}: {why}{more}")


def _draw(
    seen: _Seen,
    figure: Figure,
    size: tuple[int, int],
    keypoints: np.ndarray,
    ids: Sequence[int],
    paths: Sequence[str],
    worker: Worker,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Visibility (B, 17), coverage (B,) and SHA-256 of each control image, which it writes."""
    height, width = size
    faces = figure.body.faces
    visible, coverage, digests = [], [], [""] * len(ids)
    depth = seen.joints[:, SMPLX_INDEX, 2]
    step = frames_at_once(height, width)
    for start in range(0, len(ids), step):
        part = slice(start, start + step)
        focal, princpt = seen.focal[part], seen.princpt[part]
        fragments = rasterize(seen.vertices[part], faces, focal, princpt, height, width, worker.device)
        visible.append(visibility(keypoints[part], depth[part], fragments, figure.tolerance, focal))
        covered = np.count_nonzero(fragments.face >= 0, axis=(1, 2))
        coverage.append((covered / (height * width)).astype(np.float32))
        _refuse(coverage[-1] == 0, ids[part], "the body covers no pixel of the image")
        images = paint(fragments, faces, figure.colors)

        def write(i: int, images: np.ndarray = images, start: int = start) -> None:
            data = encode_png(images[i])
            worker.files.write(paths[start + i], data)
            digests[start + i] = hashlib.sha256(data).hexdigest()

        each(write, len(images))
    return np.concatenate(visible), np.concatenate(coverage), digests


def encode_png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()

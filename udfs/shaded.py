"""The renderer that stands in for a diffusion model: a dressed, lit body before a painted scene."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.caption_attributes import CAPTION_ATTRIBUTES
from schemas.errors import RowError
from schemas.smplx_params import SMPLX_PARAMS
from udfs.anatomy import face_groups, figure
from udfs.background import blur, contact_map, paint_background
from udfs.body import Body, body_files
from udfs.clothing import outfit
from udfs.columns import matrix
from udfs.film import develop, film
from udfs.generator import Generator, Paint, Painted
from udfs.lighting import SHADOW, light, light_frame, shade_body, up_direction, vertex_normals
from udfs.raster import rasterize
from udfs.scenery import scenery
from udfs.threads import each
from udfs.udf import Worker, file_digest

_CONTACT = 128
"""Side of the map of contact shadows, cells of 2.5 cm."""


@dataclass(frozen=True, kw_only=True)
class Shaded(Generator):
    """Pictures drawn from the labels' own body: the silhouette is exactly that of the labels.

    What the caption names (clothes, colours, hair, scene, light, camera) is as it says; the rest is drawn
    from the seed.

    Fields:
        body_file: as in the labels; see `udfs.body.body_files`. Its content counts, not its place.
    """

    name: ClassVar[str] = "shaded"
    version: ClassVar[int] = 1
    columns: ClassVar[tuple[str, ...]] = (
        "gender",
        *SMPLX_PARAMS,
        "focal",
        "princpt",
        "camera_elevation",
        "image_height",
        "image_width",
        "seed",
        *CAPTION_ATTRIBUTES,
    )
    body_file: Path | None = None

    def models(self) -> Mapping[str, str]:
        return {f"body_{gender}": file_digest(path) for gender, path in body_files(self.body_file).items()}

    def parameters(self) -> Mapping[str, object]:
        return {}

    def load(self, worker: Worker) -> Paint:
        # The CPU rasteriser is exact and fast; with it a picture has the same bytes on every device.
        models = {gender: Model.load(Body.load(path)) for gender, path in body_files(self.body_file).items()}
        return lambda rows: Painted(_paint(rows, models))


@dataclass(frozen=True)
class Model:
    """A body and what dressing it needs.

    Attributes:
        template: (V, 3) float32, centred on the sagittal plane as the file has it.
        groups: (F,) int8, part of the body that each triangle belongs to.
        figure: record of the template's landmarks.
    """

    body: Body
    template: np.ndarray
    groups: np.ndarray
    figure: np.void

    @classmethod
    def load(cls, body: Body) -> "Model":
        return cls(body, np.ascontiguousarray(body.template), face_groups(body), figure(body))


@dataclass(frozen=True)
class Layers:
    """One picture before it is developed.

    Attributes:
        person: (H, W, 4) float32, linear colour times coverage, and coverage.
        background: (H, W, 3) float32, linear, the person's shadow included.
        area: (H, W) int8, what the surface is (`udfs.anatomy`), -1 where the background shows.
        film: record of the camera.
    """

    person: np.ndarray
    background: np.ndarray
    area: np.ndarray
    film: np.void

    def develop(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return develop(self.person, self.background, self.film)

    def without_person(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the scene with the person's shadow, but nobody in it."""
        return develop(np.zeros_like(self.person), self.background, self.film)


def _paint(rows: pa.Table, models: Mapping[str, Model]) -> np.ndarray:
    height, width = int(rows["image_height"][0].as_py()), int(rows["image_width"][0].as_py())
    out = np.empty((rows.num_rows, height, width, 3), np.uint8)
    genders = np.asarray(rows["gender"].to_pylist())
    params = {name: matrix(rows, name) for name in SMPLX_PARAMS}
    focal, princpt = matrix(rows, "focal"), matrix(rows, "princpt")
    elevation = rows["camera_elevation"].to_numpy()
    seeds = rows["seed"].to_pylist()
    said = rows.select(CAPTION_ATTRIBUTES).to_pylist()
    for gender in np.unique(genders):
        model = models.get(gender) or (next(iter(models.values())) if len(models) == 1 else None)
        if model is None:
            raise RowError(f"no body for gender {gender}; there are {', '.join(models)}")
        at = np.flatnonzero(genders == gender)
        vertices = model.body({name: value[at] for name, value in params.items()}).vertices

        def picture(
            k: int, model: Model = model, at: np.ndarray = at, vertices: np.ndarray = vertices
        ) -> None:
            i = at[k]
            layers = render(
                model,
                vertices[k],
                focal[i],
                princpt[i],
                float(elevation[i]),
                said[i],
                seeds[i],
                height,
                width,
            )
            out[i] = layers.develop()

        each(picture, len(at))
    return out


def render(
    model: Model,
    vertices: np.ndarray,
    focal: np.ndarray,
    princpt: np.ndarray,
    elevation: float,
    said: Mapping[str, str | None],
    seed: int,
    height: int,
    width: int,
) -> Layers:
    """One posed body (V, 3) in camera space, as `said` (caption attributes) and `seed` have it.

    focal, princpt: (2,) pixels. elevation: of the camera, radians: it tells where the ground is, which
    lies under the lowest point of the body.
    """
    faces = model.body.faces
    camera = np.concatenate([focal, princpt]).astype(np.float64)
    up = up_direction(elevation)
    lamp = light(said, up, seed)
    twice = rasterize(
        vertices[None], faces, camera[None, :2] * 2, camera[None, 2:] * 2, height * 2, width * 2
    )
    rotation, translation, light_focal = light_frame(vertices.astype(np.float64), lamp["direction"])
    seen = (vertices @ rotation.T.astype(np.float32) + translation.astype(np.float32))[None]
    square = np.full((1, 2), light_focal), np.full((1, 2), SHADOW / 2)
    shadow = rasterize(seen, faces, *square, SHADOW, SHADOW).depth[0]

    person = np.empty((height, width, 4), np.float32)
    area = np.empty((height, width), np.int8)
    shade_body(
        twice.face[0], twice.bary[0], twice.depth[0], faces, model.template, vertex_normals(vertices, faces),
        model.groups, outfit(said, seed), model.figure, lamp, shadow, rotation, translation, light_focal,
        camera * 2, person, area,
    )  # fmt: skip

    ahead = np.array([0.0, 0.0, 1.0]) - up * up[2]
    ahead /= np.linalg.norm(ahead)
    above = vertices @ up
    eye = -float(above.min())
    forth = vertices @ ahead
    distance = float(forth.mean())
    corner = np.array([vertices[:, 0].mean(), distance]) - _CONTACT * 0.0125
    contact = contact_map(vertices[:, 0], forth, above + eye, corner[0], corner[1], _CONTACT)
    brightness = lamp["room"] * (0.45 + 0.55 * lamp["color"])
    setting, props = scenery(said, seed, distance, brightness)
    background = np.empty((height, width, 3), np.float32)
    paint_background(
        setting, props, up, ahead, eye, lamp, shadow, rotation, translation, light_focal, contact, corner,
        camera, background,
    )  # fmt: skip
    camera_film = film(said, seed)
    background = blur(background, round(int(camera_film["focus"]) * max(height, width) / 256))
    return Layers(person, background, area, camera_film)

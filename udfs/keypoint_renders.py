"""Pictures with known keypoints, for training and judging the keypoint network: Shaded's own renders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.coco import SMPLX_INDEX
from schemas.plan import FOCAL_OF_SIZE
from schemas.source import GrammarSource
from udfs import grammar
from udfs.camera import boxes, camera_params, crop, project
from udfs.shaded import Layers, Model, render
from udfs.threads import each

SIDE = 256
"""Side of a render, pixels."""

_CHUNK = 256

Poses = Callable[[int, int], Mapping[str, np.ndarray]]
"""(count, seed) to SMPL-X parameters (count, k); the camera is added here."""


@dataclass(frozen=True)
class Renders:
    """N renders of one person each; arrays may be memory maps.

    Attributes:
        pictures: (N, 256, 256, 4) uint8: RGB and the person's coverage.
        backgrounds: (M, 256, 256, 3) uint8: pictures without a person.
        keypoints: (N, 17, 2) float32, pixels; in the image or not.
        visible: (N, 17) int8: 0 outside of the image, 2 inside.
        boxes: (N, 4) float32: x, y, width, height of the body, clipped to the image.
    """

    pictures: np.ndarray
    backgrounds: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)


def make_renders(
    model: Model,
    poses: Poses,
    count: int,
    seed: int,
    folder: Path | None = None,
    *,
    margin: tuple[float, float] = (0.0, 0.6),
    background_share: float = 0.25,
    progress: Callable[[int], None] = lambda done: None,
) -> Renders:
    """Renders `count` people as seen by random cameras, in random clothes and scenes.

    With a folder the pictures go to memory-mapped files there, and a later call with the same count and
    seed goes on where this one ended.

    Args:
        margin: range of the crop's margin (see `udfs.camera.crop`); the planner's default is 0.1.
        background_share: share of renders whose background is kept alone as well.
    """
    empty = round(count * background_share)
    arrays = Renders(
        stored_array(folder, "pictures", (count, SIDE, SIDE, 4), np.uint8),
        stored_array(folder, "backgrounds", (empty, SIDE, SIDE, 3), np.uint8),
        stored_array(folder, "keypoints", (count, 17, 2), np.float32),
        stored_array(folder, "visible", (count, 17), np.int8),
        stored_array(folder, "boxes", (count, 4), np.float32),
    )
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        if not arrays.boxes[stop - 1, 2:].any():
            _make_chunk(model, poses, arrays, start, stop, seed, margin)
            if isinstance(arrays.boxes, np.memmap):
                for name in ("pictures", "backgrounds", "keypoints", "visible", "boxes"):
                    getattr(arrays, name).flush()
        progress(stop)
    return arrays


def stored_array(folder: Path | None, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Zeros in memory, or with a folder the memory-mapped file of that name, as it is if it is there."""
    if folder is None:
        return np.zeros(shape, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npy"
    if path.is_file():
        found = np.load(path, mmap_mode="r+", allow_pickle=False)
        if found.shape == shape and found.dtype == dtype:
            return found
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _make_chunk(
    model: Model, poses: Poses, out: Renders, start: int, stop: int, seed: int, margin: tuple[float, float]
) -> None:
    n = stop - start
    people = draw_people(
        model, poses, n, int(np.random.SeedSequence([seed, start]).generate_state(1)[0]), margin
    )
    out.keypoints[start:stop] = people.keypoints
    out.visible[start:stop] = 2 * ((people.keypoints >= 0) & (people.keypoints < SIDE)).all(-1)

    def work(k: int) -> None:
        layers = people.render(k)
        out.pictures[start + k, ..., :3] = layers.develop()
        out.pictures[start + k, ..., 3] = np.round(layers.person[..., 3] * 255)
        if start + k < len(out.backgrounds):
            out.backgrounds[start + k] = layers.without_person()

    each(work, n)
    out.boxes[start:stop] = people.boxes  # last: marks it done


@dataclass(frozen=True)
class People:
    """N posed people before their cameras, and what is to be painted of each.

    Attributes:
        model: body and landmarks.
        params: SMPL-X parameters (N, k), camera space.
        vertices: (N, V, 3) float32, camera space, metres.
        focal, princpt: (N, 2) pixels.
        elevation: (N,) of the cameras, radians.
        captions: N captions, text and attributes.
        seeds: (N,) of what no caption says.
        keypoints: (N, 17, 2) pixels.
        boxes: (N, 4) x, y, width, height of the body, clipped to the image.
        side: of the pictures, pixels.
    """

    model: Model
    params: Mapping[str, np.ndarray]
    vertices: np.ndarray
    focal: np.ndarray
    princpt: np.ndarray
    elevation: np.ndarray
    captions: list[dict[str, str | None]]
    seeds: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    side: int

    def render(self, k: int) -> Layers:
        """The picture of one of them."""
        return render(
            self.model,
            self.vertices[k],
            self.focal[k],
            self.princpt[k],
            float(self.elevation[k]),
            self.captions[k],
            int(self.seeds[k]),
            self.side,
            self.side,
        )


def draw_people(
    model: Model, poses: Poses, n: int, seed: int, margin: tuple[float, float], side: int = SIDE
) -> People:
    """People in random clothes and scenes, as random cameras see them; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    params = {k: np.asarray(v, np.float32) for k, v in poses(n, seed).items() if k != "transl"}
    params["betas"] = rng.uniform(-1.5, 1.5, (n, 10)).astype(np.float32)
    params["expression"] = rng.normal(0, 0.5, (n, 10)).astype(np.float32)
    elevation = np.radians(np.clip(rng.normal(7, 12, n), -25, 50))
    pelvis = model.body.pelvis(params["betas"], params["expression"])
    seen = camera_params(params, pelvis, rng.uniform(-np.pi, np.pi, n), elevation, rng.uniform(2.3, 5.0, n))
    body = model.body(seen)
    focal, princpt = np.full((n, 2), side * FOCAL_OF_SIZE), np.full((n, 2), side / 2)
    box = boxes(project(body.vertices, focal, princpt))
    focal, princpt = crop(box, focal, princpt, rng.uniform(*margin, n), np.full((n, 2), side))
    box = np.clip(boxes(project(body.vertices, focal, princpt)), 0, side)
    return People(
        model=model,
        params=seen,
        vertices=body.vertices,
        focal=focal,
        princpt=princpt,
        elevation=elevation,
        captions=grammar.captions(rng.integers(0, 1 << 60, n), GrammarSource()).to_pylist(),
        seeds=rng.integers(0, 1 << 60, n),
        keypoints=project(body.joints[:, SMPLX_INDEX], focal, princpt),
        boxes=np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1),
        side=side,
    )


def wild_poses(count: int, seed: int) -> dict[str, np.ndarray]:
    """Poses that no motion passes through: joints anywhere in most of their range, lying and falling too."""
    rng = np.random.default_rng(seed)
    body = rng.normal(0, 0.12, (count, 21, 3))
    reach = rng.choice([0.35, 0.7, 1.0], (count, 1))

    def spread(low: float, high: float) -> np.ndarray:
        return (rng.uniform(low, high, (count, 1)) * reach)[:, 0]

    for left, right in ((0, 1), (3, 4), (15, 16), (17, 18)):
        for joint, side in ((left, 1), (right, -1)):
            if left == 0:  # hips: forward, aside, turned
                body[:, joint] += np.stack(
                    [spread(-1.9, 0.6), side * spread(-0.4, 0.4), side * spread(-0.2, 0.8)], 1
                )
            elif left == 3:  # knees only bend back
                body[:, joint, 0] = np.abs(spread(0, 2.2))
            elif left == 15:  # shoulders: from the T-pose down or up, forward or back
                body[:, joint] += np.stack(
                    [
                        spread(-0.5, 0.5),
                        -side * spread(-0.5, 1.5),
                        side * (spread(-0.9, 1.3) - rng.choice([0.0, 0.9], count, p=[0.4, 0.6])),
                    ],
                    1,
                )
            else:  # elbows
                body[:, joint] += np.stack(
                    [spread(-0.4, 0.4), -side * np.abs(spread(0, 2.2)), spread(-0.3, 0.3)], 1
                )
    for joint in (2, 5, 8):
        body[:, joint] += np.stack([spread(-0.2, 0.45), spread(-0.3, 0.3), spread(-0.25, 0.25)], 1)
    body[:, 14] += np.stack([spread(-0.5, 0.5), spread(-0.7, 0.7), spread(-0.3, 0.3)], 1)
    root = np.stack([rng.normal(0, 0.2, count), np.zeros(count), rng.normal(0, 0.15, count)], 1)
    lying = rng.random(count) < 0.08
    root[lying] = rng.normal(0, 1.2, (int(lying.sum()), 3))
    curl = rng.uniform(-0.2, 1.2, (count, 2, 1))
    hands = rng.normal(0, 0.15, (count, 2, 15, 3))
    hands[..., 2] += curl * np.array([[-1.0], [1.0]])
    return {
        "global_orient": root,
        "body_pose": body.reshape(count, 63),
        "left_hand_pose": hands[:, 0].reshape(count, 45),
        "right_hand_pose": hands[:, 1].reshape(count, 45),
        "jaw_pose": np.abs(rng.normal(0, 0.1, (count, 3))) * [1, 0, 0],
    }

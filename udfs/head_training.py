"""Trains the network that sees which way a head is turned, on renders of heads that it makes itself.

    python -m udfs.head_training --out udfs/weights/head_pose.safetensors --work /tmp/heads

The camera looks at the heads of whole bodies in all poses that the keypoint network learned from. Pictures
are made coarse, soft, noisy and of other colours; the same seed, body and software give the same weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from udfs.body import Body
from udfs.camera import crop
from udfs.head_angles import head_rotations, rotation_error, view_of
from udfs.head_crop import SIDE, head_squares
from udfs.head_network import HeadNetwork, six_loss
from udfs.keypoint_renders import draw_people, stored_array
from udfs.keypoint_training import training_poses
from udfs.shaded import Model
from udfs.small_training import Command, fit, log
from udfs.threads import each

_CHUNK = 256
_ROOM = 1.3
"""Renders show this much more than the square around a head, so that training can move and turn it."""
_RENDER = 96
_SMALLEST = 9.0
"""Pixels a side of the coarsest head, as in a whole body of 128 pixels."""


@dataclass(frozen=True)
class Heads:
    """N heads as random cameras see them.

    Attributes:
        pictures: (N, 96, 96, 3) uint8 RGB; the head's square is the inner 1 / 1.3 of it.
        rotations: (N, 3, 3) float32, against the line of sight.
    """

    pictures: np.ndarray
    rotations: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)


def make_heads(
    model: Model,
    count: int,
    seed: int,
    folder: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Heads:
    """Renders heads; with a folder, a later call of the same count and seed goes on where this one ended."""
    heads = Heads(
        stored_array(folder, "pictures", (count, _RENDER, _RENDER, 3), np.uint8),
        stored_array(folder, "rotations", (count, 3, 3), np.float32),
    )
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        if not heads.rotations[stop - 1].any():
            chunk_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
            people = draw_people(model, training_poses, stop - start, chunk_seed, (0.1, 0.1))
            middle, side = head_squares(people.keypoints, people.boxes)
            view = view_of(middle, people.focal, people.princpt)
            rotations = view.transpose(0, 2, 1) @ head_rotations(people.params)
            half = side[:, None] * _ROOM / 2
            n, size = stop - start, np.full((stop - start, 2), _RENDER)
            focal, princpt = crop(
                np.concatenate([middle - half, middle + half], 1),
                people.focal,
                people.princpt,
                np.zeros(n),
                size,
            )
            closer = replace(people, focal=focal, princpt=princpt, side=_RENDER)

            def work(k: int, start: int = start, closer=closer) -> None:
                heads.pictures[start + k] = closer.render(k).develop()

            each(work, n)
            heads.rotations[start:stop] = rotations  # last: marks it done
        progress(stop)
    return heads


def heads_batch(heads: Heads, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (size, 64, 64, 3) uint8 and rotations (size, 3, 3), moved, mirrored, turned and damaged."""
    rows = rng.choice(len(heads), size, replace=False)
    pictures = np.empty((size, SIDE, SIDE, 3), np.uint8)
    rotations = heads.rotations[rows].astype(np.float64)
    for k, row in enumerate(rows):
        angle = rng.normal(0, 20)
        zoom = _RENDER / _ROOM * np.exp(rng.normal(0, 0.1))
        middle = _RENDER / 2 + rng.normal(0, 0.05, 2) * zoom
        picture = Image.fromarray(heads.pictures[row]).rotate(angle, Image.Resampling.BILINEAR)
        # A positive angle turns the picture anticlockwise, which is about the camera's axis backwards.
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        rotations[k] = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ rotations[k]
        low = np.clip(middle - zoom / 2, 0, _RENDER - 1)
        high = np.clip(middle + zoom / 2, 1, _RENDER)
        coarse = round(SIDE if rng.random() < 0.3 else np.exp(rng.uniform(np.log(_SMALLEST), np.log(SIDE))))
        small = picture.resize((coarse, coarse), Image.Resampling.BOX, box=(*low.tolist(), *high.tolist()))
        pictures[k] = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        if rng.random() < 0.5:
            pictures[k] = pictures[k][:, ::-1]
            flip = np.diag([-1.0, 1.0, 1.0])
            rotations[k] = flip @ rotations[k] @ flip
    gain = np.exp(rng.normal(0, 0.15, (size, 1, 1, 1)) + rng.normal(0, 0.06, (size, 1, 1, 3)))
    noise = rng.normal(0, 1, pictures.shape) * rng.exponential(4, (size, 1, 1, 1))
    pictures = np.clip(pictures * gain + rng.normal(0, 8, (size, 1, 1, 1)) + noise, 0, 255).astype(np.uint8)
    return pictures, rotations.astype(np.float32)


def train(heads: Heads, steps: int, batch: int, rate: float, seed: int) -> HeadNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HeadNetwork()

    def examples(step: int) -> tuple[np.ndarray, np.ndarray]:
        return heads_batch(heads, batch, np.random.default_rng([seed, step]))

    def loss(made: tuple[np.ndarray, np.ndarray]) -> Tensor:
        pictures, rotations = (torch.from_numpy(a) for a in made)
        return six_loss(network(pictures.permute(0, 3, 1, 2).float()), rotations)

    fit(network, examples, loss, steps=steps, rate=rate, seed=seed)
    return network


def main() -> None:
    given = Command.read(__doc__ or "", renders=10_000, steps=3_000, batch=64, rate=2e-3, seed=4)
    model = Model.load(Body.load(None))
    heads, check = (
        make_heads(
            model, count, seed, given.work / f"heads-{seed}-{count}", lambda done: log.info("%d heads", done)
        )
        for count, seed in ((given.renders, given.seed), (512, given.seed + 1_000_000))
    )
    network = train(heads, given.steps, given.batch, given.rate, given.seed)
    network.save(given.out, given.facts(model))
    pictures, truth = heads_batch(check, 512, np.random.default_rng(0))
    off = rotation_error(network.rotations(pictures), truth)
    log.info(
        "degrees off, renders of all sizes: median %.1f, 90th percentile %.1f", *np.quantile(off, (0.5, 0.9))
    )


if __name__ == "__main__":
    main()

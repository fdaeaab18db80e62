"""Pictures with their control images and prompts, for training the nano model: Shaded's own renders."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from schemas.plan import Plan
from udfs.control import pncc_colors, render_control
from udfs.keypoint_renders import People, Poses, draw_people, stored_array
from udfs.shaded import Model
from udfs.threads import each

_CHUNK = 256
_MARGIN = (0.05, 0.3)
_FRAMED = 0.8
"""Share of the prompts with the default sentence around the caption; the others are the bare caption."""


@dataclass(frozen=True)
class Pairs:
    """N training examples; arrays may be memory maps.

    Attributes:
        pictures: (N, S, S, 3) uint8.
        controls: (N, S, S, 3) uint8, black where nobody is.
        prompts: N texts.
        captions: N captions, text and attributes.
        keypoints: (N, 17, 2) float32, pixels.
        boxes: (N, 4) float32: x, y, width, height of the body, clipped to the picture.
    """

    pictures: np.ndarray
    controls: np.ndarray
    prompts: Sequence[str]
    captions: Sequence[Mapping[str, str | None]]
    keypoints: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)


def make_pairs(
    model: Model,
    poses: Poses,
    count: int,
    seed: int,
    side: int,
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> Pairs:
    """Renders `count` people as random cameras see them; the same for the same count, seed and side.

    Pictures go to memory-mapped files in the folder; a later call with the same count goes on where this
    one ended.
    """
    pictures = stored_array(folder, "pictures", (count, side, side, 3), np.uint8)
    controls = stored_array(folder, "controls", (count, side, side, 3), np.uint8)
    keypoints = stored_array(folder, "keypoints", (count, 17, 2), np.float32)
    boxes = stored_array(folder, "boxes", (count, 4), np.float32)
    colors = pncc_colors(model.body)
    captions: list[dict[str, str | None]] = []
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        file = folder / f"captions-{start}.json"
        if not file.is_file():
            chunk_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
            people = draw_people(model, poses, stop - start, chunk_seed, _MARGIN, side)
            controls[start:stop] = render_control(
                people.vertices, model.body.faces, colors, people.focal, people.princpt, side, side
            )

            def work(k: int, start: int = start, people: People = people) -> None:
                pictures[start + k] = people.render(k).develop()

            each(work, stop - start)
            keypoints[start:stop], boxes[start:stop] = people.keypoints, people.boxes
            for array in (pictures, controls, keypoints, boxes):
                cast(np.memmap, array).flush()
            file.write_text(json.dumps(people.captions))  # last: marks it done
        captions += json.loads(file.read_text())
        progress(stop)
    prompts = framed([str(c["text"]) for c in captions], seed)
    return Pairs(pictures, controls, prompts, captions, keypoints, boxes)


def framed(captions: Sequence[str], seed: int | Sequence[int]) -> list[str]:
    """Prompts of captions: most in the plan's default sentence, the others as they are."""
    inside = np.random.default_rng(seed).random(len(captions)) < _FRAMED
    frame = Plan().prompt
    return [frame.replace("{caption}", c) if f else c for c, f in zip(captions, inside, strict=True)]

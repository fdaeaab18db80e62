"""Trains the network that reads caption attributes, on captioned renders that it makes itself.

    python -m udfs.attribute_training --out udfs/weights/attributes.safetensors --work /tmp/attributes

Pictures are moved, mirrored and damaged a little; the same seed, body and software give the same weights.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.metrics import MATCHED
from udfs.attribute_network import SIDE, AttributeNetwork
from udfs.body import Body
from udfs.grammar import WORDS
from udfs.keypoint_training import training_poses
from udfs.nano_renders import Pairs, make_pairs
from udfs.nano_steps import parts, shrunk
from udfs.shaded import Model
from udfs.small_training import Command, fit, log

_RENDER = 128
"""Pixels a side of the renders, as the nano model learns from."""
_UNSAID = -100
"""Where a caption does not say it, nothing is asked; cross entropy's own number for that."""


def said(captions: Sequence[Mapping[str, str | None]]) -> np.ndarray:
    """(N, attributes) int64: which word each caption has for each of MATCHED."""
    places = {a: {w: i for i, w in enumerate(WORDS[a])} for a in MATCHED}
    return np.array([[places[a].get(c.get(a) or "", _UNSAID) for a in MATCHED] for c in captions])


def damaged(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, 64, 64, 3) uint8: mirrored, shifted by some pixels, of other light, soft and noisy."""
    out = np.empty_like(pictures)
    for k, picture in enumerate(pictures):
        shift = tuple(rng.integers(-3, 4, 2))
        picture = np.roll(picture, shift, (0, 1))
        picture = picture[:, ::-1] if rng.random() < 0.5 else picture
        if rng.random() < 0.4:
            picture = np.round(picture / 3 + np.roll(picture, 1, 0) / 3 + np.roll(picture, 1, 1) / 3)
        out[k] = picture
    n = len(pictures)
    gain = np.exp(rng.normal(0, 0.06, (n, 1, 1, 1)) + rng.normal(0, 0.02, (n, 1, 1, 3)))
    noise = rng.normal(0, 1, pictures.shape).astype(np.float32) * rng.exponential(3, (n, 1, 1, 1))
    return np.clip(out * gain + noise, 0, 255).astype(np.uint8)


def train(pairs: Pairs, steps: int, batch: int, rate: float, seed: int) -> AttributeNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AttributeNetwork()
    words = said(pairs.captions)
    pictures = np.concatenate([shrunk(part, SIDE) for part in parts(pairs.pictures, 256)])

    def examples(step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(len(pairs), batch, replace=False)
        return damaged(pictures[rows], rng), words[rows]

    def loss(made: tuple[np.ndarray, np.ndarray]) -> Tensor:
        seen, truth = (torch.from_numpy(a) for a in made)
        with torch.autocast("cpu", torch.bfloat16):
            answers = network(seen.permute(0, 3, 1, 2).float())
        terms = [F.cross_entropy(x.float(), truth[:, i], ignore_index=_UNSAID) for i, x in enumerate(answers)]
        return torch.stack(terms).sum()

    fit(network, examples, loss, steps=steps, rate=rate, seed=seed)
    return network


def main() -> None:
    given = Command.read(__doc__ or "", renders=16_384, steps=3_000, batch=64, rate=3e-3, seed=7)
    model = Model.load(Body.load(None))
    pairs, check = (
        make_pairs(model, training_poses, count, seed, _RENDER, given.work / name)
        for name, count, seed in (
            ("renders", given.renders, given.seed),
            ("check", 512, given.seed + 2_000_000),
        )
    )
    network = train(pairs, given.steps, given.batch, given.rate, given.seed)
    network.save(given.out, given.facts(model))
    found = network.read(list(check.pictures))
    for attribute in MATCHED:
        pairs_of = [(f[attribute], c.get(attribute)) for f, c in zip(found, check.captions, strict=True)]
        right = [f == c for f, c in pairs_of if c is not None]
        log.info("%s: %.1f %% right of %d", attribute, 100 * np.mean(right), len(right))


if __name__ == "__main__":
    main()

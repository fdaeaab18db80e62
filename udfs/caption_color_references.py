"""Measures what colour words look like in lit renders, and how well they are read back from others.

    python -m udfs.caption_color_references --out udfs/weights/caption_colors.json

writes the references that `udfs.caption_colors` reads with, and prints a Markdown table of their accuracy
on renders of other people, seeds and scenes.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.source import GrammarSource
from udfs import grammar
from udfs.body import Body
from udfs.camera import boxes, camera_params, crop, project
from udfs.caption_colors import KINDS, Palette, oklab, right
from udfs.color_regions import ATTRIBUTES, FEWEST, TOP, Tailor, color_regions
from udfs.grammar import COLORS
from udfs.random_poses import random_poses
from udfs.shaded import Model, render

_CHUNK = 128
_TRIMMED = 0.07
"""Share of the renders of a word that are left out of its spread: those where a scarf or an opened jacket
hides what the caption names."""
_SHARED = 0.5
"""How much of its spread a word takes from all words: a narrow word would lose every dim picture."""


@dataclass(frozen=True)
class Look:
    """Pixels (n, 3) uint8 of one region of a picture, and the word its caption has for it."""

    attribute: str
    word: str
    pixels: np.ndarray


def looks(model: Model, count: int, side: int, seed: int) -> Iterator[Look]:
    """Of `count` renders of `side` pixels; regions too small to read have no pixels."""
    tailor = Tailor.load(model.body)
    for start in range(0, count, _CHUNK):
        n = min(_CHUNK, count - start)
        rng = np.random.default_rng([seed, start])
        params = random_poses(n, int(rng.integers(1 << 31)))
        params["betas"] = rng.uniform(-1, 1, (n, 10)).astype(np.float32)
        elevation = np.radians(rng.uniform(-5, 15, n))
        pelvis = model.body.pelvis(params["betas"], params["expression"])
        yaw, distance = rng.uniform(-np.pi, np.pi, n), rng.uniform(2.8, 3.2, n)
        seen = camera_params(params, pelvis, yaw, elevation, distance)
        vertices = model.body(seen).vertices
        focal, princpt = np.full((n, 2), side * 890 / 1024), np.full((n, 2), side / 2)
        box = boxes(project(vertices, focal, princpt))
        focal, princpt = crop(box, focal, princpt, np.full(n, 0.1), np.full((n, 2), side))
        regions = color_regions(tailor, seen, focal, princpt, side, side)
        said = grammar.captions(rng.integers(0, 1 << 60, n), GrammarSource()).to_pylist()
        seeds = rng.integers(0, 1 << 60, n)
        for k in range(n):
            camera = focal[k], princpt[k], float(elevation[k])
            picture = render(model, vertices[k], *camera, said[k], int(seeds[k]), side, side).develop()
            for place, attribute in enumerate(ATTRIBUTES, TOP):
                if (word := said[k][attribute]) is not None:
                    pixels = picture[regions[k] == place]
                    yield Look(attribute, word, pixels if len(pixels) >= FEWEST else pixels[:0])


def references(seen: list[Look]) -> dict[str, Palette]:
    """Centre and spread of each word's median colour, by kind of region."""
    words = tuple(COLORS)
    out = {}
    for kind in sorted(set(KINDS)):
        of_kind = {a for a, k in zip(ATTRIBUTES, KINDS, strict=True) if k == kind}
        center, covariance = np.empty((len(words), 3)), np.empty((len(words), 3, 3))
        for k, word in enumerate(words):
            mine = [x for x in seen if x.attribute in of_kind and x.word == word and len(x.pixels)]
            medians = np.array([np.median(oklab(x.pixels), axis=0) for x in mine])
            off = np.linalg.norm(medians - np.median(medians, axis=0), axis=1)
            medians = medians[off <= np.quantile(off, 1 - _TRIMMED)]
            center[k], covariance[k] = medians.mean(0), np.cov(medians.T)
        out[kind] = Palette(words, center, (1 - _SHARED) * covariance + _SHARED * covariance.mean(0))
    return out


def accuracy(palettes: dict[str, Palette], seen: list[Look]) -> Iterator[tuple[str, int, float, int, str]]:
    """Attribute, looks, share read right, looks too small to read, the most frequent mistakes."""
    for attribute, kind in zip(ATTRIBUTES, KINDS, strict=True):
        mine = [x for x in seen if x.attribute == attribute]
        big = [x for x in mine if len(x.pixels)]
        read = [palettes[kind].read(x.pixels) for x in big]
        good = [right(x.word, word) for x, word in zip(big, read, strict=True)]
        wrong = Counter((x.word, word) for x, word, ok in zip(big, read, good, strict=True) if not ok)
        text = ", ".join(f"{a} as {b} {n}" for (a, b), n in wrong.most_common(5))
        yield attribute, len(big), sum(map(bool, good)) / len(good), len(mine) - len(big), text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--renders", type=int, default=4096, help="half of them at 128, half at 256 pixels")
    parser.add_argument("--check", type=int, default=1024, help="renders of each size to check with")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    model = Model.load(Body.load(None))
    half, seed = given.renders // 2, given.seed * 1000
    fitted = [look for side in (128, 256) for look in looks(model, half, side, seed + side)]
    palettes = references(fitted)
    data: dict[str, object] = {
        "made by": f"python -m udfs.caption_color_references --renders {given.renders} --seed {given.seed}",
        "words": list(COLORS),
    }
    for kind, palette in palettes.items():
        data[kind] = {
            "center": palette.center.round(5).tolist(),
            "covariance": palette.covariance.round(8).reshape(len(palette.words), 9).tolist(),
        }
    given.out.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    palettes = Palette.load(given.out)
    print("| pixels | attribute | renders | right | too small | most frequent mistakes |")
    print("|---|---|---|---|---|---|")
    for side in (128, 256):
        others = list(looks(model, given.check, side, seed + 500 + side))
        for attribute, n, share, small, text in accuracy(palettes, others):
            print(f"| {side} | {attribute} | {n} | {share:.1%} | {small} | {text} |")


if __name__ == "__main__":
    main()

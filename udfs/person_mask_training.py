"""Trains the network that says which pixels show a person, on renders that it makes itself.

    python -m udfs.person_mask_training --out udfs/weights/person_mask.safetensors --work /tmp/person_mask

The keypoint network stays as it is. Pictures are those that it was trained on: renders, with other places,
company, things in the way and damage. The same seed, body and software give the same weights.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from udfs.body import Body
from udfs.keypoint_augmentation import Batch, make_batch
from udfs.keypoint_network import KeypointNetwork
from udfs.keypoint_renders import Renders, make_renders
from udfs.keypoint_training import training_poses
from udfs.keypoints import WEIGHTS as TRUNK
from udfs.person_mask import MaskHead, PersonMask
from udfs.shaded import Model
from udfs.small_training import Command, fit, log

_HARD = 0.6
"""Share of hard pictures; the others are what the renderer paints."""


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy and Dice loss of (B, 1, h, w) logits against (B, 1, h, w) shares of a cell in [0, 1]."""
    likely = logits.sigmoid()
    shared = (likely * masks).sum((1, 2, 3))
    dice = 1 - (2 * shared + 1) / (likely.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + dice.mean()


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0


def train(renders: Renders, steps: int, batch: int, rate: float, seed: int) -> PersonMask:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PersonMask(KeypointNetwork.load(TRUNK), MaskHead())

    def examples(step: int) -> Batch:
        return make_batch(renders, batch, np.random.default_rng([seed, step]), _HARD)

    def loss(made: Batch) -> Tensor:
        pictures = torch.from_numpy(made.pictures).permute(0, 3, 1, 2).float()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = network.trunk.features(pictures)
        masks = F.avg_pool2d(torch.from_numpy(made.masks)[:, None].float(), 2)
        return mask_loss(network.head(features.float()), masks)

    fit(network.head, examples, loss, steps=steps, rate=rate, seed=seed)
    return network


def main() -> None:
    given = Command.read(__doc__ or "", renders=3_000, steps=800, batch=24, rate=4e-3, seed=3)
    model = Model.load(Body.load(None))
    renders, check = (
        make_renders(
            model, training_poses, count, seed, given.work / f"renders-{seed}-{count}",
            progress=lambda done: log.info("%d renders", done),
        )
        for count, seed in ((given.renders, given.seed), (256, given.seed + 1_000_000))
    )  # fmt: skip
    network = train(renders, given.steps, given.batch, given.rate, given.seed)
    network.head.save(given.out, given.facts(model))
    found = network.shares(list(check.pictures[..., :3]))
    values = [iou(f > 0.5, p[..., 3] > 127) for f, p in zip(found, check.pictures, strict=True)]
    log.info("intersection over union with the renders' own masks: mean %.3f, 10th percentile %.3f",
             np.mean(values), np.quantile(values, 0.1))  # fmt: skip


if __name__ == "__main__":
    main()

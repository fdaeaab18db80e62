"""Trains the keypoint network on renders that it makes itself.

    python -m udfs.keypoint_training --out udfs/weights/keypoints.safetensors --work /tmp/keypoints

Renders and checkpoints go to the work folder; called again, it goes on where it stopped. The same seed,
body and software give the same renders and the same order of training pictures.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.logging import RichHandler
from torch import Tensor

from udfs.body import Body
from udfs.keypoint_augmentation import Batch, make_batch
from udfs.keypoint_network import GUESS_STRIDE, SIZE, STRIDE, UNIT, KeypointNetwork, Maps
from udfs.keypoint_quality import measure
from udfs.keypoint_renders import Renders, make_renders, wild_poses
from udfs.shaded import Model

log = logging.getLogger("keypoints")

SIGMA = 1.3
"""Standard deviation of the blobs that the maps are trained on, cells."""

_LOG_EVERY = 100
CHECK_EVERY = 500
"""Steps between two checkpoints, each with figures on renders that are not trained on."""

_VALIDATION = 256
_EMA = 0.998
_WEIGHTS = {"center": 0.3, "keypoints": 1.0, "guess": 15.0}
"""Of the loss terms. The guess is what asks, across the whole picture, which way a person faces."""
_EASY_SHARE = 0.45
"""Share of the steps over which pictures become harder."""
_HARDEST = 0.8
"""Share of hard pictures then; the others are what the renderer paints."""


def training_poses(count: int, seed: int) -> Mapping[str, np.ndarray]:
    """Half of them plausible stances, half anything that joints can do."""
    from udfs.random_poses import random_poses

    wild = wild_poses(count - count // 2, seed)
    plain = random_poses(count // 2, seed)
    order = np.random.default_rng(seed).permutation(count)
    return {name: np.concatenate([plain[name], wild[name]])[order] for name in wild if name in plain}


def targets(points: Tensor, present: Tensor, sigma: float = SIGMA) -> Tensor:
    """(B, K, 48, 48) blobs, the highest of P: points (B, P, K, 2) pixels, present (B, P, K) bool."""
    cells = (torch.arange(SIZE // STRIDE, device=points.device) + 0.5) * STRIDE
    width = sigma * STRIDE
    x = torch.exp(-0.5 * ((cells - points[..., :1]) / width) ** 2) * present[..., None]
    y = torch.exp(-0.5 * ((cells - points[..., 1:]) / width) ** 2)
    return (y[..., :, None] * x[..., None, :]).amax(1)


def losses(maps: Maps, batch: Batch) -> dict[str, Tensor]:
    """Loss terms of a batch: centre blobs, keypoint blobs, first guesses."""
    state = torch.from_numpy(batch.state)
    boxes, keypoints = torch.from_numpy(batch.boxes), torch.from_numpy(batch.keypoints)
    people = state == 1
    number = people.sum().clamp(min=1)
    middles = boxes[..., :2] + boxes[..., 2:] / 2
    # Where a person is to be ignored, nothing that is said counts.
    cells = (torch.arange(SIZE // STRIDE) + 0.5) * STRIDE
    inside = ((cells > boxes[..., :1]) & (cells < boxes[..., :1] + boxes[..., 2:3]))[..., None, :]
    inside = inside & ((cells > boxes[..., 1:2]) & (cells < boxes[..., 1:2] + boxes[..., 3:]))[..., :, None]
    counted = 1 - (inside & (state == -1)[..., None, None]).any(1, keepdim=True).float()
    center = _blob_loss(maps.centers, targets(middles[:, :, None], people[..., None]), counted) / number
    present = (keypoints[..., 2] > 0) & people[..., None]
    points = _blob_loss(maps.keypoints, targets(keypoints[..., :2], present), counted) / number / 17
    return {
        "center": center,
        "keypoints": points,
        "guess": _guess_loss(maps.guesses, boxes, middles, keypoints, people),
    }


def _blob_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (loss * (1 + 6 * target) * counted).sum()


def _guess_loss(guesses: Tensor, boxes: Tensor, middles: Tensor, keypoints: Tensor, people: Tensor) -> Tensor:
    """Absolute error at the 3 x 3 cells around each person's centre, in `UNIT` pixels."""
    b, p = people.nonzero(as_tuple=True)
    if not len(b):
        return guesses.sum() * 0
    side = guesses.shape[-1]
    home = (middles[b, p] / GUESS_STRIDE).floor().long()
    near = torch.tensor([(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    cell = (home[:, None] + near).clamp(0, side - 1)
    at = (cell.float() + 0.5) * GUESS_STRIDE
    said = guesses.float().permute(0, 2, 3, 1)[b[:, None], cell[..., 1], cell[..., 0]]
    box = boxes[b, p][:, None]
    sides = torch.cat([at - box[..., :2], box[..., :2] + box[..., 2:] - at], dim=-1) / UNIT
    points = keypoints[b, p][:, None]
    offsets = (points[..., :2] - at[:, :, None]) / UNIT
    seen = points[..., 2:].expand_as(offsets)
    error = (said[..., 4:].reshape(offsets.shape) - offsets).abs() * seen
    return (said[..., :4] - sides).abs().mean() + error.sum() / seen.sum().clamp(min=1)


def train(
    renders: Renders, check: Renders, work: Path, out: Path, *, steps: int, batch_size: int, rate: float,
    seed: int, start: Path | None = None, facts: Mapping[str, object],
) -> KeypointNetwork:  # fmt: skip
    """Trains and saves the averaged weights; resumes from the checkpoint in `work` if there is one."""
    torch.manual_seed(seed)
    network = KeypointNetwork.load(start).requires_grad_(True) if start else KeypointNetwork()
    network = network.channels_last().train()
    average = KeypointNetwork().channels_last().eval().requires_grad_(False)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)
    checkpoint = work / "checkpoint.safetensors"
    step = _resume(checkpoint, network, average, optimizer)
    began, sums, shown = time.perf_counter(), dict.fromkeys(("center", "keypoints", "guess"), 0.0), step
    journal = work / "log.jsonl"
    with ThreadPoolExecutor(1) as pool:

        def prepared(at: int) -> Batch:
            # Left and right are told apart by small things, the face above all: clean pictures first.
            difficulty = min(0.15 + at / (_EASY_SHARE * steps), _HARDEST)
            return make_batch(renders, batch_size, np.random.default_rng([seed, at]), difficulty)

        following = pool.submit(prepared, step)
        while step < steps:
            batch = following.result()
            following = pool.submit(prepared, step + 1)
            warm = min((step + 1) / 200, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            pictures = torch.from_numpy(batch.pictures).permute(0, 3, 1, 2).float()
            with torch.autocast("cpu", torch.bfloat16):
                maps = network(pictures)
            terms = losses(maps, batch)
            optimizer.zero_grad()
            torch.stack([_WEIGHTS[name] * term for name, term in terms.items()]).sum().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 20.0)
            optimizer.step()
            step += 1
            _average(average, network, min(_EMA, step / (step + 20)))
            for name, value in terms.items():
                sums[name] += float(value.detach())
            if step % _LOG_EVERY == 0 or step % CHECK_EVERY == 0 or step == steps:
                row = {"step": step} | {k: round(v / (step - shown), 4) for k, v in sums.items()}
                row["pictures_per_second"] = round(
                    (step - shown) * batch_size / (time.perf_counter() - began), 1
                )
                if step % CHECK_EVERY == 0 or step == steps:
                    quality = measure(
                        average, list(check.pictures[..., :3]), check.keypoints, check.visible, check.boxes
                    )
                    row |= {"median_oks": round(quality.median, 4), "auc": round(quality.auc, 4)}
                    row["one_person"] = round(float((quality.counts == 1).mean()), 4)
                    _save(checkpoint, step, network, average, optimizer)
                    average.save(out, {**facts, "steps": step})
                log.info(" ".join(f"{k} {v}" for k, v in row.items()))
                with journal.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                began, sums, shown = time.perf_counter(), dict.fromkeys(sums, 0.0), step
    return average


@torch.no_grad()
def _average(average: KeypointNetwork, network: KeypointNetwork, keep: float) -> None:
    for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - keep)
        else:
            mean.copy_(now)


def _save(
    path: Path,
    step: int,
    network: KeypointNetwork,
    average: KeypointNetwork,
    optimizer: torch.optim.Optimizer,
) -> None:
    from safetensors.torch import save_file

    tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v.clone().contiguous() for k, v in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in state.items()}
    scratch = path.with_suffix(".tmp")
    save_file(tensors, scratch, metadata={"step": str(step)})
    scratch.replace(path)


def _resume(
    path: Path, network: KeypointNetwork, average: KeypointNetwork, optimizer: torch.optim.Optimizer
) -> int:
    from safetensors import safe_open

    if not path.is_file():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for prefix, module in (("network.", network), ("average.", average)):
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    log.info("going on after step %d", step)
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for renders, checkpoint and log")
    parser.add_argument("--renders", type=int, default=12_000)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    model = Model.load(Body.load(None))

    def progress(done: int) -> None:
        log.info("%d renders", done)

    renders = make_renders(
        model, training_poses, given.renders, given.seed, given.work / "renders", progress=progress
    )
    check = make_renders(model, training_poses, _VALIDATION, given.seed + 1_000_000, given.work / "check")
    facts = {name: getattr(given, name) for name in ("renders", "batch", "rate", "seed")}
    facts |= {"body": model.body.digest, "started_from": given.start.name if given.start else None}
    train(
        renders, check, given.work, given.out, steps=given.steps, batch_size=given.batch, rate=given.rate,
        seed=given.seed, start=given.start, facts=facts,
    )  # fmt: skip


if __name__ == "__main__":
    main()

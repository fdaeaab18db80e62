"""Trains the nano model from nothing, on renders that it makes itself.

    python -m udfs.nano_training --config 128 --out udfs/weights/nano --work /tmp/nano

First the autoencoder, then the text encoders on captions alone, then the transformer by flow matching, while
both stay as they are. Renders, checkpoints, sample grids and logs go to the work folder; called again, it
goes on where it stopped. The same seed, body and software give the same renders, order of examples and noise.
"""

import argparse
import copy
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxControlPipeline
from PIL import Image
from rich.logging import RichHandler
from torch import nn

from udfs import checkpoint
from udfs.body import Body
from udfs.flow_matching import Flow, Prompts, noised
from udfs.keypoint_network import KeypointNetwork
from udfs.keypoint_quality import measure
from udfs.keypoint_training import training_poses
from udfs.keypoints import WEIGHTS
from udfs.nano_autoencoder import train_vae
from udfs.nano_model import build
from udfs.nano_recipes import RECIPES, Recipe, phase_at, stage_at, steps_of
from udfs.nano_renders import Pairs, make_pairs
from udfs.nano_steps import LOG_EVERY, counts, half, log, parts, set_rate, shrunk, tell
from udfs.nano_text import encode_text, token_ids, train_text
from udfs.pipelines import Pipe
from udfs.shaded import Model
from udfs.training_log import TrainingLog

_EMA = 0.998
_CHECK = 128
"""Held-out pictures that figures are taken on as the training goes."""
_GRID = 8
_AT_ONCE = 32
_FIRST_LEVELS = 0.9
"""Where the sampler's first step is learned: from this noise level to 1."""


@dataclass(frozen=True)
class Encoded:
    """The examples as the transformer sees them.

    Attributes:
        latents, controls: (N, L, C) float16 packed latents.
        tokens, pooled: (N, S, D) and (N, P) float16, what the text encoders say of the captions.
        weights: (N, L) float32, what each token counts.
    """

    latents: np.ndarray
    controls: np.ndarray
    tokens: np.ndarray
    pooled: np.ndarray
    weights: np.ndarray


def encode(pipe: Pipe, pairs: Pairs, size: int, length: int, shoes: float) -> Encoded:
    """Everything goes through the autoencoder once, however long the training is.

    shoes: how much more feet count where the caption names a colour for shoes.
    """
    flow = Flow(pipe, max_sequence_length=length)
    with half(pipe.device):
        packed = [
            np.concatenate(
                [flow.encode_pictures(shrunk(p, size)).half().cpu().numpy() for p in parts(pictures, 64)]
            )
            for pictures in (pairs.pictures, pairs.controls)
        ]
    with torch.no_grad():
        ids = token_ids(pipe, list(pairs.prompts), length)
        said = [encode_text(pipe, *part) for part in zip(*(i.split(64) for i in ids), strict=True)]
    tokens, pooled = (
        torch.cat([getattr(part, what) for part in said]).half().cpu().numpy()
        for what in ("tokens", "pooled")
    )
    more = np.array([shoes if caption["shoes_color"] else 0.0 for caption in pairs.captions])
    weights = [
        counts(controls, keypoints, size // flow.factor, named)
        for controls, keypoints, named in zip(
            *(parts(a, 256) for a in (pairs.controls, pairs.keypoints, more)), strict=True
        )
    ]
    return Encoded(packed[0], packed[1], tokens, pooled, np.concatenate(weights))


def _levels(flow: Flow, count: int, tokens: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """(count,) noise levels: the sampler's logit-normal ones, and a share of them close to 1.

    Sampling begins at 1, where logit-normal levels hardly ever come. A little below it the colour of what is
    large can be read off the noisy picture; only close to 1 it has to be read in the caption.
    """
    levels = flow.levels(count, tokens, generator)
    first = round(count * share)
    levels[:first] = 1 - (1 - _FIRST_LEVELS) * torch.rand(first, generator=generator)
    return levels


def train_transformer(
    pipe: Pipe, pairs: Pairs, check: Pairs, recipe: Recipe, work: Path, every: int, compiled: bool
) -> Pipe:  # fmt: skip
    """Trains the transformer; returns the pipeline with averaged weights.

    The text encoders stay as they are. Trained along at this rate they forget what they were taught, before
    the transformer has any use for it, and then it never finds one.
    """
    flow = Flow(pipe, max_sequence_length=recipe.model.text_length)
    model: Any = torch.compile(pipe.transformer) if compiled else pipe.transformer
    average = build(recipe.model, recipe.seed).to(pipe.device)
    for part in ("vae", "text_encoder", "text_encoder_2"):
        setattr(average, part, getattr(pipe, part).eval().requires_grad_(False))
    _still(pipe.transformer)
    trained, kept = (dict(p.transformer.requires_grad_(True).named_parameters()) for p in (pipe, average))
    for name, parameter in trained.items():
        kept[name].data.copy_(parameter.data)
    optimizer = torch.optim.AdamW(
        trained.values(), lr=recipe.transformer[0].rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    file = work / "transformer.safetensors"
    unseen = ("decoder", "sampling_steps")
    identity = {name: value for name, value in recipe.facts.items() if name not in unseen}
    everything = {**trained, **{f"average.{k}": v for k, v in kept.items()}}
    step, _ = checkpoint.resume(file, identity, everything, optimizer)
    network = KeypointNetwork.load(WEIGHTS)
    steps = sum(steps_of(stage.phases) for stage in recipe.transformer)
    data, encoded = None, (0, 0.0)
    journal = TrainingLog(work / "transformer", step)
    total, began = 0.0, time.perf_counter()
    while step < steps:
        stage, done = stage_at(recipe.transformer, step)
        phase, planned = phase_at(stage.phases, done), steps_of(stage.phases)
        if data is None or encoded != (phase.size, stage.shoes):
            encoded = phase.size, stage.shoes
            data = encode(pipe, pairs, phase.size, recipe.model.text_length, stage.shoes)
        rng = np.random.default_rng([recipe.seed, 2, step])
        rows = rng.choice(len(pairs), phase.batch, replace=False)
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        device = pipe.device
        latents, control, weights, tokens, pooled = (
            torch.from_numpy(a[rows]).float().to(device)
            for a in (data.latents, data.controls, data.weights, data.tokens, data.pooled)
        )
        levels = _levels(flow, phase.batch, latents.shape[1], phase.first, generator).to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        set_rate(optimizer, stage.rate, done, planned, min(200, planned // 4 + 1))
        with half(device):
            velocity = flow.velocity(
                noised(latents, noise, levels),
                control,
                Prompts(tokens, pooled),
                levels,
                (phase.size,) * 2,
                model,
            )
        error = (velocity.float() - (noise - latents)).square().mean(-1)
        loss = (error * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
        step += 1
        decay = min(_EMA, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(kept.values()), list(trained.values()), 1 - decay)
        total += float(loss.detach())
        last = step == steps
        if step % LOG_EVERY == 0 or last:
            n = (step - 1) % LOG_EVERY + 1
            figures = {"loss": total / n, "seconds_a_step": (time.perf_counter() - began) / n}
            tell(journal, "transformer", step, figures)
            total, began = 0.0, time.perf_counter()
        if step % every == 0 or last:
            checkpoint.save(file, step, identity, everything, optimizer)
            tell(journal, "held out", step, _look(average, check, phase.size, network, recipe, work, step))
            began = time.perf_counter()
    return average


def sample(pipe: Pipe, controls: np.ndarray, prompts: Sequence[str], steps: int, seed: int = 0) -> np.ndarray:
    """(N, S, S, 3) uint8 pictures that the pipeline paints of N prompts and control images (N, S, S, 3)."""
    pictures = []
    length = pipe.tokenizer_2.model_max_length
    for start in range(0, len(prompts), _AT_ONCE):
        part = list(prompts[start : start + _AT_ONCE])
        images = pipe(
            part,
            control_image=[Image.fromarray(c) for c in controls[start : start + len(part)]],
            height=controls.shape[1],
            width=controls.shape[2],
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(part))],
            max_sequence_length=length,
            output_type="np",
        ).images
        pictures.append((images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def _look(
    pipe: Pipe, check: Pairs, size: int, network: KeypointNetwork, recipe: Recipe, work: Path,
    step: int,
) -> dict[str, float]:  # fmt: skip
    """Figures and a grid of what is painted of held-out examples: control, painted, rendered."""
    controls, renders = shrunk(check.controls, size), shrunk(check.pictures, size)
    painted = sample(pipe, controls, check.prompts, recipe.sampling_steps)
    rows = [controls[:_GRID], painted[:_GRID], renders[:_GRID]]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(grid).save(work / f"grid-{step:06d}.png")
    scale = size / recipe.model.size
    keypoints, boxes = check.keypoints * scale, check.boxes * scale
    visible = 2 * ((keypoints >= 0) & (keypoints < size)).all(-1).astype(np.int8)

    def median_oks(pictures: np.ndarray) -> float:
        return measure(network, list(pictures), keypoints, np.asarray(visible), boxes).median

    return {"median_oks": median_oks(painted), "median_oks_of_renders": median_oks(renders)}


def save(pipe: Pipe, folder: Path) -> None:
    """Writes the standard diffusers folder, weights in float16: half the size, and no picture shows it."""
    slim: Pipe = FluxControlPipeline(**{name: copy.deepcopy(part) for name, part in pipe.components.items()})
    slim.to(dtype=torch.float16)
    slim.save_pretrained(folder, safe_serialization=True)


def _still(transformer: nn.Module) -> None:
    """Every block starts as the identity and the output as zero (adaLN-Zero): it learns far sooner."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (
            name.split(".")[-2:] in (["norm", "linear"], ["norm1", "linear"], ["norm1_context", "linear"])
            or name in ("proj_out", "norm_out.linear")
        ):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def train(
    recipe: Recipe, out: Path, work: Path, device: str, every: int = 400, compiled: bool = False
) -> Pipe:
    """The whole training, from renders to the folder `out`."""
    work.mkdir(parents=True, exist_ok=True)
    body = Model.load(Body.load(None))
    side = recipe.model.size

    def pairs(what: str, count: int, seed: int) -> Pairs:
        return make_pairs(
            body, training_poses, count, seed, side, work / what, lambda done: log.info("%d %s", done, what)
        )

    renders = pairs("renders", recipe.renders, recipe.seed)
    check = pairs("check", min(_CHECK, recipe.renders), recipe.seed + 1_000_000)
    pipe = build(recipe.model, recipe.seed).to(device)
    pipe.set_progress_bar_config(disable=True)
    train_vae(pipe, renders, recipe, work, every)
    train_text(pipe, recipe, work, every)
    done = train_transformer(pipe, renders, check, recipe, work, every, compiled)
    save(done, out)
    facts = {"recipe": recipe.facts, "body": body.body.digest}
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for renders, checkpoints and logs")
    parser.add_argument("--config", choices=sorted(RECIPES), default="128")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="a quarter faster; rounds otherwise")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    torch.set_num_threads(given.threads)
    recipe = dataclasses.replace(RECIPES[given.config], seed=given.seed)
    train(recipe, given.out, given.work, given.device, compiled=given.compile)


if __name__ == "__main__":
    main()

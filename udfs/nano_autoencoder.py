"""Trains the nano model's autoencoder, on pictures and control images."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udfs import checkpoint
from udfs.nano_recipes import Phase, Recipe, phase_at, steps_of
from udfs.nano_renders import Pairs
from udfs.nano_steps import LOG_EVERY, counts, half, parts, pixels, set_rate, shrunk, tell
from udfs.pipelines import Pipe
from udfs.training_log import TrainingLog

_CONTROL_SHARE = 0.25
"""Share of control images among what the autoencoder learns to keep."""
_LATENT_NOISE = 0.05
"""Of the latents' spread: the decoder learns to bear what the transformer does not hit exactly."""


def train_vae(pipe: Pipe, pairs: Pairs, recipe: Recipe, work: Path, every: int) -> None:
    """Trains the autoencoder in place, on pictures and control images, and sets its scale and shift.

    At last the decoder goes on alone, on pictures: no control image is ever decoded. What the transformer
    sees of a picture stays as it is.
    """
    vae = pipe.vae.train().to(memory_format=torch.channels_last)
    whole = {name: recipe.facts[name] for name in ("model", "renders", "vae", "vae_rate", "seed")}
    _fit(
        vae, pairs, recipe.vae, recipe.vae_rate, [recipe.seed, 1], dict(vae.named_parameters()),
        work / "vae.safetensors", whole, every, controls=_CONTROL_SHARE,
    )  # fmt: skip
    with torch.no_grad():
        sample = pairs.pictures[: min(len(pairs), 256)]
        latents = torch.cat([vae.encode(pixels(p, vae.device)).latent_dist.mode() for p in parts(sample, 32)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()), shift_factor=float(latents.mean()))
    _fit(
        vae, pairs, recipe.decoder.phases, recipe.decoder.rate, [recipe.seed, 4],
        dict(vae.decoder.named_parameters()), work / "decoder.safetensors",
        {**whole, "decoder": recipe.facts["decoder"]}, every, shoes=recipe.decoder.shoes,
    )  # fmt: skip
    vae.eval().requires_grad_(False)


def _fit(
    vae: Any, pairs: Pairs, phases: Sequence[Phase], rate: float, seed: list[int],
    parameters: Mapping[str, nn.Parameter], file: Path, identity: Mapping[str, object], every: int, *,
    controls: float = 0.0, shoes: float = 0.0,
) -> None:  # fmt: skip
    """Trains these parameters and no others, from where the file's training stopped.

    controls: share of control images; shoes: how much more feet count than they do anyway.
    """
    vae.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    # The half of the encoder's head that says how uncertain it is stays as it was built: not at all.
    channels = vae.config.latent_channels
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=1e-4)
    steps = steps_of(phases)
    step, _ = checkpoint.resume(file, identity, parameters, optimizer)
    journal = TrainingLog(file.with_suffix(""), step)
    sums, began = [0.0, 0.0], time.perf_counter()
    while step < steps:
        rng = np.random.default_rng([*seed, step])
        phase = phase_at(phases, step)
        rows = rng.choice(len(pairs), phase.batch, replace=False)
        share = round(phase.batch * controls)
        chosen = np.concatenate([pairs.controls[rows[:share]], pairs.pictures[rows[share:]]])
        pictures = pixels(shrunk(chosen, phase.size), vae.device)
        weights = counts(pairs.controls[rows], pairs.keypoints[rows], phase.size, shoes)
        weight = torch.from_numpy(weights).to(vae.device).unflatten(1, (1, phase.size, phase.size))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        set_rate(optimizer, rate, step, steps, 100)
        with half(vae.device):
            latents = vae.encode(pictures).latent_dist.mode()
        latents = latents.float()
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        with half(vae.device):
            seen = vae.decode(latents + _LATENT_NOISE * latents.detach().std() * noise).sample
        seen = seen.float()
        off = seen - pictures
        loss = _weighted(off, weight) + _weighted(_hue(off), weight) + 0.5 * _edges(off)
        loss = loss + 1e-4 * latents.square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        with torch.no_grad():
            vae.encoder.conv_out.weight[channels:] = 0
            vae.encoder.conv_out.bias[channels:] = -30
            error = (seen[share:].clamp(-1, 1) - pictures[share:]).square().mean()
        step += 1
        sums = [sums[0] + float(loss.detach()), sums[1] + float(error)]
        last = step == steps
        if step % LOG_EVERY == 0 or last:
            n = (step - 1) % LOG_EVERY + 1
            figures = {"loss": sums[0] / n, "psnr": -10 * math.log10(sums[1] / n / 4)}
            tell(journal, file.stem, step, {**figures, "seconds_a_step": (time.perf_counter() - began) / n})
            sums, began = [0.0, 0.0], time.perf_counter()
        if step % every == 0 or last:
            checkpoint.save(file, step, identity, parameters, optimizer)


def _weighted(difference: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference, by what each pixel counts: (B, C, S, S) and (B, 1, S, S)."""
    return (difference.abs().mean(1, keepdim=True) * weight).sum() / weight.sum()


def _hue(difference: Tensor) -> Tensor:
    """What is not lighter or darker in the difference: small things keep their shape, not their colour."""
    return difference - difference.mean(1, keepdim=True)


def _edges(difference: Tensor) -> Tensor:
    """Mean absolute difference of the differences between neighbours: what blur gets wrong."""
    across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    return across + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()

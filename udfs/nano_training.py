"""Trains the nano model from nothing, on renders that it makes itself.

    python -m udfs.nano_training --config 128 --out udfs/weights/nano --work /tmp/nano

First the autoencoder, then the text encoders on captions alone, then the transformer with them by flow
matching. Renders, checkpoints, sample grids and logs go to the work folder; called again, it goes on where it
stopped. The same seed, body and software give the same renders, order of examples and noise.
"""

import argparse
import copy
import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from diffusers import FluxControlPipeline
from PIL import Image
from rich.logging import RichHandler
from torch import Tensor, nn

from schemas.source import GrammarSource
from udfs import checkpoint, grammar
from udfs.body import Body
from udfs.flow_matching import Flow, Prompts, noised
from udfs.keypoint_network import KeypointNetwork
from udfs.keypoint_quality import measure
from udfs.keypoint_training import training_poses
from udfs.keypoints import WEIGHTS
from udfs.nano_model import CONFIGS, NanoConfig, build
from udfs.nano_renders import Pairs, framed, make_pairs
from udfs.pipelines import Pipe
from udfs.shaded import Model
from udfs.training_log import TrainingLog

log = logging.getLogger("nano")

_LOG_EVERY = 50
_EMA = 0.998
_CHECK = 128
"""Held-out pictures that figures are taken on as the training goes."""
_GRID = 8
_VOCABULARY = 4_096
"""Captions whose words are all the words there are."""
_CAPTION_SEEDS = 1 << 40
_PICTURED = ("subject", "top", "top_color", "bottom", "bottom_color", "shoes_color", "hair_color", "scene",
             "background_color", "lighting")  # fmt: skip
"""What captions say that a picture shows."""
_AT_ONCE = 32
_CONTROL_SHARE = 0.25
"""Share of control images among what the autoencoder learns to keep."""
_LATENT_NOISE = 0.05
"""Of the latents' spread: the decoder learns to bear what the transformer does not hit exactly."""
_PERSON_WEIGHT = 1.0
"""How much more a token counts that a person fills: people cover a fifth of a picture and are its point."""


@dataclass(frozen=True)
class Phase:
    """Optimiser steps on pictures of one size, `batch` at a time."""

    size: int
    steps: int
    batch: int


@dataclass(frozen=True)
class TextPhase:
    """Optimiser steps on `batch` captions at a time."""

    steps: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training. Small pictures come first: what captions and control images mean is learned sooner on them.

    Attributes:
        model: sizes; see `udfs.nano_model`.
        renders: pictures that it learns from, of the model's size.
        vae: phases of the autoencoder.
        text: steps of the text encoders on captions alone.
        transformer: phases of the transformer and the text encoders.
        vae_rate, text_rate, rate: highest learning rates.
        sampling_steps: of the sampler, for the figures and grids on the way.
        seed: of renders, weights, order and noise.
    """

    model: NanoConfig
    renders: int
    vae: tuple[Phase, ...]
    text: TextPhase
    transformer: tuple[Phase, ...]
    vae_rate: float = 2e-3
    text_rate: float = 2e-3
    rate: float = 2e-3
    sampling_steps: int = 8
    seed: int = 7

    @property
    def facts(self) -> dict[str, object]:
        return dataclasses.asdict(self)


RECIPES: Mapping[str, Recipe] = {
    "128": Recipe(
        model=CONFIGS["128"],
        renders=16_384,
        vae=(Phase(64, 900, 32), Phase(128, 300, 16)),
        text=TextPhase(400, 128),
        transformer=(Phase(64, 1_600, 32), Phase(128, 3_800, 24)),
    ),
    "192": Recipe(
        model=CONFIGS["192"],
        renders=65_536,
        vae=(Phase(96, 6_000, 64), Phase(192, 4_000, 32)),
        text=TextPhase(2_000, 256),
        transformer=(Phase(96, 40_000, 128), Phase(192, 20_000, 64)),
    ),
    "tiny": Recipe(
        model=CONFIGS["tiny"],
        renders=64,
        vae=(Phase(32, 4, 4),),
        text=TextPhase(4, 4),
        transformer=(Phase(16, 2, 4), Phase(32, 2, 4)),
    ),
}
"""By what `--config` says: 128 takes two hours on two cores, 192 wants a GPU, tiny is for tests."""


def steps_of(phases: Sequence[Phase]) -> int:
    """Steps of all phases together."""
    return sum(phase.steps for phase in phases)


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that a step, counted from 0, belongs to."""
    for phase in phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    raise IndexError(step)


def shrunk(pictures: np.ndarray, size: int) -> np.ndarray:
    """(N, size, size, 3) uint8: means of squares of pixels; the side is a multiple of the size."""
    n, side = pictures.shape[:2]
    if side == size:
        return pictures
    tile = side // size
    mean = pictures.reshape(n, size, tile, size, tile, 3).mean((2, 4), dtype=np.float32)
    return np.round(mean).astype(np.uint8)


def train_vae(pipe: Pipe, pairs: Pairs, recipe: Recipe, work: Path, every: int) -> None:
    """Trains the autoencoder in place, on pictures and control images, and sets its scale and shift."""
    vae = pipe.vae.train().requires_grad_(True).to(memory_format=torch.channels_last)
    # The half of the encoder's head that says how uncertain it is stays as it was built: not at all.
    channels = vae.config.latent_channels
    parameters = dict(vae.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.vae_rate, weight_decay=1e-4)
    file = work / "vae.safetensors"
    identity = {name: recipe.facts[name] for name in ("model", "renders", "vae", "vae_rate", "seed")}
    steps = steps_of(recipe.vae)
    step, _ = checkpoint.resume(file, identity, parameters, optimizer)
    journal = TrainingLog(work / "vae", step)
    sums, began = [0.0, 0.0], time.perf_counter()
    while step < steps:
        rng = np.random.default_rng([recipe.seed, 1, step])
        phase = phase_at(recipe.vae, step)
        rows = rng.choice(len(pairs), phase.batch, replace=False)
        share = round(phase.batch * _CONTROL_SHARE)
        pixels = np.concatenate([pairs.controls[rows[:share]], pairs.pictures[rows[share:]]])
        pictures = _pixels(shrunk(pixels, phase.size), vae.device)
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        _set_rate(optimizer, recipe.vae_rate, step, steps, 100)
        with _half(vae.device):
            latents = vae.encode(pictures).latent_dist.mode()
        latents = latents.float()
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        with _half(vae.device):
            seen = vae.decode(latents + _LATENT_NOISE * latents.detach().std() * noise).sample
        seen = seen.float()
        loss = (seen - pictures).abs().mean() + 0.5 * _edges(seen - pictures) + 1e-4 * latents.square().mean()
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
        if step % _LOG_EVERY == 0 or last:
            n = (step - 1) % _LOG_EVERY + 1
            figures = {"loss": sums[0] / n, "psnr": -10 * math.log10(sums[1] / n / 4)}
            _tell(
                journal, "autoencoder", step, {**figures, "seconds_a_step": (time.perf_counter() - began) / n}
            )
            sums, began = [0.0, 0.0], time.perf_counter()
        if step % every == 0 or last:
            checkpoint.save(file, step, identity, parameters, optimizer)
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        sample = pairs.pictures[: min(len(pairs), 256)]
        latents = torch.cat(
            [vae.encode(_pixels(p, vae.device)).latent_dist.mode() for p in _parts(sample, 32)]
        )
    vae.register_to_config(scaling_factor=float(1 / latents.std()), shift_factor=float(latents.mean()))


class Reader(nn.Module):
    """Reads caption attributes off what the text encoders say; it is thrown away when they have learned."""

    def __init__(self, width: int, classes: Sequence[int]) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(nn.Linear(width, n) for n in classes)
        self.tokens = nn.ModuleList(nn.Linear(width, n) for n in classes)
        self.asks = nn.Parameter(torch.randn(len(classes), width) / width**0.5)

    def forward(self, prompts: Prompts) -> list[tuple[Tensor, Tensor]]:
        """Logits (B, classes) of each attribute, from the pooled vector and from the tokens."""
        weight = torch.einsum("bsd,ad->bas", prompts.tokens, self.asks).softmax(-1)
        found = torch.einsum("bas,bsd->bad", weight, prompts.tokens)
        return [
            (of_pooled(prompts.pooled), of_tokens(found[:, i]))
            for i, (of_pooled, of_tokens) in enumerate(zip(self.pooled, self.tokens, strict=True))
        ]


def train_text(pipe: Pipe, recipe: Recipe, work: Path, every: int) -> None:
    """Teaches both text encoders in place to tell what captions of the grammar say, before any picture.

    What they say at random takes a transformer very long to make sense of; what a caption names becomes
    linearly readable here within a minute or two.
    """
    words = [sorted({w for w in column if w is not None}) for column in _said(range(_VOCABULARY)).values()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        reader = Reader(recipe.model.text_dim, [len(w) + 1 for w in words]).to(pipe.device)
    parts = {"reader": reader, "text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2}
    parameters = {
        f"{part}.{name}": p
        for part, m in parts.items()
        for name, p in m.requires_grad_(True).named_parameters()
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.text_rate, weight_decay=0.01)
    file = work / "text.safetensors"
    identity = {name: recipe.facts[name] for name in ("model", "text", "text_rate", "seed")}
    step, _ = checkpoint.resume(file, identity, parameters, optimizer)
    journal = TrainingLog(work / "text", step)
    places = [{None: 0, **{w: i + 1 for i, w in enumerate(known)}} for known in words]
    while step < recipe.text.steps:
        numbers = range(_VOCABULARY + step * recipe.text.batch, _VOCABULARY + (step + 1) * recipe.text.batch)
        said = _said(numbers)
        ids = _token_ids(pipe, framed(_texts(numbers), [recipe.seed, 4, step]), recipe.model.text_length)
        _set_rate(optimizer, recipe.text_rate, step, recipe.text.steps, 50)
        seen = _text(pipe, *ids)
        loss = torch.zeros((), device=pipe.device)
        right = []
        for (column, place), logits in zip(
            zip(said.values(), places, strict=True), reader(seen), strict=True
        ):
            truth = torch.tensor([place[w] for w in column], device=pipe.device)
            for scores in logits:
                loss = loss + nn.functional.cross_entropy(scores, truth)
                right.append((scores.argmax(1) == truth).float().mean())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        step += 1
        last = step == recipe.text.steps
        if step % _LOG_EVERY == 0 or last:
            figures = {"loss": float(loss.detach()), "right": float(torch.stack(right).mean())}
            _tell(journal, "text", step, figures)
        if step % every == 0 or last:
            checkpoint.save(file, step, identity, parameters, optimizer)


def _captions(numbers: range) -> pa.Table:
    return grammar.captions(np.arange(numbers.start, numbers.stop) + _CAPTION_SEEDS, GrammarSource())


def _texts(numbers: range) -> list[str]:
    return _captions(numbers)["text"].to_pylist()


def _said(numbers: range) -> dict[str, list[str | None]]:
    """What captions say, by attribute; the same captions for the same numbers."""
    return _captions(numbers).select(_PICTURED).to_pydict()


def _token_ids(pipe: Pipe, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    settings = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    clip, t5 = (t(texts, **settings)["input_ids"] for t in (pipe.tokenizer, pipe.tokenizer_2))
    return clip.to(pipe.device), t5.to(pipe.device)


def _text(pipe: Pipe, clip: Tensor, t5: Tensor) -> Prompts:
    return Prompts(pipe.text_encoder_2(t5)[0], pipe.text_encoder(clip).pooler_output)


@dataclass(frozen=True)
class Encoded:
    """The examples as the transformer sees them.

    Attributes:
        latents, controls: (N, L, C) float16 packed latents.
        clip, t5: (N, S) int64 token ids.
        weights: (N, L) float32, what each token counts.
    """

    latents: np.ndarray
    controls: np.ndarray
    clip: np.ndarray
    t5: np.ndarray
    weights: np.ndarray


def encode(pipe: Pipe, pairs: Pairs, size: int, length: int) -> Encoded:
    """Everything goes through the autoencoder once, however long the training is."""
    flow = Flow(pipe, max_sequence_length=length)
    with _half(pipe.device):
        packed = [
            np.concatenate(
                [flow.encode_pictures(shrunk(p, size)).half().cpu().numpy() for p in _parts(pictures, 64)]
            )
            for pictures in (pairs.pictures, pairs.controls)
        ]
    clip, t5 = (ids.cpu().numpy() for ids in _token_ids(pipe, list(pairs.prompts), length))
    weights = []
    for part in _parts(pairs.controls, 256):
        n, side = part.shape[:2]
        cells, tile = size // flow.factor, side // (size // flow.factor)
        person = (part > 0).any(-1).reshape(n, cells, tile, cells, tile).mean((2, 4))
        weights.append(1 + _PERSON_WEIGHT * person.reshape(n, -1).astype(np.float32))
    return Encoded(packed[0], packed[1], clip, t5, np.concatenate(weights))


def train_transformer(
    pipe: Pipe, pairs: Pairs, check: Pairs, recipe: Recipe, work: Path, every: int, compiled: bool
) -> Pipe:  # fmt: skip
    """Trains transformer and text encoders; returns the pipeline with averaged weights."""
    flow = Flow(pipe, max_sequence_length=recipe.model.text_length)
    model: Any = torch.compile(pipe.transformer) if compiled else pipe.transformer
    average = build(recipe.model, recipe.seed).to(pipe.device)
    average.vae = pipe.vae
    _still(pipe.transformer)
    trained, kept = _parameters(pipe), _parameters(average)
    for name, parameter in trained.items():
        kept[name].data.copy_(parameter.data)
    optimizer = torch.optim.AdamW(
        trained.values(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    file = work / "transformer.safetensors"
    identity = {name: value for name, value in recipe.facts.items() if name != "sampling_steps"}
    everything = {**trained, **{f"average.{k}": v for k, v in kept.items()}}
    step, _ = checkpoint.resume(file, identity, everything, optimizer)
    network = KeypointNetwork.load(WEIGHTS)
    steps, data, encoded = steps_of(recipe.transformer), None, 0
    journal = TrainingLog(work / "transformer", step)
    total, began = 0.0, time.perf_counter()
    while step < steps:
        phase = phase_at(recipe.transformer, step)
        if data is None or phase.size != encoded:
            data, encoded = encode(pipe, pairs, phase.size, recipe.model.text_length), phase.size
        rng = np.random.default_rng([recipe.seed, 2, step])
        rows = rng.choice(len(pairs), phase.batch, replace=False)
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        device = pipe.device
        latents, control, weights = (
            torch.from_numpy(a[rows]).float().to(device) for a in (data.latents, data.controls, data.weights)
        )
        clip, t5 = (torch.from_numpy(a[rows]).to(device) for a in (data.clip, data.t5))
        levels = flow.levels(phase.batch, latents.shape[1], generator).to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        _set_rate(optimizer, recipe.rate, step, steps, min(200, steps // 4 + 1))
        with _half(device):
            said = _text(pipe, clip, t5)
            velocity = flow.velocity(
                noised(latents, noise, levels), control, said, levels, (phase.size,) * 2, model
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
        if step % _LOG_EVERY == 0 or last:
            n = (step - 1) % _LOG_EVERY + 1
            figures = {"loss": total / n, "seconds_a_step": (time.perf_counter() - began) / n}
            _tell(journal, "transformer", step, figures)
            total, began = 0.0, time.perf_counter()
        if step % every == 0 or last:
            checkpoint.save(file, step, identity, everything, optimizer)
            _tell(journal, "held out", step, _look(average, check, phase.size, network, recipe, work, step))
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


def _tell(journal: TrainingLog, part: str, step: int, figures: Mapping[str, float]) -> None:
    journal.write(step, figures)
    log.info(" ".join([part, str(step), *(f"{name} {value:.4g}" for name, value in figures.items())]))


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


def _parameters(pipe: Pipe) -> dict[str, nn.Parameter]:
    parts = ("transformer", "text_encoder", "text_encoder_2")
    found: dict[str, nn.Parameter] = {}
    for part in parts:
        module = getattr(pipe, part).requires_grad_(True)
        found |= {f"{part}.{name}": p for name, p in module.named_parameters()}
    return found


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int, warm: int) -> None:
    falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate * min((step + 1) / warm, 1.0) * falling


def _half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


def _pixels(pictures: np.ndarray, device: torch.device) -> Tensor:
    values = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)
    return values.float() / 127.5 - 1


def _edges(difference: Tensor) -> Tensor:
    """Mean absolute difference of the differences between neighbours: what blur gets wrong."""
    across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    return across + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()


def _parts(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


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

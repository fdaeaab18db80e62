"""Trainings of a tiny pipeline on pictures of noise."""

import copy
from functools import cache

import numpy as np
import torch
from diffusers import FluxControlPipeline

from schemas.training import ControlTraining
from udfs.adapters import Lora, Whole
from udfs.encoded import Rows, encode
from udfs.flow_matching import Flow
from udfs.nano_model import TINY, build
from udfs.training import Split, open_accelerator, train

SIZE = 32
CAPTIONS = ("a woman in a red shirt", "a man on a beach", "a child at night")


@cache
def _base(seed):
    return build(TINY, seed)


def tiny(control=True, seed=0):
    """A flow around a tiny pipeline; without control, its transformer reads the image's latents alone."""
    parts = dict(_base(seed).components)
    pipe = FluxControlPipeline(**parts | {"transformer": copy.deepcopy(parts["transformer"])})
    pipe.set_progress_bar_config(disable=True)
    if not control:
        old = pipe.transformer.x_embedder
        new = torch.nn.Linear(16, old.out_features)
        new.load_state_dict({"weight": old.weight[:, :16].detach(), "bias": old.bias.detach()})
        pipe.transformer.x_embedder = new
        pipe.transformer.register_to_config(in_channels=16, out_channels=16)
    return Flow(pipe, max_sequence_length=TINY.text_length)


def picture(name):
    """Pixels by a name such as "image 3": noise around a brightness."""
    kind, number = name.split()
    rng = np.random.default_rng([len(kind), int(number)])
    return rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def rows_of(n, pairs=False):
    images = [(f"winner {i}", f"loser {i}") if pairs else (f"image {i}",) for i in range(n)]
    prompts = [CAPTIONS[i % 3] for i in range(n)]
    return Rows(images, [f"control {i // 2}" for i in range(n)], prompts, np.arange(n))


def encoded(flow, folder, n=7, pairs=False, read=picture):
    return encode(flow, rows_of(n, pairs), read, folder / "encoded", "key")


def settings_of(kind=ControlTraining, **given):
    facts = {"steps": 6, "batch_size": 2, "learning_rate": 1e-2, "tensorboard": False, "log_every": 1}
    lora = {} if given.get("full") else {"rank": 4}
    return kind(**{**facts, **lora, "checkpoint_every": 2, **given})


def add(flow, name="trained", settings=None):
    s = settings or settings_of()
    return Lora.add(flow, name, rank=s.rank, alpha=s.alpha, targets=s.targets, seed=s.seed)


def trained(folder, settings=None, flow=None, pairs=False, **more):
    """A training in a folder from the start or from its checkpoint; the flow and what it trained."""
    folder.mkdir(exist_ok=True)
    settings, flow = settings or settings_of(), flow or tiny()
    rows = encoded(flow, folder, pairs=pairs)
    part = Whole.of(flow) if getattr(settings, "full", False) else add(flow, settings=settings)
    split = Split(np.arange(5), np.arange(5, 7))
    done = train(
        flow, part, rows, split, settings, folder, open_accelerator(settings, cpu=True),
        data={"rows": "these"}, **more,
    )  # fmt: skip
    return flow, part, done


def weights(part):
    return {name: p.detach().clone() for name, p in part.parameters().items()}


def velocity(flow, seed=0):
    rng = torch.Generator().manual_seed(seed)
    latents, control = torch.randn(2, 2, 16, 16, generator=rng)
    with torch.no_grad():
        prompts = flow.encode_prompts(["a man", "a woman"])
        return flow.velocity(latents, control, prompts, torch.tensor([0.3, 0.8]), (SIZE, SIZE))


def randomize(lora, seed, scale=0.3):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * scale)

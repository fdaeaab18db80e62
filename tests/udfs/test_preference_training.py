"""Preference training does what it is for: what is painted moves to what is preferred."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FluxControlPipeline
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from schemas.training import ControlTraining, DpoTraining
from udfs.adapters import Lora, Whole
from udfs.encoded import Rows, encode
from udfs.flow_matching import Flow
from udfs.nano_model import TINY, build
from udfs.training import Split, open_accelerator, train

SIZE, PICTURES = 32, 64


class Pooling(torch.nn.Module):
    """An autoencoder that needs no training: latents are the picture, four times smaller, and one zero."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(
            latent_channels=4, block_out_channels=(1, 1, 1), scaling_factor=1.0, shift_factor=0.0
        )
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def encode(self, pixels):
        latents = torch.nn.functional.pad(avg_pool2d(pixels, 4), (0, 0, 0, 0, 0, 1))
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents, sample=lambda **_: latents))

    def decode(self, latents, return_dict):
        return (interpolate(latents[:, :3], scale_factor=4),)


def grey(name):
    """Flat pictures by a name such as "0.3 7": brightness, and which of the controls."""
    brightness = float(name.split()[0])
    return np.full((SIZE, SIZE, 3), round(255 * brightness), np.uint8)


def brightness(flow):
    """Mean of 32 pictures that the pipeline itself paints, in [0, 1]."""
    images = flow.pipeline(
        prompt=["a man"] * 32,
        control_image=[Image.fromarray(grey("0.5 0"))] * 32,
        height=SIZE,
        width=SIZE,
        num_inference_steps=6,
        max_sequence_length=TINY.text_length,
        generator=torch.Generator().manual_seed(11),
        output_type="np",
    ).images
    return float(images.mean())


def fit(flow, part, settings, rows, folder):
    folder.mkdir()
    encoded = encode(flow, rows, grey, folder / "encoded", "key")
    split = Split(np.arange(len(rows)), np.arange(0))
    done = train(flow, part, encoded, split, settings, folder, open_accelerator(settings, cpu=True), data={})
    return done.values


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny pipeline that paints flat pictures of any brightness; its brightness and its weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pipe = FluxControlPipeline(**{**build(TINY).components, "vae": Pooling()})
    pipe.set_progress_bar_config(disable=True)
    flow = Flow(pipe, max_sequence_length=TINY.text_length)
    levels = np.linspace(0.1, 0.9, PICTURES)
    rows = Rows(
        [(f"{v:.3f} {i}",) for i, v in enumerate(levels)],
        ["0.5 0"] * PICTURES,
        ["a man"] * PICTURES,
        np.arange(PICTURES),
    )
    settings = ControlTraining(
        full=True, steps=300, batch_size=16, learning_rate=5e-3, schedule="cosine", tensorboard=False
    )
    fit(flow, Whole.of(flow), settings, rows, tmp_path_factory.mktemp("base") / "run")
    yield flow
    torch.set_num_threads(before)


def aligned(flow, folder, name, bright=True, **weights):
    """Brightness after a preference training, and what was logged last."""
    pairs = [(f"{0.6 + 0.3 * i / 16:.3f} {i}", f"{0.1 + 0.3 * i / 16:.3f} {i}") for i in range(16)]
    pairs = pairs if bright else [pair[::-1] for pair in pairs]
    rows = Rows(pairs, ["0.5 0"] * 16, ["a man"] * 16, np.arange(16))
    settings = DpoTraining(
        steps=80,
        batch_size=8,
        learning_rate=1e-3,
        beta=20.0,
        tensorboard=False,
        **weights,
    )
    lora = Lora.add(flow, name, rank=8, alpha=8.0, targets=settings.targets, seed=0)
    values = fit(flow, lora, settings, rows, folder)
    after = brightness(flow)
    lora.switch(on=False)
    return after, values


def test_what_is_painted_moves_to_what_is_preferred(base, tmp_path):
    before = brightness(base)
    assert 0.3 < before < 0.7
    lighter, values = aligned(base, tmp_path / "bright", "bright")
    assert lighter > before + 0.08
    assert values["accuracy"] > 0.9
    darker, _ = aligned(base, tmp_path / "dark", "dark", bright=False)
    assert darker < before - 0.08
    assert brightness(base) == pytest.approx(before, abs=1e-6)
    # The preference alone is met by making winners worse too, as long as losers get worse by more.
    assert 0 < values["winner_change"] < values["loser_change"]
    _, weighted = aligned(base, tmp_path / "weighted", "weighted", winner_weight=5.0)
    assert weighted["winner_change"] < values["winner_change"] / 2
    assert weighted["accuracy"] > 0.9
    gently, held = aligned(base, tmp_path / "held", "held", reference_weight=200.0)
    assert held["drift"] < values["drift"] / 2
    assert before < gently < lighter

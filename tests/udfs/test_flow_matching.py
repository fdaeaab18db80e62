from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import ConfigError, ModelError
from udfs.flow_matching import Flow, noised, velocity_error
from udfs.nano_model import TINY, build

SIZE = 32


@pytest.fixture(scope="module")
def flow():
    pipe = build(TINY)
    # A released VAE has a scale and a shift; with 1 and 0, leaving them out would go unseen.
    pipe.vae.register_to_config(scaling_factor=0.7, shift_factor=0.2)
    return Flow(pipe, max_sequence_length=TINY.text_length)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def trajectory(flow, steps, guidance_scale, start, control, prompt):
    """Latents after every step of the pipeline itself, and after every Euler step done with the flow."""
    theirs = []

    def keep(pipe, step, timestep, state):
        theirs.append(state["latents"].clone())
        return state

    flow.pipeline(
        prompt=prompt,
        control_image=Image.fromarray(control),
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        latents=start,
        max_sequence_length=flow.max_sequence_length,
        output_type="latent",
        callback_on_step_end=keep,
    )
    levels = flow.pipeline.scheduler.sigmas
    encoded, prompts = flow.encode_pictures(control[None]), flow.encode_prompts([prompt])
    ours, at = [], start
    for now, following in pairwise(levels):
        with torch.no_grad():
            at = at + (following - now) * flow.velocity(at, encoded, prompts, now[None], (SIZE, SIZE))
        ours.append(at)
    return theirs, ours


def test_euler_steps_with_the_flow_are_the_pipelines_own(flow):
    start = torch.randn(1, 16, flow.latent_channels, generator=torch.Generator().manual_seed(3))
    theirs, ours = trajectory(flow, 3, 3.5, start, picture(0), "a woman in a red shirt")
    assert len(ours) == 3
    for mine, its in zip(ours, theirs, strict=True):
        assert float((mine - its).abs().max()) < 1e-4
    other, _ = trajectory(flow, 3, 3.5, start, picture(1), "a woman in a red shirt")
    assert float((other[-1] - theirs[-1]).abs().max()) > 1e-3
    worded, _ = trajectory(flow, 3, 3.5, start, picture(0), "a man at night")
    assert float((worded[-1] - theirs[-1]).abs().max()) > 1e-3


def test_guidance_reaches_a_transformer_that_has_an_embedding_for_it():
    import diffusers

    pipe = build(TINY)
    config = dict(pipe.transformer.config) | {"guidance_embeds": True}
    torch.manual_seed(0)
    pipe.transformer = diffusers.FluxTransformer2DModel.from_config(config).eval()
    pipe.register_modules(transformer=pipe.transformer)
    start = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3))
    strong = Flow(pipe, 30.0, TINY.text_length)
    theirs, ours = trajectory(strong, 1, 30.0, start, picture(0), "a man")
    assert float((ours[0] - theirs[0]).abs().max()) < 1e-4
    weak, _ = trajectory(strong, 1, 1.0, start, picture(0), "a man")
    assert float((weak[0] - theirs[0]).abs().max()) > 1e-3


def test_latents_decode_to_the_picture_where_the_pipeline_decodes_them(flow):
    pixels = np.stack([picture(0), picture(1)])
    packed = flow.encode_pictures(pixels)
    assert packed.shape == (2, 16, 16)
    torch.testing.assert_close(packed, flow.encode_pictures(pixels), rtol=0, atol=0)
    # Unpacked and unscaled as the pipeline does before decoding, it is the encoder's mean.
    pipe = flow.pipeline
    latents = pipe._unpack_latents(packed, SIZE, SIZE, pipe.vae_scale_factor)
    latents = latents / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(latents, pipe.vae.encode(values).latent_dist.mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dynamic", [True, False])
def test_levels_are_shifted_as_the_sampler_shifts_them(flow, dynamic):
    scheduler = type(flow.pipeline.scheduler)(shift=3.0, use_dynamic_shifting=dynamic)
    kept, flow.pipeline.scheduler = flow.pipeline.scheduler, scheduler
    try:
        start = torch.zeros(1, 16, flow.latent_channels)
        trajectory(flow, 8, 1.0, start, picture(0), "a man")
        plain = torch.linspace(1, 1 / 8, 8)
        torch.testing.assert_close(flow.shift(plain, 16), scheduler.sigmas[:-1], rtol=0, atol=1e-6)
        assert float((flow.shift(plain, 16) - plain).abs().max()) > 0.05
    finally:
        flow.pipeline.scheduler = kept


def test_levels_are_logit_normal_and_follow_the_generator(flow):
    def draw(seed, **how):
        return flow.levels(4000, 16, torch.Generator().manual_seed(seed), **how)

    plain = draw(0, shifted=False)
    assert torch.equal(plain, draw(0, shifted=False))
    assert not torch.equal(plain, draw(1, shifted=False))
    assert 0 < float(plain.min()) < float(plain.max()) < 1
    logits = torch.logit(draw(0, mean=0.5, std=0.8, shifted=False))
    assert float(logits.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.05)
    torch.testing.assert_close(draw(0), flow.shift(plain, 16))


def test_the_line_from_picture_to_noise_has_the_target_as_its_slope():
    rng = torch.Generator().manual_seed(0)
    picture, noise = torch.randn(2, 2, 4, 3, generator=rng, dtype=torch.float64)
    levels = torch.tensor([0.3, 0.9], dtype=torch.float64)
    assert torch.equal(noised(picture, noise, torch.zeros(2)), picture)
    assert torch.equal(noised(picture, noise, torch.ones(2)), noise)
    slope = (noised(picture, noise, levels + 1e-6) - noised(picture, noise, levels)) / 1e-6
    assert float(velocity_error(slope, picture, noise).max()) < 1e-12
    wrong = slope + torch.tensor([1.0, 2.0])[:, None, None]
    torch.testing.assert_close(velocity_error(wrong, picture, noise), torch.tensor([1.0, 4.0]).double())


def test_errors_in_half_precision_are_summed_in_float32():
    picture, noise = torch.zeros(1, 1000, 8), torch.full((1, 1000, 8), 3.0)
    velocity = torch.full((1, 1000, 8), 2.0, dtype=torch.bfloat16)
    error = velocity_error(velocity, picture, noise)
    assert error.dtype == torch.float32
    assert float(error) == 1.0


def test_wrong_sizes_and_pipelines_are_refused(flow):
    with pytest.raises(ConfigError, match="36 x 32 pixels; this model works on multiples of 8"):
        flow.check_size(32, 36)
    flow.check_size(32, 40)
    with pytest.raises(ModelError, match="training supports FluxControlPipeline"):
        Flow(object())

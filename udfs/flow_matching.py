"""Flow matching for FLUX control pipelines: what a training step computes, and what the sampler computes too.

A picture's latents x0 and noise eps are joined by a line, x_t = (1 - t) x0 + t eps, with t the noise level in
[0, 1]. The transformer sees x_t beside the control image's latents and answers with the velocity, whose
target is eps - x0 (Lipman et al., "Flow Matching for Generative Modeling", 2023; Esser et al., "Scaling
Rectified Flow Transformers", 2024). `FluxControlPipeline` takes Euler steps with that velocity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FluxControlPipeline
from diffusers.pipelines.flux.pipeline_flux_control import calculate_shift
from torch import Tensor

from schemas.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Prompts:
    """What the text encoders say of B prompts.

    Attributes:
        tokens: (B, S, D) of the T5 encoder.
        pooled: (B, P) of the CLIP encoder.
    """

    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Flow:
    """A FLUX control pipeline, taken apart for training.

    Attributes:
        pipeline: a FluxControlPipeline; its parts stay where they are and what they are.
        guidance_scale: what the transformer is told where it has an embedding for it, as in sampling.
        max_sequence_length: tokens of the T5 encoder, as in sampling.
    """

    # diffusers declares neither the parts of a pipeline nor the methods of its models.
    pipeline: Any
    guidance_scale: float = 3.5
    max_sequence_length: int = 512

    def __post_init__(self) -> None:
        if not isinstance(self.pipeline, FluxControlPipeline):
            raise ModelError(
                f"the generator is a {type(self.pipeline).__name__}; training supports FluxControlPipeline "
                "(the nano model, FLUX.1-dev and models made from it)"
            )

    @property
    def transformer(self) -> Any:
        return self.pipeline.transformer

    @property
    def factor(self) -> int:
        """Image sides are multiples of this many pixels: the VAE's factor times the 2 x 2 patch."""
        return self.pipeline.vae_scale_factor * 2

    @property
    def latent_channels(self) -> int:
        """Channels of one packed token of latents."""
        return self.pipeline.vae.config.latent_channels * 4

    @property
    def has_control(self) -> bool:
        """Whether the transformer has input channels for a control image."""
        return self.transformer.x_embedder.in_features == 2 * self.latent_channels

    def check_size(self, height: int, width: int) -> None:
        """Raises ConfigError for an image size that the pipeline would quietly change."""
        if height % self.factor or width % self.factor:
            raise ConfigError(
                f"images are {width} x {height} pixels; this model works on multiples of {self.factor}: "
                "change plan.image_size and run the pipeline again"
            )

    @torch.no_grad()
    def encode_pictures(self, pixels: np.ndarray) -> Tensor:
        """(B, L, C) packed latents of (B, H, W, 3) uint8 pictures, images and control images alike.

        The mean of the VAE's posterior: the same picture has the same latents, so they are computed once.
        What sampling would add is far below the noise that training adds.
        """
        vae = self.pipeline.vae
        values = torch.from_numpy(np.ascontiguousarray(pixels)).to(vae.device).permute(0, 3, 1, 2)
        values = values.to(vae.dtype) / 127.5 - 1
        latents = vae.encode(values).latent_dist.mode()
        latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
        return self.pipeline._pack_latents(latents, *latents.shape)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Prompts:
        """What the pipeline itself computes from B prompts."""
        tokens, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.pipeline.text_encoder.device, max_sequence_length=self.max_sequence_length
        )
        return Prompts(tokens, pooled)

    def shift(self, levels: Tensor, tokens: int) -> Tensor:
        """Noise levels moved as the sampler moves its own for images of this many tokens."""
        scheduler = self.pipeline.scheduler
        if not scheduler.config.use_dynamic_shifting:
            return scheduler.shift * levels / (1 + (scheduler.shift - 1) * levels)
        of = scheduler.config.get
        mu = calculate_shift(
            tokens,
            of("base_image_seq_len", 256),
            of("max_image_seq_len", 4096),
            of("base_shift", 0.5),
            of("max_shift", 1.15),
        )
        return scheduler.time_shift(mu, 1.0, levels)

    def levels(
        self,
        count: int,
        tokens: int,
        generator: torch.Generator,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        shifted: bool = True,
    ) -> Tensor:
        """(count,) logit-normal noise levels in (0, 1), float32 on the CPU, shifted like the sampler's."""
        drawn = torch.sigmoid(mean + std * torch.randn(count, generator=generator))
        # At 0 the shift divides by zero; 1e-4 is below the last level of any sampler.
        drawn = drawn.clamp(1e-4, 1 - 1e-4)
        return self.shift(drawn, tokens) if shifted else drawn

    def velocity(
        self,
        latents: Tensor,
        control: Tensor,
        prompts: Prompts,
        levels: Tensor,
        size: tuple[int, int],
        transformer: torch.nn.Module | None = None,
    ) -> Tensor:
        """(B, L, C) velocity that the transformer predicts, in the dtype that it computes in.

        latents, control: (B, L, C) packed; levels: (B,); size: image height and width in pixels; transformer:
        the pipeline's own, wrapped for training.
        """
        model = self.transformer
        height, width = (side // self.factor for side in size)
        # Not `model.dtype`: that may be the dtype of a LoRA, which is trained in float32.
        dtype, device = model.context_embedder.weight.dtype, latents.device
        ids = self.pipeline._prepare_latent_image_ids(len(latents), height, width, device, dtype)
        guidance = None
        if model.config.guidance_embeds:
            guidance = torch.full((len(latents),), self.guidance_scale, device=device)
        return (model if transformer is None else transformer)(
            hidden_states=torch.cat([latents, control], dim=2).to(dtype),
            timestep=levels.to(dtype),
            guidance=guidance,
            pooled_projections=prompts.pooled.to(dtype),
            encoder_hidden_states=prompts.tokens.to(dtype),
            txt_ids=torch.zeros(prompts.tokens.shape[1], 3, device=device, dtype=dtype),
            img_ids=ids,
            return_dict=False,
        )[0]


def noised(latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """(B, L, C) points on the lines from pictures to noise: levels (B,), 0 is the picture."""
    t = levels.view(-1, *[1] * (latents.ndim - 1))
    return (1 - t) * latents + t * noise


def velocity_error(velocity: Tensor, latents: Tensor, noise: Tensor) -> Tensor:
    """(B,) mean squared difference between a predicted velocity and its target, noise - latents.

    Computed in float32 or better, whatever the transformer computes in.
    """
    wide = torch.promote_types(velocity.dtype, torch.float32)
    return (velocity.to(wide) - (noise - latents).to(wide)).square().flatten(1).mean(1)

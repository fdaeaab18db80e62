"""The nano model: a FLUX control pipeline so small that a laptop trains it, in the standard diffusers layout.

It is built here with random weights and trained by `udfs.nano_training`; `udfs.generate` loads the result
as it loads FLUX.1-dev.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from udfs.pipelines import Pipe

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, T5Tokenizer

_BPE_VOCABULARY = 1200
_CAPTIONS = 4000
"""Captions of the grammar whose words the tokenizers know whole; other words are spelled."""


@dataclass(frozen=True, kw_only=True)
class NanoConfig:
    """Sizes of the model.

    Attributes:
        size: side of the pictures that it is trained for, pixels.
        vae_channels: one a level; every level but the last halves the picture.
        latent_channels: of the autoencoder; the transformer's tokens are 2 x 2 patches of them.
        layers, single_layers: double-stream and single-stream blocks of the transformer.
        heads, head_dim: its attention; head_dim is 32 or 16.
        text_dim, text_layers: of both text encoders.
        text_length: tokens a prompt is cut to, `max_sequence_length` of the pipeline.
    """

    size: int
    vae_channels: tuple[int, ...]
    latent_channels: int
    layers: int
    single_layers: int
    heads: int
    head_dim: int
    text_dim: int
    text_layers: int
    text_length: int = 64

    @property
    def vae_factor(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(self.vae_channels) - 1)

    @property
    def tokens(self) -> int:
        """Image tokens of a picture."""
        return (self.size // self.vae_factor // 2) ** 2


NANO = NanoConfig(
    size=128, vae_channels=(16, 32, 32), latent_channels=8, layers=1, single_layers=4, heads=5, head_dim=32,
    text_dim=128, text_layers=2,
)  # fmt: skip
"""What is shipped."""

NANO_192 = NanoConfig(
    size=192, vae_channels=(24, 48, 48), latent_channels=8, layers=2, single_layers=4, heads=7, head_dim=32,
    text_dim=128, text_layers=2,
)  # fmt: skip
"""The same for larger pictures: for a GPU."""

TINY = NanoConfig(
    size=32, vae_channels=(8, 8, 8), latent_channels=4, layers=1, single_layers=1, heads=2, head_dim=16,
    text_dim=16, text_layers=1,
)  # fmt: skip
"""For tests: random weights, milliseconds a picture."""

CONFIGS = {"128": NANO, "192": NANO_192, "tiny": TINY}


def build(config: NanoConfig = NANO, seed: int = 0) -> Pipe:
    """The pipeline with random weights, float32, on the CPU; the same for the same seed."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxControlPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip, t5 = clip_tokenizer(config.text_length), t5_tokenizer(config.text_length)
    levels = len(config.vae_channels)
    third = config.head_dim * 3 // 16 * 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae: Any = AutoencoderKL(
            block_out_channels=config.vae_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=config.latent_channels,
            norm_num_groups=8,
            layers_per_block=1,
            sample_size=config.size,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
            scaling_factor=1.0,
            shift_factor=0.0,
        )
        transformer: Any = FluxTransformer2DModel(
            patch_size=1,
            in_channels=8 * config.latent_channels,
            out_channels=4 * config.latent_channels,
            num_layers=config.layers,
            num_single_layers=config.single_layers,
            attention_head_dim=config.head_dim,
            num_attention_heads=config.heads,
            joint_attention_dim=config.text_dim,
            pooled_projection_dim=config.text_dim,
            guidance_embeds=False,
            axes_dims_rope=(config.head_dim - 2 * third, third, third),
        )
        heads = max(config.text_dim // 32, 1)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=config.text_dim,
                intermediate_size=2 * config.text_dim,
                num_hidden_layers=config.text_layers,
                num_attention_heads=heads,
                max_position_embeddings=config.text_length,
                projection_dim=config.text_dim,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        )
        text_encoder_2 = T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=config.text_dim,
                d_kv=config.text_dim // heads,
                d_ff=2 * config.text_dim,
                num_layers=config.text_layers,
                num_heads=heads,
                feed_forward_proj="gated-gelu",
                is_encoder_decoder=False,
                use_cache=False,
                dropout_rate=0.0,
            )
        )
        with torch.no_grad():
            # The pipeline draws the control's latents from the encoder's posterior: no width, no dice.
            head = vae.encoder.conv_out
            head.weight[config.latent_channels :] = 0
            head.bias[config.latent_channels :] = -30
    pipe: Pipe = FluxControlPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=clip,
        text_encoder_2=text_encoder_2.eval(),
        tokenizer_2=t5,
        transformer=transformer.eval(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def clip_tokenizer(length: int) -> "CLIPTokenizer":
    """Byte pairs learned from the grammar's captions."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    layout = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = layout.normalizer, layout.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # All letters are given in order: those that the trainer finds by itself come in the order of a hash.
    given = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    learner.train_from_iterator(
        prompts(),
        trainers.BpeTrainer(
            vocab_size=_BPE_VOCABULARY,
            special_tokens=given,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learned["merges"]]
    return CLIPTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=length)


def t5_tokenizer(length: int) -> "T5Tokenizer":
    """The grammar's words as one piece each, other words letter by letter."""
    from transformers import T5Tokenizer

    words = sorted({w for p in prompts() for w in re.findall(r"[^\s,.]+", p)})
    letters = ["▁", *map(chr, range(33, 127)), "é"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(letter, -12.0) for letter in letters] + [(f"▁{w}", -6.0) for w in words]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


@cache
def prompts() -> tuple[str, ...]:
    """What the tokenizers learn from: prompts of the default plan around captions of the grammar."""
    from schemas.plan import Plan
    from schemas.source import GrammarSource
    from udfs import grammar

    frame = Plan().prompt
    texts = grammar.captions(np.arange(_CAPTIONS), GrammarSource())["text"].to_pylist()
    return tuple(frame.replace("{caption}", text) for text in texts)

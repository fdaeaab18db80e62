"""Pipelines of several classes with random weights, small enough for tests, in folders as users have them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DiffusionPipeline,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from schemas.pipeline import DiffusionSettings
from udfs.generate import Diffusion
from udfs.generator import Paint
from udfs.nano_model import TINY, build, clip_tokenizer
from udfs.picture import encode
from udfs.udf import Worker

SIZE = TINY.size
KINDS = ("flux_control", "flux_controlnet", "sd_controlnet", "sdxl_controlnet")
"""Pipelines that `save_all` saves, by the functions that build them."""
LONG_PROMPT = "a man in a red shirt, " * 500
"""Longer than any encoder reads."""


def flux_control(seed: int = 0) -> DiffusionPipeline:
    return build(TINY, seed)


def flux_base(seed: int = 0) -> FluxPipeline:
    """FLUX without a control input, as FLUX.1-dev is: its transformer reads the image's latents alone."""
    whole = build(TINY, seed)
    with _seeded(seed):
        transformer = FluxTransformer2DModel.from_config(
            dict(whole.transformer.config), in_channels=4 * TINY.latent_channels, out_channels=None
        )
    parts = {**whole.components, "transformer": transformer.eval()}
    return FluxPipeline(**parts)


def flux_controlnet(seed: int = 0) -> FluxControlNetPipeline:
    base = flux_base(seed)
    with _seeded(seed):
        net = FluxControlNetModel.from_transformer(
            base.transformer, num_layers=1, num_single_layers=1, attention_head_dim=TINY.head_dim,
            num_attention_heads=TINY.heads, load_weights_from_transformer=False,
        )  # fmt: skip
        _wake(net)
    parts = {k: v for k, v in base.components.items() if v is not None}
    return FluxControlNetPipeline(**parts, controlnet=net.eval())


def sd_controlnet(seed: int = 0) -> StableDiffusionControlNetPipeline:
    with _seeded(seed):
        tokenizer = clip_tokenizer(32)
        unet = _unet(16)
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
        _wake(net)
        return StableDiffusionControlNetPipeline(
            vae=_vae(),
            text_encoder=_clip(CLIPTextModel, tokenizer),
            tokenizer=tokenizer,
            unet=unet,
            controlnet=net.eval(),
            scheduler=DDIMScheduler(clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def sdxl_controlnet(seed: int = 0) -> StableDiffusionXLControlNetPipeline:
    with _seeded(seed):
        tokenizer = clip_tokenizer(32)
        unet = _unet(
            32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
        )
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
        _wake(net)
        return StableDiffusionXLControlNetPipeline(
            vae=_vae(),
            text_encoder=_clip(CLIPTextModel, tokenizer),
            text_encoder_2=_clip(CLIPTextModelWithProjection, tokenizer),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=unet,
            controlnet=net.eval(),
            scheduler=DDIMScheduler(clip_sample=False),
        )


def save(pipe: DiffusionPipeline, folder: Path) -> Path:
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_lora(
    pipe: DiffusionPipeline, folder: Path, seed: int, rank: int = 4, alpha: int = 16, **more
) -> Path:
    """A LoRA of random weights on the denoiser's attention; alpha differs from rank as it may."""
    part = "transformer" if hasattr(pipe, "transformer") else "unet"
    denoiser = getattr(pipe, part)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["to_q", "to_v", *more.get("targets", ())],
                        init_lora_weights=False, rank_pattern=more.get("ranks", {}))  # fmt: skip
    with _seeded(seed):
        denoiser.add_adapter(config, adapter_name="made")
        layers = get_peft_model_state_dict(denoiser, adapter_name="made")
        layers = {k: torch.randn_like(v) * more.get("strength", 0.5) for k, v in layers.items()}
    facts = {
        k: sorted(v) if isinstance(v, set) else v for k, v in denoiser.peft_config["made"].to_dict().items()
    }
    type(pipe).save_lora_weights(
        folder, **{f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": facts}
    )
    denoiser.delete_adapters("made")
    return folder


class Folder:
    """The lake's files, in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        if path not in self.data:
            raise FileNotFoundError(path)
        return self.data[path]

    def write(self, path: str, data: bytes) -> None:
        self.data[path] = data

    def create(self, path: str, data: bytes) -> bool:
        return self.data.setdefault(path, data) is data


def save_all(root: Path) -> dict[str, Path]:
    """Saved pipelines by kind."""
    return {kind: save(globals()[kind](), root / kind) for kind in KINDS}


def generator_of(folder: Path, **settings: object) -> Diffusion:
    return Diffusion(settings=DiffusionSettings(model=str(folder), **{"steps": 2, **settings}))


def painter(folder: Path, files: "Folder", **settings: object) -> Paint:
    """What paints rows with the pipeline in a folder, on the CPU."""
    return generator_of(folder, **settings).load(Worker("cpu", files))


def furthest(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference of two arrays of pixels."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def with_columns(rows: pa.Table, **columns: object) -> pa.Table:
    """The rows with other values: a list, or one for all."""
    for name, value in columns.items():
        values = value if isinstance(value, list) else [value] * rows.num_rows
        rows = rows.set_column(
            rows.column_names.index(name), name, pa.array(values, rows.schema.field(name).type)
        )
    return rows


def sample_rows(files: Folder, n: int, size: int = SIZE, prompts: list[str] | None = None) -> pa.Table:
    """Columns that a diffusion generator reads, with control images of coloured boxes in `files`."""
    rng = np.random.default_rng(0)
    paths, digests = [], []
    for i in range(n):
        picture = np.zeros((size, size, 3), np.uint8)
        top, left = rng.integers(0, size // 2, 2)
        picture[top : top + size // 2, left : left + size // 2] = rng.integers(64, 256, 3)
        data = encode(picture, "png")
        paths.append(f"controls/{i}.png")
        digests.append(hashlib.sha256(data).hexdigest())
        files.write(paths[-1], data)
    return pa.table(
        {
            "sample_id": np.arange(n, dtype=np.int64),
            "seed": np.arange(n, dtype=np.int64) + 1000,
            "prompt": prompts or [f"a person in a red shirt, number {i}" for i in range(n)],
            "image_height": np.full(n, size, np.int32),
            "image_width": np.full(n, size, np.int32),
            "control_path": paths,
            "control_sha256": digests,
        }
    )


class _seeded:
    """Leaves torch's own random numbers as they were."""

    def __init__(self, seed: int) -> None:
        self.seed, self.fork = seed, torch.random.fork_rng(devices=[])

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *error: object) -> None:
        self.fork.__exit__(*error)


def _wake(net: torch.nn.Module) -> None:
    """A new ControlNet has zeros where it joins the denoiser: it would do nothing."""
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        mid_block_add_attention=False,
    ).eval()


def _unet(cross: int, **more: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=cross,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    ).eval()


def _clip(kind: type, tokenizer: object) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def change(file: Path, **values: object) -> None:
    """Writes these values into a JSON file of a pipeline folder."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))

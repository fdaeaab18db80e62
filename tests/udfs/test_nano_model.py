"""The nano model: a standard pipeline folder, the same for the same seed."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxControlPipeline
from PIL import Image

from udfs.nano_model import NANO, TINY, build, clip_tokenizer, prompts, t5_tokenizer
from udfs.pipelines import NANO as FOLDER

MEGABYTES = 20


def paint(pipe: FluxControlPipeline, seeds: list[int]) -> np.ndarray:
    control = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    return pipe(
        ["a man in a red shirt"] * len(seeds),
        control_image=[control] * len(seeds),
        height=32,
        width=32,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(s) for s in seeds],
        max_sequence_length=TINY.text_length,
        output_type="np",
    ).images


def test_same_seed_same_weights():
    one, same, other = (build(TINY, seed).transformer.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["proj_out.weight"], other["proj_out.weight"])


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build(TINY)
    assert torch.equal(torch.rand(1), expected)


def test_saved_and_loaded_it_paints_the_same(tmp_path):
    pipe = build(TINY)
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded, FluxControlPipeline)
    assert np.array_equal(paint(pipe, [0, 1]), paint(loaded, [0, 1]))
    assert loaded.tokenizer(prompts()[0]).input_ids == pipe.tokenizer(prompts()[0]).input_ids
    assert loaded.tokenizer_2(prompts()[0]).input_ids == pipe.tokenizer_2(prompts()[0]).input_ids


def test_the_control_image_is_encoded_without_dice():
    vae = build(TINY).vae
    seen = vae.encode(torch.rand(1, 3, 32, 32)).latent_dist
    drawn = [seen.sample(torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert torch.allclose(drawn[0], drawn[1], atol=1e-6)
    assert seen.mode().std() > 1e-3


@pytest.mark.parametrize("make", [clip_tokenizer, t5_tokenizer])
def test_captions_fit_and_words_stay_whole(make):
    tokenizer = make(NANO.text_length)
    lengths = [len(tokenizer(p).input_ids) for p in prompts()[:500]]
    assert max(lengths) <= NANO.text_length
    words = tokenizer.convert_ids_to_tokens(tokenizer("turquoise navy sweatpants").input_ids)
    assert {w.strip("▁").removesuffix("</w>") for w in words} >= {"navy", "sweatpants"}


@pytest.mark.parametrize("make", [clip_tokenizer, t5_tokenizer])
def test_any_text_can_be_read(make):
    tokenizer = make(NANO.text_length)
    for text in ("", "Ein Mädchen läuft", "女の子", "\n\t🙂"):
        assert len(tokenizer(text).input_ids) >= 1


def test_every_size_of_the_configuration_is_used():
    pipe = build(NANO)
    assert pipe.transformer.config.in_channels == 8 * NANO.latent_channels
    assert pipe.vae_scale_factor == NANO.vae_factor == 4
    assert NANO.tokens == 256


def test_what_is_shipped_is_this_model_and_small():
    shipped = DiffusionPipeline.from_pretrained(FOLDER, local_files_only=True, use_safetensors=True)
    built = build(NANO)
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        shapes = [{k: v.shape for k, v in getattr(p, part).state_dict().items()} for p in (shipped, built)]
        assert shapes[0] == shapes[1], part
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < MEGABYTES * 2**20
    assert not [f for f in FOLDER.rglob("*") if f.suffix in {".bin", ".pt", ".ckpt", ".pkl", ".py"}]

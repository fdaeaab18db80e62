"""The nano model's training: it runs from renders to a pipeline folder, and resumes exactly."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from udfs import checkpoint
from udfs.body import Body
from udfs.keypoint_training import training_poses
from udfs.nano_recipes import RECIPES
from udfs.nano_renders import make_pairs
from udfs.nano_training import sample, train
from udfs.shaded import Model

RECIPE = dataclasses.replace(RECIPES["tiny"], renders=12)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(Body.load(None))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Out and work folder of an undisturbed training."""
    folder = tmp_path_factory.mktemp("nano")
    train(RECIPE, folder / "out", folder / "work", "cpu", every=2)
    return folder / "out", folder / "work"


def weights(folder) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.safetensors"))}


def test_what_is_saved_is_a_pipeline_that_paints(trained, model, tmp_path):
    out, _ = trained
    pipe = DiffusionPipeline.from_pretrained(
        out, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    pipe.set_progress_bar_config(disable=True)
    pairs = make_pairs(model, training_poses, 3, 5, 32, tmp_path)
    painted = sample(pipe, pairs.controls, pairs.prompts, 2)
    assert painted.shape == (3, 32, 32, 3)
    assert painted.std() > 0
    assert json.loads((out / "training.json").read_text())["recipe"]["seed"] == RECIPE.seed


def test_text_encoders_stay_as_they_were_taught(trained):
    out, work = trained
    taught = load_file(work / "text.safetensors")
    for part in ("text_encoder", "text_encoder_2"):
        saved = load_file(out / part / "model.safetensors")
        assert saved
        for name, value in saved.items():
            assert torch.equal(value, taught[f"weights/{part}.{name}"].half()), name


def test_the_decoder_goes_on_and_leaves_the_encoder_alone(trained):
    out, work = trained
    saved = load_file(out / "vae" / "diffusion_pytorch_model.safetensors")
    before, after = (load_file(work / f"{name}.safetensors") for name in ("vae", "decoder"))
    for name, value in saved.items():
        part, _, rest = name.partition(".")
        learnt = before[f"weights/{name}"] if part == "encoder" else after[f"weights/{rest}"]
        assert torch.equal(value, learnt.half()), name
    assert not torch.equal(before["weights/decoder.conv_in.weight"], after["weights/conv_in.weight"])


def test_loss_and_grids_are_written_as_it_goes(trained):
    _, work = trained
    for part, name in (("vae", "psnr"), ("decoder", "psnr"), ("transformer", "median_oks")):
        rows = [json.loads(line) for line in (work / part / "log.jsonl").read_text().splitlines()]
        assert any(name in row for row in rows), part
        assert any("loss" in row for row in rows), part
    assert sorted(p.name for p in work.glob("grid-*.png")) == [f"grid-{step:06d}.png" for step in (2, 4, 6)]


def test_a_killed_training_resumes_exactly(trained, tmp_path, monkeypatch):
    save, calls = checkpoint.save, []

    def dies(path, step, *rest):
        save(path, step, *rest)
        calls.append((path.name, step))
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", dies)
    for _ in range(4):  # in the autoencoder, its decoder, the text encoders, the transformer
        with pytest.raises(KeyboardInterrupt):
            train(RECIPE, tmp_path / "out", tmp_path / "work", "cpu", every=2)
    train(RECIPE, tmp_path / "out", tmp_path / "work", "cpu", every=2)
    assert [step for _, step in calls] == [2, 4, 2, 4, 2, 4, 2, 4, 6]
    assert weights(tmp_path / "out") == weights(trained[0])


def test_renders_resume_and_repeat(model, tmp_path):
    whole = make_pairs(model, training_poses, 300, 5, 16, tmp_path / "a")
    first = np.array(whole.pictures), np.array(whole.controls), list(whole.prompts)
    (tmp_path / "a" / "captions-256.json").unlink()
    np.load(tmp_path / "a" / "pictures.npy", mmap_mode="r+")[256:] = 0
    again = make_pairs(model, training_poses, 300, 5, 16, tmp_path / "a")
    assert np.array_equal(again.pictures, first[0])
    assert np.array_equal(again.controls, first[1])
    assert list(again.prompts) == first[2]
    assert 0 < (first[1] > 0).any(-1).mean() < 0.6

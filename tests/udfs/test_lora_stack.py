"""Stacked LoRAs: each acts, with its weight; what fits in part or not at all is refused, naming keys."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FluxControlPipeline
from safetensors.torch import load_file, save_file

from schemas.errors import ModelError
from schemas.pipeline import AdapterSettings, DiffusionSettings
from tests import tiny_pipelines
from tests.tiny_pipelines import Folder, sample_rows, save, save_lora
from udfs.generate import Diffusion
from udfs.lora_stack import USUAL_NAME
from udfs.nano_model import TINY, build
from udfs.udf import Worker


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A FLUX control pipeline, an SD ControlNet pipeline and two LoRAs for each, in folders."""
    root = tmp_path_factory.mktemp("loras")
    for kind in ("flux_control", "sd_controlnet"):
        pipe = getattr(tiny_pipelines, kind)()
        save_lora(pipe, root / f"{kind}-a", seed=1)
        save_lora(pipe, root / f"{kind}-b", seed=2, rank=2, alpha=1)
        save(getattr(tiny_pipelines, kind)(), root / kind)
    return root


def _settings(model, *adapters, **more) -> Diffusion:
    stacked = tuple(AdapterSettings(path=str(path), weight=weight) for path, weight in adapters)
    return Diffusion(settings=DiffusionSettings(model=str(model), steps=2, adapters=stacked, **more))


def _painter(model, *adapters, **more):
    files = Folder()
    paint = _settings(model, *adapters, **more).load(Worker("cpu", files))
    rows = sample_rows(files, 2)
    return paint, lambda: paint(rows).pixels.astype(int)


def _image(model, *adapters, **more) -> np.ndarray:
    return _painter(model, *adapters, **more)[1]()


@pytest.mark.parametrize("kind", ["flux_control", "sd_controlnet"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_of_two_adapters_acts_with_its_weight(made, kind, dtype):
    model, a, b = (made / name for name in (kind, f"{kind}-a", f"{kind}-b"))
    images = {
        "none": _image(model, dtype=dtype),
        "a": _image(model, (a, 1.0), dtype=dtype),
        "b": _image(model, (b, 1.0), dtype=dtype),
        "both": _image(model, (a, 1.0), (b, 1.0), dtype=dtype),
        "half of b": _image(model, (a, 1.0), (b, 0.5), dtype=dtype),
    }
    names = list(images)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert np.abs(images[one] - images[other]).max() > 1, (one, other)
    if dtype == "float32":
        order = _image(model, (b, 1.0), (a, 1.0))
        assert np.abs(order - images["both"]).max() <= 1, "their order is nothing but rounding"
        assert np.abs(_image(model, (a, 0.0)) - images["none"]).max() <= 1


def test_the_stack_is_the_sum_of_its_matrices(made, tmp_path):
    """Against a pipeline whose weights were changed by hand, alpha by rank included."""
    pipe = build(TINY)
    weights = dict(pipe.transformer.named_parameters())
    for name, weight, rank, alpha in (("a", 0.7, 4, 16), ("b", 1.3, 2, 1)):
        tensors = load_file(made / f"flux_control-{name}" / USUAL_NAME)
        for key in [k for k in tensors if ".lora_A." in k]:
            down, up = tensors[key], tensors[key.replace("lora_A", "lora_B")]
            module = key.removeprefix("transformer.").partition(".lora_A")[0]
            weights[f"{module}.weight"].data += weight * alpha / rank * up @ down
    by_hand = _image(save(pipe, tmp_path / "by_hand"))
    stacked = _image(made / "flux_control", (made / "flux_control-a", 0.7), (made / "flux_control-b", 1.3))
    assert np.abs(stacked - by_hand).max() <= 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_left_to_train(made, dtype):
    paint, _ = _painter(made / "flux_control", (made / "flux_control-a", 1.0), dtype=dtype)
    assert not any(p.requires_grad for p in paint.pipe.transformer.parameters())
    apart = [n for n, _ in paint.pipe.transformer.named_parameters() if "lora" in n]
    assert bool(apart) == (dtype == "bfloat16"), "in half precision a small adapter would drown in rounding"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A FLUX without control channels, and a control LoRA that widens its input layer."""
    root = tmp_path_factory.mktemp("control")
    pipe = tiny_pipelines.flux_base()
    save_lora(pipe, root / "style", seed=5)
    save(tiny_pipelines.flux_base(), root / "base")
    layers = load_file(save_lora(pipe, root / "scratch", seed=6) / USUAL_NAME)
    width, inputs = TINY.heads * TINY.head_dim, 8 * TINY.latent_channels
    generator = torch.Generator().manual_seed(0)
    layers["transformer.x_embedder.lora_A.weight"] = torch.randn(4, inputs, generator=generator)
    layers["transformer.x_embedder.lora_B.weight"] = torch.randn(width, 4, generator=generator)
    FluxControlPipeline.save_lora_weights(
        root / "lora", {k.removeprefix("transformer."): v for k, v in layers.items()}
    )
    return root


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_control_lora_gives_a_base_its_control_input(base, dtype):
    more = {"pipeline": "FluxControlPipeline", "dtype": dtype}
    files = Folder()
    rows = sample_rows(files, 2)
    paint = _settings(base / "base", (base / "lora", 1.0), **more).load(Worker("cpu", files))
    image = paint(rows).pixels.astype(int)
    swapped = rows
    for name in ("control_path", "control_sha256"):
        at = rows.column_names.index(name)
        swapped = swapped.set_column(at, name, rows[name].take([1, 0]))
    assert np.abs(paint(swapped).pixels - image).max() > 1, "it follows the control image"
    both = _image(base / "base", (base / "lora", 1.0), (base / "style", 1.0), **more)
    assert np.abs(both - image).max() > 1
    order = _image(base / "base", (base / "style", 1.0), (base / "lora", 1.0), **more)
    assert np.abs(order - both).max() <= (1 if dtype == "float32" else 255)
    assert np.abs(order - image).max() > 1


def _spoiled(made, tmp_path, change):
    folder = shutil.copytree(made / "flux_control-a", tmp_path / "lora")
    tensors = load_file(folder / USUAL_NAME)
    save_file(change(tensors), folder / USUAL_NAME)
    return folder


def test_a_lora_for_another_architecture_is_refused_before_the_work(made, tmp_path):
    other = save_lora(build(replace(TINY, heads=TINY.heads * 2)), tmp_path / "wide", seed=0)
    said = r"another architecture than this transformer: \S*to_q.lora_A.weight \(\d+ inputs, not \d+\)"
    with pytest.raises(ModelError, match=said):
        _settings(made / "flux_control", (other, 1.0)).models()
    deeper = save_lora(build(replace(TINY, single_layers=3)), tmp_path / "deep", seed=0)
    with pytest.raises(ModelError, match=r"single_transformer_blocks\.\S* \(no such layer\)"):
        _settings(made / "flux_control", (deeper, 1.0)).models()


@pytest.mark.parametrize("lora", ["flux_control-a", "sd_controlnet-a"])
def test_a_lora_for_another_pipeline_is_refused(made, lora):
    model = "sd_controlnet" if lora.startswith("flux") else "flux_control"
    with pytest.raises(ModelError, match=rf"{lora}.*(keys begins with|another|no LoRA)"):
        _painter(made / model, (made / lora, 1.0))


def test_keys_that_diffusers_would_pass_over_are_refused(made, tmp_path):
    folder = _spoiled(made, tmp_path, lambda t: {k.removeprefix("transformer."): v for k, v in t.items()})
    with pytest.raises(ModelError, match=r"none of its keys begins with transformer\..*to_q"):
        _painter(made / "flux_control", (folder, 1.0))


def test_a_lora_that_fits_in_part_is_refused(made, tmp_path):
    folder = _spoiled(
        made,
        tmp_path,
        lambda t: t | {k.replace("to_q", "to_z"): v.clone() for k, v in t.items() if "to_q" in k},
    )
    with pytest.raises(ModelError, match=r"to_z\.lora_A\.weight \(no such layer\)"):
        _painter(made / "flux_control", (folder, 1.0))


@pytest.mark.parametrize("lost", ["lora_A", "lora_B"])
def test_a_lora_without_one_of_its_matrices_is_refused_before_the_work(made, tmp_path, lost):
    """peft would start the lost one at random, as it does before a training."""

    def without_one(tensors):
        key = min(k for k in tensors if lost in k)
        return {k: v for k, v in tensors.items() if k != key}

    folder = _spoiled(made, tmp_path, without_one)
    other = "lora_B" if lost == "lora_A" else "lora_A"
    with pytest.raises(ModelError, match=rf"no whole LoRA, .* beside \S+\.{other}\.weight; fetch"):
        _settings(made / "flux_control", (folder, 1.0)).models()


@pytest.mark.parametrize("shape", [(), (4,)])
def test_halves_that_are_no_matrices_are_refused_before_the_work(made, tmp_path, shape):
    folder = _spoiled(made, tmp_path, lambda t: t | {min(t): torch.ones(shape)})
    with pytest.raises(ModelError, match=r"is no LoRA: not a matrix, .*: \S+\.lora_A\.weight"):
        _settings(made / "flux_control", (folder, 1.0)).models()


def test_numbers_that_are_none_are_refused(made, tmp_path):
    folder = _spoiled(made, tmp_path, lambda t: t | {min(t): t[min(t)] / 0})
    with pytest.raises(ModelError, match=r"infinite or none \(NaN\): \S+\.lora_A\.weight"):
        _painter(made / "flux_control", (folder, 1.0))


@pytest.mark.parametrize(
    ("facts", "said"),
    [('{"transformer.r": 4, "transformer.of_a_newer_peft": 1}', "of_a_newer_peft"), ("[1]", "'list'")],
)
def test_metadata_that_peft_does_not_take_is_said_of_the_file(made, tmp_path, facts, said):
    folder = shutil.copytree(made / "flux_control-a", tmp_path / "lora")
    save_file(load_file(folder / USUAL_NAME), folder / USUAL_NAME, metadata={"lora_adapter_metadata": facts})
    with pytest.raises(ModelError, match=rf"lora/{USUAL_NAME}: .*{said}"):
        _painter(made / "flux_control", (folder, 1.0))


def test_an_adapter_may_be_called_anything(made):
    """Also what a torch module calls something of its own."""
    named = AdapterSettings(path=str(made / "flux_control-a"), name="train")
    settings = DiffusionSettings(model=str(made / "flux_control"), adapters=(named,))
    Diffusion(settings=settings).load(Worker("cpu", Folder()))


def test_tensors_that_are_no_lora_are_refused(made, tmp_path):
    folder = _spoiled(made, tmp_path, lambda t: {"transformer.x_embedder.weight": torch.ones(2, 2)})
    with pytest.raises(ModelError, match="pytorch_lora_weights"):
        _painter(made / "flux_control", (folder, 1.0))


def test_pickles_and_damaged_files_are_refused(made, tmp_path):
    pickle = tmp_path / "lora.bin"
    pickle.write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="is a pickle"):
        _settings(made / "flux_control", (pickle, 1.0)).models()
    with pytest.raises(ModelError, match="pickle only"):
        _settings(made / "flux_control", (tmp_path, 1.0)).models()
    folder = shutil.copytree(made / "flux_control-a", tmp_path / "cut")
    data = (folder / USUAL_NAME).read_bytes()
    (folder / USUAL_NAME).write_bytes(data[:-10])
    with pytest.raises(ModelError, match="cut off; fetch it again"):
        _settings(made / "flux_control", (folder, 1.0)).models()
    with pytest.raises(ModelError, match="no such LoRA file or folder"):
        _settings(made / "flux_control", (tmp_path / "none", 1.0)).models()


def test_one_of_several_files_has_to_be_named(made, tmp_path):
    for name in ("x", "y"):
        shutil.copy(made / "flux_control-a" / USUAL_NAME, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"several files \(x.safetensors, y.safetensors.*weight_name"):
        _settings(made / "flux_control", (tmp_path, 1.0)).models()
    named = AdapterSettings(path=str(tmp_path), weight_name="y.safetensors")
    settings = DiffusionSettings(model=str(made / "flux_control"), adapters=(named,))
    assert "adapter_0" in Diffusion(settings=settings).models()
    file = AdapterSettings(path=str(tmp_path / "x.safetensors"), weight_name="y.safetensors")
    with pytest.raises(ModelError, match=r"is a file, so weight_name y\.safetensors does nothing"):
        Diffusion(settings=settings.model_copy(update={"adapters": (file,)})).models()


def test_the_packaged_adapter_is_found_by_its_name(made, monkeypatch, tmp_path):
    monkeypatch.setattr("udfs.lora_stack.NANO_DPO", made / "flux_control-a")
    packaged = Diffusion(
        settings=DiffusionSettings(
            model=str(made / "flux_control"), adapters=(AdapterSettings(path="nano-dpo"),), steps=2
        )
    )
    assert packaged.models() == _settings(made / "flux_control", (made / "flux_control-a", 1.0)).models()
    monkeypatch.setattr("udfs.lora_stack.NANO_DPO", tmp_path / "nano_dpo")
    with pytest.raises(ModelError, match="nano_dpo: no such LoRA"):
        packaged.models()


def test_the_format_of_other_trainers_is_read_whole(made, tmp_path):
    """kohya's names, as most adapters on the web have them; alpha is a tensor there."""

    def foreign(tensors):
        out = {}
        for key, tensor in tensors.items():
            module, _, which = key.removeprefix("unet.").partition(".lora_")
            name = "lora_unet_" + module.replace(".", "_")
            out[f"{name}.lora_{'down' if which.startswith('A') else 'up'}.weight"] = tensor
            out[f"{name}.alpha"] = torch.tensor(16.0)
        return out

    own = made / "sd_controlnet-a"
    folder = shutil.copytree(own, tmp_path / "kohya")
    save_file(foreign(load_file(own / USUAL_NAME)), folder / USUAL_NAME)
    image = _image(made / "sd_controlnet", (folder, 1.0))
    assert np.abs(image - _image(made / "sd_controlnet", (own, 1.0))).max() <= 1
    tensors = load_file(folder / USUAL_NAME)
    more = {k.replace("to_q", "to_z"): v.clone() for k, v in tensors.items() if "to_q" in k}
    save_file(tensors | more, folder / USUAL_NAME)
    with pytest.raises(ModelError, match=r"kohya.*: \S*to\.z\.lora\.down\.weight"):
        _painter(made / "sd_controlnet", (folder, 1.0))


def test_a_lora_for_denoiser_and_text_encoder_acts_on_both(made, tmp_path):
    own = made / "sd_controlnet-a"
    tensors = load_file(own / USUAL_NAME)
    names = [
        n for n, _ in tiny_pipelines.sd_controlnet().text_encoder.named_modules() if n.endswith("q_proj")
    ]
    generator = torch.Generator().manual_seed(3)
    for name in names:
        tensors[f"text_encoder.{name}.lora_A.weight"] = torch.randn(4, 16, generator=generator)
        tensors[f"text_encoder.{name}.lora_B.weight"] = torch.randn(16, 4, generator=generator)
    save_file(tensors, tmp_path / "both.safetensors")
    without = {k: v for k, v in tensors.items() if k.startswith("unet.")}
    save_file(without, tmp_path / "unet.safetensors")
    both = _image(made / "sd_controlnet", (tmp_path / "both.safetensors", 1.0))
    assert np.abs(both - _image(made / "sd_controlnet", (tmp_path / "unet.safetensors", 1.0))).max() > 1


def test_scales_that_diffusers_would_leave_out_are_refused(made, tmp_path):
    folder = _spoiled(made, tmp_path, lambda t: t | {"transformer.x.dora_scale": torch.ones(2)})
    with pytest.raises(ModelError, match="is a DoRA"):
        _settings(made / "flux_control", (folder, 1.0)).models()

"""ControlNets of the diffusion generator: from folders of their own, compared with their base beforehand."""

import shutil

import pytest

from schemas.errors import ModelError
from tests import tiny_pipelines
from tests.tiny_pipelines import (
    change,
    furthest,
    generator_of,
    painter,
    sample_rows,
)
from udfs.udf import Worker


def test_a_controlnet_from_a_folder_of_its_own(folders, files, tmp_path):
    whole = folders["flux_controlnet"]
    base = tiny_pipelines.save(tiny_pipelines.flux_base(), tmp_path / "base")
    with pytest.raises(ModelError, match="without a control image"):
        generator_of(base).check()
    generator = generator_of(base, controlnet=str(whole / "controlnet"))
    rows = sample_rows(files, 2)
    generator.check()
    made = generator.load(Worker("cpu", files))(rows)
    assert furthest(made.pixels, painter(whole, files)(rows).pixels) <= 1
    with pytest.raises(ModelError, match=r"is no ControlNet: .* the class AutoencoderKL"):
        painter(base, files, controlnet=str(whole / "vae"))


@pytest.mark.parametrize(
    ("kind", "net", "config", "said"),
    [
        (
            "sd_controlnet",
            "sdxl_controlnet/controlnet",
            {},
            "another base .* cross_attention_dim is 32, .* 16",
        ),
        (
            "sd_controlnet",
            "sdxl_controlnet/controlnet",
            {"cross_attention_dim": 16},
            "addition_embed_type is text_time, that of the unet is None",
        ),
        ("sd_controlnet", "flux_controlnet/controlnet", {}, "is a FluxControlNetModel; .* a ControlNetModel"),
        ("flux_controlnet", "sd_controlnet/controlnet", {}, "is a ControlNetModel; .* a FluxControlNetModel"),
        ("flux_controlnet", "flux_controlnet/controlnet", {"joint_attention_dim": 5}, "another base .* is 5"),
        ("flux_controlnet", "flux_controlnet/controlnet", {"num_mode": 7}, "several modes"),
        ("sdxl_controlnet", "sdxl_controlnet/controlnet", {"_class_name": "ControlNetUnionModel"}, "several"),
        ("sd_controlnet", "sd_controlnet/unet", {}, "is no ControlNet: .* the class UNet2DConditionModel"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_controlnet_for_another_base_is_refused_before_the_work(
    folders, tmp_path, kind, net, config, said, own
):
    """The pipeline's own as one that is added to it."""
    root = folders[kind].parent
    base = shutil.copytree(root / kind, tmp_path / "base")
    shutil.rmtree(base / "controlnet")
    place = shutil.copytree(root / net, base / "controlnet" if own else tmp_path / "net")
    change(place / "config.json", **config)
    with pytest.raises(ModelError, match=said):
        generator_of(base, **({} if own else {"controlnet": str(place)})).check()


def test_a_controlnet_that_is_not_there_is_said_before_the_work(folders, tmp_path):
    base = shutil.copytree(folders["flux_controlnet"], tmp_path / "base")
    weights = base / "controlnet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ModelError, match=r"\.safetensors: is a file; a ControlNet is a folder"):
        generator_of(base, controlnet=str(weights)).check()
    change(base / "model_index.json", controlnet=["diffusers", "FluxMultiControlNetModel"])
    with pytest.raises(ModelError, match="has several ControlNets"):
        generator_of(base).check()
    change(base / "model_index.json", controlnet=[None, None])
    with pytest.raises(ModelError, match="has no ControlNet, which FluxControlNetPipeline paints with"):
        generator_of(base).check()


def test_a_pipeline_that_reads_the_control_image_itself_takes_no_controlnet(folders):
    net = str(folders["flux_controlnet"] / "controlnet")
    with pytest.raises(ModelError, match=r"takes no ControlNet .*\(pipeline: FluxPipeline\)"):
        generator_of(folders["flux_control"], controlnet=net).check()


def test_what_holds_anyway_is_no_other_setting_for_being_written_down(folders):
    def parameters(**settings):
        return generator_of(folders["flux_controlnet"], **settings).parameters()

    assert parameters(conditioning_scale=1.0, pipeline="FluxControlNetPipeline") == parameters()
    assert parameters(conditioning_scale=0.9) != parameters()

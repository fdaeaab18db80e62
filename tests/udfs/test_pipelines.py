"""Pipeline folders: what is no pipeline is refused in a sentence, before anything of it is loaded."""

import json
import re
import shutil
from fnmatch import fnmatch

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.errors import ModelError
from tests import tiny_pipelines
from udfs import pipelines
from udfs.model_files import tensor_shapes
from udfs.pipelines import (
    PipelineFolder,
    control_argument,
    load_controlnet,
    pipeline_class,
    with_controlnet,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return tiny_pipelines.save(tiny_pipelines.sd_controlnet(), tmp_path_factory.mktemp("good") / "sd")


@pytest.fixture
def folder(good, tmp_path):
    """A copy of a pipeline that a test may spoil."""
    return shutil.copytree(good, tmp_path / "model")


def _index(folder, **changes):
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _weights(folder, part="unet"):
    return folder / part / "diffusion_pytorch_model.safetensors"


def _no_index(folder):
    (folder / "model_index.json").unlink()


def _broken_index(folder):
    (folder / "model_index.json").write_text('{"_class_name": "Stable')


def _no_class(folder):
    (folder / "model_index.json").write_text("{}")


def _own_code(folder):
    _index(folder, _class_name=["pipeline", "MyPipeline"])


def _code_beside(folder):
    (folder / "unet" / "my_unet.py").write_text("raise SystemExit")


def _other_library(folder):
    _index(folder, vae=["subprocess", "Popen"])


def _pickle(folder):
    _weights(folder).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _no_weights(folder):
    _weights(folder).unlink()


def _cut(folder):
    data = _weights(folder).read_bytes()
    _weights(folder).write_bytes(data[: len(data) // 2])


def _longer(folder):
    _weights(folder).write_bytes(_weights(folder).read_bytes() + bytes(64))


def _corrupt(folder):
    _weights(folder).write_bytes(b"\x80\x04\x95" + bytes(4000))


def _no_component(folder):
    shutil.rmtree(folder / "vae")


def _no_shard(folder):
    _weights(folder).with_suffix(".safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "diffusion_pytorch_model-00002-of-00002.safetensors"}})
    )


def _code_below(folder):
    (folder / "unet" / "deep").mkdir()
    (folder / "unet" / "deep" / "my_unet.py").write_text("raise SystemExit")


def _any_model(folder):
    _index(folder, vae=["diffusers", "AutoModel"])


def _any_tokenizer(folder):
    _index(folder, tokenizer=["transformers", "AutoTokenizer"])


def _any_pipeline(folder):
    _index(folder, vae=["diffusers", "DiffusionPipeline"])


def _list_of_shards(folder):
    _weights(folder).with_suffix(".safetensors.index.json").write_text('{"weight_map": ["a"]}')


def _shards_of_lists(folder):
    _weights(folder).with_suffix(".safetensors.index.json").write_text('{"weight_map": {"a": ["b"]}}')


def _nested_header(folder):
    header = b"[" * 200_000
    _weights(folder).write_bytes(len(header).to_bytes(8, "little") + header)


def _nested_index(folder):
    (folder / "model_index.json").write_text('{"a": ' + "[" * 200_000)


def _no_vocabulary(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()


def _vocabulary_without_merges(folder):
    _no_vocabulary(folder)
    (folder / "tokenizer" / "vocab.json").write_text("{}")


def _other_weights(folder):
    config = folder / "text_encoder" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"transformers_weights": "b.v2.safetensors"})
    )


def _adapter_alone(folder):
    config = folder / "text_encoder" / "config.json"
    config.rename(config.with_name("adapter_config.json"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_index, r"no diffusers pipeline: it has no model_index\.json"),
        (_broken_index, r"model_index\.json: cannot be read"),
        (_no_class, "names no class"),
        (_own_code, "Python code of its own"),
        (_code_beside, r"Python code \(unet/my_unet\.py\)"),
        (_other_library, "its vae comes from subprocess"),
        (_pickle, r"weights as a pickle only \(diffusion_pytorch_model\.bin\)"),
        (_no_weights, "has no weights"),
        (_cut, r"no intact safetensors file.*cut off"),
        (_longer, "no intact safetensors file: 64 bytes follow its last tensor"),
        (_corrupt, "no intact safetensors file"),
        (_no_component, "vae: the folder is missing"),
        (_code_below, r"Python code \((unet/)?deep/my_unet\.py\)"),
        (_any_model, "its vae is a AutoModel"),
        (_any_tokenizer, "its tokenizer is a AutoTokenizer"),
        (_any_pipeline, "its vae is a DiffusionPipeline"),
        (_list_of_shards, "its weight_map is no object"),
        (_shards_of_lists, "its weight_map is no object"),
        (_nested_header, "no intact safetensors file"),
        (_nested_index, r"model_index\.json: cannot be read"),
        (_no_vocabulary, "tokenizer: has no vocabulary of a CLIPTokenizer"),
        (_vocabulary_without_merges, "tokenizer: has no vocabulary"),
        (_other_weights, r"text_encoder/config\.json: names a file of its own"),
        (_adapter_alone, r"text_encoder: has no config\.json of a CLIPTextModel"),
        (_no_shard, "00002-of-00002.safetensors is missing"),
    ],
)
def test_a_folder_that_is_no_pipeline_is_refused(folder, spoil, said):
    spoil(folder)
    with pytest.raises(ModelError, match=said) as error:
        PipelineFolder.find(str(folder))
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae", "controlnet"])
def test_a_network_without_one_of_its_weights_is_refused(folder, part):
    """transformers would paint with random numbers there, other ones each time."""
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    lost = max(name for name in tensors if name.endswith("weight"))
    save_file({k: v for k, v in tensors.items() if k != lost}, file, metadata={"format": "pt"})
    found = PipelineFolder.find(str(folder))
    with pytest.raises(ModelError, match=rf"{part}: its files lack weights of a \w+: {re.escape(lost)};"):
        found.load(None, torch.float32)
    if part == "controlnet":
        with pytest.raises(ModelError, match="lack weights"):
            load_controlnet(folder / "controlnet", torch.float32)


def test_weights_that_are_tied_to_others_are_not_missed(tmp_path):
    saved = tiny_pipelines.save(tiny_pipelines.flux_control(), tmp_path / "flux")
    pipe = PipelineFolder.find(str(saved)).load(None, torch.float32)
    tied = {name for name, _ in pipe.text_encoder_2.named_parameters(remove_duplicate=False)}
    assert "encoder.embed_tokens.weight" in tied - set(
        load_file(saved / "text_encoder_2" / "model.safetensors")
    )


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        PipelineFolder.find(str(tmp_path / "none"))
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"\x80")
    with pytest.raises(ModelError, match="is a file"):
        PipelineFolder.find(str(file))
    with pytest.raises(ModelError, match="pickle only"):
        PipelineFolder.find(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NoSuchPipeline", "has no pipeline NoSuchPipeline"),
        ("AutoencoderKL", "has no pipeline AutoencoderKL"),
        ("StableDiffusionPipeline", "without a control image.*controlnet"),
        ("FluxPipeline", "pipeline: FluxControlPipeline"),
        ("FluxControlImg2ImgPipeline", "without a control image"),
        ("StableDiffusionControlNetInpaintPipeline", "without a control image"),
        ("StableDiffusionImg2ImgPipeline", "without a control image"),
    ],
)
def test_a_class_without_a_control_input_is_refused(name, said):
    with pytest.raises(ModelError, match=said):
        pipeline_class(name, "model")


def test_the_control_image_goes_where_each_class_takes_it():
    taken = {
        "FluxControlPipeline": "control_image",
        "FluxControlNetPipeline": "control_image",
        "StableDiffusion3ControlNetPipeline": "control_image",
        "StableDiffusionControlNetPipeline": "image",
        "StableDiffusionXLControlNetPipeline": "image",
    }
    assert {name: control_argument(getattr(diffusers, name)) for name in taken} == taken


@pytest.mark.parametrize("base", ["StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "Flux"])
def test_a_controlnet_has_a_class_for_every_base(base):
    assert pipeline_class(with_controlnet(f"{base}Pipeline"), "x").__name__ == f"{base}ControlNetPipeline"


def test_a_variant_and_a_pickle_beside_the_weights_are_not_read(folder):
    before = PipelineFolder.find(str(folder)).digests()
    shutil.copy(_weights(folder), folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80")
    assert PipelineFolder.find(str(folder)).digests() == before


def test_a_digest_follows_what_is_read(folder):
    before = PipelineFolder.find(str(folder)).digests()
    for file in ("unet/config.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"):
        part = file.partition("/")[0]
        text = (folder / file).read_text()
        (folder / file).write_text(text + " ")
        after = PipelineFolder.find(str(folder)).digests()
        assert {k for k in before if before[k] != after[k]} == {part}
        (folder / file).write_text(text)
    data = bytearray(_weights(folder).read_bytes())
    data[-1] ^= 1
    _weights(folder).write_bytes(data)
    after = PipelineFolder.find(str(folder)).digests()
    assert {k for k in before if before[k] != after[k]} == {"unet"}


def test_shapes_are_read_without_the_tensors(good):
    loaded = {name: tuple(t.shape) for name, t in load_file(_weights(good)).items()}
    assert tensor_shapes(_weights(good)) == loaded


@pytest.fixture
def hub(good, monkeypatch):
    """A Hugging Face Hub with one repository, some/model; what was asked of it."""
    asked = []

    def snapshot(repo, revision=None, allow_patterns=None, local_files_only=False):
        from huggingface_hub.errors import LocalEntryNotFoundError

        if local_files_only:
            raise LocalEntryNotFoundError("nothing here")
        asked.append((repo, revision, tuple(allow_patterns)))
        if repo != "some/model":
            raise OSError("no such repository")
        return str(good)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    return asked


def test_a_hub_model_is_fetched_without_pickles_and_code(hub, good):
    found = PipelineFolder.find("some/model", "v1")
    assert found.path == good
    assert hub[0] == ("some/model", "v1", ("model_index.json",))
    _, revision, patterns = hub[1]
    assert revision == good.name, "the commit that the first call resolved"
    assert "unet/*.safetensors" in patterns
    assert not [p for p in patterns if p.endswith((".bin", ".py", ".pt", ".ckpt", "*"))]
    with pytest.raises(ModelError, match="other/model: is no folder here, and the Hugging Face Hub"):
        PipelineFolder.find("other/model")


@pytest.mark.parametrize("lost", ["tokenizer/tokenizer.json", "unet/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("knows", [True, False])
def test_what_an_interrupted_download_left_out_comes_at_the_same_commit(
    good, tmp_path, monkeypatch, lost, knows
):
    """A tokenizer without its vocabulary would load, and read other tokens."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    commit = "0123456789" * 4
    here = shutil.copytree(good, tmp_path / commit)
    (here / lost).unlink()
    asked = []

    def snapshot(repo, revision=None, allow_patterns=None, local_files_only=False):
        if not local_files_only:
            asked.append(revision)
            if any(fnmatch(lost, pattern) for pattern in allow_patterns):
                shutil.copy(good / lost, here / lost)
        elif knows:
            error = LocalEntryNotFoundError("incomplete")
            error.snapshot_path = str(here)
            raise error
        return str(here)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert PipelineFolder.find("some/model", "main").digests() == PipelineFolder.open(good).digests()
    assert set(asked) == {commit}, "and not where the branch is by now"


def test_a_folder_wins_over_a_hub_model(hub, good, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good, tmp_path / "some" / "model")
    assert PipelineFolder.find("some/model").path.resolve() == tmp_path / "some" / "model"
    assert hub == []


def test_the_packaged_model_is_found_by_its_name(good, monkeypatch):
    monkeypatch.setattr(pipelines, "NANO", good)
    assert PipelineFolder.find("nano").path == good

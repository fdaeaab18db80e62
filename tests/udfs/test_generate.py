"""The diffusion generator, on tiny random pipelines of four classes, through the path that real ones take."""

import functools
import hashlib
import io
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from schemas.errors import ModelError, RowError, StageError
from schemas.pipeline import AdapterSettings, DiffusionSettings
from schemas.tables import IMAGES
from schemas.validate import validate
from tests import tiny_pipelines
from tests.tiny_pipelines import (
    KINDS,
    LONG_PROMPT,
    SIZE,
    change,
    furthest,
    generator_of,
    painter,
    sample_rows,
    with_columns,
)
from udfs.images import Images
from udfs.trainable import load_trainable
from udfs.udf import Worker


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_follows_seed_prompt_and_control_and_nothing_else(folders, files, kind):
    rows = sample_rows(files, 5)
    paint = painter(folders[kind], files)
    together = paint(rows)
    assert together.pixels.shape == (5, SIZE, SIZE, 3)
    assert together.pixels.dtype == np.uint8
    assert together.pixels.std() > 5
    assert (paint(rows).pixels == together.pixels).all(), "the same batch has the same bytes"
    single = np.concatenate([paint(rows.slice(i, 1)).pixels for i in range(5)])
    assert furthest(single, together.pixels) <= 1, "the company of a row changes nothing but rounding"
    again = painter(folders[kind], files)(rows.take(pa.array([4, 0])))
    assert furthest(again.pixels, together.pixels[[4, 0]]) <= 1, "nor does what was painted before"

    one = rows.slice(0, 1)
    other = rows.slice(1, 1)
    changed = {
        "seed": with_columns(one, seed=5),
        "prompt": with_columns(one, prompt="a woman in a long blue dress on a beach"),
        "control": with_columns(
            one,
            control_path=other["control_path"].to_pylist(),
            control_sha256=other["control_sha256"].to_pylist(),
        ),
    }
    for what, row in changed.items():
        assert furthest(paint(row).pixels, together.pixels[:1]) > 1, what


@pytest.mark.parametrize("kind", ["flux_control", "sd_controlnet"])
def test_it_is_what_the_pipeline_itself_paints(folders, files, kind):
    """Against diffusers called as its documentation says: texts, images and a generator each, PIL out."""
    from diffusers import DiffusionPipeline

    rows = sample_rows(files, 2)
    pipe = DiffusionPipeline.from_pretrained(folders[kind], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    controls = [Image.open(io.BytesIO(files.read(p))) for p in rows["control_path"].to_pylist()]
    generators = [torch.Generator().manual_seed(s) for s in rows["seed"].to_pylist()]
    more, asked = {}, {"guidance_scale": 4.0}
    if kind == "flux_control":
        asked = {}
        more["max_sequence_length"] = pipe.tokenizer_2.model_max_length
        shape = (1, 4, SIZE // 4, SIZE // 4)
        # The pipeline draws the control's latents first, from the same generator; here noise is all it gives.
        noise = torch.cat([torch.randn(shape, generator=g) for g in generators])
        more["latents"] = pipe._pack_latents(noise, *noise.shape)
    theirs = pipe(
        rows["prompt"].to_pylist(),
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        generator=generators,
        **{"image" if kind == "sd_controlnet" else "control_image": controls},
        **more,
        **asked,
    ).images
    ours = painter(folders[kind], files, **asked)(rows).pixels
    assert furthest(np.stack([np.asarray(i) for i in theirs]), ours) <= 1


def test_the_control_image_is_encoded_without_dice(folders, files, tmp_path):
    """Also by an autoencoder whose posterior is wide, as one that was not made here may be."""
    pipe = tiny_pipelines.flux_control()
    with torch.no_grad():
        pipe.vae.encoder.conv_out.bias[pipe.vae.config.latent_channels :] = 2.0
    rows = sample_rows(files, 1)
    wide = painter(tiny_pipelines.save(pipe, tmp_path / "wide"), files)(rows)
    narrow = painter(folders["flux_control"], files)(rows)
    assert (wide.pixels == narrow.pixels).all()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sd_controlnet", {"negative_prompt": "blurred, a cartoon"}),
        ("sdxl_controlnet", {"negative_prompt": "blurred, a cartoon"}),
        ("flux_controlnet", {"negative_prompt": "blurred, a cartoon", "true_cfg_scale": 3.0}),
        ("flux_controlnet", {"conditioning_scale": 0.2}),
        ("sd_controlnet", {"conditioning_scale": 0.0}),
        ("sd_controlnet", {"guidance_scale": 9.0}),
        ("sd_controlnet", {"guidance_scale": 0.0}),
        ("flux_control", {"steps": 4}),
        ("flux_control", {"max_sequence_length": 5}),
        ("flux_control", {"dtype": "bfloat16"}),
    ],
)
def test_a_setting_changes_the_image_and_the_fingerprint(folders, files, kind, settings):
    rows = sample_rows(files, 2)
    asked, plain = generator_of(folders[kind], **settings), generator_of(folders[kind])
    made = asked.load(Worker("cpu", files))(rows)
    assert furthest(made.pixels, painter(folders[kind], files)(rows).pixels) > 1
    assert _print(asked) != _print(plain)
    assert made.dtype == settings.get("dtype", "float32")


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("flux_control", {"negative_prompt": "blurred"}, "takes no negative_prompt"),
        ("flux_control", {"conditioning_scale": 0.5}, "weight of a control LoRA"),
        ("flux_control", {"true_cfg_scale": 2.0}, "takes no true_cfg_scale"),
        ("flux_controlnet", {"negative_prompt": "blurred"}, "only with a true_cfg_scale over 1"),
        ("flux_controlnet", {"true_cfg_scale": 2.0}, "only with a negative_prompt"),
        (
            "sd_controlnet",
            {"negative_prompt": "x", "guidance_scale": 1.0},
            "only with a guidance_scale",
        ),
        ("flux_control", {"pipeline": "FluxPipeline"}, "without a control image"),
        ("flux_control", {"guidance_scale": 3.5}, "guidance_scale does nothing"),
        ("flux_controlnet", {"guidance_scale": 3.5}, "guidance_scale does nothing"),
        ("sd_controlnet", {"max_sequence_length": 40}, "takes no max_sequence_length"),
        ("flux_control", {"revision": "main"}, "no repository, .* leave revision out"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused_before_the_work(folders, kind, settings, said):
    with pytest.raises(ModelError, match=said):
        generator_of(folders[kind], **settings).check()


@pytest.mark.parametrize(
    ("scheduler", "config"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
        ("FlowMatchLCMScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ],
)
def test_a_scheduler_whose_noise_no_seed_reaches_is_refused_before_the_work(
    folders, tmp_path, scheduler, config
):
    folder = shutil.copytree(folders["flux_control"], tmp_path / "model")
    change(folder / "model_index.json", scheduler=["diffusers", scheduler])
    change(folder / "scheduler" / "scheduler_config.json", **config)
    with pytest.raises(ModelError, match=rf"{scheduler} draws noise .* does not give it the image's seed"):
        generator_of(folder).check()
    sd = shutil.copytree(folders["sd_controlnet"], tmp_path / "sd")
    change(sd / "model_index.json", scheduler=["diffusers", "LCMScheduler"])
    generator_of(sd).check()


def test_a_negative_prompt_that_is_not_read_whole_is_refused(folders, files, tmp_path):
    with pytest.raises(ModelError, match=r"negative_prompt: has \d+ tokens, of which .* reads 32 and"):
        painter(folders["sd_controlnet"], files, negative_prompt=LONG_PROMPT)
    distilled = shutil.copytree(folders["sd_controlnet"], tmp_path / "lcm")
    change(distilled / "unet" / "config.json", time_cond_proj_dim=8)
    generator_of(distilled).check()
    with pytest.raises(ModelError, match=r"time_cond_proj_dim.* does not read a negative_prompt"):
        generator_of(distilled, negative_prompt="blurred").check()


def _asks(folder, **settings) -> tuple[float | None, str]:
    """The guidance that a row tells, and the fingerprint."""
    generator = generator_of(folder, **settings)
    return generator.guidance_scale, _print(generator)


def test_guidance_is_the_pipeline_s_own_unless_asked(folders, files, tmp_path):
    """And recorded either way, so that to write a default out makes nothing stale."""
    assert _asks(folders["sd_controlnet"]) == _asks(folders["sd_controlnet"], guidance_scale=7.5)
    assert _asks(folders["sd_controlnet"])[0] == 7.5
    assert _asks(folders["sdxl_controlnet"])[0] == 5.0
    assert _asks(folders["flux_control"])[0] is None
    assert _asks(folders["flux_controlnet"])[0] is None

    pipe = tiny_pipelines.flux_control()
    config = dict(pipe.transformer.config) | {"guidance_embeds": True}
    pipe.register_modules(transformer=type(pipe.transformer).from_config(config))
    told = tiny_pipelines.save(pipe, tmp_path / "told")
    assert _asks(told) == _asks(told, guidance_scale=3.5)
    assert _asks(told)[0] == 3.5
    assert load_trainable(generator_of(told).settings, "cpu").guidance_scale == 3.5
    assert load_trainable(generator_of(told, guidance_scale=2.0).settings, "cpu").guidance_scale == 2.0
    load_trainable(generator_of(folders["flux_control"]).settings, "cpu")
    rows = sample_rows(files, 1)
    far = painter(told, files, guidance_scale=100.0)(rows).pixels
    assert furthest(far, painter(told, files)(rows).pixels) > 1


def test_half_precision_on_a_cpu_is_refused(folders, files):
    with pytest.raises(ModelError, match="needs a GPU"):
        painter(folders["flux_control"], files, dtype="float16")
    with pytest.raises(ModelError, match="needs a GPU"):
        generator_of(folders["flux_control"], dtype="float16").check("cpu")
    generator_of(folders["flux_control"], dtype="float16").check()
    generator_of(folders["flux_control"], dtype="float16").check("cuda")


def test_a_revision_without_what_it_is_of_is_refused():
    with pytest.raises(ValueError, match="controlnet_revision: there is no controlnet"):
        DiffusionSettings(controlnet_revision="main")


def test_adapters_are_told_apart_by_what_they_are_called():
    with pytest.raises(ValueError, match="adapter_1 is taken twice"):
        DiffusionSettings(adapters=(AdapterSettings(path="a", name="adapter_1"), AdapterSettings(path="b")))


def test_a_worker_with_another_file_than_the_fingerprint_s_says_which(folders, files, tmp_path):
    folder = shutil.copytree(folders["flux_control"], tmp_path / "model")
    lora = tiny_pipelines.save_lora(tiny_pipelines.flux_control(), tmp_path / "lora", seed=1)
    sent = pickle.dumps(generator_of(folder, adapters=(AdapterSettings(path=str(lora)),)).pinned())
    there = pickle.loads(sent)
    there.load(Worker("cpu", files))
    whole = (lora / "pytorch_lora_weights.safetensors").read_bytes()
    assert "digests" not in there.parameters()
    tiny_pipelines.save_lora(tiny_pipelines.flux_control(), lora, seed=2)
    with pytest.raises(ModelError, match=r"its adapter_0 on .* is not the one"):
        there.load(Worker("cpu", files))
    (lora / "pytorch_lora_weights.safetensors").write_bytes(whole)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelError, match=r"its scheduler on .* is not the one"):
        there.load(Worker("cpu", files))


def test_a_base_without_channels_for_the_control_is_refused(files, tmp_path):
    base = tiny_pipelines.save(tiny_pipelines.flux_base(), tmp_path / "base")
    with pytest.raises(ModelError, match=r"reads 16 channels, not the 32 .*add a control LoRA"):
        painter(base, files, pipeline="FluxControlPipeline")
    with pytest.raises(ModelError, match=r"reads 16 channels, not the 32 .*add a control LoRA"):
        generator_of(base, pipeline="FluxControlPipeline").check()


def test_an_empty_prompt_is_a_row_error(folders, files):
    with pytest.raises(RowError, match="the prompt is empty"):
        painter(folders["flux_control"], files)(with_columns(sample_rows(files, 2), prompt=["a man", "  "]))


def test_a_size_that_the_patches_do_not_fit_is_an_error_of_the_settings(folders, files):
    rows = sample_rows(files, 1, size=36)
    with pytest.raises(ModelError, match=r"multiples of 8 pixels, not 36 x 36; change plan\.image_size"):
        painter(folders["flux_control"], files)(rows)


def test_a_control_image_that_is_not_the_labels_own_is_a_row_error_that_names_it(folders, files):
    rows = sample_rows(files, 2)
    paint = painter(folders["flux_control"], files)
    larger = with_columns(rows, image_height=SIZE * 2)
    with pytest.raises(RowError, match=rf"controls/0.png: .* {SIZE} x {SIZE} .* {SIZE * 2} x {SIZE}"):
        paint(larger)
    data = files.read("controls/1.png")
    files.write("controls/1.png", data[:-20])
    with pytest.raises(RowError, match=r"controls/1.png: .* not the one"):
        paint(rows)
    cut = with_columns(rows.slice(1, 1), control_sha256=hashlib.sha256(data[:-20]).hexdigest())
    files.write("controls/1.png", data[: len(data) // 2])
    cut = with_columns(cut, control_sha256=hashlib.sha256(data[: len(data) // 2]).hexdigest())
    with pytest.raises(RowError, match=r"controls/1.png: no intact"):
        paint(cut)
    del files.data["controls/1.png"]
    with pytest.raises(RowError, match=r"controls/1.png: .* not there"):
        paint(rows)


def test_pixels_that_are_no_numbers_are_a_row_error(files, tmp_path):
    pipe = tiny_pipelines.flux_control()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.fill_(float("nan"))
    folder = tiny_pipelines.save(pipe, tmp_path / "nan")
    with pytest.raises(RowError, match="no numbers"):
        painter(folder, files)(sample_rows(files, 1))


def _print(generator) -> str:
    return Images(generator=generator).fingerprint().value


def test_the_fingerprint_follows_every_ingredient_and_not_the_place(folders, files, tmp_path):
    folder = folders["flux_control"]
    base = _print(generator_of(folder))
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert _print(generator_of(moved)) == base
    own = {"pipeline": "FluxControlPipeline"}
    for unimportant in ({"batch_rows": 3}, {"compile": True}, {"offload": "model"}, own):
        assert _print(generator_of(folder, **unimportant)) == base, unimportant

    lora = tiny_pipelines.save_lora(tiny_pipelines.flux_control(), tmp_path / "lora", seed=1)
    other = tiny_pipelines.save_lora(tiny_pipelines.flux_control(), tmp_path / "other", seed=2)
    copied = shutil.copytree(lora, tmp_path / "copied")

    def adapted(*adapters):
        stacked = tuple(AdapterSettings(path=str(path), weight=weight) for path, weight in adapters)
        return _print(generator_of(folder, adapters=stacked))

    assert adapted((lora, 1.0)) == adapted((copied, 1.0))
    values = {
        base,
        adapted((lora, 1.0)),
        adapted((lora, 0.5)),
        adapted((other, 1.0)),
        adapted((lora, 1.0), (other, 1.0)),
        *(_print(generator_of(folder, **s)) for s in ({"steps": 3}, {"max_sequence_length": 5})),
    }
    weights = moved / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    values.add(_print(generator_of(moved)))
    assert len(values) == 8


def test_rows_of_images_hold_their_batch_and_prompt(folders, files):
    rows = with_columns(sample_rows(files, 5), prompt=["a man", "a man", LONG_PROMPT, "a woman", "a girl"])
    udf = Images(generator=generator_of(folders["flux_control"], batch_rows=2), format="png")
    out = udf.setup(Worker("cpu", files, "f"))(rows)
    validate("images", out)
    assert out.schema.names == IMAGES.names
    got = out.to_pylist()
    assert [(r["batch_size"], r["batch_index"]) for r in got] == [(2, 0), (2, 1), (2, 0), (2, 1), (1, 0)]
    assert [r["prompt_truncated"] for r in got] == [False, False, True, False, False]
    assert {(r["device"], r["dtype"], r["steps"], r["generator"]) for r in got} == {
        ("cpu", "float32", 2, "diffusers")
    }
    paint = painter(folders["flux_control"], files)
    for start in (0, 2, 4):
        made = paint(rows.slice(start, 2)).pixels
        for row, pixels in zip(got[start : start + 2], made, strict=True):
            with Image.open(io.BytesIO(files.read(row["image_path"]))) as image:
                assert (np.asarray(image) == pixels).all(), "the recorded layout makes the same pixels again"


def test_after_a_crash_the_rows_are_those_of_an_undisturbed_run(folders, files):
    rows = sample_rows(files, 11)
    apply = Images(generator=generator_of(folders["flux_control"], batch_rows=4), format="png").setup(
        Worker("cpu", files, "f")
    )
    undisturbed = apply(rows)
    for i in (2, 3, 9):
        del files.data[undisturbed["image_path"][i].as_py()]
    again = apply(rows)
    circumstances = ["seconds", "status"]
    assert again.drop_columns(circumstances).equals(undisturbed.drop_columns(circumstances))
    assert again["status"].to_pylist().count("generated") == 3


def test_a_batch_that_does_not_fit_is_halved_for_good(folders, files, monkeypatch):
    udf = Images(generator=generator_of(folders["flux_control"], batch_rows=8), format="png")
    rows = sample_rows(files, 20)
    whole = udf.setup(Worker("cpu", files, "f"))(rows.slice(0, 4))
    calls = _exhausted_over(3, monkeypatch)
    apply = udf.setup(Worker("cpu", files, "g"))
    out = apply(rows.slice(0, 10))
    assert set(out["status"].to_pylist()) == {"generated"}
    assert out["batch_size"].to_pylist() == [2] * 10
    assert calls == [8, 4, *[2] * 5]
    calls.clear()
    apply(rows.slice(10, 10))
    assert calls == [2] * 5, "the next partition starts at the size that fits"
    first, again = (
        np.asarray(Image.open(io.BytesIO(files.read(t["image_path"][0].as_py())))) for t in (whole, out)
    )
    assert furthest(first, again) <= 1


def test_a_single_image_that_does_not_fit_stops_the_stage(folders, files, monkeypatch):
    _exhausted_over(0, monkeypatch)
    udf = Images(generator=generator_of(folders["flux_control"]))
    with pytest.raises(StageError, match="not enough memory to paint a single image"):
        udf.setup(Worker("cpu", files, "f"))(sample_rows(files, 3))


def _exhausted_over(most, monkeypatch) -> list[int]:
    from diffusers import FluxControlPipeline

    calls: list[int] = []
    call = FluxControlPipeline.__call__

    @functools.wraps(call)
    def limited(self, *args, **given):
        calls.append(len(given["generator"]))
        if calls[-1] > most:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate")
        return call(self, *args, **given)

    monkeypatch.setattr(FluxControlPipeline, "__call__", limited)
    return calls


def test_a_missing_packaged_model_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("udfs.pipelines.NANO", tmp_path / "nano")
    with pytest.raises(ModelError, match="nano: no such folder"):
        generator_of("nano").models()


def test_it_goes_to_workers_as_it_is(folders):
    generator = generator_of(folders["flux_control"], adapters=(AdapterSettings(path="x", weight=0.5),))
    again = pickle.loads(pickle.dumps(generator))
    assert again == generator
    assert hash(again) == hash(generator), "a worker process keeps the loaded model by it"


def test_what_is_asked_of_the_device_reaches_the_pipeline(folders, files, monkeypatch):
    from diffusers import FluxControlPipeline

    asked: list[object] = []
    for name in ("to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(
            FluxControlPipeline, name, lambda self, *a, name=name, **k: asked.append((name, *a, *k.values()))
        )
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(type(self).__name__))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr("udfs.generate._check_control", lambda *_: None)

    def loaded(device, **settings):
        asked.clear()
        paint = generator_of(folders["flux_control"], **settings).load(Worker(device, files))
        return (*asked, paint.dtype, paint.device)

    assert loaded("cpu") == (("to", "cpu"), "float32", "cpu")
    assert loaded("cpu", offload="model") == (("to", "cpu"), "float32", "cpu")
    assert loaded("cuda") == (("to", "cuda"), "bfloat16", "a GPU")
    assert loaded("cuda", dtype="float16")[1] == "float16"
    assert loaded("cuda", offload="model")[0] == ("enable_model_cpu_offload", "cuda")
    assert loaded("cuda", offload="sequential")[0] == ("enable_sequential_cpu_offload", "cuda")
    assert loaded("cuda", compile=True)[0] == "FluxTransformer2DModel"


def test_hub_models_are_pinned_to_their_commits(folders, monkeypatch, tmp_path):
    """So a worker elsewhere fetches what the fingerprint was taken of, whatever the branch says by then."""
    lora = tiny_pipelines.save_lora(tiny_pipelines.flux_control(), tmp_path / "l" / "c0ffee", seed=1)
    model = shutil.copytree(folders["flux_control"], tmp_path / "m" / "abcdef")
    kept = {"some/model": model, "some/lora": lora}
    monkeypatch.setattr("udfs.hub.kept", lambda model, revision: kept[model])
    monkeypatch.setattr("udfs.hub.fetch", lambda model, revision, patterns: kept[model])
    adapters = (AdapterSettings(path="some/lora"), AdapterSettings(path=str(lora)))
    pinned = generator_of("some/model", adapters=adapters).pinned()
    assert pinned.settings.revision == "abcdef"
    assert [a.revision for a in pinned.settings.adapters] == ["c0ffee", None]
    local = generator_of(folders["flux_control"], adapters=adapters[1:])
    assert local.pinned() == local
    assert _print(pinned) == _print(generator_of(folders["flux_control"], adapters=(adapters[1],) * 2))

"""Training through the command line: on a small real lake, with tiny models."""

import json
import signal

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from diffusers import FluxControlPipeline, FluxTransformer2DModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from etl.cli import app
from etl.fingerprints import register
from etl.lake import Lake
from etl.settings import load_pipeline
from etl.stages import Stages
from etl.training_rows import control_rows, preference_rows
from schemas.errors import ConfigError, InputError, ModelError, RowError
from schemas.fingerprint import fingerprint
from tests.lake_rows import random_rows
from tests.tiny_pipelines import flux_base, sd_controlnet
from udfs.nano_model import TINY, build

PIPELINE = """\
lake: {lake}
poses: [{{name: demo, path: bundled, every: 60}}]
plan: {{image_size: [32, 32], draws: 2}}
policy: lenient
generator: {generator}
cluster: {{workers: 0}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A lake of renders, three tiny models, and pipeline files that have them as their generators."""
    folder = tmp_path_factory.mktemp("train")
    build(TINY).save_pretrained(folder / "tiny")
    flux_base().save_pretrained(folder / "base")
    sd_controlnet().save_pretrained(folder / "sd")
    for name, generator in {
        "renders": "{name: shaded}",
        "tiny": "{name: diffusers, model: tiny, steps: 2}",
        "base": "{name: diffusers, model: base, pipeline: FluxControlPipeline, steps: 2}",
        "sd": "{name: diffusers, model: sd, steps: 2}",
    }.items():
        (folder / f"{name}.yaml").write_text(PIPELINE.format(lake="lake", generator=generator))
    invoke("run", folder / "renders.yaml")
    return folder


def invoke(*command, code=0):
    result = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def train(home, kind, out, *more, base="tiny", code=0):
    return invoke(
        "train", kind, home / f"{base}.yaml", "--data", home / "renders.yaml", "--out", out,
        "--batch-size", 2, "--learning-rate", 0.01, "--cpu", *(() if "--full" in more else ("--rank", 4)),
        *more, code=code,
    )  # fmt: skip


def painted(pipe, seeds=(0, 1)):
    pipe.set_progress_bar_config(disable=True)
    control = np.zeros((32, 32, 3), np.uint8)
    control[8:24, 12:20] = (200, 90, 40)
    return np.stack(
        [
            pipe(
                prompt="a woman in a red shirt",
                control_image=Image.fromarray(control),
                height=32,
                width=32,
                num_inference_steps=2,
                max_sequence_length=TINY.text_length,
                generator=torch.Generator().manual_seed(seed),
                output_type="np",
            ).images[0]
            for seed in seeds
        ]
    )


@pytest.mark.parametrize("base", ["tiny", "base"])
def test_a_control_lora_trains_and_changes_the_images_of_a_pipeline_that_loads_it(home, tmp_path, base):
    said = train(home, "control", tmp_path / "out", "--steps", 4, base=base)
    assert "Trained 4 steps" in said
    file = tmp_path / "out" / "pytorch_lora_weights.safetensors"
    pipe = FluxControlPipeline.from_pretrained(home / base, use_safetensors=True)
    if base == "tiny":
        before = painted(pipe)
        pipe.load_lora_weights(tmp_path / "out", weight_name=file.name, use_safetensors=True)
        assert np.abs(painted(pipe) - before).max() > 1e-3
    else:
        # A base that could not take a control image at all can now, and follows it.
        pipe.load_lora_weights(tmp_path / "out", weight_name=file.name, use_safetensors=True)
        assert pipe.transformer.config.in_channels == 8 * TINY.latent_channels
        assert np.isfinite(painted(pipe)).all()


def test_a_trained_lora_is_one_line_in_the_pipeline_file(home, tmp_path):
    train(home, "control", tmp_path / "out", "--steps", 2, base="base")
    adapters = f"adapters: [{{path: {tmp_path / 'out'}, name: control}}]"
    generator = (
        f"{{name: diffusers, model: {home / 'base'}, pipeline: FluxControlPipeline, steps: 2, {adapters}}}"
    )
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.format(lake=home / "lake", generator=generator))
    invoke("run", file)
    stages = Stages(Lake(home / "lake"), load_pipeline(file), as_run=True)
    painted_rows = (
        Lake(home / "lake")
        .table("images")
        .read(["image_id"], pc.field("fingerprint") == stages.images.fingerprint.value)
    )
    assert painted_rows.num_rows == len(control_rows(load_pipeline(home / "renders.yaml")).rows)
    # The images that it painted are a lake's rows too: a second round trains on them, beside the first LoRA.
    invoke(
        "train",
        "control",
        file,
        "--out",
        tmp_path / "next",
        "--steps",
        1,
        "--batch-size",
        2,
        "--rank",
        2,
        "--cpu",
    )
    lineage = json.loads((tmp_path / "next" / "lineage.json").read_text())
    assert "adapter_0" in lineage["base"]["digests"]


def test_the_lineage_says_what_a_lora_was_made_from_and_the_same_training_gives_the_same_bytes(
    home, tmp_path
):
    train(home, "control", tmp_path / "a", "--steps", 2)
    train(home, "control", tmp_path / "b", "--steps", 2)
    name = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    lineage = json.loads((tmp_path / "a" / "lineage.json").read_text())
    with safe_open(tmp_path / "a" / name, "pt") as file:
        inside = json.loads(file.metadata()["posedreamer"])
    assert inside.items() <= lineage.items()
    assert lineage["lake"].endswith("/lake")
    assert inside["data"]["table"] == "images"
    assert inside["data"]["version"] == Lake(home / "lake").table("images").version()
    assert inside["base"]["model"] == "tiny"
    assert set(inside["base"]["digests"]) >= {"transformer", "vae", "text_encoder"}
    assert inside["base"]["guidance_scale"] is None, "this transformer has no embedding for it"
    assert inside["settings"]["rank"] == 4
    assert inside["settings"]["seed"] == 0
    assert inside["software"]["torch"]
    assert inside["learnt"] + inside["held_out"] == inside["data"]["rows"]


def test_a_finished_training_called_again_leaves_its_files_as_they_are(home, tmp_path, monkeypatch):
    """Another digest of the adapter, for other versions in its metadata, would make its images stale."""
    out = tmp_path / "out"
    train(home, "control", out, "--steps", 2)
    names = ("pytorch_lora_weights.safetensors", "lineage.json")
    before = {name: (out / name).read_bytes() for name in names}
    assert json.loads(before["lineage.json"])["measured"]["loss"] > 0
    from etl import train as training

    monkeypatch.setattr(training, "software", lambda: {"torch": "another"})
    said = train(home, "control", out, "--steps", 2)
    assert "loss" in said
    assert {name: (out / name).read_bytes() for name in names} == before
    with pytest.raises(ConfigError, match="at step 2, beyond the 1 that are asked for"):
        train(home, "control", out, "--steps", 1)
    # Killed after its last checkpoint, a training has steps to take no more and its result still to write.
    (out / "lineage.json").unlink()
    train(home, "control", out, "--steps", 2)
    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["software"] == {"torch": "another"}
    assert lineage["measured"] == pytest.approx(json.loads(before["lineage.json"])["measured"], rel=1e-5)


def test_a_base_that_is_asked_otherwise_is_another_base(home, tmp_path):
    pipe = build(TINY)
    config = dict(pipe.transformer.config) | {"guidance_embeds": True}
    pipe.register_modules(transformer=FluxTransformer2DModel.from_config(config).eval())
    pipe.save_pretrained(home / "guided")
    text = PIPELINE.format(lake="lake", generator="{name: diffusers, model: guided}")
    (home / "first.yaml").write_text(text)
    train(home, "control", tmp_path / "first", "--steps", 1, base="first")
    adapter = f"{{path: {tmp_path / 'first'}, name: first, weight: 0.5}}"
    asked = {"guidance_scale": 3.5, "max_sequence_length": 16, "dtype": "float32"}

    def again(name, weight=0.5, **changes):
        lines = [f"{key}: {value}" for key, value in {**asked, **changes}.items()]
        worn = adapter.replace("0.5", str(weight))
        generator = f"{{name: diffusers, model: guided, {', '.join(lines)}, adapters: [{worn}]}}"
        (home / f"{name}.yaml").write_text(PIPELINE.format(lake="lake", generator=generator))
        train(home, "control", tmp_path / "out", "--steps", 1, base=name)

    again("asked")
    base = json.loads((tmp_path / "out" / "lineage.json").read_text())["base"]
    told = {name: base[name] for name in ("guidance_scale", "max_sequence_length", "dtype", "weights")}
    assert told == {**asked, "dtype": "torch.float32", "weights": [0.5]}
    with pytest.raises(ConfigError, match=r"another training \(data.base.guidance_scale 3.5 -> 2.0\)"):
        again("freer", guidance_scale=2.0)
    with pytest.raises(ConfigError, match=r"another training \(data.base.max_sequence_length 16 -> 8\)"):
        again("shorter", max_sequence_length=8)
    with pytest.raises(ConfigError, match=r"data.base.dtype 'torch.float32' -> 'torch.bfloat16'"):
        again("half", dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"another training \(data.base.weights \[0.5\] -> \[0.25\]\)"):
        again("weaker", weight=0.25)


def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(home, tmp_path, monkeypatch):
    train(home, "control", tmp_path / "whole", "--steps", 4)
    before = signal.getsignal(signal.SIGINT)
    from udfs import training

    real, calls = training.rate, []

    def interrupted(settings, step):
        calls.append(step)
        if step == 1 and len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(settings, step)

    monkeypatch.setattr(training, "rate", interrupted)
    said = train(home, "control", tmp_path / "parts", "--steps", 4, code=130)
    assert "Stopped at step 2 of 4; the same command goes on" in said
    assert not (tmp_path / "parts" / "pytorch_lora_weights.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(training, "rate", real)
    with pytest.raises(ConfigError, match=r"another training \(settings.seed 0 -> 5\); give --out"):
        train(home, "control", tmp_path / "parts", "--steps", 4, "--seed", 5)
    train(home, "control", tmp_path / "parts", "--steps", 4)
    name = "pytorch_lora_weights.safetensors"
    whole, parts = (load_file(tmp_path / f / name) for f in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_full_training_writes_a_pipeline_that_paints(home, tmp_path):
    train(home, "control", tmp_path / "out", "--steps", 2, "--full", base="base")
    pipe = FluxControlPipeline.from_pretrained(tmp_path / "out" / "pipeline", use_safetensors=True)
    assert np.isfinite(painted(pipe)).all()
    assert not list((tmp_path / "out" / "pipeline").rglob("*.bin"))
    generator = f"{{name: diffusers, model: {tmp_path / 'out' / 'pipeline'}, steps: 2}}"
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.format(lake=home / "lake", generator=generator))
    invoke("run", file)


def test_settings_come_from_a_file_and_options_go_before_it(home, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text("steps: 3\nrank: 2\nmixed_precision: no\ngradient_accumulation: 2\nlog_every: 1\n")
    train(home, "control", tmp_path / "out", "--config", config)
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert {
        k: lineage["settings"][k] for k in ("steps", "rank", "gradient_accumulation", "mixed_precision")
    } == {
        "steps": 3,
        "rank": 4,
        "gradient_accumulation": 2,
        "mixed_precision": "no",
    }
    assert len((tmp_path / "out" / "log.jsonl").read_text().splitlines()) == 3
    config.write_text("stepz: 3\n")
    with pytest.raises(ConfigError, match=r"train.yaml line 1: stepz: unknown key; did you mean steps\?"):
        train(home, "control", tmp_path / "out", "--config", config)
    with pytest.raises(ConfigError, match=r"--rank: .* not -1"):
        train(home, "control", tmp_path / "out", "--rank", -1)
    with pytest.raises(ConfigError, match=r"nowhere.yaml: no such file"):
        train(home, "control", tmp_path / "out", "--config", tmp_path / "nowhere.yaml")


def test_held_out_poses_are_in_neither_part_twice(home):
    found = control_rows(load_pipeline(home / "renders.yaml"))
    learnt, held_out = found.split(0.3)
    assert len(learnt) + len(held_out) == len(found.rows)
    assert len(held_out) > 0
    poses = found.rows.poses
    assert not set(poses[learnt]) & set(poses[held_out])
    # A pose has several rows here, or nothing was asked.
    assert len(set(poses)) < len(poses)
    every = [*found.rows.controls, *(path for row in found.rows.images for path in row)]
    assert found.read(every[0]).shape == (32, 32, 3)
    store, path = Lake(home / "lake").store, every[0]
    data = store.read(path)
    store.write(path, store.read(every[1]))
    with pytest.raises(RowError, match=f"{path}: not the file that its row speaks of"):
        found.read(path)
    store.write(path, data)


def assert_joined(home, found):
    """Each row has the prompt, control image and pose of the very sample that its images were painted for."""
    lake, stages = Lake(home / "lake"), Stages(Lake(home / "lake"), load_pipeline(home / "renders.yaml"))
    images, labels, samples = (
        lake.table(s.table).read(names, pc.field("fingerprint") == s.fingerprint.value).to_pylist()
        for s, names in (
            (stages.images, ["image_path", "sample_id"]),
            (stages.labels, ["sample_id", "control_path"]),
            (stages.samples, ["sample_id", "prompt", "pose_id"]),
        )
    )
    sample = {row["image_path"]: row["sample_id"] for row in images}
    control = {row["sample_id"]: row["control_path"] for row in labels}
    said = {row["sample_id"]: (row["prompt"], row["pose_id"]) for row in samples}
    rows = found.rows
    assert len(set(rows.prompts)) > 1
    assert len(set(rows.controls)) > 1
    for paths, path, prompt, pose in zip(rows.images, rows.controls, rows.prompts, rows.poses, strict=True):
        assert (control[sample[paths[0]]], *said[sample[paths[0]]]) == (path, prompt, pose)
        assert {said[sample[other]][1] for other in paths} == {pose}


def test_rows_have_the_prompt_and_the_control_image_of_their_own_picture(home):
    found = control_rows(load_pipeline(home / "renders.yaml"))
    assert len(set(found.rows.images)) == len(found.rows) > 10
    assert_joined(home, found)


def write_preferences(home, pairs=8, plan=None, policy="p" * 16, metric=None):
    """Pairs of images of one pose and caption; plan, metric: fingerprints of another plan and of other
    keypoints to say they are of."""
    pipeline = load_pipeline(home / "renders.yaml")
    lake = Lake(home / "lake")
    stages = Stages(lake, pipeline, as_run=True)
    upstream = {
        "images": stages.images.fingerprint.value,
        "samples": plan or stages.samples.fingerprint.value,
        "metrics_keypoints": metric or stages.keypoints.fingerprint.value,
        "policy": policy,
    }
    made = fingerprint("preferences", 1, {"pairs": pairs}, upstream=upstream)
    images = lake.table("images").read(
        ["image_id", "sample_id"], pc.field("fingerprint") == stages.images.fingerprint.value
    )
    samples = lake.table("samples").read(["sample_id", "pose_id"]).to_pandas().drop_duplicates("sample_id")
    frame = images.to_pandas().merge(samples, on="sample_id").sort_values("image_id")
    twins = [list(g["image_id"]) for _, g in frame.groupby("pose_id") if len(g) > 1][:pairs]
    poses = frame.set_index("image_id")["pose_id"].loc[[w for w, *_ in twins]].tolist()
    rows = random_rows(
        "preferences",
        len(twins),
        selection=made.value,
        pose_id=poses,
        winner_image_id=[t[0] for t in twins],
        loser_image_id=[t[1] for t in twins],
    )
    register(lake, made)
    lake.table("preferences").commit([lake.table("preferences").write(rows)])
    return made.value, twins


def test_preferences_train_an_adapter_beside_the_control_lora(home, tmp_path):
    with pytest.raises(
        InputError, match=r"no preferences among this pipeline's images; `posedreamer preferences`"
    ):
        preference_rows(load_pipeline(home / "renders.yaml"))
    selection, twins = write_preferences(home)
    # A choice that another plan's run of the same generator made later is none of this pipeline's.
    write_preferences(home, pairs=2, plan="e" * 16)
    # Nor is one by other scores.
    write_preferences(home, pairs=3, metric="e" * 16)
    found = preference_rows(load_pipeline(home / "renders.yaml"))
    assert len(found.rows) == len(twins)
    images = Lake(home / "lake").table("images").read(["image_id", "image_path"]).to_pandas()
    paths = images.set_index("image_id")["image_path"]
    assert set(found.rows.images) == {(paths[winner], paths[loser]) for winner, loser in twins}
    assert_joined(home, found)

    train(home, "control", tmp_path / "control", "--steps", 2, base="base")
    adapters = f"adapters: [{{path: {tmp_path / 'control'}, name: control, weight: 0.5}}]"
    generator = f"{{name: diffusers, model: {home / 'base'}, pipeline: FluxControlPipeline, {adapters}}}"
    file = tmp_path / "stacked.yaml"
    file.write_text(PIPELINE.format(lake=home / "lake", generator=generator))
    said = invoke(
        "train", "dpo", file, "--data", home / "renders.yaml", "--out", tmp_path / "dpo", "--steps", 3,
        "--batch-size", 2, "--rank", 4, "--beta", 50, "--cpu",
    )  # fmt: skip
    assert "loser_change" in said
    assert "winner_change" in said
    assert f"of the choice of pairs {selection}" in " ".join(said.split())
    with safe_open(tmp_path / "dpo" / "pytorch_lora_weights.safetensors", "pt") as opened:
        inside = json.loads(opened.metadata()["posedreamer"])
        assert not any("x_embedder" in key for key in opened.keys())  # noqa: SIM118
    assert inside["kind"] == "dpo"
    assert inside["data"]["selection"] == selection
    assert inside["data"]["version"] == Lake(home / "lake").table("preferences").version()
    assert inside["settings"]["beta"] == 50
    assert "adapter_0" in inside["base"]["digests"]
    with pytest.raises(InputError, match="no selection ffffffffffffffff"):
        preference_rows(load_pipeline(home / "renders.yaml"), "f" * 16)
    with pytest.raises(ModelError, match="no channels for a control image, so it cannot be aligned"):
        train(home, "dpo", tmp_path / "blind", "--steps", 1, base="base")
    # What a second policy chose is not taken for the first one's, nor the first one's for it.
    other, _ = write_preferences(home, pairs=4, policy="q" * 16)
    with pytest.raises(InputError, match=f"2 policies chose pairs .*({other}.*{selection}).* --selection"):
        preference_rows(load_pipeline(home / "renders.yaml"))
    assert len(preference_rows(load_pipeline(home / "renders.yaml"), selection).rows) == len(twins)


def test_what_cannot_be_trained_is_said_in_a_sentence(home, tmp_path):
    with pytest.raises(ConfigError, match="shaded is a renderer, which has nothing to train"):
        train(home, "control", tmp_path / "a", base="renders")
    with pytest.raises(
        ModelError, match=r"StableDiffusionControlNetPipeline.*training supports FluxControlPipeline"
    ):
        train(home, "control", tmp_path / "b", base="sd")
    with pytest.raises(InputError, match=r"no image of this pipeline to train on; `posedreamer run`"):
        invoke("train", "control", home / "sd.yaml", "--out", tmp_path / "c")
    with pytest.raises(ConfigError, match="rank is of a LoRA, and full trains all"):
        train(home, "control", tmp_path / "f", "--rank", 4, "--full")
    for option, value in (("--learning-rate", "inf"), ("--seed", 2**63)):
        with pytest.raises(ConfigError, match=f"{option}: Input should be"):
            train(home, "control", tmp_path / "g", option, value)
    with pytest.raises(InputError, match=r"there are \d+ rows to learn from"):
        train(home, "control", tmp_path / "d", "--batch-size", 5000)
    file = tmp_path / "blocked"
    file.write_text("")
    with pytest.raises(ConfigError, match="no folder can be made there"):
        train(home, "control", file / "e", "--steps", 1)


def test_images_of_a_size_that_the_model_does_not_take_are_refused(home, tmp_path):
    text = PIPELINE.format(lake=tmp_path / "lake", generator="{name: shaded}").replace("[32, 32]", "[36, 36]")
    (tmp_path / "odd.yaml").write_text(text.replace("every: 60", "every: 200"))
    invoke("run", tmp_path / "odd.yaml")
    with pytest.raises(ConfigError, match="36 x 36 pixels; this model works on multiples of 8"):
        invoke(
            "train", "control", home / "tiny.yaml", "--data", tmp_path / "odd.yaml",
            "--out", tmp_path / "out", "--batch-size", 1, "--cpu",
        )  # fmt: skip


def test_a_release_can_be_learnt(home, tmp_path):
    invoke("release", "create", "0.1.0", "-p", home / "renders.yaml")
    train(home, "control", tmp_path / "out", "--steps", 1, "--release", "0.1.0")
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["data"]["table"] == "dataset"
    assert lineage["data"]["release"] == "0.1.0"

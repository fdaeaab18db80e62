"""Alignment in one go, on a tiny model with random weights: every part runs, and runs once."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from etl.align import AlignSettings, candidate_pipeline, held_out_pipelines
from etl.cli import app
from etl.lake import Lake
from etl.settings import load_pipeline
from schemas.errors import ConfigError, InputError, ModelError
from schemas.pipeline import AdapterSettings, DiffusionSettings
from schemas.plan import Part
from tests.tiny_pipelines import sd_controlnet
from udfs.keypoints import WEIGHTS
from udfs.nano_model import TINY, build
from udfs.random_poses import random_poses

PIPELINE = """\
lake: lake
poses: [{name: demo, path: bundled, every: 300}]
plan: {image_size: [32, 32]}
generator: {name: diffusers, model: tiny, steps: 1}
cluster: {workers: 0}
"""
POLICY = "name: colours\nscore: colors_right\nmin_gap: 0.1\nmin_winner: 0.1\n"
SETTINGS = AlignSettings(candidates=3, held_out=0.4)


def invoke(*command, code=0):
    result = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("align")
    build(TINY).save_pretrained(folder / "tiny")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "colours.yaml").write_text(POLICY)
    return folder


def align(home, *more):
    return invoke(
        "align", home / "pipeline.yaml", "--out", home / "out", "--candidates", 3, "--held-out", 0.4,
        "--policy", home / "colours.yaml", "--steps", 2, "--batch-size", 2, "--rank", 2,
        "--learning-rate", 0.01, "--cpu", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def said(home):
    return align(home)


def test_it_ends_with_an_adapter_a_table_and_the_line_to_add(home, said):
    lines = said.splitlines()
    assert any("mean OKS" in line for line in lines)
    line = next(line for line in lines if line.strip().startswith("adapters:"))
    path = line.split("path: ")[1].rstrip("}]")
    assert path.endswith(".safetensors")
    facts = json.loads((home / "out" / "evaluation.json").read_text())
    assert {m["name"] for m in facts["measures"]} >= {"mean OKS", "seeds differ, person"}
    assert facts["interval"]["method"].endswith("over sequences"), "what was held out is what is drawn"
    assert (home / "out" / "side_by_side.png").stat().st_size > 1000
    text = PIPELINE.replace("steps: 1}", f"steps: 1, {line.strip()}}}")
    (home / "aligned.yaml").write_text(text)
    adapter = load_pipeline(home / "aligned.yaml").generator.adapters[0]
    assert adapter.name == "dpo"


def test_the_same_again_computes_nothing(home, said):
    lake = Lake(home / "lake")
    before = {name: lake.table(name).count() for name in lake.tables()}
    adapter = next((home / "out" / "dpo").glob("*.safetensors"))
    weights = adapter.read_bytes()
    align(home)
    assert {name: lake.table(name).count() for name in lake.tables()} == before
    assert adapter.read_bytes() == weights


def test_what_is_compared_on_was_not_learnt_from(home, said):
    lake = Lake(home / "lake")
    pipeline = load_pipeline(home / "pipeline.yaml")
    facts = json.loads((home / "out" / "evaluation.json").read_text())
    samples = lake.table("samples").to_pandas(["fingerprint", "pose_id", "caption_id", "seed", "draw"])
    test = samples[samples["fingerprint"] == facts["fingerprints"]["samples"]]
    learnt = samples[samples["fingerprint"] != facts["fingerprints"]["samples"]]
    poses = lake.table("poses").to_pandas(["pose_id", "sequence"]).drop_duplicates("pose_id")
    sequence = poses.set_index("pose_id")["sequence"]
    assert not set(sequence[test["pose_id"]]) & set(sequence[learnt["pose_id"]])
    assert not set(test["caption_id"]) & set(learnt["caption_id"])
    assert not set(test["seed"]) & set(learnt["seed"])
    assert len(test) == facts["images"]
    assert sequence[test["pose_id"]].nunique() == facts["interval"]["units"]
    assert test.groupby(["pose_id", "caption_id"]).size().eq(2).all()
    assert learnt.groupby(["pose_id", "caption_id"]).size().eq(3).all()
    pairs = lake.table("preferences").to_pandas()
    assert set(pairs["pose_id"]) <= set(learnt["pose_id"])
    assert len(pairs) >= 2
    assert pipeline.plan.draws == 1, "the user's own plan stays what it is"


def test_base_and_aligned_differ_in_their_adapter_alone(home, said):
    pipeline = load_pipeline(home / "pipeline.yaml")
    base, aligned = held_out_pipelines(pipeline, SETTINGS, home / "out" / "x.safetensors")
    changed = {k for k in type(base).model_fields if getattr(base, k) != getattr(aligned, k)}
    assert changed == {"generator"}
    assert base.generator == pipeline.generator
    lake = Lake(home / "lake")
    facts = json.loads((home / "out" / "evaluation.json").read_text())["fingerprints"]
    images = lake.table("images").to_pandas(["sample_id", "fingerprint", "image_sha256"])
    two = [
        images[images["fingerprint"] == facts[side]].set_index("sample_id")["image_sha256"]
        for side in ("base", "aligned")
    ]
    both = two[0].index.intersection(two[1].index)
    assert len(both) > 0
    assert (two[0][both] != two[1][both]).mean() > 0.5, "the adapter is active"


def test_candidates_differ_in_their_seed_alone_and_leave_an_older_adapter_out(home):
    pipeline = load_pipeline(home / "pipeline.yaml")
    old = (
        AdapterSettings(path="a.safetensors", name="dpo"),
        AdapterSettings(path="b.safetensors", name="style"),
    )
    worn = pipeline.model_copy(update={"generator": DiffusionSettings(model="tiny", adapters=old)})
    candidates = candidate_pipeline(worn, SETTINGS)
    assert [a.name for a in candidates.generator.adapters] == ["style"]
    assert (candidates.plan.draws, candidates.plan.camera.each_draw) == (3, False)
    base, aligned = held_out_pipelines(worn, SETTINGS, home / "new.safetensors")
    assert [a.name for a in base.generator.adapters] == ["style"]
    assert [a.name for a in aligned.generator.adapters] == ["style", "dpo"]
    bundled = DiffusionSettings(adapters=(AdapterSettings(path="nano-dpo"),))
    assert pipeline.model_copy(update={"generator": bundled}).without_adapter("dpo").generator.adapters == ()
    assert base.plan.part.low == pytest.approx(candidates.plan.part.high)


def test_no_dpo_paints_as_if_the_adapter_were_not_there(home, said, tmp_path_factory):
    adapter = next((home / "out" / "dpo").glob("*.safetensors"))
    text = PIPELINE.replace("every: 300", "every: 400").replace("lake: lake", "lake: other")
    (home / "plain.yaml").write_text(text)
    (home / "worn.yaml").write_text(
        text.replace("steps: 1}", f"steps: 1, adapters: [{{name: dpo, path: {adapter}}}]}}")
    )
    invoke("run", home / "plain.yaml")
    lake = Lake(home / "other")
    before = lake.table("images").count()
    assert "Computed" not in invoke("run", home / "worn.yaml", "--no-dpo")
    assert lake.table("images").count() == before
    invoke("run", home / "worn.yaml")
    assert lake.table("images").count() == 2 * before
    with pytest.raises(ConfigError, match="no adapter with `name: dpo`"):
        invoke("run", home / "plain.yaml", "--no-dpo")
    shown = invoke("evaluate", home / "plain.yaml", home / "worn.yaml")
    assert "mean OKS" in shown
    # What else differs would pass for what the adapter does.
    detector = tmp_path_factory.mktemp("detector") / "keypoints.safetensors"
    weights = {name: value * 0.9 for name, value in load_file(WEIGHTS).items()}
    with safe_open(WEIGHTS, "pt") as file:
        save_file(weights, detector, file.metadata())
    for more, words in (
        (f"metrics: {{keypoints: {{weights: {detector}}}}}\n", "measure keypoints differently .models"),
        ("image: {quality: 30}\n", "write their images differently"),
    ):
        (home / "other.yaml").write_text((home / "worn.yaml").read_text() + more)
        with pytest.raises(InputError, match=words):
            invoke("evaluate", home / "plain.yaml", home / "other.yaml")


def test_what_cannot_be_aligned_is_said_before_any_work(home, tmp_path):
    (tmp_path / "shaded.yaml").write_text(
        PIPELINE.replace("{name: diffusers, model: tiny, steps: 1}", "{name: shaded}")
    )
    with pytest.raises(ConfigError, match="nothing to align"):
        invoke("align", tmp_path / "shaded.yaml", "--out", tmp_path / "out")
    assert not (tmp_path / "lake").exists()
    # Each of these would otherwise be said after hours, when all candidates are painted.
    sd_controlnet().save_pretrained(tmp_path / "sd")
    (tmp_path / "sd.yaml").write_text(PIPELINE.replace("tiny", "sd"))
    (tmp_path / "tiny.yaml").write_text(PIPELINE.replace("model: tiny", f"model: {home / 'tiny'}"))
    text = (tmp_path / "tiny.yaml").read_text()
    (tmp_path / "part.yaml").write_text(text.replace("[32, 32]", "[32, 32], part: {high: 0.5}"))
    (tmp_path / "fp16.yaml").write_text("mixed_precision: fp16\n")
    (tmp_path / "sharp.yaml").write_text("name: sharp\nscore: sharpness\n")
    (tmp_path / "file").write_text("")
    for name, out, more, kind, words in (
        ("sd", "out", (), ModelError, "training supports FluxControlPipeline"),
        ("tiny", "out", ("--policy", "papr"), ConfigError, "'papr' is neither .*did you mean paper"),
        (
            "tiny",
            "out",
            ("--policy", tmp_path / "sharp.yaml"),
            ConfigError,
            "reads metrics_image_quality, which",
        ),
        ("tiny", "out", ("--test-seed", 10**20), ConfigError, "has to fit into 64 bits"),
        ("part", "out", (), ConfigError, "plan.part takes some of the poses.*--split pose"),
        ("tiny", "file", (), ConfigError, "no folder can be made there"),
        ("tiny", "out", ("--config", tmp_path / "fp16.yaml", "--cpu"), ConfigError, "fp16 needs a GPU"),
    ):
        with pytest.raises(kind, match=words):
            invoke("align", tmp_path / f"{name}.yaml", "--out", tmp_path / out, *more)
        assert not (tmp_path / "lake").exists()
    for wrong in (
        ("--candidates", 1),
        ("--held-out", 0),
        ("--held-out", 1),
        ("--share", 0),
        ("--share", 1.2),
    ):
        with pytest.raises(ConfigError, match=wrong[0]):
            invoke("align", home / "pipeline.yaml", "--out", tmp_path / "out", *wrong)


def test_a_part_of_the_poses_is_divided_further(home):
    pipeline = load_pipeline(home / "pipeline.yaml")
    part = Part(low=0.5, high=1.0, by="sequence")
    some = pipeline.model_copy(update={"plan": pipeline.plan.model_copy(update={"part": part})})
    candidates = candidate_pipeline(some, SETTINGS).plan.part
    held_out = held_out_pipelines(some, SETTINGS, home / "x.safetensors")[0].plan.part
    assert (candidates.low, candidates.high) == pytest.approx((0.5, 0.8))
    assert (held_out.low, held_out.high) == pytest.approx((0.8, 1.0))


def test_without_poses_on_one_side_no_image_is_painted(home, tmp_path):
    """One sequence cannot be divided by sequence."""
    np.savez(tmp_path / "one.npz", **random_poses(6, 1))
    text = PIPELINE.replace("{name: demo, path: bundled, every: 300}", "{name: one, path: one.npz}")
    (tmp_path / "one.yaml").write_text(text.replace("model: tiny", f"model: {home / 'tiny'}"))
    for held_out, side in ((0.05, "held-out poses"), (0.9, "poses to learn from")):
        with pytest.raises(InputError, match=f"there are no {side}: divided by sequence.* --split pose"):
            invoke("align", tmp_path / "one.yaml", "--out", tmp_path / "out", "--held-out", held_out, "--cpu")
    assert not Lake(tmp_path / "lake").table("images").exists()

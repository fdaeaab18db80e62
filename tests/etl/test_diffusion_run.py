"""The whole job with a diffusion model: a run, a second one, a changed setting, a model that cannot paint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from etl.cli import app
from etl.lake import Lake
from etl.run import plan_pipeline
from etl.settings import load_pipeline
from schemas.errors import ModelError
from tests import tiny_pipelines

ROOT = Path(__file__).parents[2]
PIPELINE = """\
lake: lake
poses: [{name: demo, path: bundled, every: 90}]
captions: [{name: words, path: words.jsonl}]
plan: {pairing: random, image_size: [32, 32]}
generator: {name: diffusers, model: model, steps: 1, batch_rows: 4, adapters: [{path: lora, weight: 0.5}]}
policy: lenient
cluster: {workers: 0}
"""
LONG = "a man in a red shirt and a very long caption " * 200


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The pipeline file of a finished run."""
    folder = tmp_path_factory.mktemp("diffusion")
    pipe = tiny_pipelines.flux_control()
    tiny_pipelines.save_lora(pipe, folder / "lora", seed=1)
    tiny_pipelines.save(tiny_pipelines.flux_control(), folder / "model")
    texts = [LONG, "a woman in a blue dress"]
    (folder / "words.jsonl").write_text("\n".join(json.dumps({"caption": text}) for text in texts))
    file = folder / "pipeline.yaml"
    file.write_text(PIPELINE)
    result = CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return file


def test_every_sample_has_an_image_of_the_model(done):
    lake = Lake(done.parent / "lake")
    images = lake.table("images").to_pandas()
    samples = lake.table("samples").to_pandas(["sample_id", "seed", "prompt"])
    assert len(images) == len(samples) > 5
    assert images["image_path"].is_unique
    assert set(images["generator"]) == {"diffusers"}
    assert set(images["steps"]) == {1}
    rows = images.merge(samples, on="sample_id", suffixes=("", "_planned"))
    assert (rows["seed"] == rows["seed_planned"]).all()
    assert set(rows["prompt_truncated"]) == {True, False}
    assert (rows["prompt_truncated"] == (rows["prompt"].str.len() > 1000)).all()
    assert (images["batch_index"] < images["batch_size"]).all()
    assert lake.table("metrics_keypoints").count() == len(images)
    assert images["image_sha256"].is_unique


def test_a_second_run_has_nothing_to_do(done):
    lake = Lake(done.parent / "lake")
    before = lake.tables()
    result = CliRunner().invoke(app, ["run", str(done)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Nothing to compute" in result.output
    assert lake.tables() == before


def test_the_plan_names_what_changed(done):
    def why(old: str, new: str) -> str:
        file = done.with_name("changed.yaml")
        file.write_text(PIPELINE.replace(old, new))
        plans = {p.name: p for p in plan_pipeline(load_pipeline(file))}
        assert plans["images"].new == 0
        return plans["images"].why_stale

    assert why("steps: 1", "steps: 2") == "parameters.generator.steps 1 -> 2"
    assert why("weight: 0.5", "weight: 1") == "parameters.generator.adapter_weights [0.5] -> [1.0]"
    assert why("batch_rows: 4", "batch_rows: 2, compile: true, offload: model") == ""
    changed = why(", adapters: [{path: lora, weight: 0.5}]", "")
    assert "models.adapter_0" in changed
    assert "[0.5] -> []" in changed


def test_a_model_that_cannot_paint_is_said_before_any_work(done, tmp_path):
    tiny_pipelines.save(tiny_pipelines.flux_base(), tmp_path / "model")
    (tmp_path / "words.jsonl").write_text(json.dumps({"caption": "a man"}))
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace(", adapters: [{path: lora, weight: 0.5}]", ""))
    with pytest.raises(ModelError, match="FluxPipeline paints without a control image"):
        CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False)
    for asked, said in (
        ("pipeline: FluxControlPipeline", "add a control LoRA"),
        ("pipeline: FluxControlPipeline, revision: main", "leave revision out"),
    ):
        file.write_text(PIPELINE.replace("adapters: [{path: lora, weight: 0.5}]", asked))
        with pytest.raises(ModelError, match=said):
            CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False)
    there = Lake(tmp_path / "lake")
    assert not [name for name in ("sources", "poses", "labels") if there.table(name).exists()]
    file.write_text(PIPELINE)
    with pytest.raises(ModelError, match="lora: no such LoRA"):
        CliRunner().invoke(app, ["run", str(file)], catch_exceptions=False)


def test_a_plan_loads_no_model(done):
    code = (
        "import sys; from pathlib import Path; from etl.run import plan_pipeline; "
        "from etl.settings import load_pipeline; plan_pipeline(load_pipeline(Path(sys.argv[1]))); "
        "assert not {'torch', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(done)], check=True, cwd=ROOT)

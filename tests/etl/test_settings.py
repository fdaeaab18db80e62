"""The pipeline file: what is accepted, what a mistake is told, and where relative paths point."""

from pathlib import Path

import pytest

from etl.settings import load_pipeline
from etl.templates import PIPELINE
from schemas.errors import ConfigError


def _file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    return file


def test_the_template_is_valid_and_says_the_defaults(tmp_path):
    pipeline = load_pipeline(_file(tmp_path, PIPELINE))
    assert pipeline.lake == str(tmp_path / "lake")
    assert Path(pipeline.poses[0].path).exists()
    short = load_pipeline(_file(tmp_path, "lake: lake\nposes: [{name: demo, path: bundled}]\nrelease: 0.1.0"))
    assert pipeline == short


def test_relative_paths_are_relative_to_the_file(tmp_path):
    text = (
        "lake: s3://bucket/lake\nposes: [{name: a, path: data/x.npz}]\npolicy: p.yaml\nbody: {model: b.npz}"
    )
    pipeline = load_pipeline(_file(tmp_path, text))
    assert pipeline.lake == "s3://bucket/lake"
    assert pipeline.poses[0].path == str(tmp_path / "data" / "x.npz")
    assert pipeline.policy == str(tmp_path / "p.yaml")
    assert pipeline.body.model == str(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lake: x\nposes:\n  - name: a\n    path: b\n    evry: 3\n", r"line 5: poses\[0\].evry.*every"),
        ("lake: x\nposes:\n  - name: a\n    path: b\nplan:\n  draws: 0\n", r"line 6: plan.draws"),
        ("lake: x\n", "poses"),
        ("lake: x\nposes: [{name: a, path: b}, {name: a, path: c}]\n", "the name a is taken twice"),
        ("lake: x\nposes: [{name: a, path: b}]\nrelease: one\n", "line 3: release"),
        ("lake: x\nlake: y\n", "lake"),
        ("- a\n", "list"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_key(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_pipeline(_file(tmp_path, text))


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="posedreamer init"):
        load_pipeline(tmp_path / "none.yaml")


def test_models_are_folders_beside_the_file_or_hub_ids(tmp_path):
    def placed(generator: str):
        text = f"lake: x\nposes: [{{name: a, path: b}}]\ngenerator: {{name: diffusers, {generator}}}"
        return load_pipeline(_file(tmp_path, text)).generator

    assert placed("steps: 4").model == "nano"
    assert placed("model: owner/model").model == "owner/model"
    assert placed("model: models/a/b").model == str(tmp_path / "models" / "a" / "b")
    assert placed("model: ./mine").model == str(tmp_path / "mine")
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert placed("model: owner/model").model == str(tmp_path / "owner" / "model"), "a folder wins"
    adapters = placed("controlnet: net, adapters: [{path: nano-dpo}, {path: a/b}, {path: x.safetensors}]")
    assert adapters.controlnet == str(tmp_path / "net")
    paths = [a.path for a in adapters.adapters]
    assert paths == ["nano-dpo", "a/b", str(tmp_path / "x.safetensors")]


@pytest.mark.parametrize(
    ("generator", "said"),
    [
        ("{name: diffuser}", "line 3: generator.*diffusers"),
        ("{name: diffusers, step: 4}", r"generator\.step: unknown key; did you mean steps"),
        ("{name: diffusers, steps: 0}", r"generator\.steps"),
        ("{name: shaded, steps: 4}", r"generator\.steps: unknown key"),
        ("{name: diffusers, adapters: [{path: a, name: x}, {path: b, name: x}]}", "name x is taken twice"),
        ("{name: diffusers, adapters: [{path: a, weight_name: lora.bin}]}", "weight_name"),
        ("{name: diffusers, dtype: int8}", "dtype"),
    ],
)
def test_a_mistake_in_the_generator_is_named(tmp_path, generator, said):
    text = f"lake: x\nposes: [{{name: a, path: b}}]\ngenerator: {generator}"
    with pytest.raises(ConfigError, match=said):
        load_pipeline(_file(tmp_path, text))


def test_models_of_metrics_are_the_default_a_folder_or_a_hub_id(tmp_path):
    def metrics(text: str):
        base = "lake: x\nposes: [{name: a, path: b}]\nmetrics: "
        return load_pipeline(_file(tmp_path, base + text)).metrics

    asked = metrics(
        "{silhouette: {model: ./segformer}, head_pose: true, "
        "caption_match: {model: owner/clip, revision: v1}}"
    )
    assert asked.silhouette is not None
    assert asked.silhouette.model == str(tmp_path / "segformer")
    assert asked.head_pose is not None
    assert asked.head_pose.model == "default"
    assert asked.caption_match is not None
    assert (asked.caption_match.model, asked.caption_match.revision) == ("owner/clip", "v1")
    assert metrics("{head_pose: false}").head_pose is None
    with pytest.raises(ConfigError, match=r"silhouete.*silhouette"):
        metrics("{silhouete: true}")
    with pytest.raises(ConfigError, match=r"line 3: metrics\.head_pose: is 'resnet'; write true, or"):
        metrics("{head_pose: resnet}")

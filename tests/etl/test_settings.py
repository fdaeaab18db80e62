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

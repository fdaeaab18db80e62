"""`posedreamer filter` and its words, on a lake of measured rows; the README's commands run on a real one."""

import pytest
from typer.testing import CliRunner

from etl import filter_cli
from etl.cli import app
from etl.filter import Measured
from etl.lake import Lake
from schemas.errors import ConfigError
from tests.lake_rows import IMAGES, METRICS, fill

MEASURED = Measured({"metrics_keypoints": METRICS}, IMAGES)


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """What the commands find behind any pipeline file."""
    made = Lake.create(tmp_path / "lake")
    fill(made, 200)
    file = tmp_path / "pipeline.yaml"
    file.write_text("lake: lake\nposes: [{name: a, path: bundled}]\n")
    monkeypatch.setattr(filter_cli, "_measured", lambda lake, settings, *policies: MEASURED)
    monkeypatch.chdir(tmp_path)
    return made


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["filter", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_without_a_word_it_selects_as_it_always_did(lake, tmp_path):
    said = run("--pipeline", str(tmp_path / "pipeline.yaml"), "--policy", "lenient")
    assert said.startswith("Policy lenient: keeps ")
    assert "oks >= 0.5" in said
    assert lake.table("selections").count() == 200
    assert run("-p", "pipeline.yaml").startswith("Policy strict: keeps "), "the pipeline's policy"
    assert lake.table("selections").count() == 400


def test_another_bound_is_another_selection_and_a_dry_run_none(lake):
    said = run("--set", "oks=0.3", "--set", "persons.max=2", "--dry-run")
    assert "1 <= persons <= 2" in said
    assert "oks >= 0.3" in said
    assert "nothing was written" in said
    assert not lake.table("selections").exists()
    wet = run("--set", "oks=0.3", "--set", "persons.max=2")
    assert wet.splitlines() == said.splitlines()[:-1]
    assert lake.table("selections").count() == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "oks"), "--set oks: give column=value, such as oks=0.85"),
        (("--set", "okz=1"), "policy strict has no rule on okz"),
        (("--set", "persons=2"), "the rule on persons has min and max: say which, such as persons.min=1"),
        (("--set", "oks=many"), "oks = many: "),
        (("--policy", "strikt"), "policy 'strikt' is neither built in nor a file"),
        (("--policy", "strict", "sweep", "oks", "1"), "give these options after the word sweep"),
        (("sweep", "oks", "one"), "'one' is no range of numbers"),
        (("sweep", "coverage", "1"), "policy strict has no rule on coverage"),
        (("sweep", "oks", "0.5", "--out", "none/x.png"), "none/x.png: there is no folder none"),
        (("diff", "strict", "lenient", "--set", "persons=1"), "policy lenient has no rule on persons"),
    ],
)
def test_what_is_not_clear_is_said(lake, words, message):
    with pytest.raises(ConfigError) as caught:
        run(*words)
    assert str(caught.value).startswith(message)


def test_a_sweep_prints_a_line_a_bound_and_draws(lake, tmp_path):
    words = ("sweep", "oks", "0.5:0.9:0.1", "--set", "persons.max=9", "--out", "s.png")
    said = run("-p", "pipeline.yaml", *words)
    lines = [line.split() for line in said.splitlines() if line.startswith("0.")]
    assert [line[0] for line in lines] == ["0.5", "0.6", "0.7", "0.8", "0.9"]
    kept = [int(line[1]) for line in lines]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1]
    assert (tmp_path / "s.png").stat().st_size > 5000
    assert not lake.table("selections").exists()


def test_a_difference_names_rules_and_writes_a_list(lake, tmp_path):
    said = run("diff", "lenient", "strict", "-p", "pipeline.yaml")
    assert "strict rejects by oks >= 0.8" in said
    assert "strict rejects by 1 <= persons <= 4" in said
    assert "Nearest to the thresholds" in said
    assert run("diff", "lenient", "lenient").endswith("No image comes or goes.\n")
    varied = run("diff", "lenient", "lenient", "--set", "oks=0.9")
    assert "lenient-oks-0.9 rejects by oks >= 0.9" in varied
    assert not lake.table("selections").exists()

"""A curriculum in full: rounds that are picked by what the ones before measured, and run again."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import etl.stages
from etl.cli import app
from etl.ingest import list_files
from etl.lake import Lake
from etl.mine import hardest, learn
from etl.run import plan_pipeline, run_stages, select_images
from etl.settings import load_pipeline
from etl.stage import run_stage
from etl.stages import Stages
from etl.workers import Workers
from schemas.errors import ConfigError, InputError
from udfs.skeleton import descriptor

PIPELINE = """\
lake: lake
poses: [{name: demo, path: bundled}]
plan: {image_size: [64, 64]}
generator: {name: shaded}
curriculum:
  rounds:
    - {budget: 100}
    - {budget: 40, mix: {hard: 0.5, novel: 0.2, random: 0.3}}
    - {budget: 40, mix: {hard: 0.5, uncertain: 0.1, random: 0.4}, captions_per_pose: 2}
  spacing: 0.04
policy: lenient
release: 0.1.0
cluster: {workers: 0}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The pipeline file of a finished run, in two calls: two rounds, and then the third."""
    file = tmp_path_factory.mktemp("curriculum") / "pipeline.yaml"
    file.write_text(PIPELINE)
    lake = Lake.create(file.parent / "lake")
    first = run_stages(lake, load_pipeline(file).first_rounds(2))
    assert [p.number for p in first.picked] == [1, 2]
    report = run_stages(lake, load_pipeline(file))
    assert [p.new for p in report.picked] == [False, False, True]
    assert not report.failed
    return file


@pytest.fixture
def lake(done):
    return Lake(done.parent / "lake")


def versions(lake):
    return {name: lake.table(name).version() for name in lake.tables()}


def test_each_round_gets_its_budget_of_poses_that_none_had_before(lake):
    picks = lake.table("picks").to_pandas()
    assert picks["pose_id"].is_unique
    assert picks.groupby("round").size().to_dict() == {1: 100, 2: 40, 3: 40}
    reasons = picks.groupby(["round", "pick_reason"]).size().to_dict()
    assert reasons == {
        (1, "random"): 100, (2, "hard"): 20, (2, "novel"): 8, (2, "random"): 12,
        (3, "hard"): 20, (3, "uncertain"): 4, (3, "random"): 16,
    }  # fmt: skip


def test_samples_say_why_and_by_which_model_they_were_picked(lake):
    names = ["pose_id", "round", "pick_reason", "pick_model"]
    samples = lake.table("samples").to_pandas(names)
    assert samples.groupby("round").size().to_dict() == {1: 100, 2: 40, 3: 80}
    picks = lake.table("picks").to_pandas(names)
    both = samples.merge(picks, on="pose_id", suffixes=("", "_picked"))
    assert len(both) == len(samples)
    for name in names[1:]:
        assert (both[name].fillna("") == both[f"{name}_picked"].fillna("")).all(), name
    models = samples.groupby("round")["pick_model"].unique()
    assert models[1][0] is None or np.isnan(models[1][0])
    assert models[2][0] != models[3][0]


def test_a_round_learns_from_all_rounds_before_it_and_its_model_is_kept(lake):
    models = lake.table("samples").to_pandas(["round", "pick_model"]).drop_duplicates().set_index("round")
    for number, images in ((2, 100), (3, 140)):
        folder = f"files/mining/oks-{models.loc[number, 'pick_model']}"
        card = json.loads(lake.store.read(f"{folder}/model.json"))
        assert card["held_out"]["images"] == images
        assert card["trained_on"]["tables"]["metrics_keypoints"] < lake.table("metrics_keypoints").version()
        assert lake.store.read(f"{folder}/member-0.txt").startswith(b"tree\n")


def test_hard_picks_come_out_worse_than_random_ones(lake):
    samples = lake.table("samples").to_pandas(["sample_id", "round", "pick_reason"])
    images = lake.table("images").to_pandas(["sample_id", "image_id"])
    oks = lake.table("metrics_keypoints").to_pandas(["image_id", "oks"])
    rows = samples.merge(images, on="sample_id").merge(oks, on="image_id").fillna({"oks": 0})
    mean = rows[rows["round"] > 1].groupby("pick_reason")["oks"].mean()
    assert mean["hard"] < mean["random"]


def test_poses_of_a_round_keep_their_distance(lake):
    picks = lake.table("picks").to_pandas(["pose_id", "round"])
    poses = lake.table("poses").to_pandas(["pose_id", "body_pose"])
    for _, rows in picks.merge(poses, on="pose_id").groupby("round"):
        points = descriptor(np.stack(rows["body_pose"]))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(len(points))
        assert gaps.min() >= 0.04 - 1e-6


def test_a_second_run_computes_nothing(done, lake):
    before = versions(lake)
    pipeline = load_pipeline(done)
    assert not any(p.to_compute for p in plan_pipeline(pipeline))
    report = run_stages(lake, pipeline)
    assert report.computed == 0
    assert not any(p.new for p in report.picked)
    assert versions(lake) == before


def test_the_rounds_of_one_look_list_the_files_once(done, lake, monkeypatch):
    listed = []
    monkeypatch.setattr(etl.stages, "list_files", lambda source: listed.append(source) or list_files(source))
    stages = Stages.latest(lake, load_pipeline(done))
    assert stages.round == 3
    assert stages.sample_fingerprints
    assert len(listed) == 1


def test_all_rounds_at_once_pick_what_a_step_at_a_time_picked(done, lake, tmp_path):
    file = tmp_path / "pipeline.yaml"
    shutil.copy(done, file)
    run_stages(Lake.create(tmp_path / "lake"), load_pipeline(file))
    names = ["pose_id", "fingerprint", "round", "rank", "pick_reason", "pick_model", "predicted_oks"]
    a, b = (
        x.table("picks").to_pandas(names).sort_values(["round", "rank"]).reset_index(drop=True)
        for x in (lake, Lake(tmp_path / "lake"))
    )
    assert a.equals(b)


def test_a_selection_and_a_release_have_all_rounds(done, lake):
    result = CliRunner().invoke(app, ["run", str(done)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "as before" in result.output
    chosen = select_images(lake, load_pipeline(done))
    assert chosen.images == 220
    rounds = lake.release("0.1.0").to_pandas(["round"])["round"]
    assert set(rounds) == {1, 2, 3}


def test_a_plan_says_which_rounds_are_still_to_be_picked(done, tmp_path):
    shutil.copytree(done.parent, tmp_path / "copy")
    file = tmp_path / "copy" / "pipeline.yaml"
    text = file.read_text().replace("  spacing:", "    - {budget: 30}\n  spacing:")
    file.write_text(text)
    todo = {p.name: p for p in plan_pipeline(load_pipeline(file)) if p.to_compute}
    assert list(todo) == ["round 4"]
    assert todo["round 4"].coming == 30
    assert todo["round 4"].unpicked


def test_mine_scores_every_pose_and_reports(done, lake, tmp_path):
    run = CliRunner()
    trained = run.invoke(app, ["mine", "train", "-p", str(done)], catch_exceptions=False)
    assert trained.exit_code == 0, trained.output
    assert "spearman" in trained.output
    scored = run.invoke(app, ["mine", "-p", str(done)], catch_exceptions=False)
    assert scored.exit_code == 0, scored.output
    mining = learn(lake, load_pipeline(done))
    stages = {stage.name: stage.fingerprint.value for stage in mining.stages}
    assert set(stages) == {"plausibility", "predicted_oks", "novelty"}
    for name, value in stages.items():
        scores = lake.table(f"scores_{name}").to_pandas(["pose_id", "fingerprint"])
        assert scores.loc[scores["fingerprint"] == value, "pose_id"].nunique() == 634
    first = hardest(mining, 3)
    assert first["predicted_oks"].is_monotonic_increasing
    report = run.invoke(app, ["mine", "report", "-p", str(done), "--out", str(tmp_path / "r")])
    assert report.exit_code == 0, report.output
    assert {p.name for p in (tmp_path / "r").iterdir()} == {
        "report.md", "predicted_and_measured.png", "importance.png", "oks_by_round.png", "hardest.png",
    }  # fmt: skip


def test_a_pose_that_was_generated_is_no_news(lake, done):
    mining = Stages.latest(lake, load_pipeline(done), as_run=True).mining
    mining.prepare()
    with Workers(count=0) as workers:
        for stage in mining.stages:
            run_stage(lake, stage, workers)
    novelty = mining.stages[-1].fingerprint.value
    scores = lake.table("scores_novelty").to_pandas()
    scores = scores[scores["fingerprint"] == novelty]
    picked = scores["pose_id"].isin(lake.table("picks").to_pandas(["pose_id"])["pose_id"])
    assert picked.sum() == 180
    assert (scores.loc[picked, "novelty"] == 0).all()
    assert scores.loc[~picked, "novelty"].median() > 0.01


def test_rounds_that_cannot_be_picked_are_refused_before_any_work(tmp_path):
    file = tmp_path / "pipeline.yaml"

    def fails(text, message):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            run_stages(Lake.create(tmp_path / "lake"), load_pipeline(file))

    fails(PIPELINE.replace("budget: 100", "budget: 99"), "round 1 makes 99 images.*100 at least")
    fails(PIPELINE.replace("spacing: 0.04", "quotas: {amass: 0.5}"), "no pose source is called amass")
    file.write_text(PIPELINE)
    with pytest.raises(ConfigError, match="has 3 rounds"):
        load_pipeline(file).first_rounds(4)
    file.write_text(PIPELINE[: PIPELINE.index("curriculum:")])
    with pytest.raises(ConfigError, match="there are no rounds"):
        load_pipeline(file).first_rounds(2)


def test_a_pool_that_is_used_up_is_said(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace("spacing: 0.04", "quotas: {demo: 0}"))
    with pytest.raises(InputError, match=r"none of 634 poses is left to pick \(short of 100 for quotas"):
        run_stages(Lake.create(tmp_path / "lake"), load_pipeline(file))


def test_mining_what_was_never_measured_says_so(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE[: PIPELINE.index("curriculum:")])
    Lake.create(tmp_path / "lake")
    result = CliRunner().invoke(app, ["mine", "train", "-p", str(file)])
    assert result.exit_code == 1
    assert "posedreamer run" in str(result.exception)

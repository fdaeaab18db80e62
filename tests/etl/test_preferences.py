"""Preference pairs in a lake: which images form a group, and that a choice is written once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from etl.cli import app
from etl.lake import Lake
from etl.preferences import load_preference_policy, prefer
from schemas.errors import ConfigError, InputError
from schemas.policy import Rule
from schemas.preference import PreferencePolicy
from tests.lake_rows import IMAGES, METRICS, SAMPLES, random_rows

POLICY = PreferencePolicy(name="p")
CAMERA = {
    "camera_yaw": 0.5, "camera_elevation": 0.1, "camera_distance": 3.0, "camera_focal": 80.0,
    "camera_margin": 0.1, "image_height": 64, "image_width": 64,
}  # fmt: skip


def put(lake: Lake, scores: list[list[float | None]], metrics: str = METRICS, **samples) -> np.ndarray:
    """A group of images for each list of scores; returns image ids in that order."""
    n = sum(map(len, scores))
    groups, each = len(scores), [len(s) for s in scores]
    poses = random_rows("poses", groups, 1, sequence=[f"s{i % 2}" for i in range(groups)], source="demo")
    pose = np.repeat(poses.column("pose_id").to_numpy(), each)
    betas = np.repeat(np.random.default_rng(0).random((groups, 10)).astype(np.float32), each, axis=0)
    given = {"pose_id": pose, "caption_id": np.repeat(np.arange(groups), each), "betas": list(betas)}
    rows = random_rows("samples", n, 2, fingerprint=SAMPLES, **{**CAMERA, **given, **samples})
    images = random_rows("images", n, 3, fingerprint=IMAGES, sample_id=rows.column("sample_id").to_numpy())
    ids = images.column("image_id").to_numpy()
    measured = random_rows(
        "metrics_keypoints", n, 4, fingerprint=metrics, image_id=ids, persons=1,
        oks=[s for g in scores for s in g],
    )  # fmt: skip
    order = np.random.default_rng(1).permutation(n)
    for table, made in (("poses", poses), ("samples", rows), ("images", images)):
        lake.table(table).append(made)
    lake.table("metrics_keypoints").append(measured.take(order))
    return ids


def run(lake: Lake, policy: PreferencePolicy = POLICY, metrics: str = METRICS):
    return prefer(
        lake,
        policy,
        metric_fingerprints={"metrics_keypoints": metrics},
        image_fingerprint=IMAGES,
        sample_fingerprints=[SAMPLES],
    )


def test_pairs_are_rows_with_what_was_compared(lake):
    ids = put(lake, [[0.6, 0.9, 0.2], [0.9, 0.88], [0.3, 0.1], [0.9]])
    chosen = run(lake)
    assert (chosen.images, chosen.groups, chosen.pairs, chosen.written) == (8, 4, 1, 1)
    assert chosen.outcomes == {
        "paired": 1,
        "fewer than two measured images": 1,
        "the best is under min_winner": 1,
        "the gap is under min_gap": 1,
    }
    row = lake.table("preferences").to_pandas().iloc[0]
    assert (row["winner_image_id"], row["loser_image_id"]) == (ids[1], ids[2])
    assert row["gap"] == np.float32(0.9) - np.float32(0.2)
    images = lake.table("images").to_pandas(["image_id", "sample_id"]).set_index("image_id")["sample_id"]
    samples = lake.table("samples").to_pandas(["sample_id", "pose_id", "caption_id"]).set_index("sample_id")
    own = samples.loc[images[row["winner_image_id"]]]
    assert (own["pose_id"], own["caption_id"]) == (row["pose_id"], row["caption_id"])
    assert row["selection"] == chosen.fingerprint


def test_the_same_choice_is_written_once_and_another_beside_it(lake):
    put(lake, [[0.6, 0.9, 0.2], [0.9, 0.7]])
    first, again = run(lake), run(lake)
    assert first.fingerprint == again.fingerprint
    assert (first.written, again.written) == (2, 0)
    other = run(lake, POLICY.model_copy(update={"min_gap": 0.5}))
    assert other.written == 1
    rows = lake.table("preferences").to_pandas()
    assert rows.groupby("selection").size().to_dict() == {first.fingerprint: 2, other.fingerprint: 1}
    assert rows["preference_id"].nunique() == 2, "a pair is the same pair whoever chose it"


def test_more_images_are_another_choice(lake):
    put(lake, [[0.6, 0.9]])
    before = run(lake).fingerprint
    more = random_rows("samples", 1, 9, fingerprint=SAMPLES)
    images = random_rows("images", 1, 9, fingerprint=IMAGES, sample_id=more.column("sample_id").to_numpy())
    ids = images.column("image_id").to_numpy()
    poses = random_rows("poses", 1, 9, pose_id=more.column("pose_id").to_numpy())
    scores = random_rows("metrics_keypoints", 1, 9, fingerprint=METRICS, image_id=ids)
    for name, rows in (("poses", poses), ("samples", more), ("images", images)):
        lake.table(name).append(rows)
    assert run(lake).unmeasured == 1
    lake.table("metrics_keypoints").append(scores)
    assert run(lake).fingerprint != before


@pytest.mark.parametrize("name", [*CAMERA, "betas", "caption_id"])
def test_images_that_differ_in_more_than_their_seed_are_no_group(lake, name):
    """A draw with a camera of its own shows another control image: its score says nothing of the seed."""
    rng = np.random.default_rng(3)
    other = list(rng.random((2, 10)).astype(np.float32)) if name == "betas" else [20, 30]
    put(lake, [[0.9, 0.2]], **{name: other})
    chosen = run(lake)
    assert (chosen.groups, chosen.pairs) == (2, 0)


def test_a_margin_that_is_null_groups_like_any_other(lake):
    put(lake, [[0.9, 0.2]], camera_margin=[None, None])
    assert run(lake).pairs == 1


def test_a_sequence_gives_no_more_than_its_share(lake):
    put(lake, [[0.9, 0.2], [0.9, 0.1], [0.9, 0.3], [0.9, 0.4]])
    chosen = run(lake, POLICY.model_copy(update={"max_pairs_per_sequence": 1}))
    assert chosen.pairs == 2
    gaps = lake.table("preferences").to_pandas()["gap"]
    assert sorted(gaps.round(2)) == pytest.approx([0.7, 0.8])


def test_other_metrics_are_another_choice(lake):
    put(lake, [[0.6, 0.9]])
    first = run(lake)
    ids = lake.table("images").to_pandas(["image_id"])["image_id"].to_numpy()
    again = random_rows(
        "metrics_keypoints", 2, 8, fingerprint="4" * 16, image_id=ids, persons=1, oks=[0.9, 0.1]
    )
    lake.table("metrics_keypoints").append(again)
    second = run(lake, metrics="4" * 16)
    assert first.fingerprint != second.fingerprint
    assert (first.pairs, second.pairs) == (1, 1)


def test_an_image_that_lacks_a_measurement_of_the_policy_takes_no_part(lake):
    ids = put(lake, [[0.9, 0.8, 0.1]])
    colors = random_rows(
        "metrics_colors", 2, 6, fingerprint="5" * 16, image_id=ids[:2], colors_right=[0.5, 1]
    )
    lake.table("metrics_colors").append(colors)
    policy = POLICY.model_copy(update={"winner": (Rule(column="colors_right", min=1, missing="keep"),)})
    with pytest.raises(ConfigError, match="metrics_colors"):
        run(lake, policy)
    chosen = prefer(
        lake,
        policy,
        metric_fingerprints={"metrics_keypoints": METRICS, "metrics_colors": "5" * 16},
        image_fingerprint=IMAGES,
        sample_fingerprints=[SAMPLES],
    )
    assert (chosen.images, chosen.unmeasured, chosen.pairs) == (2, 1, 0)


def test_choosing_opens_no_image_and_imports_no_torch(lake):
    put(lake, [[0.9, 0.2]])
    code = (
        "import sys; from etl.lake import Lake; from tests.etl.test_preferences import run\n"
        f"assert run(Lake({lake.url!r})).pairs == 1\n"
        "heavy = [m for m in ('torch', 'smplx', 'diffusers', 'PIL') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_nothing_measured_is_said(lake):
    with pytest.raises(InputError, match="no image is measured yet"):
        run(lake)


def test_the_built_in_policy_is_the_papers(tmp_path):
    policy = load_preference_policy()
    assert (policy.score, policy.min_gap, policy.min_winner, policy.max_pairs) == ("oks", 0.05, 0.5, 1)
    (tmp_path / "mine.yaml").write_text("name: mine\nmin_gap: 0.2\n")
    assert load_preference_policy(str(tmp_path / "mine.yaml")).min_gap == 0.2
    with pytest.raises(ConfigError, match="did you mean paper"):
        load_preference_policy("papr")


def test_thousands_of_groups_add_up(lake):
    rng = np.random.default_rng(2)
    put(lake, list(rng.random((2_000, 4)).tolist()))
    chosen = run(lake)
    scores = lake.table("preferences").to_pandas()
    assert chosen.groups == 2_000
    assert chosen.pairs == len(scores) == chosen.outcomes["paired"]
    assert (scores["winner_score"] > scores["loser_score"]).all()


def test_the_command_says_why_samples_gave_no_pair(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    file = folder / "pipeline.yaml"
    file.write_text(
        "lake: lake\n"
        "poses: [{name: demo, path: bundled, every: 400}]\n"
        "generator: {name: shaded}\n"
        "plan: {image_size: [64, 64], draws: 2, camera: {each_draw: false}}\n"
        "metrics: {colors: true}\n"
        "cluster: {workers: 0}\n"
    )
    runner = CliRunner()
    done = runner.invoke(app, ["run", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (folder / "any.yaml").write_text(
        "name: any\nmin_gap: 0.000001\nmin_winner: 0\n"
        "winner: [{column: colors_right, min: 0.1, missing: keep}]\n"
    )
    command = ["preferences", str(file), "--policy", str(folder / "any.yaml")]
    said = runner.invoke(app, command, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    lake = Lake(folder / "lake")
    colors = lake.table("metrics_colors").to_pandas()
    assert len(colors) == lake.table("images").count()
    assert colors["colors_right"].mean() > 0.8, "captions and labels are those of the images"
    groups = lake.table("samples").count() // 2
    assert f"of {groups} groups" in " ".join(said.output.split())
    rows = lake.table("preferences").to_pandas()
    assert 0 < len(rows) <= groups
    images = lake.table("images").to_pandas(["image_id", "sample_id", "seed"]).set_index("image_id")
    samples = lake.table("samples").to_pandas().set_index("sample_id")
    labels = lake.table("labels").to_pandas(["sample_id", "control_sha256"]).set_index("sample_id")
    for row in rows.itertuples():
        two = images.loc[[row.winner_image_id, row.loser_image_id]]
        assert two["seed"].nunique() == 2
        assert labels.loc[two["sample_id"], "control_sha256"].nunique() == 1, "the same control image"
        assert samples.loc[two["sample_id"], "prompt"].nunique() == 1

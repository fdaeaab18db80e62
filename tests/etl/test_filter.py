"""Filtering decides by measured facts alone, and the same question twice costs nothing."""

import numpy as np
import pyarrow.compute as pc
import pytest

from etl.filter import load_policy, select
from etl.lake import Lake
from schemas.errors import ConfigError, InputError
from schemas.policy import Policy
from tests.lake_rows import IMAGES, METRICS, SAMPLES, fill, random_rows, selected
from tests.watched import run_light


@pytest.fixture
def lake(tmp_path):
    made = Lake.create(tmp_path / "lake")
    fill(made, 400)
    return made


def test_decisions_equal_pandas_on_the_joined_tables(lake):
    found = selected(lake, "strict")
    metrics = lake.table("metrics_keypoints").to_pandas(["image_id", "persons", "oks"])
    crowd = ~metrics["persons"].between(1, 4)
    off = ~(metrics["oks"] >= np.float32(0.8))
    rows = lake.table("selections").to_pandas().merge(metrics, on="image_id", validate="one_to_one")
    assert len(rows) == found.images == 400
    np.testing.assert_array_equal(
        rows["keep"], rows["persons"].between(1, 4) & (rows["oks"] >= np.float32(0.8))
    )
    assert found.kept == rows["keep"].sum() > 0
    first = rows["rejected_by"].value_counts().to_dict()
    assert first == {"1 <= persons <= 4": crowd.sum(), "oks >= 0.8": (off & ~crowd).sum()}
    assert [(f.rule, f.first, f.alone) for f in found.funnel] == [
        ("1 <= persons <= 4", crowd.sum(), crowd.sum()),
        ("oks >= 0.8", (off & ~crowd).sum(), off.sum()),
    ]
    samples = lake.table("images").to_pandas(["image_id", "sample_id"])
    assert rows.merge(samples, on=["image_id", "sample_id"]).shape[0] == 400


def test_the_same_again_writes_nothing_and_more_images_are_a_new_selection(lake):
    first = selected(lake)
    version = lake.table("selections").version()
    again = selected(lake)
    assert (first.written, again.written) == (400, 0)
    assert again.fingerprint == first.fingerprint
    assert lake.table("selections").version() == version
    fill(lake, 50, seed=9)
    more = selected(lake)
    assert more.fingerprint != first.fingerprint
    assert more.written == more.images == 450
    kept = pc.field("selection") == first.fingerprint
    assert lake.table("selections").read(where=kept).num_rows == 400


def test_another_threshold_and_another_measurement_are_other_selections(lake):
    base = selected(lake, "strict")
    rows = random_rows(
        "metrics_keypoints", 400, 77, fingerprint="f" * 16,
        image_id=lake.table("images").read(["image_id"]).column("image_id").to_numpy(),
    )  # fmt: skip
    lake.table("metrics_keypoints").append(rows)
    other = select(
        lake,
        load_policy("strict"),
        metric_fingerprints={"metrics_keypoints": "f" * 16},
        image_fingerprint=IMAGES,
    )
    values = {base.fingerprint, selected(lake, "lenient").fingerprint, other.fingerprint}
    assert len(values) == 3
    assert other.images == 400


def test_an_image_without_a_measurement_is_left_out_and_counted(lake):
    lake.table("images").append(random_rows("images", 7, 5, fingerprint=IMAGES))
    found = selected(lake)
    assert (found.images, found.unmeasured) == (400, 7)


def test_images_of_another_plan_can_be_left_out(lake):
    metrics = {"metrics_keypoints": METRICS}
    policy = load_policy("lenient")
    for plans, images in (([SAMPLES], 400), (["x", SAMPLES], 400), (None, 400)):
        found = select(
            lake, policy, metric_fingerprints=metrics, image_fingerprint=IMAGES, sample_fingerprints=plans
        )
        assert found.images == images
    with pytest.raises(InputError, match="no image is measured yet: 0 images"):
        select(lake, policy, metric_fingerprints=metrics, image_fingerprint=IMAGES, sample_fingerprints=["x"])


def test_a_policy_without_rules_keeps_all(lake):
    found = selected(lake, Policy(name="all", rules=()))
    assert (found.kept, found.funnel) == (400, ())


def test_an_empty_lake_and_a_metric_that_is_not_there_are_said(tmp_path):
    empty = Lake.create(tmp_path / "empty")
    with pytest.raises(InputError, match="no image is measured yet"):
        selected(empty)
    with pytest.raises(
        ConfigError, match=r"policy lenient reads metrics_keypoints, .*`metrics: \{keypoints: true\}`"
    ):
        select(empty, load_policy("lenient"), metric_fingerprints={}, image_fingerprint=IMAGES)


def test_policies_are_found_by_name_and_by_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nrules: [{column: oks, min: 0.6}]")
    assert load_policy(str(path)).name == "mine"
    assert load_policy("strict").name == "strict"
    with pytest.raises(ConfigError, match="neither built in nor a file; did you mean strict"):
        load_policy("strikt")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(str(tmp_path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(str(path))


_SELECT = """
from etl.filter import load_policy, select
from etl.lake import Lake
said = select(Lake(sys.argv[1]), load_policy("strict"),
              metric_fingerprints={"metrics_keypoints": sys.argv[2]}, image_fingerprint=sys.argv[3]).kept
"""


def test_filtering_opens_no_image_and_imports_no_torch(lake):
    assert run_light(lake, _SELECT, METRICS, IMAGES) > 0

"""Two generators on the same samples: paired differences from hand-made rows, and the sheet beside them."""

import json

import numpy as np
import pytest

from etl.evaluate import Side, evaluate
from etl.lake import Lake
from etl.side_by_side import choose_rows, side_by_side, write_evaluation
from schemas.errors import ConfigError, InputError
from tests.lake_rows import LABELS, SAMPLES, random_rows
from udfs.picture import encode

SIDE = 32
BASE, ALIGNED, METRICS, COLORS = "b" * 16, "a" * 16, "2" * 16, "3" * 16
GREY = np.full((SIDE, SIDE, 3), 120, np.uint8)
BODY = np.zeros((SIDE, SIDE), bool)
BODY[8:24, 8:24] = True


def picture(person: int, background: int) -> np.ndarray:
    out = np.full((SIDE, SIDE, 3), background, np.uint8)
    out[BODY] = person
    return out


class Made:
    """A lake with `poses` poses of two seeds each, and the images of both sides."""

    def __init__(self, place, poses: int = 20) -> None:
        self.lake, self.n = Lake.create(place), 2 * poses
        ids = random_rows("poses", poses, 1).column("pose_id").to_numpy()
        captions = random_rows("captions", poses, 2)
        same = {
            "camera_yaw": 0.5, "camera_elevation": 0.1, "camera_distance": 3.0, "camera_focal": 80.0,
            "camera_margin": 0.1, "image_height": SIDE, "image_width": SIDE, "betas": [[0.0] * 10] * self.n,
        }  # fmt: skip
        samples = random_rows(
            "samples", self.n, 3, fingerprint=SAMPLES, pose_id=np.repeat(ids, 2), draw=[0, 1] * poses,
            caption_id=np.repeat(captions.column("caption_id").to_numpy(), 2), **same,
        )  # fmt: skip
        self.samples = samples.column("sample_id").to_numpy()
        paths = [f"files/controls/{i}.png" for i in range(self.n)]
        labels = random_rows(
            "labels", self.n, 4, fingerprint=LABELS, sample_id=self.samples, control_path=paths,
            image_height=SIDE, image_width=SIDE,
        )  # fmt: skip
        for path in paths:
            self.lake.store.write(path, encode(picture(200, 0), "png"))
        for name, rows in (("captions", captions), ("samples", samples), ("labels", labels)):
            self.lake.table(name).append(rows)

    def side(self, made: str, oks, pictures=None, persons=1, colors=None, drop: int = 0) -> None:
        n, seed = self.n - drop, int(made[0], 16)
        paths = [f"files/images/{made}/{i}.png" for i in range(n)]
        images = random_rows(
            "images", n, seed, fingerprint=made, sample_id=self.samples[:n], image_path=paths,
            image_height=SIDE, image_width=SIDE,
        )  # fmt: skip
        for i, path in enumerate(paths):
            self.lake.store.write(path, encode(GREY if pictures is None else pictures[i], "png"))
        ids = images.column("image_id").to_numpy()
        scores = random_rows(
            "metrics_keypoints",
            n,
            seed,
            fingerprint=METRICS,
            image_id=ids,
            oks=list(oks)[:n],
            persons=persons,
        )
        self.lake.table("images").append(images)
        self.lake.table("metrics_keypoints").append(scores)
        if colors is not None:
            read = random_rows("metrics_colors", n, seed, fingerprint=COLORS, image_id=ids, **colors)
            self.lake.table("metrics_colors").append(read)

    def compare(self, colors: bool = False, unit="pose", **more):
        metrics = {"metrics_keypoints": METRICS} | ({"metrics_colors": COLORS} if colors else {})
        return evaluate(
            self.lake,
            sample_fingerprints=[SAMPLES],
            label_fingerprint=LABELS,
            base=Side(BASE, metrics),
            aligned=Side(ALIGNED, metrics),
            unit=unit,
            **more,
        )


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "lake")


def named(evaluation):
    return {m.name: m for m in evaluation.measures}


def test_differences_are_paired_and_their_interval_is_over_poses(made):
    rng = np.random.default_rng(0)
    hard = np.repeat(rng.uniform(0.2, 0.9, 20), 2)
    made.side(BASE, hard)
    made.side(ALIGNED, hard + 0.05)
    found = made.compare()
    oks = found.oks
    assert (found.images, found.poses, found.left_out, oks.n) == (40, 20, 0, 40)
    assert oks.difference.mean == pytest.approx(0.05, abs=1e-6)
    assert oks.difference.low == pytest.approx(0.05, abs=1e-6), "hard poses are hard for both"
    assert oks.aligned - oks.base == pytest.approx(oks.difference.mean)
    assert list(found.verdict()) == ["Mean OKS of the aligned model is higher beyond the 95 % interval."]
    assert (found.unit, found.units) == ("pose", 20)
    assert "bootstrapped over 20 poses." in found.markdown()
    assert "too few" not in found.markdown()


def test_where_sequences_were_held_out_they_are_what_is_drawn(made):
    """Frames of a sequence share their luck: as draws of their own they would seem sure of it."""
    ids = np.unique(made.lake.table("samples").to_pandas(["pose_id"])["pose_id"])
    # The same name in two sources is two sequences.
    place = {"source": ["a", "b"] * 10, "sequence": [f"walk {i // 4}" for i in range(20)]}
    made.lake.table("poses").append(random_rows("poses", 20, 1, pose_id=ids, **place))
    luck = np.random.default_rng(2).normal(0, 0.1, (5, 2))
    of = {pose: luck[i // 4, i % 2] for i, pose in enumerate(ids)}
    samples = made.lake.table("samples").to_pandas(["sample_id", "pose_id"]).set_index("sample_id")
    made.side(BASE, [0.5] * 40)
    made.side(ALIGNED, [0.5 + of[samples["pose_id"][s]] for s in made.samples])
    by_pose, by_sequence = made.compare(), made.compare(unit="sequence")
    assert by_sequence.oks.difference.mean == by_pose.oks.difference.mean
    wide, narrow = (f.oks.difference.high - f.oks.difference.low for f in (by_sequence, by_pose))
    assert wide > 1.2 * narrow
    assert (by_sequence.unit, by_sequence.units, by_sequence.poses) == ("sequence", 10, 20)
    assert by_sequence.facts()["interval"]["method"] == "percentile bootstrap over sequences"
    assert by_sequence.facts()["interval"]["units"] == 10
    assert "bootstrapped over 10 sequences." in by_sequence.markdown()
    assert made.compare(unit=None).oks == by_sequence.oks, "unless another is asked for"


def test_too_few_units_for_an_interval_are_said(tmp_path):
    for poses, few in ((7, True), (8, False)):
        made = Made(tmp_path / str(poses), poses)
        made.side(BASE, [0.5] * 2 * poses)
        made.side(ALIGNED, [0.6] * 2 * poses)
        found = made.compare()
        assert ("Of fewer than 8 poses, too few for an interval" in found.markdown()) == few
        assert ("too few poses to say" in " ".join(found.verdict())) == few


def test_a_measure_of_few_poses_has_no_verdict(made):
    """Three poses show shoes, and all fell: an interval of no width that says nothing."""
    known = [True] * 6 + [None] * 34
    words = {f"{c}_color_right": [None] * 40 for c in ("top", "bottom", "background")}
    made.side(BASE, [0.5] * 40, colors={**words, "shoes_color_right": known})
    fallen = [None if right is None else False for right in known]
    made.side(ALIGNED, [0.5] * 40, colors={**words, "shoes_color_right": fallen})
    found = made.compare(colors=True)
    shoes = named(found)["shoes colour right"]
    assert (shoes.difference.mean, shoes.n, shoes.units) == (-1.0, 6, 3)
    assert not any("shoes" in line for line in found.verdict())
    assert "-100.0 to -100.0 *" in found.markdown()
    assert "Of fewer than 8 poses" in found.markdown()


def test_what_fell_is_named_below_the_verdict(made):
    made.side(BASE, [0.5] * 40, [picture(100, 50), picture(110, 90)] * 20)
    made.side(ALIGNED, [0.6] * 40, [picture(100, 50), picture(100, 90)] * 20)
    risen, fallen = made.compare().verdict()
    assert "is higher beyond" in risen
    assert fallen == "Fallen beyond the 95 % interval: seeds differ, person."


def test_what_is_the_same_is_not_called_better(made):
    rng = np.random.default_rng(1)
    made.side(BASE, rng.uniform(0.3, 0.6, 40))
    made.side(ALIGNED, rng.uniform(0.3, 0.6, 40))
    assert list(made.compare().verdict()) == [
        "Mean OKS of the aligned model is no different as far as these images can tell."
    ]
    low, high = made.compare().oks.difference.low, made.compare().oks.difference.high
    assert low < 0 < high


def test_nobody_found_is_oks_0_and_said(made):
    made.side(BASE, [None, 0.9] * 20)
    made.side(ALIGNED, [0.9, 0.9] * 20)
    found = made.compare()
    assert found.nobody == (20, 0)
    assert found.oks.base == pytest.approx(0.45)
    assert named(found)["OKS at least 0.8"].base == 0.5
    assert "nobody was found count as OKS 0: 20 of base, 0 of aligned" in found.markdown()


def test_the_bound_of_a_good_image_is_that_of_its_column(made):
    made.side(BASE, [np.float32(0.8)] * 40)
    made.side(ALIGNED, [np.nextafter(np.float32(0.8), np.float32(0))] * 40)
    share = named(made.compare())["OKS at least 0.8"]
    assert (share.base, share.aligned) == (1.0, 0.0)


def test_images_that_one_side_lacks_are_left_out_and_counted(made):
    made.side(BASE, [0.5] * 40)
    made.side(ALIGNED, [0.7] * 40, drop=6)
    found = made.compare()
    assert (found.images, found.left_out) == (34, 6)
    assert "6 samples were left out" in found.markdown()


def test_colours_count_where_both_sides_were_measured(made):
    words = {f"{c}_color_right": [None] * 40 for c in ("shoes", "background")}
    made.side(BASE, [0.5] * 40, colors={**words, "top_color_right": [True, False] * 20,
                                        "bottom_color_right": [True] * 20 + [None] * 20})  # fmt: skip
    made.side(ALIGNED, [0.5] * 40, colors={**words, "top_color_right": [True, True] * 20,
                                           "bottom_color_right": [True] * 20 + [None] * 20})  # fmt: skip
    measures = named(made.compare(colors=True))
    top = measures["top colour right"]
    assert (top.base, top.aligned, top.n) == (0.5, 1.0, 40)
    assert measures["bottom colour right"].n == 20
    assert "shoes colour right" not in measures, "nothing was measured"
    assert measures["colours right"].base == pytest.approx((20 * 0.75 + 20 * 0.5) / 40)
    assert "top colour right" not in named(made.compare(colors=False))


def test_variety_is_of_two_seeds_of_one_sample_person_and_background_apart(made):
    lively = [picture(100, 50), picture(110, 90)] * 20
    dull = [picture(100, 50), picture(100, 52)] * 20
    made.side(BASE, [0.5] * 40, lively)
    made.side(ALIGNED, [0.5] * 40, dull)
    measures = named(made.compare())
    person = measures["seeds differ, person"]
    assert (person.base, person.aligned, person.n) == (10.0, 0.0, 20)
    background = measures["seeds differ, background"]
    assert (background.base, background.aligned) == (40.0, 2.0)
    assert background.difference.high == pytest.approx(-38.0)


def test_one_seed_a_sample_has_no_variety(tmp_path):
    made = Made(tmp_path / "lake")
    made.samples = made.samples[::2]
    made.n = 20
    made.side(BASE, [0.5] * 20)
    made.side(ALIGNED, [0.6] * 20)
    assert not [name for name in named(made.compare()) if "seeds" in name]


def test_facts_table_and_sheet_are_written(made, tmp_path):
    rng = np.random.default_rng(3)
    made.side(BASE, rng.uniform(0, 1, 40), [picture(255, 0)] * 40)
    made.side(ALIGNED, rng.uniform(0, 1, 40), [picture(0, 255)] * 40)
    found = made.compare()
    files = write_evaluation(made.lake, found, tmp_path / "out")
    assert [f.name for f in files] == ["evaluation.json", "evaluation.md", "side_by_side.png"]
    facts = json.loads(files[0].read_text())
    assert facts["measures"][0]["name"] == "mean OKS"
    assert facts["measures"][0]["low"] <= facts["measures"][0]["difference"] <= facts["measures"][0]["high"]
    assert facts["fingerprints"] == {"samples": SAMPLES, "base": BASE, "aligned": ALIGNED}
    text = files[1].read_text()
    assert text.startswith("| measure | base | aligned | difference | 95 % interval | n |")
    assert text.count("\n|") == len(found.measures) + 1
    sheet = np.asarray(side_by_side(made.lake, found, largest=1, random=0, tile=64))
    control, base, aligned = (sheet[14 + 32, 14 + 32 + i * 67] for i in range(3))
    assert (control.tolist(), base.tolist(), aligned.tolist()) == ([200] * 3, [255] * 3, [0] * 3)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_evaluation(made.lake, found, files[0] / "below")


def test_the_sheet_shows_the_largest_changes_and_chance_ones_of_other_poses(made):
    base = np.full(40, 0.5)
    aligned = base.copy()
    aligned[7], aligned[30] = 0.1, 0.8
    made.side(BASE, base)
    made.side(ALIGNED, aligned)
    rows = choose_rows(made.compare().rows, 2, 6)
    assert rows["sample_id"].tolist()[:2] == [made.samples[7], made.samples[30]]
    assert rows["why"].tolist() == ["Largest change"] * 2 + ["At random"] * 6
    assert rows["pose_id"].is_unique


def test_nothing_to_compare_is_said(made):
    made.side(BASE, [0.5] * 40)
    with pytest.raises(InputError, match="none of 40 samples has a measured image on both sides"):
        made.compare()

import io

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import ConfigError, InputError
from schemas.plan import Camera, Part, Plan
from schemas.source import GrammarSource
from schemas.tables import CAPTIONS
from udfs.samples import Samples, expected_samples
from udfs.udf import Worker


class Files:
    def __init__(self, table):
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self.data = sink.getvalue()

    def read(self, path):
        return self.data


def some_poses(n, seed=0):
    rng = np.random.default_rng(seed)
    betas = pa.array(rng.normal(size=n * 10), pa.float32())
    return pa.table(
        {
            "pose_id": rng.integers(-(2**63), 2**63 - 1, n),
            "source": ["s"] * n,
            "sequence": [f"seq{i // 10}" for i in range(n)],
            "frame": [i % 10 for i in range(n)],
            "gender": ["neutral", "male"] * (n // 2) + ["female"] * (n % 2),
            "betas": pa.FixedSizeListArray.from_arrays(betas, 10),
        }
    )


def some_captions(n, seed=1):
    ids = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, n)
    return pa.table(
        {"caption_id": ids, "key": [f"k{i}" for i in range(n)], "text": [f"text {i}" for i in ids]}
    )


def run(poses, plan, captions=None):
    if plan.pairing == "grammar":
        udf = Samples(plan=plan, grammar=GrammarSource())
    else:
        udf = Samples(plan=plan, captions_file="captions.arrow")
    files = Files(captions if captions is not None else some_captions(50))
    return udf.setup(Worker(device="cpu", files=files))(poses)


def ids(table):
    return sorted(table["sample_id"].to_pylist())


PLANS = [
    Plan(captions_per_pose=3, draws=2),
    Plan(pairing="random", captions_per_pose=4, draws=2),
    Plan(pairing="random", captions_per_pose=60),
    Plan(pairing="all", draws=2),
    Plan(pairing="key"),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.pairing)
def test_each_pose_gets_its_share_and_no_sample_twice(plan):
    poses = some_poses(41)
    captions = some_captions(50).set_column(1, "key", [[f"seq{i % 6}:{i % 10}" for i in range(50)]])
    samples = run(poses, plan, captions)["samples"]
    assert samples.schema == Samples.outputs
    counted = np.array([samples["pose_id"].to_pylist().count(i) for i in poses["pose_id"].to_pylist()])
    assert (counted == expected_samples(poses, captions["key"].to_pylist(), plan)).all()
    assert len(set(ids(samples))) == len(samples)
    triples = zip(*(samples[c].to_pylist() for c in ("pose_id", "caption_id", "draw")), strict=True)
    assert len(set(triples)) == len(samples)
    seeds = samples["seed"].to_numpy()
    assert seeds.min() >= 0
    assert len(set(seeds.tolist())) == len(samples)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.pairing)
def test_other_poses_and_their_order_change_no_sample(plan):
    poses = some_poses(40)
    captions = some_captions(50).set_column(1, "key", [[f"seq{i % 4}" for i in range(50)]])
    whole = run(poses, plan, captions)["samples"]
    order = np.random.default_rng(3).permutation(40)
    shuffled = (
        run(poses.take(order), plan, captions.take(order))["samples"]
        if plan.pairing == "grammar"
        else (
            run(poses.take(order), plan, captions.take(np.random.default_rng(4).permutation(50)))["samples"]
        )
    )
    assert whole.sort_by("sample_id") == shuffled.sort_by("sample_id")
    parts = [run(poses.slice(i, 8), plan, captions)["samples"] for i in range(0, 40, 8)]
    assert pa.concat_tables(parts).combine_chunks() == whole.combine_chunks()


def test_a_caption_added_later_moves_few_pairs():
    poses, captions = some_poses(4000), some_captions(200)
    plan = Plan(pairing="random")
    before = run(poses, plan, captions)["samples"]
    more = pa.concat_tables([captions, some_captions(10, seed=9)])
    after = run(poses, plan, more)["samples"]
    moved = (before["caption_id"].to_numpy() != after["caption_id"].to_numpy()).mean()
    assert 0.01 < moved < 0.12


def test_random_pairing_uses_all_captions_about_alike():
    captions = some_captions(100)
    used = run(some_poses(20_000), Plan(pairing="random", captions_per_pose=2), captions)["samples"]
    counts = np.unique(used["caption_id"].to_numpy(), return_counts=True)[1]
    assert len(counts) == 100
    assert counts.min() > 150
    assert counts.max() < 900


def test_key_pairs_frames_and_whole_sequences():
    poses = some_poses(20)
    captions = pa.table(
        {"caption_id": [30, 10, 20], "key": ["seq0:3", "seq1", "elsewhere"], "text": ["a", "b", "c"]}
    )
    samples = run(poses, Plan(pairing="key"), captions)["samples"]
    of_pose = dict(zip(samples["pose_id"].to_pylist(), samples["caption_id"].to_pylist(), strict=True))
    pose_ids = poses["pose_id"].to_pylist()
    assert of_pose == {pose_ids[3]: 30} | dict.fromkeys(pose_ids[10:], 10)


def test_cameras_fill_their_ranges_and_no_more():
    camera = Camera(yaw=(-90, 30), elevation=(5, 25), distance=(2, 4), margin=None)
    samples = run(some_poses(5000), Plan(camera=camera, image_size=(512, 256)))["samples"]
    for name, low, high in (
        ("camera_yaw", np.radians(-90), np.radians(30)),
        ("camera_elevation", np.radians(5), np.radians(25)),
        ("camera_distance", 2, 4),
    ):
        value = samples[name].to_numpy()
        assert np.float32(low) <= value.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < value.max() <= np.float32(high)
        assert np.histogram(value, 10, (low, high))[0].min() > 400
    assert samples["camera_margin"].null_count == 5000
    assert set(samples["camera_focal"].to_pylist()) == {445.0}
    assert set(samples["image_height"].to_pylist()) == {512}
    angles = np.stack([samples[n].to_numpy() for n in ("camera_yaw", "camera_elevation", "camera_distance")])
    assert np.abs(np.corrcoef(angles) - np.eye(3)).max() < 0.06


def test_betas_are_kept_or_drawn():
    poses = some_poses(30)
    kept = run(poses, Plan(betas="keep", draws=2))["samples"]
    assert kept["betas"].to_pylist()[::2] == poses["betas"].to_pylist()
    drawn = np.array(run(some_poses(3000), Plan())["samples"]["betas"].to_pylist())
    assert np.abs(drawn).max() <= 1
    assert np.abs(drawn.mean(0)).max() < 0.06
    assert np.abs(drawn.std(0) - 1 / 3**0.5).max() < 0.03


def test_draws_share_the_camera_when_they_are_candidates():
    names = ["pose_id", "caption_id", "camera_yaw", "camera_distance", "prompt"]
    plan = Plan(draws=4, camera=Camera(each_draw=False))
    samples = run(some_poses(10), plan)["samples"]
    assert len(samples.select(names).group_by(names).aggregate([])) == 10
    assert len(set(samples["seed"].to_pylist())) == 40
    apart = run(some_poses(10), Plan(draws=4))["samples"]
    assert len(set(apart["camera_yaw"].to_pylist())) == 40


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"round": 1}, {"prompt": "{caption}!"}, {"image_size": (256, 128)}]
)
def test_another_plan_makes_other_samples(change):
    fixed = Camera(yaw=(0, 0), elevation=(0, 0), distance=(3, 3))
    base = Plan(pairing="all", betas="keep", camera=fixed)
    poses = some_poses(20)
    first, second = run(poses, base)["samples"], run(poses, base.model_copy(update=change))["samples"]
    assert not set(ids(first)) & set(ids(second))
    assert not set(first["seed"].to_pylist()) & set(second["seed"].to_pylist())


def test_the_prompt_is_the_frame_around_the_caption():
    captions = pa.table({"caption_id": [1], "key": ["k"], "text": ["100% {seed} {caption} \\1"]})
    samples = run(some_poses(1), Plan(pairing="all", prompt="A photo of {caption}, sharp."), captions)[
        "samples"
    ]
    assert samples["prompt"].to_pylist() == ["A photo of 100% {seed} {caption} \\1, sharp."]


def test_grammar_captions_are_rows_of_their_own():
    out = run(some_poses(30), Plan(captions_per_pose=2))
    captions, samples = out["captions"], out["samples"]
    assert captions.schema == CAPTIONS
    assert len(set(captions["caption_id"].to_pylist())) == 60
    text_of = dict(zip(captions["caption_id"].to_pylist(), captions["text"].to_pylist(), strict=True))
    for row in samples.to_pylist():
        assert text_of[row["caption_id"]] in row["prompt"]


def test_no_poses_make_no_samples():
    for plan in PLANS:
        out = run(some_poses(2).slice(0, 0), plan)
        assert len(out["samples"]) == 0
        assert out["samples"].schema == Samples.outputs


def test_what_cannot_be_paired_says_so():
    with pytest.raises(ConfigError, match="no grammar"):
        Samples(plan=Plan())
    with pytest.raises(ConfigError, match="no caption source"):
        Samples(plan=Plan(pairing="random"))
    with pytest.raises(InputError, match="no captions"):
        run(some_poses(2), Plan(pairing="random"), some_captions(3).slice(0, 0))


def test_captions_that_come_later_make_no_plan_stale():
    plan = Plan(pairing="random")
    a, b = (Samples(plan=plan, captions_file=f).fingerprint().value for f in ("a.arrow", "b.arrow"))
    assert a == b
    assert Samples(plan=Plan(), grammar=GrammarSource(hair=0.5)).fingerprint().value != (
        Samples(plan=Plan(), grammar=GrammarSource()).fingerprint().value
    )


@pytest.mark.parametrize("by", ["pose", "sequence"])
@pytest.mark.parametrize("pairing", ["grammar", "random", "key"])
def test_two_parts_share_no_pose_and_make_what_the_whole_plan_makes(by, pairing):
    poses = some_poses(400)
    captions = some_captions(30)
    keys = pa.array([f"seq{i}" for i in range(30)])
    captions = captions.set_column(captions.schema.get_field_index("key"), "key", keys)
    made = {}
    for low, high in ((0, 0.7), (0.7, 1), (0, 1)):
        plan = Plan(pairing=pairing, draws=2, part=Part(low=low, high=high, by=by))
        out = run(poses, plan, captions)["samples"]
        counted = np.bincount(
            np.searchsorted(np.sort(poses["pose_id"].to_numpy()), out["pose_id"].to_numpy()),
            minlength=len(poses),
        )
        expected = expected_samples(poses, captions["key"].to_pylist(), plan)
        assert (counted == expected[np.argsort(poses["pose_id"].to_numpy())]).all()
        made[low, high] = out
    first, second, whole = made.values()
    assert not set(first["pose_id"].to_pylist()) & set(second["pose_id"].to_pylist())
    assert sorted(ids(first) + ids(second)) == ids(whole)
    assert ids(whole) == ids(run(poses, Plan(pairing=pairing, draws=2), captions)["samples"])
    share = len(set(first["pose_id"].to_pylist())) / len(set(whole["pose_id"].to_pylist()))
    assert 0.5 < share < 0.9
    if by == "sequence":
        name = dict(zip(poses["pose_id"].to_pylist(), poses["sequence"].to_pylist(), strict=True))
        of = [{name[i] for i in part["pose_id"].to_pylist()} for part in (first, second)]
        assert not of[0] & of[1]


def test_a_part_is_another_plan_and_no_part_is_none():
    base = Samples(plan=Plan(), grammar=GrammarSource()).fingerprint()
    parts = [Part(high=0.5), Part(low=0.1, high=0.5), Part(high=0.5, by="sequence")]
    other = [Samples(plan=Plan(part=part), grammar=GrammarSource()).fingerprint().value for part in parts]
    assert len({base.value, *other}) == 4
    assert not [name for name in base.ingredients if "part" in name]

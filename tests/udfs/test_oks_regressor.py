import json

import lightgbm
import numpy as np
import pytest
from scipy.stats import spearmanr

from schemas.errors import InputError, ModelError
from schemas.regressor import RegressorSettings
from udfs.oks_regressor import OksRegressor

NAMES = tuple(f"knee.{i}" for i in range(8))
SETTINGS = RegressorSettings(members=4, trees=60, learning_rate=0.1)


def images(n, seed=0, per_pose=3):
    """Features, OKS and pose ids: what a pose loses depends on two features, chance on top."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (n, len(NAMES))).astype(np.float32)
    lost = 0.15 * np.abs(features[:, 0]) + 0.1 * (features[:, 3] > 0.5)
    oks = np.clip(0.9 - lost + rng.normal(0, 0.05, n), 0, 1).astype(np.float32)
    ids = rng.integers(-(2**63), 2**63 - 1, -(-n // per_pose))
    return features, oks, np.repeat(ids, per_pose)[:n]


def train(data, settings=SETTINGS, **kwargs):
    return OksRegressor.train(*data, settings, names=NAMES, **kwargs)


@pytest.fixture(scope="module")
def data():
    return images(900)


@pytest.fixture(scope="module")
def regressor(data):
    return train(data, trained_on={"metrics_keypoints": 7, "rounds": (1, 2)})


@pytest.fixture(scope="module")
def saved(regressor):
    return {f"models/1/{name}": content for name, content in regressor.to_files().items()}


def load(files, digest=None):
    def read(path):
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    return OksRegressor.from_files(read, "models/1", digest)


def test_it_ranks_images_it_has_not_seen_and_says_how_well(regressor):
    features, oks, _ = images(600, seed=1)
    mean, spread = regressor.predict(features, NAMES)
    new = spearmanr(mean, oks).statistic
    assert new > 0.75
    held_out = regressor.held_out
    assert (held_out.images, held_out.poses) == (900, 300)
    assert held_out.spearman == pytest.approx(new, abs=0.1)
    assert held_out.mae == pytest.approx(np.abs(mean - oks).mean(), abs=0.02)
    assert held_out.r2 == pytest.approx(1 - ((mean - oks) ** 2).mean() / oks.var(), abs=0.15)
    assert held_out.spearman < held_out.pose_spearman + 0.1
    assert mean.dtype == spread.dtype == np.float32
    assert ((mean >= 0) & (mean <= 1)).all()
    assert (spread >= 0).all()


def test_held_out_scores_are_of_poses_that_were_not_seen():
    """OKS that follow from nothing but the pose can be learned by heart, and must not look learned."""
    features, oks, ids = images(600)
    rng = np.random.default_rng(5)
    of_pose = dict(zip(ids.tolist(), rng.uniform(0, 1, len(ids)), strict=True))
    oks = np.array([of_pose[i] for i in ids.tolist()], np.float32)
    # Features tell the poses apart exactly.
    features = np.array([[i % (7 + k) for k in range(8)] for i in ids.tolist()], np.float32)
    by_heart = train((features, oks, ids), RegressorSettings(members=4, trees=200, min_rows=1, leaves=64))
    seen, _ = by_heart.predict(features, NAMES)
    assert spearmanr(seen, oks).statistic > 0.5
    assert abs(by_heart.held_out.spearman) < 0.25


def test_predictions_stay_in_bounds_where_trees_leave_them():
    features, _, ids = images(400)
    hasty = RegressorSettings(members=3, trees=40, learning_rate=1, min_rows=1)
    regressor = train((features, np.where(features[:, 0] > 0, 1, 0), ids), hasty)
    raw = [lightgbm.Booster(model_str=text).predict(features) for text in regressor.texts]
    assert np.max(np.mean(raw, axis=0)) > 1.01
    assert np.min(np.mean(raw, axis=0)) < -0.01
    mean, _ = regressor.predict(features, NAMES)
    assert mean.max() == 1
    assert mean.min() == 0


def test_members_disagree_more_where_nothing_was_seen():
    features, oks, ids = images(900)
    inside = np.abs(features[:, 0]) < 1
    regressor = train((features[inside], oks[inside], ids[inside]))
    _, spread = regressor.predict(features, NAMES)
    assert spread[~inside].mean() > spread[inside].mean()


def test_the_order_of_the_images_and_the_number_of_threads_change_no_byte(data, regressor, monkeypatch):
    order = np.random.default_rng(3).permutation(len(data[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    again = train([array[order] for array in data], trained_on=regressor.trained_on)
    assert again.to_files() == regressor.to_files()
    assert again == regressor
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert train(data, trained_on={"another": "lineage"}).digest == regressor.digest
    assert (
        train(data, trained_on=regressor.trained_on, settings=SETTINGS.model_copy(update={"seed": 1})).digest
        != regressor.digest
    )


def test_predictions_for_training_images_come_from_members_that_were_not_shown_them(data, regressor):
    features, oks, ids = data
    mean, _ = regressor.predict_unseen(features, ids)
    assert spearmanr(mean, oks).statistic == pytest.approx(regressor.held_out.spearman, abs=1e-9)
    some = slice(100, 130)
    assert np.array_equal(regressor.predict_unseen(features[some], ids[some])[0], mean[some])


def test_reading_what_was_written_gives_the_same_model(regressor, saved):
    assert set(saved) == {"models/1/model.json", *(f"models/1/member-{k}.txt" for k in range(4))}
    read = load(saved, regressor.digest)
    assert read == regressor
    assert read.digest == regressor.digest
    assert read.trained_on == {"metrics_keypoints": 7, "rounds": [1, 2]}
    features = images(50, seed=2)[0]
    for one, other in zip(read.predict(features, NAMES), regressor.predict(features, NAMES), strict=True):
        assert np.array_equal(one, other)


def test_lightgbm_itself_reads_the_members(regressor, saved):
    features = images(50, seed=2)[0]
    members = [
        lightgbm.Booster(model_str=saved[f"models/1/member-{k}.txt"].decode()).predict(features)
        for k in range(4)
    ]
    mean, spread = regressor.predict(features, NAMES)
    assert np.allclose(mean, np.mean(members, axis=0).clip(0, 1), atol=1e-6)
    assert np.allclose(spread, np.std(members, axis=0, ddof=1), atol=1e-6)


def test_the_features_that_matter_have_the_gain(regressor):
    importance = regressor.importance()
    assert list(importance)[:2] == ["knee.0", "knee.3"]
    assert set(importance) == set(NAMES)
    assert sum(importance.values()) == pytest.approx(1)


def test_no_rows_give_no_predictions(regressor):
    mean, spread = regressor.predict(np.zeros((0, 8), np.float32), NAMES)
    assert mean.shape == spread.shape == (0,)


def test_too_few_images_say_how_many_are_needed():
    with pytest.raises(InputError, match=r"^99 scored images are too few to train on: 100 are needed"):
        train(images(99))
    assert train(images(100)).held_out.images == 100


def test_too_few_poses_are_named():
    with pytest.raises(InputError, match="120 scored images show 6 poses; at least 8 are needed for 4 folds"):
        train(images(120, per_pose=20))
    assert train(images(120, per_pose=15)).held_out.poses == 8


def test_constant_targets_teach_nothing():
    features, oks, ids = images(200)
    with pytest.raises(InputError, match=r"all 200 images have the same OKS, 0\.5: there is nothing"):
        train((features, np.full_like(oks, 0.5), ids))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_name_their_rows(regressor, value):
    features, oks, ids = images(200)
    features[[4, 9], 2] = value
    with pytest.raises(InputError, match="features: rows 4, 9, not finite"):
        train((features, oks, ids))
    with pytest.raises(InputError, match="features: rows 4, 9, not finite"):
        regressor.predict(features, NAMES)
    features, oks, ids = images(200)
    oks[17] = value
    with pytest.raises(InputError, match="OKS: row 17, not finite"):
        train((features, oks, ids))


def test_targets_out_of_bounds_and_arrays_that_do_not_fit_are_refused(data):
    features, oks, ids = images(200)
    oks[5] = 1.2
    with pytest.raises(InputError, match="OKS lies outside of 0 to 1 in row 5"):
        train((features, oks, ids))
    with pytest.raises(InputError, match="do not fit"):
        train((features, oks[:-1], ids))
    with pytest.raises(InputError, match="do not fit each other and 8 names"):
        train((features[:, :7], oks.clip(0, 1), ids))


def test_features_that_changed_since_training_are_named(regressor):
    names = ("elbow", *NAMES[1:])
    with pytest.raises(ModelError, match=r"gone: knee\.0; new: elbow\); train it again"):
        regressor.predict(np.zeros((3, 8), np.float32), names)
    with pytest.raises(ModelError, match="new: extra"):
        regressor.require((*NAMES, "extra"))
    with pytest.raises(ModelError, match="another order"):
        regressor.require(NAMES[::-1])
    with pytest.raises(InputError, match="shape"):
        regressor.predict(np.zeros((3, 7), np.float32), NAMES)


@pytest.mark.parametrize("name", ["model.json", "member-2.txt"])
def test_missing_and_damaged_files_are_refused(saved, name):
    path = f"models/1/{name}"
    with pytest.raises(ModelError, match=f"{path}: no such file"):
        load({k: v for k, v in saved.items() if k != path})
    with pytest.raises(ModelError, match=path):
        load({**saved, path: saved[path][: len(saved[path]) // 2]})


def forged(saved, **changes):
    """The same files with another index."""
    index = json.loads(saved["models/1/model.json"]) | changes
    return {**saved, "models/1/model.json": json.dumps(index).encode()}


def test_another_model_is_refused_before_it_is_read(saved):
    index = {"models/1/model.json": saved["models/1/model.json"]}
    with pytest.raises(ModelError, match="not the regressor with the digest abc"):
        load(index, "abc")
    with pytest.raises(ModelError, match="describes no regressor"):
        load({"models/1/model.json": b"\x80\x04not json"}, "abc")


@pytest.mark.parametrize(
    "changes", [{"format": 2}, {"settings": {"trees": -1}}, {"features": None}, {"held_out": {"x": 1}}]
)
def test_an_index_that_describes_no_regressor_is_refused(saved, changes):
    with pytest.raises(ModelError, match="describes no regressor"):
        load(forged(saved, **changes))


@pytest.mark.parametrize("text", [b"", b"hello", b"tree\nhello", b"\x80\x04\x95 pickle", b"tree\n\xff\xfe"])
def test_text_that_is_no_lightgbm_model_is_refused(regressor, saved, text):
    from hashlib import blake2b

    members = json.loads(saved["models/1/model.json"])["members"]
    members["member-0.txt"] = blake2b(text, digest_size=16).hexdigest()
    files = forged(saved, members=members) | {"models/1/member-0.txt": text}
    with pytest.raises(ModelError, match=r"member-0\.txt is no LightGBM model"):
        load(files)


def test_members_of_other_features_are_refused(saved):
    with pytest.raises(ModelError, match=r"member-0\.txt has other features"):
        load(forged(saved, features=["elbow", *NAMES[1:]]))

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from schemas.errors import ConfigError, ModelError, RowError
from schemas.plan import Camera
from schemas.regressor import RegressorSettings
from schemas.tables import POSES, SCORES_PREDICTED_OKS
from udfs.camera import camera_params
from udfs.columns import list_column
from udfs.oks_regressor import OksRegressor
from udfs.pose_features import FEATURES, PARAMS, pose_features
from udfs.predicted_oks import PredictedOks, view_angles
from udfs.random_poses import random_poses
from udfs.udf import Worker

ALL_ROUND = Camera()
COUNT = 60


def difficulty(features):
    """Between 0 and 1: people who show their back and reach wide are hard here."""
    back = features[:, FEATURES.index("chest.facing.z")]
    wide = features[:, FEATURES.index("extent.x")]
    return np.clip(0.7 - 0.2 * back - 0.2 * wide, 0, 1)


@pytest.fixture(scope="module")
def regressor():
    poses = random_poses(400, 3)
    ids = np.arange(400)
    yaw, elevation = view_angles(ids, ALL_ROUND, 0, 1)
    seen = camera_params(poses, np.zeros((400, 3)), yaw, elevation, np.full(400, 3.0))
    features = pose_features(seen, yaw, elevation)
    settings = RegressorSettings(members=3, trees=60, learning_rate=0.15)
    return OksRegressor.train(features, difficulty(features), ids, settings)


class Folder:
    def __init__(self, files):
        self.files = files

    def read(self, path):
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def write(self, path, data):
        raise AssertionError("scores write no files")


@pytest.fixture(scope="module")
def worker(regressor):
    files = {f"models/1/{name}": data for name, data in regressor.to_files().items()}
    return Worker(device="cpu", files=Folder(files))


def udf(regressor, **changes):
    fields = {"folder": "models/1", "digest": regressor.digest, "camera": ALL_ROUND} | changes
    return PredictedOks(**fields)


def table(params, ids=None):
    n = len(params["betas"])
    ids = np.arange(n) * 7919 if ids is None else ids
    columns = {name: list_column(params[name], POSES.field(name).type) for name in PARAMS}
    return pa.table({"pose_id": pa.array(ids, pa.int64()), **columns})


def scores(out):
    return out["predicted_oks"].to_numpy(), out["predicted_oks_spread"].to_numpy()


def test_rows_hold_what_the_schema_says(regressor, worker):
    out = udf(regressor).setup(worker)(table(random_poses(COUNT, 5)))
    assert out.schema.equals(pa.schema([f for f in SCORES_PREDICTED_OKS if f.name != "fingerprint"]))
    assert out["pose_id"].to_pylist() == [i * 7919 for i in range(COUNT)]
    mean, spread = scores(out)
    assert ((mean >= 0) & (mean <= 1)).all()
    assert (spread >= 0).all()
    assert len(np.unique(mean)) > COUNT // 2


def test_poses_are_ranked_as_their_views_are(regressor, worker):
    poses = random_poses(COUNT, 6)
    ids = np.arange(COUNT)
    expected = np.zeros(COUNT)
    for view in range(4):
        yaw, elevation = view_angles(ids, ALL_ROUND, view, 4)
        seen = camera_params(poses, np.zeros((COUNT, 3)), yaw, elevation, np.full(COUNT, 3.0))
        expected += difficulty(pose_features(seen, yaw, elevation)) / 4
    mean, _ = scores(udf(regressor, views=4).setup(worker)(table(poses, ids)))
    assert spearmanr(mean, expected).statistic > 0.8


def test_a_camera_behind_the_subject_sees_the_backs(regressor, worker):
    standing = {name: np.zeros((5, POSES.field(name).type.list_size), np.float32) for name in PARAMS}
    found = [
        scores(udf(regressor, camera=Camera(yaw=yaw)).setup(worker)(table(standing)))[0].mean()
        for yaw in ((-20, 20), (160, 200))
    ]
    assert found[0] > found[1] + 0.2


def test_a_row_depends_on_its_pose_and_id_alone(regressor, worker):
    rows = table(random_poses(COUNT, 7))
    apply = udf(regressor).setup(worker)
    out = apply(rows)
    order = np.random.default_rng(1).permutation(COUNT)[:20]
    assert apply(rows.take(order)).equals(out.take(order))
    other = rows.set_column(0, "pose_id", pa.array(np.arange(COUNT) + 10**6))
    assert not np.array_equal(scores(apply(other))[0], scores(out)[0])


def test_resampled_shapes_play_no_part(regressor, worker):
    poses = random_poses(COUNT, 8)
    flat = {**poses, "betas": np.zeros_like(poses["betas"])}
    resampled, kept = (udf(regressor, betas=b).setup(worker) for b in ("resample", "keep"))
    assert resampled(table(poses)).equals(resampled(table(flat)))
    assert resampled(table(poses)).equals(kept(table(flat)))


def test_views_stay_in_the_cameras_ranges_and_two_see_two_sides():
    ids = np.arange(1000)
    camera = Camera(yaw=(-90, 30), elevation=(5, 10))
    for view in range(2):
        yaw, elevation = (np.degrees(a) for a in view_angles(ids, camera, view, 2))
        assert yaw.min() >= -90 + 60 * view
        assert yaw.max() <= -30 + 60 * view
        assert np.ptp(yaw) > 55
        assert elevation.min() >= 5
        assert elevation.max() <= 10
        assert np.ptp(elevation) > 4.5
    first, second = (view_angles(ids, Camera(), view, 2)[0] for view in range(2))
    assert np.allclose(second - first, np.pi)


def test_no_rows_give_no_rows(regressor, worker):
    out = udf(regressor).setup(worker)(table(random_poses(2, 1)).slice(0, 0))
    assert out.num_rows == 0
    assert out.schema.equals(PredictedOks.outputs)


def test_a_pose_that_is_not_finite_is_a_row_error(regressor, worker):
    poses = random_poses(4, 1)
    poses["body_pose"][2, 5] = np.nan
    rows = table(poses)
    with pytest.raises(RowError, match=f"pose {rows['pose_id'][2]}: its body_pose holds NaN"):
        udf(regressor).setup(worker)(rows)


def test_another_model_a_missing_one_and_one_of_other_features_are_refused(regressor, worker):
    with pytest.raises(ModelError, match="not the regressor with the digest abc"):
        udf(regressor, digest="abc").setup(worker)
    with pytest.raises(ModelError, match=r"models/2/model\.json: no such file"):
        udf(regressor, folder="models/2").setup(worker)
    rng = np.random.default_rng(0)
    old = OksRegressor.train(
        rng.normal(size=(100, 2)),
        rng.random(100),
        np.arange(100),
        RegressorSettings(members=3, trees=2),
        names=("camera.elevation", "shoe_size"),
    )
    files = {f"models/1/{name}": data for name, data in old.to_files().items()}
    with pytest.raises(ModelError, match=r"gone: shoe_size; new: .* train it again"):
        udf(regressor, digest=old.digest).setup(Worker(device="cpu", files=Folder(files)))


def test_no_views_are_refused(regressor):
    with pytest.raises(ConfigError, match="0 views"):
        udf(regressor, views=0)


def test_the_fingerprint_follows_what_shapes_the_scores(regressor):
    value = udf(regressor).fingerprint().value
    for same in ({"folder": "elsewhere"}, {"camera": Camera(distance=(5, 6), focal=80, margin=None)}):
        assert udf(regressor, **same).fingerprint().value == value
    changes = (
        {"digest": "abc"},
        {"views": 3},
        {"betas": "keep"},
        {"camera": Camera(yaw=(0, 90))},
        {"camera": Camera(elevation=(0, 1))},
    )
    values = {udf(regressor, **change).fingerprint().value for change in changes}
    assert len(values | {value}) == len(changes) + 1

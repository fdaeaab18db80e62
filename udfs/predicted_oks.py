"""Scores poses by the OKS that their images are expected to reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from schemas.errors import ConfigError
from schemas.ids import uniform
from schemas.plan import Camera
from schemas.tables import SCORES_PREDICTED_OKS
from udfs.camera import view_rotations
from udfs.columns import check_finite, matrix
from udfs.oks_regressor import OksRegressor
from udfs.pose_features import FEATURES, PARAMS, pose_features
from udfs.rotations import compose, rotvec_from_matrix
from udfs.udf import Apply, Udf, Worker


@dataclass(frozen=True, kw_only=True)
class PredictedOks(Udf):
    """Predicted OKS of poses, before any image of them was made.

    A pose has no camera yet: it is seen from a few directions drawn from the camera's ranges, which follow
    from its id alone, and the predictions are averaged; so is their spread.

    Fields:
        folder: of the regressor's files, relative to the lake. Its content counts, not its place: no
            parameter.
        digest: of the regressor.
        camera: its yaw and elevation matter, in the ranges that samples will draw from.
        views: directions a pose is seen from; their yaws are evenly spaced over the range.
        betas: `keep` for the pose's own shape; `resample` where samples will draw another, which the mean
            shape stands for.

    Raises RowError for a pose that is not finite. Setting up raises ModelError for a regressor that is
    missing, is another one, or was trained on other features.
    """

    name: ClassVar[str] = "predicted_oks"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ("pose_id", *PARAMS)
    outputs: ClassVar[pa.Schema] = pa.schema([f for f in SCORES_PREDICTED_OKS if f.name != "fingerprint"])
    batch_rows: ClassVar[int] = 8192

    folder: str
    digest: str
    camera: Camera
    views: int = 2
    betas: Literal["keep", "resample"] = "resample"

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ConfigError(f"{self.views} views show nothing: give 1 or more")

    def models(self) -> Mapping[str, str]:
        return {"regressor": self.digest}

    def parameters(self) -> Mapping[str, object]:
        ranges = {"yaw": self.camera.yaw, "elevation": self.camera.elevation}
        return {"camera": ranges, "views": self.views, "betas": self.betas}

    def setup(self, worker: Worker) -> Apply:
        regressor = OksRegressor.from_files(worker.files.read, self.folder, self.digest)
        regressor.require(FEATURES)

        def apply(poses: pa.Table) -> pa.Table:
            ids = poses["pose_id"].to_numpy()
            params = {name: matrix(poses, name) for name in PARAMS}
            check_finite(ids, params)
            if self.betas == "resample":
                params["betas"] = np.zeros_like(params["betas"])
            found = np.zeros((2, len(ids)), np.float32)
            for view in range(self.views):
                found += regressor.predict(self._features(ids, params, view))
            columns = [ids, *(found / self.views)]
            return pa.table([pa.array(column) for column in columns], schema=self.outputs)

        return apply

    def _features(self, ids: np.ndarray, params: Mapping[str, np.ndarray], view: int) -> np.ndarray:
        yaw, elevation = view_angles(ids, self.camera, view, self.views)
        turn = rotvec_from_matrix(view_rotations(yaw, elevation))
        seen = {**params, "global_orient": compose(turn, params["global_orient"])}
        return pose_features(seen, yaw, elevation)


def view_angles(pose_ids: np.ndarray, camera: Camera, view: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) yaw and (N,) elevation of one of the directions that poses are scored from, radians.

    The yaws of a pose's views are evenly spaced over the camera's range, so that two see two sides.
    """
    turn = (view + uniform(pose_ids, "predicted_oks", "yaw")) / views
    lift = uniform(pose_ids, "predicted_oks", "elevation", view)
    return _between(camera.yaw, turn), _between(camera.elevation, lift)


def _between(degrees: tuple[float, float], share: np.ndarray) -> np.ndarray:
    low, high = np.radians(degrees)
    return low + (high - low) * share

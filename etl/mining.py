"""What a lake's measured images say of poses: a model of the OKS they reach, and scores of every pose.

The model is trained on what was measured, kept in the lake under a name that follows from it, and never
trained twice on the same. Scores are stages like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.fingerprints import register
from etl.ingest import Read
from etl.join import look_up
from etl.lake import Lake
from etl.measured import images_of, with_metrics
from etl.stage import Stage
from etl.table import computed_by
from schemas.errors import ConfigError, InputError
from schemas.fingerprint import Fingerprint, fingerprint
from schemas.ids import text_hash
from schemas.pipeline import Pipeline
from schemas.regressor import RegressorSettings
from udfs.columns import matrix
from udfs.udf import bytes_digest

if TYPE_CHECKING:
    from udfs.oks_regressor import OksRegressor
    from udfs.udf import Udf

VERSION = 1
VIEWS = 2
"""Of each pose, where no curriculum says how many."""
METRICS = "metrics_keypoints"
SCORES = ("predicted_oks", "predicted_oks_spread", "novelty", "plausibility")
"""Columns of the tables of scores that choose poses."""
_FOLDER = "files/mining"
_TASK_POSES = 16_384


def check_curriculum(pipeline: Pipeline) -> None:
    """Raises ConfigError for rounds that cannot be picked; that is said before any work."""
    curriculum = pipeline.curriculum
    if curriculum is None or len(curriculum.rounds) == 1:
        return
    need()
    first, plan = curriculum.rounds[0], pipeline.plan
    images = first.budget * (first.captions_per_pose or plan.captions_per_pose) * plan.draws
    if plan.pairing in ("grammar", "random") and images < curriculum.regressor.min_images:
        raise ConfigError(
            f"curriculum: round 1 makes {images} images at the most, and the second learns from "
            f"{curriculum.regressor.min_images} at least (regressor.min_images): raise its budget"
        )


def need() -> None:
    """Raises ConfigError where packages are not installed that learning from measured images needs."""
    lacking = [name for name in ("lightgbm", "faiss") if find_spec(name) is None]
    if lacking:
        raise ConfigError(f"mining needs {' and '.join(lacking)}: pip install 'posedreamer[mine]'")


class Measured(NamedTuple):
    """What to learn from: the fingerprints of what planned, labelled, painted and measured it."""

    samples: tuple[str, ...]
    labels: str
    images: str
    keypoints: str


@dataclass(frozen=True)
class Mining:
    """The scores of a pipeline's poses.

    Attributes:
        read: where the poses are.
        measured: what to learn from; None: nothing was measured yet.
    """

    lake: Lake
    pipeline: Pipeline
    read: Read
    measured: Measured | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is computed of every pose. After `prepare`."""
        from udfs.plausibility import Plausibility

        return tuple(
            Stage(
                udf.name,
                udf,
                f"scores_{udf.name}",
                "poses",
                udf.inputs[1:],
                self.read.fingerprints,
                self.read.contents,
                partition_rows=_TASK_POSES,
            )
            for udf in (Plausibility(), *self._learnt)
        )

    @cached_property
    def _learnt(self) -> "tuple[Udf, ...]":
        """What scores by what was measured."""
        if self.measured is None:
            return ()
        from udfs.novelty import Novelty
        from udfs.oks_regressor import model_digest
        from udfs.predicted_oks import PredictedOks

        plan, curriculum = self.pipeline.plan, self.pipeline.curriculum
        predicted = PredictedOks(
            folder=self.folder,
            digest=model_digest(self.lake.store.read(self._card), self._card),
            camera=plan.camera,
            betas=plan.betas,
            views=VIEWS if curriculum is None else curriculum.views,
        )
        known = bytes_digest(self.lake.store.read(self.references))
        return predicted, Novelty(references=self.references, digest=known)

    def scored(self, columns: Sequence[str]) -> pa.Table:
        """Every pose of the pipeline's files once, by id: these columns of `poses`, and its scores.

        After the stages have run; NULL where a pose has no score.
        """
        names = ["pose_id", *columns]
        rows = self.lake.table("poses").read(names, computed_by(*self.read))
        _, first = np.unique(rows.column("pose_id").to_numpy(), return_index=True)
        rows = rows.take(pa.array(first))
        for stage in self.stages:
            table = self.lake.table(stage.table)
            found = [name for name in SCORES if name in table.spec.schema.names]
            scores = table.read(["pose_id", *found], computed_by([stage.fingerprint.value]))
            rows = look_up(rows, scores, "pose_id", found)
        return rows

    @property
    def ready(self) -> bool:
        """Whether `prepare` was done on what is measured now."""
        if self.measured is None:
            return True
        there = self.lake.store.exists
        return bool(self.examples.num_rows) and there(self._card) and there(self.references)

    def prepare(self) -> None:
        """Trains the model and writes the poses that new ones are compared with, where they are not there.

        Raises InputError for images that are too few or all alike.
        """
        if self.measured is None:
            return
        if not self.lake.store.exists(self._card):
            self._train()
        if not self.lake.store.exists(self.references):
            from udfs.novelty import references_file

            rows = self.lake.table("poses").read(
                ["pose_id", "body_pose"], computed_by(self.read.fingerprints)
            )
            rows = rows.filter(pc.is_in(rows.column("pose_id"), pa.array(self._generated)))
            ids, first = np.unique(rows.column("pose_id").to_numpy(), return_index=True)
            self.lake.store.write(self.references, references_file(ids, matrix(rows, "body_pose")[first]))

    @cached_property
    def examples(self) -> pa.Table:
        """Measured images by id: `image_id`, `sample_id`, `oks`, `pose_id`, `camera_yaw`, `camera_elevation`.

        An image without OKS shows nobody: it counts as 0.
        """
        assert self.measured is not None
        rows = images_of(self.lake, self.measured.images, self.measured.samples).sort_by("image_id")
        rows = with_metrics(self.lake, rows, METRICS, self.measured.keypoints, ["oks"])
        rows = rows.set_column(
            rows.column_names.index("oks"),
            "oks",
            pc.fill_null(rows.column("oks"), pa.scalar(0, pa.float32())),
        )
        names = ["pose_id", "camera_yaw", "camera_elevation"]
        planned = self.lake.table("samples").read(["sample_id", *names], computed_by(self.measured.samples))
        return look_up(rows, planned, "sample_id", names)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Of the model: what it is trained on, and how."""
        from udfs.pose_features import FEATURES

        assert self.measured is not None
        rows = self.examples
        seen = (rows.column(name).to_numpy().tobytes() for name in ("image_id", "oks"))
        parameters = {
            "images": rows.num_rows,
            "rows": text_hash(*seen).hex(),
            "features": text_hash(*FEATURES).hex(),
            "settings": self.settings.model_dump(mode="json"),
        }
        upstream = {k: getattr(self.measured, k) for k in ("labels", "images", "keypoints")}
        return fingerprint("oks_regressor", VERSION, parameters, upstream=upstream)

    @property
    def settings(self) -> RegressorSettings:
        """How the model is trained."""
        curriculum = self.pipeline.curriculum
        return RegressorSettings() if curriculum is None else curriculum.regressor

    @property
    def folder(self) -> str:
        """Where the model lies, relative to the lake."""
        return f"{_FOLDER}/oks-{self.fingerprint.value}"

    @property
    def model_name(self) -> str | None:
        """Fingerprint of the model that scores the poses; None where there is none."""
        return None if self.measured is None else self.fingerprint.value

    @property
    def _card(self) -> str:
        return f"{self.folder}/model.json"  # written last: marks it whole

    @cached_property
    def model(self) -> "OksRegressor":
        """The trained model. Raises ModelError for a damaged one."""
        from udfs.oks_regressor import OksRegressor

        return OksRegressor.from_files(self.lake.store.read, self.folder)

    @cached_property
    def _generated(self) -> np.ndarray:
        return np.unique(self.examples.column("pose_id").to_numpy())

    @property
    def references(self) -> str:
        """Where the poses lie that novelty is measured from; a pose's id says all of it."""
        return f"{_FOLDER}/poses-{text_hash(self._generated.tobytes()).hex()}.arrow"

    def training_data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (N, F) float32, OKS (N,), pose ids (N,) of the measured images, by image id."""
        from udfs.pose_features import PARAMS, pose_features

        assert self.measured is not None
        rows = self.examples
        if not rows.num_rows:
            raise InputError("no image is measured yet, so there is nothing to learn from: `posedreamer run`")
        labels = self.lake.table("labels").read(["sample_id", *PARAMS], computed_by([self.measured.labels]))
        rows = look_up(rows, labels, "sample_id", PARAMS)
        yaw, elevation = (rows.column(f"camera_{x}").to_numpy() for x in ("yaw", "elevation"))
        features = pose_features({name: matrix(rows, name) for name in PARAMS}, yaw, elevation)
        return features, rows.column("oks").to_numpy(), rows.column("pose_id").to_numpy()

    def _train(self) -> None:
        from udfs.oks_regressor import OksRegressor

        features, oks, pose_ids = self.training_data()
        versions = {
            name: v for name, v in self.lake.tables().items() if name in (METRICS, "labels", "samples")
        }
        lineage = {"tables": versions, "fingerprint": self.fingerprint.json}
        model = OksRegressor.train(features, oks, pose_ids, self.settings, trained_on=lineage)
        register(self.lake, self.fingerprint)
        files = model.to_files()
        for name in sorted(files, key=lambda name: name == "model.json"):
            self.lake.store.write(f"{self.folder}/{name}", files[name])

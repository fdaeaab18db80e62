"""Rows of a lake to train on: images with their control images and prompts, or preferred pairs of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from etl.lake import Lake
from etl.pictures import read_image
from etl.preferences import joined
from etl.stages import Stages
from etl.table import computed_by
from schemas.errors import InputError
from schemas.ids import text_hash, uniform
from schemas.pipeline import Pipeline

if TYPE_CHECKING:
    from udfs.encoded import Rows

_COLUMNS = ["image_path", "image_sha256", "control_path", "control_sha256", "prompt", "pose_id"]


@dataclass(frozen=True)
class LakeRows:
    """N rows to train on.

    Attributes:
        rows: what the trainer encodes; picture names are paths of the lake.
        source: where they come from: table, version, release or selection.
        contents: hash of all pictures' digests and prompts, in order: the same rows again.
        digests: SHA-256 of each picture's file, by its path.
    """

    lake: Lake
    rows: "Rows"
    source: Mapping[str, object]
    contents: str
    digests: Mapping[str, str] = field(repr=False)

    def read(self, path: str) -> np.ndarray:
        """(H, W, 3) uint8 of a picture. Raises RowError when the file is gone, another one or damaged."""
        return read_image(self.lake.store, path, self.digests[path])

    def split(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Places of the rows to learn from, and of those held out; all rows of a pose are in one of them."""
        out = uniform(self.rows.poses, "held out of training") < share
        return np.flatnonzero(~out), np.flatnonzero(out)


def control_rows(pipeline: Pipeline, release: str | None = None) -> LakeRows:
    """The images that a pipeline made, or the rows of a release of its lake.

    Raises InputError when there are none, LakeError when there is no lake or release.
    """
    lake = Lake(pipeline.lake)
    if release is not None:
        found = lake.release(release)
        frame = found.to_arrow(["image_id", *_COLUMNS]).to_pandas()
        source = {"table": "dataset", "version": found.dataset_version, "release": release}
    else:
        stages = Stages.latest(lake, pipeline, as_run=True)
        fingerprint = stages.images.fingerprint.value
        frame = _images(lake, stages)
        source = {"table": "images", "version": lake.table("images").version(), "fingerprint": fingerprint}
    if frame.empty:
        raise InputError(
            f"the lake {lake.url} has no image of this pipeline to train on; `posedreamer run` makes them; "
            "--data names another pipeline file whose images to learn"
        )
    frame = frame.sort_values("image_id")
    return _rows(lake, frame, [frame["image_path"]], [frame["image_sha256"]], source)


def preference_rows(pipeline: Pipeline, selection: str | None = None) -> LakeRows:
    """Winner, loser, control image and prompt of the preferred pairs among a pipeline's images.

    selection: which choice of pairs to take, as in `preferences`; by default the newest of this pipeline's.
    Raises InputError when none was made yet, or by several policies.
    """
    lake = Lake(pipeline.lake)
    stages = Stages.latest(lake, pipeline, as_run=True)
    pairs = lake.table("preferences")
    chosen = selection or _newest(lake, stages)
    names = ["winner_image_id", "loser_image_id", "pose_id"]
    where = pc.field("selection") == chosen
    rows = pairs.read(["preference_id", *names], where).to_pandas() if chosen and pairs.exists() else None
    if rows is None or rows.empty:
        what = (
            f"selection {selection} in `preferences`"
            if selection
            else "preferences among this pipeline's images"
        )
        raise InputError(f"the lake {lake.url} has no {what}; `posedreamer preferences` chooses pairs")
    # Of this pipeline alone: another one's labels would give some images a control that is not theirs.
    images = _images(lake, stages).drop(columns="pose_id").set_index("image_id")
    gone = ~(rows["winner_image_id"].isin(images.index) & rows["loser_image_id"].isin(images.index))
    if gone.any():
        raise InputError(
            f"{int(gone.sum())} of {len(rows)} pairs of the selection {chosen} are of images that this "
            "pipeline did not make; name the pipeline file that did with --data, or choose pairs anew with "
            "`posedreamer preferences`"
        )
    rows = rows.sort_values("preference_id").reset_index(drop=True)
    winner = images.loc[rows["winner_image_id"]].reset_index(drop=True)
    loser = images.loc[rows["loser_image_id"]].reset_index(drop=True)
    source = {"table": "preferences", "version": pairs.version(), "selection": chosen}
    frame = winner.assign(pose_id=rows["pose_id"])
    paths, digests = ([w[c] for w in (winner, loser)] for c in ("image_path", "image_sha256"))
    return _rows(lake, frame, paths, digests, source)


def _images(lake: Lake, stages: Stages) -> pd.DataFrame:
    """A pipeline's images with what their samples and labels say."""
    parts = []
    for stage, computed, names in (
        (
            stages.images,
            [stages.images.fingerprint.value],
            ["image_id", "sample_id", "image_path", "image_sha256"],
        ),
        (stages.labels, [stages.labels.fingerprint.value], ["sample_id", "control_path", "control_sha256"]),
        (stages.samples, stages.sample_fingerprints, ["sample_id", "prompt", "pose_id"]),
    ):
        table = lake.table(stage.table)
        if not table.exists():
            return pd.DataFrame(columns=["image_id", *_COLUMNS])
        parts.append(table.read(names, computed_by(computed)).to_pandas())
    images, labels, samples = parts
    return images.merge(labels, on="sample_id").merge(samples, on="sample_id").drop(columns="sample_id")


def _newest(lake: Lake, stages: Stages) -> str | None:
    """The choice of pairs among this pipeline's images of this plan, as it measures them, that was made last.

    Raises InputError when several policies chose: which of them is meant is not known.
    """
    table = lake.table("fingerprints")
    if not table.exists():
        return None
    known = table.read(where=pc.field("udf") == "preferences").sort_by([("created_at", "descending")])
    # The plan too: one generator paints for several, and the images' fingerprint is the same for all.
    mine = {
        "upstream.images": stages.images.fingerprint.value,
        "upstream.samples": joined(stages.sample_fingerprints),
    }
    metrics = {f"upstream.{metric.table}": metric.fingerprint.value for metric in stages.metrics}
    found: dict[str, str] = {}
    for row in known.to_pylist():
        made = json.loads(row["ingredients"])
        measured = {name: value for name, value in made.items() if name.startswith("upstream.metrics_")}
        if mine.items() <= made.items() and measured.items() <= metrics.items():
            found.setdefault(made["upstream.policy"], row["fingerprint"])
    if len(found) > 1:
        raise InputError(
            f"{len(found)} policies chose pairs among these images, {', '.join(found.values())}: name the "
            "choice to learn with --selection; `posedreamer preferences --policy` says which is whose"
        )
    return next(iter(found.values()), None)


def _rows(
    lake: Lake,
    frame: pd.DataFrame,
    images: list[pd.Series],
    digests: list[pd.Series],
    source: Mapping[str, object],
) -> LakeRows:
    from udfs.encoded import Rows

    rows = Rows(
        images=list(zip(*(column.tolist() for column in images), strict=True)),
        controls=frame["control_path"].tolist(),
        prompts=frame["prompt"].tolist(),
        poses=frame["pose_id"].to_numpy(np.int64),
    )
    sha256 = dict(zip(frame["control_path"], frame["control_sha256"], strict=True))
    for paths, values in zip(images, digests, strict=True):
        sha256 |= zip(paths, values, strict=True)
    shaping = [*digests, frame["control_sha256"], frame["prompt"]]
    contents = text_hash(*(text for column in shaping for text in column)).hex()
    return LakeRows(lake, rows, {"rows": len(rows), **source}, contents, sha256)

"""What `posedreamer mine` does: learn from what a pipeline measured, score its poses, report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.join import look_up
from etl.lake import Lake
from etl.mining import Mining
from etl.mining_report import HardPose, ReportData, write_report
from etl.stage import Progress, run_stage
from etl.stages import Stages
from etl.table import computed_by
from etl.workers import Workers
from schemas.ids import hex_id
from schemas.pipeline import Pipeline
from schemas.smplx_params import POSE_PARAMS
from udfs.columns import matrix

_HARDEST = 12
_SIDE = 256


def learn(lake: Lake, pipeline: Pipeline) -> Mining:
    """Trains a model on everything that the pipeline has measured, unless it is there.

    Raises InputError for images that are too few or all alike.
    """
    mining = Stages.latest(lake, pipeline, as_run=True).mining
    mining.prepare()
    return mining


def score(
    mining: Mining, pipeline: Pipeline, watch: Callable[[Progress], None] = lambda progress: None
) -> Sequence[Progress]:
    """Scores every pose of the pipeline that has no score of this model yet."""
    with Workers(pipeline.cluster.scheduler, pipeline.cluster.workers) as workers:
        return [run_stage(mining.lake, stage, workers, watch=watch) for stage in mining.stages]


def hardest(mining: Mining, count: int = _HARDEST) -> pd.DataFrame:
    """The scored poses with the lowest predicted OKS: ids, sources and scores, the hardest first."""
    rows = mining.scored(["source", "sequence", "frame"])
    frame = rows.to_pandas().dropna(subset=["predicted_oks"])
    return frame.sort_values(["predicted_oks", "pose_id"]).head(count).reset_index(drop=True)


def report(mining: Mining, out: Path) -> list[Path]:
    """Writes plots and a page on the model, the rounds and the hardest poses. After `score`."""
    from udfs.pose_features import PARTS

    features, oks, pose_ids = mining.training_data()
    model = mining.model
    predicted, _ = model.predict_unseen(features, pose_ids)
    held_out = model.held_out
    return write_report(
        ReportData(
            predicted=predicted,
            measured=oks,
            spearman=held_out.spearman,
            mae=held_out.mae,
            importance=model.importance(),
            parts=PARTS,
            rounds=_rounds(mining),
            hardest=_pictures(mining),
        ),
        out,
    )


def _rounds(mining: Mining) -> pd.DataFrame:
    """Round, reason and OKS of every measured image."""
    assert mining.measured is not None
    planned = mining.lake.table("samples").read(
        ["sample_id", "round", "pick_reason"], computed_by(mining.measured.samples)
    )
    rows = look_up(mining.examples, planned, "sample_id", ["round", "pick_reason"]).to_pandas()
    return rows.assign(reason=rows["pick_reason"].fillna("random"))[["round", "reason", "oks"]]


def _pictures(mining: Mining) -> list[HardPose]:
    from udfs.picture import read_picture

    assert mining.measured is not None
    wanted = hardest(mining)
    measured = mining.examples.to_pandas().sort_values("image_id")
    paths = mining.lake.table("images").read(
        ["image_id", "image_path", "image_height", "image_width"], computed_by([mining.measured.images])
    )
    measured = measured.merge(paths.to_pandas(), on="image_id").groupby("pose_id").first()
    rendered = _rendered(mining, wanted["pose_id"].to_numpy())
    found = []
    for row in wanted.to_dict("records"):
        pose_id = row["pose_id"]
        image = measured.loc[pose_id] if pose_id in measured.index else None
        if image is None:
            picture = rendered[pose_id]
        else:
            size = (int(image["image_height"]), int(image["image_width"]))
            picture = np.asarray(read_picture(mining.lake.store, image["image_path"], size))
        found.append(
            HardPose(
                pose_id=hex_id(pose_id),
                picture=picture,
                predicted_oks=float(row["predicted_oks"]),
                measured_oks=None if image is None else float(image["oks"]),
            )
        )
    return found


def _rendered(mining: Mining, pose_ids: np.ndarray) -> Mapping[int, np.ndarray]:
    """Control images of the poses as a camera in front of the subject sees them."""
    from udfs.body import Body
    from udfs.camera import boxes, camera_params, crop, project
    from udfs.control import pncc_colors, render_control

    names = list(POSE_PARAMS)
    rows = mining.lake.table("poses").read(["pose_id", *names], computed_by(mining.read.fingerprints))
    rows = rows.filter(pa.array(np.isin(rows.column("pose_id").to_numpy(), pose_ids)))
    ids, first = np.unique(rows.column("pose_id").to_numpy(), return_index=True)
    n = len(ids)
    model = mining.pipeline.body.model
    body = Body.load(None if model == "standin" else Path(model))
    zero = np.zeros((n, 10), np.float32)
    params = {name: matrix(rows, name)[first] for name in names} | {"betas": zero, "expression": zero}
    still = np.zeros(n)
    seen = camera_params(params, body.pelvis(zero, zero), still, still, np.full(n, 3.0))
    vertices = body(seen).vertices
    focal, princpt = np.full((n, 2), float(_SIDE)), np.full((n, 2), _SIDE / 2)
    size = np.full((n, 2), float(_SIDE))
    focal, princpt = crop(boxes(project(vertices, focal, princpt)), focal, princpt, np.full(n, 0.1), size)
    pictures = render_control(vertices, body.faces, pncc_colors(body), focal, princpt, _SIDE, _SIDE)
    return dict(zip(ids.tolist(), pictures, strict=True))

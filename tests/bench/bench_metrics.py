"""How well the default models of the metrics tell images that show their labels from those that do not.

`python -m tests.bench.bench_metrics`. Rendered pictures of 128 and 256 pixels and the nano model's of 128, of
poses, cameras and captions that no training saw. Every picture is measured against its own label and against
that of the picture whose box is most alike; AUC is the area under the ROC curve of telling the two apart.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.caption_attributes import CAPTION_ATTRIBUTES
from schemas.metrics import MATCHED
from schemas.plan import Plan
from schemas.smplx_params import SMPLX_PARAMS
from tests.labelled import labelled_images
from tests.tiny_pipelines import Folder, painter, with_columns
from udfs.caption_colors import CaptionColors
from udfs.caption_match import CaptionMatch
from udfs.head_pose import HeadPose
from udfs.image_quality import ImageQuality
from udfs.keypoint_quality import area_under_roc, similar
from udfs.picture import encode
from udfs.pipelines import NANO
from udfs.silhouette import Silhouette
from udfs.udf import Udf, Worker

SEED = 909_090
_LABEL = (*SMPLX_PARAMS, "focal", "princpt", "keypoints_2d", "keypoints_visible", "control_path")


@dataclass(frozen=True)
class Score:
    """A column of a metric, what of the row is exchanged, and whether more of it is better."""

    udf: Udf
    column: str
    exchanged: tuple[str, ...]
    better: int = 1


SCORES = (
    Score(Silhouette(), "silhouette_iou", _LABEL),
    Score(HeadPose(), "head_pose_error", _LABEL, -1),
    Score(HeadPose(), "head_rotation_error", _LABEL, -1),
    Score(CaptionMatch(), "caption_match", CAPTION_ATTRIBUTES),
    Score(CaptionColors(), "colors_right", CAPTION_ATTRIBUTES),
)


def measured(udf: Udf, files: Folder, rows: pa.Table) -> tuple[pa.Table, float]:
    """The metric's rows, and rows a second once it is loaded."""
    apply = udf.setup(Worker("cpu", files))
    apply(rows.slice(0, 2).select(udf.inputs))
    parts = [
        rows.slice(i, udf.batch_rows).select(udf.inputs) for i in range(0, rows.num_rows, udf.batch_rows)
    ]
    began = time.perf_counter()
    found = pa.concat_tables([apply(part) for part in parts])
    return found, rows.num_rows / (time.perf_counter() - began)


def nano(files: Folder, rows: pa.Table) -> pa.Table:
    """The same rows with what the nano model paints."""
    prompts = [Plan().prompt.replace("{caption}", text) for text in rows["text"].to_pylist()]
    rows = rows.append_column("prompt", pa.array(prompts))
    paint, paths = painter(NANO, files, steps=4, batch_rows=16), []
    for start in range(0, rows.num_rows, 16):
        for k, pixels in enumerate(paint(rows.slice(start, 16)).pixels, start):
            paths.append(f"nano-{k}.png")
            files.write(paths[-1], encode(pixels, "png"))
    return with_columns(rows, image_path=paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=192, help="pictures of each kind")
    given = parser.parse_args()
    out = sys.stdout.write
    sets = {}
    for side in (128, 256):
        files = Folder()
        sets[f"rendered, {side} px"] = files, labelled_images(files, given.count, SEED + side, side)
    files, rows = sets["rendered, 128 px"]
    sets["nano, 128 px"] = files, nano(files, rows)
    out("| pictures | measure | n | median | 10th to 90th percentile | another's label | AUC |\n")
    out("|---|---|---|---|---|---|---|\n")
    notes: list[str] = []
    for name, (files, rows) in sets.items():
        other = pa.array(similar(np.stack(rows["bbox"].to_pylist())))
        for score in SCORES:
            found, speed = measured(score.udf, files, rows)
            changed = {c: rows[c].take(other).to_pylist() for c in score.exchanged}
            wrong, _ = measured(score.udf, files, with_columns(rows, **changed))
            own, others = (t[score.column].drop_null().to_numpy() for t in (found, wrong))
            low, middle, high = np.quantile(own, (0.1, 0.5, 0.9))
            auc = area_under_roc(score.better * own, score.better * others)
            out(
                f"| {name} | {score.column} | {len(own)} | {middle:.2f} | {low:.2f} to {high:.2f} | "
                f"{np.median(others):.2f} | {auc:.3f} |\n"
            )
            if score.column == "caption_match":
                rights = {a: found[f"{a}_right"].drop_null().to_pylist() for a in MATCHED}
                said = ", ".join(f"{a} {np.mean(r):.0%} of {len(r)}" for a, r in rights.items())
                notes.append(f"{name}: read right: {said}")
            if name == "rendered, 128 px":
                notes.append(f"{score.udf.name}: {speed:.0f} images a second")
        _, speed = measured(ImageQuality(), files, rows)
        notes.append(f"{name}: image_quality, {speed:.0f} images a second")
    out("\n" + "\n".join(dict.fromkeys(notes)) + "\n")


if __name__ == "__main__":
    main()

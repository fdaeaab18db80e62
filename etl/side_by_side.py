"""The sheet that shows two generators next to each other: control image, base, aligned."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from etl.evaluate import SIDES, Evaluation
from etl.lake import Lake
from etl.sheet import Strip, draw_strips, square, with_keypoints
from schemas.errors import ConfigError
from schemas.ids import mix
from udfs.picture import read_picture


def side_by_side(
    lake: Lake,
    evaluation: Evaluation,
    *,
    largest: int = 4,
    random: int = 8,
    columns: int = 3,
    tile: int = 160,
    keypoints: bool = False,
) -> Image.Image:
    """The samples whose OKS changes most, for better or worse, and some at random, which are the rule.

    keypoints: draw what the detector saw.
    """
    chosen = choose_rows(evaluation.rows, largest, random)
    captions = _captions(lake, chosen["caption_id"].to_numpy())
    strips = []
    for row, caption in zip(chosen.to_dict("records"), captions, strict=True):
        size = (int(row["image_height"]), int(row["image_width"]))
        tiles = [square(read_picture(lake.store, row["control_path"], size), tile)]
        for side in SIDES:
            picture = square(read_picture(lake.store, row[f"{side}_image_path"], size), tile)
            seen = row[f"{side}_keypoints"]
            if keypoints and seen is not None:
                picture = with_keypoints(picture, np.reshape(seen, (-1, 3)), size)
            tiles.append(picture)
        note = f"OKS {row['base_oks']:.2f} to {row['aligned_oks']:.2f}"
        strips.append(Strip(tiles, f"{row['why']}: {caption}", note))
    return draw_strips(strips, columns, tile)


def choose_rows(rows: pd.DataFrame, largest: int, random: int) -> pd.DataFrame:
    """The rows to show with `why`; one of each pose at the most, the random ones by the hash of their id."""
    change = (rows["aligned_oks"] - rows["base_oks"]).abs()
    order = np.lexsort((rows["sample_id"], -change))
    most = rows.iloc[order].drop_duplicates("pose_id").head(largest).assign(why="Largest change")
    rest = rows[~rows["pose_id"].isin(most["pose_id"])]
    dice = mix(rest["sample_id"].to_numpy(), "side by side")
    some = rest.iloc[np.argsort(dice, kind="stable")].drop_duplicates("pose_id").head(random)
    return pd.concat([most, some.assign(why="At random")], ignore_index=True)


def _captions(lake: Lake, ids: np.ndarray) -> list[str]:
    rows = lake.table("captions").read(["caption_id", "text"]).to_pandas().drop_duplicates("caption_id")
    return rows.set_index("caption_id")["text"].loc[ids].tolist()


def write_evaluation(lake: Lake, evaluation: Evaluation, out: Path) -> list[Path]:
    """Writes `evaluation.json`, `evaluation.md` and `side_by_side.png` into a folder; returns their paths."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = [out / name for name in ("evaluation.json", "evaluation.md", "side_by_side.png")]
        files[0].write_text(json.dumps(evaluation.facts(), indent=2) + "\n", "utf-8")
        files[1].write_text(evaluation.markdown(), "utf-8")
        side_by_side(lake, evaluation).save(files[2], "PNG")
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written to: {error}") from error
    return files

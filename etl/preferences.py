"""Applies a preference policy to measured images that differ in their seed alone. Opens no image."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.fingerprints import register
from etl.lake import Lake
from etl.measured import images_of, with_metrics
from etl.table import computed_by
from schemas.errors import ConfigError, InputError
from schemas.fingerprint import fingerprint
from schemas.ids import content_ids, text_hash
from schemas.preference import OUTCOMES, Pairs, PreferencePolicy, choose_pairs, parse_preference_policy
from schemas.yaml_file import did_you_mean
from udfs.columns import matrix

VERSION = 1
DEFAULT = "paper"

_ALIKE = (
    "pose_id",
    "caption_id",
    "camera_yaw",
    "camera_elevation",
    "camera_distance",
    "camera_focal",
    "camera_margin",
    "image_height",
    "image_width",
)
"""With the shape, all that tells two samples of one plan apart but their seeds."""


@dataclass(frozen=True)
class Preferences:
    """What a policy chose.

    Attributes:
        fingerprint: of policy, metrics and images; names the rows in `preferences`.
        images: measured images; `unmeasured` ones were left out.
        groups: sets of images that differ in their seed alone.
        pairs: number of pairs.
        outcomes: number of groups by what became of them (`schemas.preference.OUTCOMES`), those that are
            there.
        written: rows that were new in `preferences`; 0 when the same was chosen before.
    """

    fingerprint: str
    policy: PreferencePolicy
    images: int
    unmeasured: int
    groups: int
    pairs: int
    outcomes: Mapping[str, int]
    written: int


def load_preference_policy(name: str = DEFAULT) -> PreferencePolicy:
    """A built-in policy by name (`paper`), or the policy in a YAML file by path. Raises ConfigError."""
    folder = resources.files("schemas") / "preferences"
    known = sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))
    if name in known:
        return parse_preference_policy((folder / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
    path = Path(name).expanduser()
    try:
        return parse_preference_policy(path.read_text("utf-8"), str(path))
    except FileNotFoundError as error:
        hint = did_you_mean(name, known)
        raise ConfigError(f"preference policy {name!r} is neither built in nor a file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"preference policy {name}: cannot be read: {error}") from error


def prefer(
    lake: Lake,
    policy: PreferencePolicy,
    *,
    metric_fingerprints: Mapping[str, str],
    image_fingerprint: str,
    sample_fingerprints: Sequence[str],
) -> Preferences:
    """Chooses pairs among the measured images of some plans and writes them to `preferences`.

    metric_fingerprints: metric table to the computation to use; an image takes part when all tables that
    the policy reads have measured it. image_fingerprint, sample_fingerprints: what made the images,
    and the plans they belong to.

    The same call on the same rows writes nothing. Raises ConfigError for a policy that reads a table which
    is not among the metrics, and InputError when nothing was measured.
    """
    check_measured(policy, metric_fingerprints)
    used = {table: metric_fingerprints[table] for table in policy.tables}
    images = images_of(lake, image_fingerprint, sample_fingerprints).sort_by("image_id")
    rows = images
    for table, value in used.items():
        names = [c for c in policy.columns if c in lake.table(table).spec.schema.names]
        rows = with_metrics(lake, rows, table, value, names)
    if not rows.num_rows:
        raise InputError(
            f"no image is measured yet: {images.num_rows} images are there; `posedreamer run` measures them"
        )
    group, first, samples = seed_groups(lake, rows.column("sample_id"), sample_fingerprints)
    sequence = sequences_of(lake, samples.column("pose_id").to_numpy()[first])
    ids = rows.column("image_id").to_numpy()
    pairs = choose_pairs(policy, group, sequence, ids, rows)

    parameters = {"images": len(ids), "image_ids": text_hash(ids.astype("<i8").tobytes()).hex()}
    upstream = {
        "policy": policy.fingerprint.value,
        "images": image_fingerprint,
        "samples": joined(sample_fingerprints),
        **used,
    }
    made = fingerprint("preferences", VERSION, parameters, upstream=upstream)
    written = 0
    chosen = lake.table("preferences")
    if len(pairs.group) and not chosen.dataset().count_rows(filter=pc.field("selection") == made.value):
        register(lake, policy.fingerprint)
        register(lake, made)
        note = {"posedreamer.preferences": made.value, "posedreamer.policy": policy.name}
        written = chosen.append(_table(made.value, pairs, ids, samples), note).rows
    counts = np.bincount(pairs.outcome, minlength=len(OUTCOMES))
    return Preferences(
        made.value,
        policy,
        rows.num_rows,
        images.num_rows - rows.num_rows,
        len(first),
        len(pairs.group),
        {name: int(count) for name, count in zip(OUTCOMES, counts, strict=True) if count},
        written,
    )


def check_measured(policy: PreferencePolicy, tables: Collection[str]) -> None:
    """Raises ConfigError for a policy that reads a metric which is not in the tables."""
    lacking = [table for table in policy.tables if table not in tables]
    if lacking:
        raise ConfigError(
            f"preference policy {policy.name} reads {', '.join(lacking)}, which this pipeline does not "
            "measure: see `metrics` in the pipeline file"
        )


def joined(fingerprints: Sequence[str]) -> str:
    """One text for the fingerprints of some plans, in any order; that of a single one is itself."""
    return "+".join(sorted(set(fingerprints)))


def seed_groups(
    lake: Lake, sample_ids: pa.Array | pa.ChunkedArray, sample_fingerprints: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Which of the plans' samples differ in their seed alone.

    Returns the (N,) group of each sample, the (G,) first sample of each group, and N rows of what tells
    groups apart.
    """
    names = ["sample_id", *_ALIKE, "betas"]
    samples = lake.table("samples").read(names, computed_by(sample_fingerprints))
    # A sample that two plans hold is the same in both.
    known, place = np.unique(samples.column("sample_id").to_numpy(), return_index=True)
    samples = samples.take(pa.array(place[np.searchsorted(known, sample_ids.to_numpy())]))
    n = samples.num_rows
    columns = [samples.column(name).to_numpy(zero_copy_only=False) for name in _ALIKE]
    columns.append(matrix(samples, "betas"))
    parts = [np.ascontiguousarray(c).reshape(n, -1).view(np.uint8).reshape(n, -1) for c in columns]
    packed = np.concatenate(parts, axis=1)
    whole = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, group = np.unique(whole, return_index=True, return_inverse=True)
    return group, first, samples


def sequences_of(lake: Lake, pose_ids: np.ndarray) -> np.ndarray:
    """(N,) integers: the same for poses of the same sequence of the same source."""
    poses = lake.table("poses").read(["pose_id", "source", "sequence"]).to_pandas()
    poses = poses.drop_duplicates("pose_id").set_index("pose_id")
    return poses.groupby(["source", "sequence"], sort=False).ngroup().loc[pose_ids].to_numpy()


def _table(selection: str, pairs: Pairs, ids: np.ndarray, samples: pa.Table) -> pa.Table:
    winner, loser = ids[pairs.winner], ids[pairs.loser]
    hashed = [winner, loser, pairs.winner_score, pairs.loser_score]
    preference_id, _ = content_ids("preference", [], hashed)
    of = samples.take(pa.array(pairs.winner))
    return pa.table(
        {
            "preference_id": preference_id,
            "selection": pa.repeat(selection, len(winner)),
            "pose_id": of.column("pose_id"),
            "caption_id": of.column("caption_id"),
            "winner_image_id": winner,
            "loser_image_id": loser,
            "winner_score": pairs.winner_score,
            "loser_score": pairs.loser_score,
            "gap": pairs.gap,
        }
    )

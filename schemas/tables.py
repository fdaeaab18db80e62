"""One Arrow schema a table. Units, shapes and allowed ranges live in the field metadata.

Label arrays are fixed-size lists here; Delta stores them as plain lists, so `schemas.validate` checks
the lengths before every commit. Columns are non-null unless a field says otherwise, and what could not
be measured is NULL, never NaN.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from schemas.caption_attributes import CAPTION_ATTRIBUTES
from schemas.coco import N_KEYPOINTS
from schemas.curriculum import REASONS
from schemas.fields import FINGERPRINT, field, floats, id_field
from schemas.metrics import METRICS, metric_table
from schemas.smplx_params import GENDERS, N_JOINTS, N_MARKERS, SMPLX_PARAMS

_UTC = pa.timestamp("us", "UTC")


_DIGEST = field(
    "digest", pa.int64(), "the other 64 bits of the content's hash: tells a collision from a repeat"
)
_GENDER = field("gender", pa.string(), "body model", one_of=GENDERS)
_UNITS = {"betas": "std", "expression": "std", "transl": "m"}
_SMPLX = [floats(k, n, f"SMPL-X {k}", unit=_UNITS.get(k, "rad")) for k, n in SMPLX_PARAMS.items()]

POSES = pa.schema(
    [
        id_field("pose_id", "hash of source, sequence, frame, gender and parameters"),
        _DIGEST,
        field("source", pa.string(), "name of the source in the pipeline file"),
        field("sequence", pa.string(), "path below the source's folder, without suffix"),
        field("frame", pa.int64(), "frame in the file as it was recorded", low=0),
        _GENDER,
        *_SMPLX,
    ]
)

CAPTIONS = pa.schema(
    [
        id_field("caption_id", "hash of source, key, text and what the text says"),
        _DIGEST,
        field("source", pa.string(), "name of the source in the pipeline file"),
        field("key", pa.string(), "what the caption belongs to: an image, a frame; pairing by key uses it"),
        field("text", pa.string(), "the caption"),
        *(field(a, pa.string(), f"{a} that the caption names", null=True) for a in CAPTION_ATTRIBUTES),
    ]
)

SAMPLES = pa.schema(
    [
        id_field("sample_id", "hash of all that shapes its image, and of the plan's seed"),
        _DIGEST,
        FINGERPRINT,
        id_field("pose_id", "row of `poses`"),
        id_field("caption_id", "row of `captions`"),
        field("round", pa.int32(), "curriculum round", low=0),
        field("draw", pa.int32(), "which of the samples of this pose and caption", low=0),
        field("seed", pa.int64(), "seed of the image, derived from sample_id", low=0),
        field("prompt", pa.string(), "the text that the generator reads"),
        floats("betas", 10, "body shape of this sample", unit="std"),
        field("camera_yaw", pa.float32(), "camera's azimuth about the body's vertical axis", unit="rad"),
        field("camera_elevation", pa.float32(), "camera's height angle, positive looks down", unit="rad"),
        field("camera_distance", pa.float32(), "camera to pelvis", unit="m", low=0.1),
        field("camera_focal", pa.float32(), "focal length before the crop", unit="px", low=1),
        field(
            "camera_margin",
            pa.float32(),
            "the image is the smallest square around the body grown by this fraction; NULL: no crop",
            null=True,
            low=0,
        ),
        field("image_height", pa.int32(), "height of the image", unit="px", low=16),
        field("image_width", pa.int32(), "width of the image", unit="px", low=16),
        field("pick_reason", pa.string(), "what picked the pose; NULL: no rounds", null=True, one_of=REASONS),
        field("pick_model", pa.string(), "fingerprint of the model that scored it", null=True),
    ]
)

SCORES_PREDICTED_OKS = pa.schema(
    [
        id_field("pose_id", "row of `poses`"),
        FINGERPRINT,
        field("predicted_oks", pa.float32(), "OKS that images of it are expected to reach", low=0, high=1),
        field("predicted_oks_spread", pa.float32(), "spread of the ensemble's predictions", low=0),
    ]
)

SCORES_NOVELTY = pa.schema(
    [
        id_field("pose_id", "row of `poses`"),
        FINGERPRINT,
        field("novelty", pa.float32(), "distance to the nearest generated pose", unit="m", low=0),
        id_field("nearest_pose_id", "that pose"),
    ]
)

SCORES_PLAUSIBILITY = pa.schema(
    [
        id_field("pose_id", "row of `poses`"),
        FINGERPRINT,
        field("plausibility", pa.float32(), "1: nothing is wrong with it; 0: broken", low=0, high=1),
        field("joint_excess", pa.float32(), "beyond the joints' limits, the worst joint", unit="rad", low=0),
        field("penetration", pa.float32(), "depth of one body part in another", unit="m", low=0),
        field("tilt", pa.float32(), "trunk's angle to the vertical", unit="rad", low=0),
        field("imbalance", pa.float32(), "centre of mass beyond what it stands on", unit="m", low=0),
    ]
)

PICKS = pa.schema(
    [
        id_field("pose_id", "row of `poses`"),
        FINGERPRINT,
        field("round", pa.int32(), "curriculum round, from 1", low=1),
        field("rank", pa.int32(), "place in the order of picking, from 0", low=0),
        field("pick_reason", pa.string(), "what picked it", one_of=REASONS),
        field("pick_model", pa.string(), "fingerprint of the model that scored it", null=True),
        field("predicted_oks", pa.float32(), "as in its scores", null=True, low=0, high=1),
        field("predicted_oks_spread", pa.float32(), "as in its scores", null=True, low=0),
        field("novelty", pa.float32(), "as in its scores", null=True, unit="m", low=0),
        field("plausibility", pa.float32(), "as in its scores", null=True, low=0, high=1),
    ]
)

LABEL_COLUMNS = [
    _GENDER,
    *_SMPLX,
    floats("focal", 2, "focal length x, y", unit="px"),
    floats("princpt", 2, "principal point x, y", unit="px"),
    field("image_height", pa.int32(), "height of the image", unit="px", low=16),
    field("image_width", pa.int32(), "width of the image", unit="px", low=16),
    floats("bbox", 4, "x, y, width, height of the projected surface, clipped to the image", unit="px"),
    floats("joints_3d", N_JOINTS * 3, "smplx joint order, camera space", unit="m"),
    floats("joints_2d", N_JOINTS * 2, "smplx joint order, projected", unit="px"),
    floats("keypoints_2d", N_KEYPOINTS * 2, "COCO's 17 keypoints, projected", unit="px"),
    field(
        "keypoints_visible",
        pa.list_(pa.int8(), N_KEYPOINTS),
        "0 outside the image, 1 hidden by the body, 2 seen",
        low=0,
        high=2,
    ),
    floats("markers_3d", N_MARKERS * 3, "surface markers, camera space", unit="m"),
    floats("markers_2d", N_MARKERS * 2, "surface markers, projected", unit="px"),
    field("coverage", pa.float32(), "share of the image that the body covers", low=0, high=1),
    field("control_path", pa.string(), "control image, relative to the lake"),
    field("control_sha256", pa.string(), "SHA-256 of the control image's bytes"),
]

LABELS = pa.schema([id_field("sample_id", "row of `samples`"), FINGERPRINT, *LABEL_COLUMNS])

IMAGES = pa.schema(
    [
        id_field("image_id", "hash of sample_id and fingerprint"),
        id_field("sample_id", "row of `samples`"),
        FINGERPRINT,
        field("image_path", pa.string(), "relative to the lake"),
        field("image_sha256", pa.string(), "SHA-256 of the file's bytes"),
        field("image_bytes", pa.int64(), "size of the file", unit="B", low=1),
        field("image_height", pa.int32(), "height", unit="px", low=1),
        field("image_width", pa.int32(), "width", unit="px", low=1),
        field("generator", pa.string(), "name of the generator"),
        field("seed", pa.int64(), "the seed that was used", low=0),
        field("steps", pa.int32(), "denoising steps; NULL for a renderer", null=True, low=1),
        field("guidance_scale", pa.float32(), "NULL for a renderer and for a model that has none", null=True),
        field("status", pa.string(), "how the file came to be", one_of=("generated", "adopted")),
        field("seconds", pa.float32(), "time to make it; NULL when adopted", unit="s", null=True, low=0),
        # Where rounding depends on the batch, these say how to make the very same pixels again.
        field(
            "batch_size",
            pa.int32(),
            "images painted in one call; NULL where it does not matter",
            null=True,
            low=1,
        ),
        field("batch_index", pa.int32(), "its place among them, from 0", null=True, low=0),
        field("device", pa.string(), "what it was painted on, such as a GPU's name", null=True),
        field("dtype", pa.string(), "numbers that the model computed with", null=True),
        field("prompt_tokens", pa.int32(), "tokens of the whole prompt", null=True, low=0),
        field("prompt_truncated", pa.bool_(), "whether the model read only its beginning", null=True),
    ]
)

SELECTIONS = pa.schema(
    [
        field("selection", pa.string(), "fingerprint of the policy and of the metric rows it was applied to"),
        id_field("image_id", "row of `images`"),
        id_field("sample_id", "row of `samples`"),
        field("keep", pa.bool_(), "whether the policy keeps it"),
        field("rejected_by", pa.string(), "first rule that rejects it; NULL when kept", null=True),
    ]
)

PREFERENCES = pa.schema(
    [
        id_field("preference_id", "hash of both image ids and scores"),
        field("selection", pa.string(), "fingerprint of the policy and of the images it was applied to"),
        id_field("pose_id", "row of `poses`"),
        id_field("caption_id", "row of `captions`"),
        id_field("winner_image_id", "row of `images`: the preferred one"),
        id_field("loser_image_id", "row of `images`: the same sample from another seed"),
        field("winner_score", pa.float32(), "what the policy scores by"),
        field("loser_score", pa.float32(), "0 where it could not be measured"),
        field("gap", pa.float32(), "difference of the scores", low=0),
    ]
)

DATASET = pa.schema(
    [
        id_field("image_id", "row of `images`"),
        id_field("sample_id", "row of `samples`"),
        id_field("pose_id", "row of `poses`"),
        id_field("caption_id", "row of `captions`"),
        field("image_path", pa.string(), "relative to the lake"),
        field("image_sha256", pa.string(), "SHA-256 of the file's bytes"),
        field("source", pa.string(), "pose source"),
        field("sequence", pa.string(), "pose sequence"),
        field("frame", pa.int64(), "pose frame", low=0),
        field("caption", pa.string(), "the caption"),
        field("prompt", pa.string(), "the text that the generator read"),
        field("round", pa.int32(), "curriculum round", low=0),
        field("generator", pa.string(), "name of the generator"),
        field("seed", pa.int64(), "seed of the image", low=0),
        field("generator_fingerprint", pa.string(), "what made the image"),
        field("label_fingerprint", pa.string(), "what made the labels"),
        field("metric_fingerprint", pa.string(), "what measured the keypoints in the image"),
        *METRICS["keypoints"],
        *LABEL_COLUMNS,
        # Of a release whose policy does not read it, a metric is NULL and no column of `Release`.
        *(f.with_nullable(True) for name in METRICS if name != "keypoints" for f in METRICS[name]),
    ]
)

RELEASES = pa.schema(
    [
        field("release", pa.string(), "semantic version"),
        field("dataset_version", pa.int64(), "version of the table `dataset`", low=0),
        field("manifest_path", pa.string(), "relative to the lake"),
        field("manifest_sha256", pa.string(), "SHA-256 of the manifest's bytes"),
        field("policy", pa.string(), "name of the policy"),
        field("selection", pa.string(), "row group of `selections` that was published"),
        field("rows", pa.int64(), "rows of this release", low=0),
        field("notes", pa.string(), "the author's words", null=True),
        field("created_at", _UTC, "when it was published"),
        field("parent", pa.string(), "release that it follows; NULL: none, or not noted", null=True),
        field("metrics", pa.string(), "metrics whose columns it has; NULL: keypoints alone", null=True),
    ]
)

RELEASE_EVENTS = pa.schema(
    [
        field("number", pa.int64(), "place in the order of events, from 0", low=0),
        field("release", pa.string(), "row of `releases`"),
        field("event", pa.string(), "what happened", one_of=("tag", "untag", "deprecate", "delete")),
        field("tag", pa.string(), "the name that was given or taken; NULL: another event", null=True),
        field("reason", pa.string(), "why", null=True),
        field("at", _UTC, "when"),
    ]
)

SOURCES = pa.schema(
    [
        id_field("file_id", "hash of source, path, size and time of change"),
        FINGERPRINT,
        field("source", pa.string(), "name of the source in the pipeline file"),
        field("path", pa.string(), "path below the source's folder"),
        field("bytes", pa.int64(), "size of the file", unit="B", low=0),
        field("modified", pa.string(), "time of change, or the object store's entity tag"),
        field("sha256", pa.string(), "SHA-256 of the file's bytes"),
        id_field(
            "content_id", "hash of source, path and sha256: the same when only the time of change differs"
        ),
        field("licence", pa.string(), "what the pipeline file says of the source's licence"),
        field("kind", pa.string(), "how it was read"),
        field("rows", pa.int64(), "rows that went in", low=0),
        field("rejected", pa.int64(), "rows that were refused", low=0),
        field("facts", pa.string(), "what reading it found or changed, as JSON"),
    ]
)

REJECTED = pa.schema(
    [
        id_field("file_id", "row of `sources`"),
        FINGERPRINT,
        field("source", pa.string(), "name of the source in the pipeline file"),
        field("path", pa.string(), "path below the source's folder"),
        field("row", pa.int64(), "frame or line; NULL: the whole file", null=True, low=0),
        field("error_code", pa.string(), "stable code"),
        field("message", pa.string(), "what is wrong with it"),
    ]
)

FAILURES = pa.schema(
    [
        field("stage", pa.string(), "stage that failed"),
        id_field("row_id", "key of the input row"),
        FINGERPRINT,
        field("status", pa.string(), "what became of the row", one_of=("failed",)),
        field("attempt", pa.int32(), "first try is 1", low=1),
        field("error_code", pa.string(), "stable code"),
        field("message", pa.string(), "what went wrong"),
        field("failed_at", _UTC, "when"),
    ]
)

FINGERPRINTS = pa.schema(
    [
        FINGERPRINT,
        field("udf", pa.string(), "name of the UDF"),
        field("ingredients", pa.string(), "name, version, parameters, model digests, upstream, as JSON"),
        field("software", pa.string(), "package versions of the run that first used it, as JSON"),
        field("created_at", _UTC, "when it was first used"),
    ]
)


@dataclass(frozen=True)
class TableSpec:
    """A table of the lake: its schema, and the columns that no two rows share."""

    schema: pa.Schema
    key: tuple[str, ...]
    content: str | None = None
    """Column that tells a repeat of a row from another row with the same key."""


_CONTENT = field("content_id", pa.int64(), "file it was read from, as in `sources`; NULL: none", null=True)
_READ = ("fingerprint", "content_id")

TABLES: Mapping[str, TableSpec] = {
    "sources": TableSpec(SOURCES, ("file_id", "fingerprint")),
    "rejected": TableSpec(REJECTED, ("file_id", "fingerprint", "row")),
    # A pose, caption or sample that two settings or files yield is one id and two rows, one for each: so a
    # run sees just what its own settings and files yield, and what is computed for the id serves both.
    "poses": TableSpec(POSES.append(FINGERPRINT).append(_CONTENT), ("pose_id", *_READ), "digest"),
    "captions": TableSpec(CAPTIONS.append(FINGERPRINT).append(_CONTENT), ("caption_id", *_READ), "digest"),
    "samples": TableSpec(SAMPLES, ("sample_id", "fingerprint"), "digest"),
    "picks": TableSpec(PICKS, ("pose_id", "fingerprint")),
    "scores_predicted_oks": TableSpec(SCORES_PREDICTED_OKS, ("pose_id", "fingerprint")),
    "scores_novelty": TableSpec(SCORES_NOVELTY, ("pose_id", "fingerprint")),
    "scores_plausibility": TableSpec(SCORES_PLAUSIBILITY, ("pose_id", "fingerprint")),
    "labels": TableSpec(LABELS, ("sample_id", "fingerprint")),
    "images": TableSpec(IMAGES, ("image_id",), "sample_id"),
    **{f"metrics_{name}": TableSpec(metric_table(name), ("image_id", "fingerprint")) for name in METRICS},
    "selections": TableSpec(SELECTIONS, ("selection", "image_id")),
    "preferences": TableSpec(PREFERENCES, ("selection", "preference_id")),
    "dataset": TableSpec(DATASET, ("image_id",)),
    "releases": TableSpec(RELEASES, ("release",)),
    # A number is taken once, so what is decided on the events before it holds when it is written.
    "release_events": TableSpec(RELEASE_EVENTS, ("number",)),
    "failures": TableSpec(FAILURES, ("stage", "row_id", "fingerprint", "attempt")),
    "fingerprints": TableSpec(FINGERPRINTS, ("fingerprint",)),
}


def published(metrics: Collection[str]) -> pa.Schema:
    """Columns of a release that has those of some metrics; of keypoints it has them always."""
    without = {f.name for name in METRICS if name not in {"keypoints", *metrics} for f in METRICS[name]}
    return pa.schema([f for f in DATASET if f.name not in without])


def subset(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The named fields of a schema, in that order."""
    return pa.schema([schema.field(n) for n in names])

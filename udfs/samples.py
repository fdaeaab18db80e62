"""Planning: which pose goes with which caption, seen from where, painted with which seed.

Every choice is a hash of the pose, the caption and the plan, never of what else is in the lake or of
the order in which it came: adding poses later changes no sample that exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.errors import ConfigError, InputError
from schemas.ids import caption_ids, content_ids, hex_id, mix, text_id, uniform
from schemas.plan import Plan
from schemas.source import GrammarSource
from schemas.tables import CAPTIONS, SAMPLES, subset
from udfs import grammar as words
from udfs.columns import list_column, matrix
from udfs.udf import Apply, Udf, Worker

_OUTPUTS = subset(SAMPLES, tuple(n for n in SAMPLES.names if n != "fingerprint"))

PICKED = ("pick_reason", "pick_model")
"""What the samples of picked poses are told of their pick."""

_RING_POINTS = 32
"""Points a caption has on the ring: many, so that all captions are used about equally often."""


@dataclass(frozen=True, kw_only=True)
class Samples(Udf):
    """The samples of a batch of poses.

    Fields:
        plan: how many, with which captions, from where.
        grammar: what makes the captions when `plan.pairing` is `grammar`.
        captions_file: else, an Arrow IPC file below the lake with the columns `caption_id`, `key`, `text`.
            No parameter: a caption that is added later must not make what was planned stale.
    """

    name: ClassVar[str] = "samples"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ("pose_id", "source", "sequence", "frame", "gender", "betas")
    outputs: ClassVar[pa.Schema] = _OUTPUTS
    batch_rows: ClassVar[int] = 4096

    plan: Plan
    grammar: GrammarSource | None = None
    captions_file: str | None = None

    def __post_init__(self) -> None:
        if self.plan.pairing == "grammar" and self.grammar is None:
            raise ConfigError("plan.pairing is `grammar`, but there is no grammar among the caption sources")
        if self.plan.pairing != "grammar" and self.captions_file is None:
            raise ConfigError(
                f"plan.pairing is `{self.plan.pairing}`, but there is no caption source to pair"
            )

    def parameters(self) -> dict[str, object]:
        # A plan for all poses is the plan that it was before there were parts.
        without = {"part"} if self.plan.part is None else set()
        return {"plan": self.plan.model_dump(mode="json", exclude=without), "grammar": self.grammar}

    def setup(self, worker: Worker) -> Apply:
        """Returns poses -> {"captions": rows that the grammar made, "samples": rows}."""
        plan = self.plan
        if self.grammar is not None and plan.pairing == "grammar":
            grammar = self.grammar

            def of_grammar(poses: pa.Table) -> dict[str, pa.Table]:
                poses = poses.filter(pa.array(planned(poses, plan)))
                made = grammar_captions(poses, grammar, plan)
                row = np.repeat(np.arange(len(poses)), plan.captions_per_pose)
                samples = make_samples(poses, row, made["caption_id"], made["text"], plan)
                return {"captions": made, "samples": samples}

            return of_grammar

        assert self.captions_file is not None
        captions = _read_captions(worker.files.read(self.captions_file), self.captions_file)
        if plan.pairing != "key" and not len(captions):
            raise InputError(f"there are no captions to pair with (plan.pairing is `{plan.pairing}`)")

        def of_file(poses: pa.Table) -> dict[str, pa.Table]:
            poses = poses.filter(pa.array(planned(poses, plan)))
            row, chosen = pair(poses, captions, plan)
            caption_ids, text = captions["caption_id"].take(chosen), captions["text"].take(chosen)
            return {
                "captions": CAPTIONS.empty_table(),
                "samples": make_samples(poses, row, caption_ids, text, plan),
            }

        return of_file


def expected_samples(poses: pa.Table, caption_keys: Sequence[str], plan: Plan) -> np.ndarray:
    """(N,) int64: how many samples each pose has when it is planned.

    poses: columns `pose_id`, `source`, `sequence`, `frame`; caption_keys: the keys of all captions,
    ignored for `grammar`.
    """
    if plan.pairing == "key":
        row, _ = _by_key(poses, caption_keys)
        return np.bincount(row, minlength=len(poses)).astype(np.int64) * plan.draws * planned(poses, plan)
    each = {
        "grammar": plan.captions_per_pose,
        "random": min(plan.captions_per_pose, len(caption_keys)),
        "all": len(caption_keys),
    }[plan.pairing]
    return np.where(planned(poses, plan), each * plan.draws, 0)


def planned(poses: pa.Table, plan: Plan) -> np.ndarray:
    """(N,) bool: the poses that belong to the plan's part."""
    part = plan.part
    if part is None:
        return np.ones(len(poses), bool)
    ids = _ints(poses["pose_id"])
    if part.by == "sequence":
        names = list(zip(poses["source"].to_pylist(), poses["sequence"].to_pylist(), strict=True))
        of_name = {name: text_id(*name) for name in set(names)}
        ids = np.array([of_name[name] for name in names], np.int64)
    place = uniform(ids, "part")
    return (place >= part.low) & (place < part.high)


def pair(poses: pa.Table, captions: pa.Table, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Pairs as two arrays: row of `poses`, row of `captions` (sorted by unsigned `caption_id`).

    `random` puts every caption on a ring, at points that follow from its id. A pose draws points too and
    takes the caption that follows each, so a caption added later moves only the poses just before it.
    """
    n_poses, n_captions = len(poses), len(captions)
    if plan.pairing == "key":
        return _by_key(poses, captions["key"].to_pylist())
    if plan.pairing == "all" or n_captions <= plan.captions_per_pose:
        return np.repeat(np.arange(n_poses), n_captions), np.tile(np.arange(n_captions), n_poses)
    pose_ids, caption_ids = _ints(poses["pose_id"]), _ints(captions["caption_id"])
    ring = np.concatenate([mix(caption_ids, "ring", v) for v in range(_RING_POINTS)])
    order = np.argsort(ring, kind="stable")
    ring, caption_at = ring[order], order % n_captions
    chosen = np.empty((n_poses, plan.captions_per_pose), np.int64)
    for k in range(plan.captions_per_pose):
        at = np.searchsorted(ring, mix(pose_ids, "pair", plan.seed, plan.round, k)) % len(ring)
        while (taken := (chosen[:, :k] == caption_at[at][:, None]).any(1)).any():
            at[taken] = (at[taken] + 1) % len(ring)
        chosen[:, k] = caption_at[at]
    return np.repeat(np.arange(n_poses), plan.captions_per_pose), chosen.ravel()


def grammar_captions(poses: pa.Table, grammar: GrammarSource, plan: Plan) -> pa.Table:
    """`captions_per_pose` captions for each pose, as rows of CAPTIONS; those of one pose are neighbours."""
    count = plan.captions_per_pose
    pose_ids = _ints(poses["pose_id"])
    seeds = np.stack([mix(pose_ids, "caption", plan.seed, plan.round, k) for k in range(count)], axis=1)
    if not len(pose_ids):
        return CAPTIONS.empty_table()
    made = words.captions(seeds.ravel(), grammar, np.repeat(poses["gender"].to_numpy(), count).tolist())
    key = [f"{hex_id(i)}:{k}" for i in pose_ids for k in range(count)]
    source = [grammar.name] * len(key)
    caption_id, digest = caption_ids(source, key, made.to_pydict())
    columns = {"caption_id": caption_id, "digest": digest, "source": source, "key": key}
    columns |= {name: made[name] for name in made.column_names}
    return pa.table({name: columns[name] for name in CAPTIONS.names}, schema=CAPTIONS)


def make_samples(
    poses: pa.Table, row: np.ndarray, caption_ids: pa.ChunkedArray, text: pa.ChunkedArray, plan: Plan
) -> pa.Table:
    """`draws` samples for each pair of a pose's row and a caption, as rows of SAMPLES without fingerprint."""
    row = np.repeat(row, plan.draws)
    n = len(row)
    if not n:
        return _OUTPUTS.empty_table()
    draw = np.tile(np.arange(plan.draws, dtype=np.int32), n // plan.draws)
    pose_id = _ints(poses["pose_id"])[row]
    caption_id = np.repeat(_ints(caption_ids), plan.draws)
    before, after = plan.prompt.split("{caption}")
    prompts = [before + t + after for t in text.to_pylist() for _ in range(plan.draws)]

    camera = plan.camera
    with np.errstate(over="ignore"):
        point = mix(pose_id, "sample", plan.seed, plan.round) + mix(caption_id, "sample")
        point = point + (draw if camera.each_draw else np.zeros_like(draw)).astype(np.uint64)

    def between(name: str, low: float, high: float) -> np.ndarray:
        # Rounding to float32 may leave the interval by one step.
        value = low + (high - low) * uniform(point, name)
        return np.clip(value.astype(np.float32), np.float32(low), np.float32(high))

    if plan.betas == "resample":
        betas = np.stack([between(f"betas.{i}", -1.0, 1.0) for i in range(10)], axis=1)
    else:
        betas = matrix(poses, "betas").astype(np.float32)[row]
    height, width = plan.image_size
    margin = camera.margin
    columns: dict[str, np.ndarray] = {
        "pose_id": pose_id,
        "caption_id": caption_id,
        "round": np.full(n, plan.round, np.int32),
        "draw": draw,
        "betas": betas,
        "camera_yaw": between("yaw", *np.radians(camera.yaw)),
        "camera_elevation": between("elevation", *np.radians(camera.elevation)),
        "camera_distance": between("distance", *camera.distance),
        "camera_focal": np.full(n, plan.focal, np.float32),
        "camera_margin": np.full(n, -1 if margin is None else margin, np.float32),
        "image_height": np.full(n, height, np.int32),
        "image_width": np.full(n, width, np.int32),
    }
    # The plan's seed is hashed too: where nothing is left to chance it still tells two plans apart.
    hashed = [*columns.values(), np.full(n, plan.seed, np.int64)]
    sample_id, digest = content_ids("sample", [prompts], hashed)
    table: dict[str, object] = dict(columns)
    table |= {"sample_id": sample_id, "digest": digest, "prompt": pa.array(prompts, pa.string())}
    table["seed"] = (mix(sample_id, "seed") >> np.uint64(1)).astype(np.int64)
    table["betas"] = list_column(betas, _OUTPUTS.field("betas").type)
    if margin is None:
        table["camera_margin"] = pa.nulls(n, pa.float32())
    for name in PICKED:
        picked = name in poses.column_names
        table[name] = (
            poses[name].cast(pa.string()).take(pa.array(row)) if picked else pa.nulls(n, pa.string())
        )
    return pa.table({name: table[name] for name in _OUTPUTS.names}, schema=_OUTPUTS)


def _by_key(poses: pa.Table, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of poses and captions with the same key: the pose's sequence, or "sequence:frame"."""
    of_key: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        of_key.setdefault(key, []).append(i)
    row: list[int] = []
    chosen: list[int] = []
    sequences, frames = poses["sequence"].to_pylist(), poses["frame"].to_pylist()
    for i, (sequence, frame) in enumerate(zip(sequences, frames, strict=True)):
        found = sorted(of_key.get(sequence, []) + of_key.get(f"{sequence}:{frame}", []))
        row += [i] * len(found)
        chosen += found
    return np.array(row, np.int64), np.array(chosen, np.int64)


def _read_captions(data: bytes, path: str) -> pa.Table:
    """Captions of an Arrow IPC file, sorted by unsigned id."""
    try:
        table = pa.ipc.open_file(data).read_all().select(["caption_id", "key", "text"])
    except (pa.ArrowInvalid, KeyError) as error:
        raise InputError(f"{path}: no Arrow file with the columns caption_id, key, text ({error})") from error
    return table.take(np.argsort(_ints(table["caption_id"]).view(np.uint64), kind="stable"))


def _ints(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(), dtype=np.int64)

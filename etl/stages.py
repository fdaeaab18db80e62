"""What the stages of a pipeline are: each one's UDF, its input rows, and what it builds on."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.ingest import Read, ReadFiles, list_files
from etl.lake import Lake
from etl.mining import Measured, Mining
from etl.picks import Picking
from etl.stage import Join, Stage
from etl.table import computed_by
from schemas.errors import InputError
from schemas.ids import text_hash
from schemas.pipeline import DEFAULT, DiffusionSettings, Pipeline
from schemas.plan import Plan
from schemas.smplx_params import POSE_PARAMS
from schemas.source import CaptionSource, GrammarSource, PoseSource
from schemas.tables import CAPTIONS, LABEL_COLUMNS, SAMPLES
from udfs.generator import Generator
from udfs.udf import Udf

_CAPTION_COLUMNS = ["caption_id", "key", "text"]
_TASK_SAMPLES = 65_536


@dataclass(frozen=True)
class Stages:
    """The stages of one pipeline in one lake, made anew for every run: each sees what came before it.

    Attributes:
        as_run: take the files that the last run read, wherever they are now, instead of those that are
            there.
        round: of the curriculum, from 1; 0 where there is none. `samples` plans this round's poses, all
            after it computes those of the rounds before as well.
        before: the stages of the round before, which were read and measured already.
    """

    lake: Lake
    pipeline: Pipeline
    as_run: bool = False
    round: int = 0
    before: "Stages | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def rounds(cls, lake: Lake, pipeline: Pipeline) -> "Iterator[Stages]":
        """The stages of each round, or of the only one there is. Each is built when it is its turn."""
        if pipeline.curriculum is None:
            yield cls(lake, pipeline)
            return
        before = None
        for number in range(1, len(pipeline.curriculum.rounds) + 1):
            before = cls(lake, pipeline, round=number, before=before)
            yield before

    @classmethod
    def latest(cls, lake: Lake, pipeline: Pipeline, as_run: bool = False) -> "Stages":
        """The stages of the last round that was picked already, the first if none was."""
        if pipeline.curriculum is None:
            return cls(lake, pipeline, as_run)
        found = cls(lake, pipeline, as_run, 1)
        for number in range(2, len(pipeline.curriculum.rounds) + 1):
            after = cls(lake, pipeline, as_run, number, found)
            if not after.picking.done:
                break
            found = after
        return found

    @property
    def computing(self) -> Iterator[Stage]:
        """What comes after the reading and the picking, in the order in which it runs."""
        yield self.samples
        yield self.labels
        yield self.images
        yield from self.metrics

    @cached_property
    def reading(self) -> tuple[Stage, ...]:
        sources: list[PoseSource | CaptionSource] = [*self.pipeline.poses, *self._caption_files]
        return tuple(
            Stage(f"read {s.name}", ReadFiles(source=s), "sources", list_files(s), partition_rows=8)
            for s in sources
        )

    @property
    def _caption_files(self) -> list[CaptionSource]:
        return [c for c in self.pipeline.captions if not isinstance(c, GrammarSource)]

    @cached_property
    def poses_read(self) -> Read:
        return self._read(self.pipeline.poses) if self.before is None else self.before.poses_read

    @cached_property
    def captions_read(self) -> Read:
        return self._read(self._caption_files) if self.before is None else self.before.captions_read

    def _read(self, sources: Sequence[PoseSource | CaptionSource]) -> Read:
        """What the lake has of the sources' files; a file that is gone or was changed has no part in it."""
        prints, contents = [], set()
        table = self.lake.table("sources")
        for source in sources:
            value = ReadFiles(source=source).fingerprint().value
            rows = table.read(["file_id", "content_id"], computed_by([value]))
            current = rows.filter(pc.is_in(rows.column("file_id"), pa.array(self._file_ids(source, value))))
            prints.append(value)
            contents.update(current.column("content_id").to_pylist())
        return Read(tuple(prints), tuple(sorted(contents)))

    def _file_ids(self, source: PoseSource | CaptionSource, fingerprint: str) -> list[int]:
        if not self.as_run:
            return list_files(source).column("file_id").to_pylist()
        try:
            return json.loads(self.lake.store.read(_listing(fingerprint)))
        except FileNotFoundError as error:
            raise InputError(
                f"source {source.name} was not read with these settings yet: `posedreamer run` does that"
            ) from error

    def record_files(self) -> None:
        """Notes which files were there, for what is done with the results when they are not."""
        for stage in self.reading:
            assert isinstance(stage.source, pa.Table)
            data = json.dumps(stage.source.column("file_id").to_pylist()).encode()
            path = _listing(stage.fingerprint.value)
            if not self.lake.store.exists(path) or self.lake.store.read(path) != data:
                self.lake.store.write(path, data)

    @cached_property
    def mining(self) -> Mining:
        """What the images of the samples so far, this round's among them, say of other poses."""
        computed = [s.fingerprint.value for s in (self.labels, self.images, self.keypoints)]
        measured = Measured(self.sample_fingerprints, *computed)
        return Mining(self.lake, self.pipeline, self.poses_read, measured)

    @cached_property
    def picking(self) -> Picking:
        """What chooses this round's poses."""
        before = self.before
        mining = Mining(self.lake, self.pipeline, self.poses_read) if before is None else before.mining
        earlier = () if before is None else (*before.picking.earlier, before.picking.fingerprint.value)
        return Picking(mining, self.round, earlier)

    @cached_property
    def plan(self) -> Plan:
        """The pipeline's plan, as it is in this round."""
        curriculum = self.pipeline.curriculum
        if curriculum is None or not self.round:
            return self.pipeline.plan
        wanted = curriculum.rounds[self.round - 1].captions_per_pose
        changed = {"round": self.round} | ({} if wanted is None else {"captions_per_pose": wanted})
        return self.pipeline.plan.model_copy(update=changed)

    @property
    def so_far(self) -> "tuple[Stages, ...]":
        """The stages of the rounds before and of this one."""
        return (*(() if self.before is None else self.before.so_far), self)

    @property
    def sample_fingerprints(self) -> tuple[str, ...]:
        """What planned the samples of this round and of those before it."""
        return tuple(stages.samples.fingerprint.value for stages in self.so_far)

    @cached_property
    def samples(self) -> Stage:
        from udfs.samples import PICKED, Samples, expected_samples

        plan = self.plan
        keys = self._captions().column("key").to_pylist()

        def expected(ids: np.ndarray) -> np.ndarray:
            poses = self.lake.table("poses").read(["pose_id", "source", "sequence", "frame"])
            known, first = np.unique(poses.column("pose_id").to_numpy(), return_index=True)
            at = first[np.searchsorted(known, ids)]
            return expected_samples(poses.take(pa.array(at)), keys, plan)

        # The plan is a function of all it is made from: a file more or less is another plan. What stays
        # the same in it keeps its ids, so that labels and images are found again.
        picked = self.picking.fingerprint.value if self.round else None
        upstream = {"poses": self.poses_read.digest} if picked is None else {"picks": picked}
        if plan.pairing != "grammar":
            upstream["captions"] = self.captions_read.digest
        # With thousands of captions a pose, a thousand poses would not fit in a worker's memory.
        each = plan.draws * (len(keys) if plan.pairing == "all" else plan.captions_per_pose)
        udf = Samples(
            plan=plan,
            grammar=self.pipeline.grammar if plan.pairing == "grammar" else None,
            captions_file=self.captions_path,
        )
        rows = min(max(self.pipeline.cluster.partition_rows, 1024), _TASK_SAMPLES // max(each, 1))
        common: dict[str, Any] = {"upstream": upstream, "expected": expected, "partition_rows": max(1, rows)}
        columns, read = udf.inputs[1:], self.poses_read
        if picked is None:
            return Stage("samples", udf, "samples", "poses", columns, *read, **common)
        joins = (Join("poses", "pose_id", columns, read.fingerprints),)
        return Stage("samples", udf, "samples", "picks", PICKED, (picked,), joins=joins, **common)

    @property
    def captions_path(self) -> str | None:
        """Where the captions to pair lie, named by what they are; None when the grammar makes them."""
        if self.plan.pairing == "grammar" or not self._caption_files:
            return None
        digest = text_hash(self._captions().column("caption_id").to_numpy().tobytes()).hex()
        return f"files/plan/captions-{digest}.arrow"

    def _captions(self) -> pa.Table:
        """Captions of this pipeline's files, by id."""
        table = self.lake.table("captions")
        return table.read(_CAPTION_COLUMNS, computed_by(*self.captions_read)).sort_by("caption_id")

    def captions_bytes(self) -> bytes:
        """The captions to pair as an Arrow file."""
        sink = io.BytesIO()
        captions = self._captions()
        with pa.ipc.new_file(sink, captions.schema) as writer:
            writer.write_table(captions)
        return sink.getvalue()

    def write_captions(self) -> None:
        """Puts the captions where the workers that plan samples read them; the path names their content."""
        path = self.captions_path
        if path is not None and not self.lake.store.exists(path):
            self.lake.store.write(path, self.captions_bytes())

    @cached_property
    def labels(self) -> Stage:
        from udfs.labels import Labels

        model = self.pipeline.body.model
        cameras = ("yaw", "elevation", "distance", "focal", "margin")
        columns = ("betas", *(f"camera_{c}" for c in cameras), "image_height", "image_width")
        return Stage(
            "labels",
            Labels(body_file=None if model == "standin" else Path(model)),
            "labels",
            "samples",
            columns,
            self.sample_fingerprints,
            joins=(Join("poses", "pose_id", ("gender", *POSE_PARAMS, "expression")),),
            partition_rows=self.pipeline.cluster.partition_rows,
        )

    @cached_property
    def generator(self) -> Generator:
        if self.before is not None:
            return self.before.generator
        settings = self.pipeline.generator
        if isinstance(settings, DiffusionSettings):
            from udfs.generate import Diffusion

            return Diffusion(settings=settings).pinned()
        from udfs.shaded import Shaded

        model = self.pipeline.body.model
        return Shaded(body_file=None if model == "standin" else Path(model))

    @cached_property
    def images(self) -> Stage:
        from udfs.images import Images

        settings = self.pipeline.image
        udf = Images(generator=self.generator, format=settings.format, quality=settings.quality)
        wanted = set(udf.generator.columns) | set(udf.inputs)
        of_labels = tuple(f.name for f in LABEL_COLUMNS if f.name in wanted)
        own = tuple(c for c in SAMPLES.names[1:] if c in wanted and c not in of_labels)
        of_captions = tuple(c for c in CAPTIONS.names[1:] if c in wanted)
        return Stage(
            "images",
            udf,
            "images",
            "samples",
            own,
            self.sample_fingerprints,
            joins=(
                Join("labels", "sample_id", of_labels, (self.labels.fingerprint.value,)),
                *([Join("captions", "caption_id", of_captions)] if of_captions else []),
            ),
            upstream={"labels": self.labels.fingerprint.value},
            partition_rows=self.pipeline.cluster.partition_rows,
        )

    @property
    def metrics(self) -> tuple[Stage, ...]:
        """What is measured on the images."""
        return (self.keypoints, *self._more_metrics)

    @cached_property
    def keypoints(self) -> Stage:
        from udfs.keypoints import KeypointMetric

        return self._metric(KeypointMetric(weights=self._keypoint_weights))

    @property
    def _keypoint_weights(self) -> Path | None:
        weights = self.pipeline.metrics.keypoints.weights
        return None if weights == DEFAULT else Path(weights)

    @cached_property
    def _more_metrics(self) -> tuple[Stage, ...]:
        """Those that the pipeline file asks for, each of them imported when it is."""
        asked, udfs = self.pipeline.metrics, list[Udf]()
        body_file = None if self.pipeline.body.model == "standin" else Path(self.pipeline.body.model)
        if asked.colors:
            from udfs.caption_colors import CaptionColors

            udfs.append(CaptionColors(body_file=body_file))
        if asked.image_quality:
            from udfs.image_quality import ImageQuality

            udfs.append(ImageQuality())
        if asked.silhouette is not None:
            from udfs.silhouette import Silhouette

            udfs.append(Silhouette(settings=asked.silhouette).pinned())
        if asked.head_pose is not None:
            from udfs.head_pose import HeadPose

            udfs.append(HeadPose(settings=asked.head_pose, finder=self._keypoint_weights).pinned())
        if asked.caption_match is not None:
            from udfs.caption_match import CaptionMatch

            udfs.append(CaptionMatch(settings=asked.caption_match).pinned())
        return tuple(self._metric(udf) for udf in udfs)

    def _metric(self, udf: Udf) -> Stage:
        """The stage that measures something on every image, with what it reads of labels and caption."""
        own = ("image_path", "image_height", "image_width")
        of_labels = tuple(f.name for f in LABEL_COLUMNS if f.name in udf.inputs and f.name not in own)
        of_captions = tuple(c for c in CAPTIONS.names[1:] if c in udf.inputs)
        joins = []
        if of_labels:
            joins.append(Join("labels", "sample_id", of_labels, (self.labels.fingerprint.value,)))
        if of_captions:
            joins.append(Join("samples", "sample_id", (), self.sample_fingerprints))
            joins.append(Join("captions", "caption_id", of_captions, through="samples"))
        return Stage(
            udf.name,
            udf,
            f"metrics_{udf.name}",
            "images",
            own,
            (self.images.fingerprint.value,),
            joins=tuple(joins),
            upstream={"images": self.images.fingerprint.value},
            partition_rows=self.pipeline.cluster.partition_rows,
        )


def _listing(fingerprint: str) -> str:
    return f"files/plan/files-{fingerprint}.json"

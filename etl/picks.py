"""Chooses the poses of a curriculum's round from their scores, and keeps the choice in the table `picks`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from etl.fingerprints import register
from etl.mining import SCORES, Mining
from etl.table import computed_by
from schemas.curriculum import REASONS, Curriculum
from schemas.errors import InputError
from schemas.fingerprint import Fingerprint, fingerprint
from schemas.tables import PICKS
from udfs.columns import matrix

if TYPE_CHECKING:
    from udfs.picking import Picks

VERSION = 1


@dataclass(frozen=True)
class Picked:
    """A round's choice.

    Attributes:
        budget, poses: wanted, and chosen.
        reasons: poses by what chose them.
        short: how many the round is short of, by what stood against them.
        new: whether it was made just now.
    """

    number: int
    budget: int
    poses: int
    reasons: Mapping[str, int]
    short: Mapping[str, int]
    new: bool


@dataclass(frozen=True)
class Picking:
    """How one round is chosen.

    Attributes:
        mining: what scores the poses: learnt from the rounds before.
        number: of the round, from 1.
        earlier: fingerprints of the rounds before, whose poses are not chosen again.
    """

    mining: Mining
    number: int
    earlier: tuple[str, ...]

    @property
    def curriculum(self) -> Curriculum:
        found = self.mining.pipeline.curriculum
        assert found is not None
        return found

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Of the choice. Needs what `Mining.prepare` makes."""
        curriculum, plan = self.curriculum, self.mining.pipeline.plan
        wanted = curriculum.rounds[self.number - 1]
        parameters = {
            "number": self.number,
            "round": wanted.model_dump(mode="json", exclude={"captions_per_pose"}),
            "choice": curriculum.model_dump(
                mode="json", include={"spacing", "quotas", "min_plausibility", "seed"}
            ),
            "part": None if plan.part is None else plan.part.model_dump(mode="json"),
        }
        upstream = {
            "poses": self.mining.read.digest,
            **{s.name: s.fingerprint.value for s in self.mining.stages},
        }
        upstream |= {f"round_{n}": value for n, value in enumerate(self.earlier, 1)}
        return fingerprint("picks", VERSION, parameters, upstream=upstream)

    @property
    def done(self) -> bool:
        """Whether the choice was made on what is measured now."""
        return self.mining.ready and self._chosen(["rank"]).num_rows > 0

    def pick(self) -> Picked:
        """Makes the choice unless it is there. The stages of `mining` have run.

        Raises InputError where no pose is left to choose.
        """
        rows = self._chosen(["pick_reason"])
        budget = self.curriculum.rounds[self.number - 1].budget
        if rows.num_rows:
            return Picked(self.number, budget, rows.num_rows, _counts(rows.column("pick_reason")), {}, False)
        register(self.mining.lake, self.fingerprint)
        pool = self._pool()
        chosen = self._choose(pool)
        if not len(chosen.rows):
            why = ", ".join(f"{count:,} for {what}" for what, count in chosen.short.items())
            raise InputError(
                f"round {self.number}: none of {pool.num_rows:,} poses is left to pick (short of {why}); add "
                "poses, or ask for fewer rounds, a smaller spacing or a lower min_plausibility"
            )
        scores = {name: pool.column(name) for name in SCORES if name in pool.column_names}
        taken = {name: column.take(pa.array(chosen.rows)) for name, column in scores.items()}
        n = len(chosen.rows)
        columns = {
            "pose_id": pool.column("pose_id").take(pa.array(chosen.rows)),
            "fingerprint": pa.repeat(self.fingerprint.value, n),
            "round": pa.repeat(pa.scalar(self.number, pa.int32()), n),
            "rank": pa.array(np.arange(n, dtype=np.int32)),
            "pick_reason": pa.array(chosen.reason.tolist(), pa.string()),
            "pick_model": pa.array([self.mining.model_name] * n, pa.string()),
            **{name: taken.get(name, pa.nulls(n, pa.float32())) for name in SCORES},
        }
        self.mining.lake.table("picks").append(
            pa.table({name: columns[name] for name in PICKS.names}, schema=PICKS)
        )
        reasons = _counts(columns["pick_reason"])
        return Picked(self.number, budget, n, reasons, chosen.short, True)

    def _choose(self, pool: pa.Table) -> "Picks":
        from udfs.picking import Candidates, pick
        from udfs.skeleton import descriptor

        def score(name: str) -> np.ndarray | None:
            return pool.column(name).to_numpy() if name in pool.column_names else None

        candidates = Candidates(
            pose_id=pool.column("pose_id").to_numpy(),
            source=pool.column("source").to_numpy(),
            points=descriptor(matrix(pool, "body_pose")),
            taken=np.isin(pool.column("pose_id").to_numpy(), self._before()),
            predicted_oks=score("predicted_oks"),
            spread=score("predicted_oks_spread"),
            novelty=score("novelty"),
            plausibility=score("plausibility"),
        )
        return pick(candidates, self.curriculum.rounds[self.number - 1], self.curriculum, self.number)

    def _pool(self) -> pa.Table:
        """The scored poses that the plan is for."""
        from udfs.samples import planned

        rows = self.mining.scored(["source", "sequence", "body_pose"])
        return rows.filter(pa.array(planned(rows, self.mining.pipeline.plan)))

    def _before(self) -> np.ndarray:
        if not self.earlier:
            return np.empty(0, np.int64)
        return (
            self.mining.lake.table("picks").read(["pose_id"], computed_by(self.earlier))["pose_id"].to_numpy()
        )

    def _chosen(self, columns: list[str]) -> pa.Table:
        table = self.mining.lake.table("picks")
        if not table.exists():
            return table.spec.schema.empty_table().select(columns)
        return table.read(columns, computed_by([self.fingerprint.value]))


def _counts(reasons: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    found = reasons.to_pylist()
    return {reason: found.count(reason) for reason in REASONS if reason in found}

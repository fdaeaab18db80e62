"""Which candidates a round gets: by what they score, never two alike, no source beyond its share.

Reasons take turns in proportion to their counts, so any beginning of a round has its mix: one that is cut
short stays balanced, and no reason uses up a quota or a neighbourhood before another has had its say.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from schemas.curriculum import HARD, NOVEL, RANDOM, REASONS, UNCERTAIN, Curriculum, Round
from schemas.errors import InputError
from schemas.ids import mix

_BLOCK = 64
"""Picks that are compared at once."""


@dataclass(frozen=True)
class Candidates:
    """Poses to pick from, in any order.

    Attributes:
        pose_id: (N,) int64, each once.
        source: (N,) names of sources.
        points: (N, K) float32, finite: `udfs.skeleton.descriptor`; their distances are metres.
        taken: (N,) bool, picked in an earlier round: never picked again.
        predicted_oks, spread, novelty, plausibility: (N,) float32, as in the score tables; None where
            nothing was scored yet, NaN where one pose was not.
    """

    pose_id: np.ndarray
    source: np.ndarray
    points: np.ndarray
    taken: np.ndarray
    predicted_oks: np.ndarray | None = None
    spread: np.ndarray | None = None
    novelty: np.ndarray | None = None
    plausibility: np.ndarray | None = None


@dataclass(frozen=True)
class Picks:
    """What a round gets.

    Attributes:
        rows: (M,) int64 rows of the candidates, in the order of picking.
        reason: (M,) one of `schemas.curriculum.REASONS` each.
        short: how many of the budget could not be given, by what stood against it: `pool` (too few poses
            that were not taken), then of those `plausibility`, then `quotas`, then `spacing`. Empty where
            the round is full.
    """

    rows: np.ndarray
    reason: np.ndarray
    short: dict[str, int]


def pick(candidates: Candidates, round: Round, curriculum: Curriculum, number: int) -> Picks:
    """Picks round `number`, counted from 1.

    hard takes the lowest predicted OKS, uncertain the largest spread, novel the pose farthest from all that
    were generated and from this round's picks so far, random the smallest hash of id, seed and round. Ties go
    by that hash. Poses without a reason's score are not for that reason, nor is one that is no news at all
    (novelty 0) novel; what a reason cannot fill is picked at random. The first round is random throughout,
    and so is one before there are predictions. Where some poses have a plausibility, those without are below
    any minimum but 0; where none has, there is no minimum.

    The answer follows from the candidates and not from their order, and is the same on every machine.

    Raises InputError for a pose that comes twice, and for points that are not finite.
    """
    _check(candidates)
    budget = round.budget
    dice = mix(candidates.pose_id, "pick", curriculum.seed, number)
    names = pa.array(candidates.source).dictionary_encode()
    source = names.indices.to_numpy()
    # A share such as 0.29 of 100 is 28.999999999999996.
    caps = [int(curriculum.quotas.get(n, 1.0) * budget + 1e-9) for n in names.dictionary.to_pylist()]

    free = ~candidates.taken
    allowed = free
    if candidates.plausibility is not None and curriculum.min_plausibility > 0:
        allowed = free & (candidates.plausibility >= np.float32(curriculum.min_plausibility))
    rows = np.flatnonzero(allowed)
    rows = rows[np.argsort(dice[rows])]

    picked = _Picked(candidates.points, source, list(caps), budget, curriculum.spacing)
    queues = {RANDOM: picked.in_turn(rows)}
    counts = {RANDOM: budget}
    if number > 1 and candidates.predicted_oks is not None:
        counts = round.mix.counts(budget)
        queues[HARD] = picked.in_turn(_ordered(rows, candidates.predicted_oks))
        if candidates.spread is not None:
            queues[UNCERTAIN] = picked.in_turn(_ordered(rows, -candidates.spread))
        if candidates.novelty is not None:
            far_first = _ordered(rows, -candidates.novelty)
            queues[NOVEL] = picked.farthest(far_first, candidates.novelty, dice)

    reasons = []
    for reason in _turns(counts):
        row = next(queues[reason], None) if reason in queues else None
        if row is None:
            reason, row = RANDOM, next(queues[RANDOM], None)
        if row is None:
            break
        picked.add(row)
        reasons.append(reason)

    can_have = np.minimum(np.bincount(source[rows], minlength=len(caps)), caps).sum()
    left = [min(budget, int(n)) for n in (budget, free.sum(), len(rows), can_have, picked.count)]
    losses = zip(("pool", "plausibility", "quotas", "spacing"), -np.diff(left), strict=True)
    return Picks(
        picked.rows[: picked.count],
        np.array(reasons, np.str_),
        {name: int(lost) for name, lost in losses if lost},
    )


class _Picked:
    """The picks so far, and what may still be added to them.

    What stands against a pose (its source's quota, a pick near it) never goes away within a round, so each
    is refused once for all reasons.
    """

    def __init__(
        self, points: np.ndarray, source: np.ndarray, room: list[int], budget: int, spacing: float
    ) -> None:
        budget = min(budget, len(points))
        self.points = points
        self.source = source
        self.room = room
        self.near = float(np.float32(spacing) ** 2)  # exactly what the sums are compared with
        self.closed = np.zeros(len(points), bool)
        self.rows = np.empty(budget, np.int64)
        # Picks side by side, (blocks, K, _BLOCK): places that are not filled are infinitely far.
        self.picks = np.full((-(-budget // _BLOCK), points.shape[1], _BLOCK), np.inf, np.float32)
        self.count = 0

    def add(self, row: int) -> None:
        self.rows[self.count] = row
        self.picks[self.count // _BLOCK, :, self.count % _BLOCK] = self.points[row]
        self.room[self.source[row]] -= 1
        self.closed[row] = True
        self.count += 1

    def in_turn(self, order: np.ndarray) -> Iterator[int]:
        """Rows in this order, without those that may not be added."""
        for row in order:
            if not self._open(row):
                continue
            if self._gap(row, 0, self.near) >= self.near:
                yield int(row)
            else:
                self.closed[row] = True

    def farthest(self, order: np.ndarray, novelty: np.ndarray, dice: np.ndarray) -> Iterator[int]:
        """Rows by their distance to all that was generated and picked, the farthest first.

        order: rows by novelty, the largest first. Distances only shrink as picks are added, so an old one is
        a bound, and only what stands at the top of the heap is compared with the picks since.
        """
        untouched = ((-float(np.float32(novelty[row]) ** 2), int(dice[row]), int(row), 0) for row in order)
        heap = [entry for entry in [next(untouched, None)] if entry is not None]
        while heap:
            bound, tie, row, compared = heapq.heappop(heap)
            if not compared and (entry := next(untouched, None)) is not None:
                heapq.heappush(heap, entry)
            if bound == 0:
                return
            if not self._open(row):
                continue
            if compared == self.count:
                yield row
                continue
            gap = self._gap(row, compared, max(-bound, self.near))
            if gap >= self.near:
                heapq.heappush(heap, (max(bound, -gap), tie, row, self.count))
            else:
                self.closed[row] = True

    def _open(self, row: int) -> bool:
        return not self.closed[row] and self.room[self.source[row]] > 0

    def _gap(self, row: int, since: int, far: float) -> float:
        """Squared distance to the nearest of the picks from `since` on, `far` at the most."""
        return float(_nearest(self.points[row], self.picks, since, self.count, self.near, far))


@numba.njit(cache=True, nogil=True)
def _nearest(
    point: np.ndarray, blocks: np.ndarray, since: int, count: int, near: float, far: float
) -> np.float32:
    """Squared distance to the nearest of the picks from `since` to `count`, `far` at the most; any that is
    below `near` will do.

    blocks: (B, K, _BLOCK), see `_Picked`. Sums run over the coordinates of many picks at once, in a fixed
    order, so no machine's way of adding decides who is picked. They begin with the last coordinate: a
    skeleton's hands and feet come last and differ most, so most blocks are given up early.
    """
    best = np.float32(far)
    sums = np.empty(_BLOCK, np.float32)
    for b in range(since // _BLOCK, (count + _BLOCK - 1) // _BLOCK):
        sums[:] = 0
        least = np.float32(0)
        k = len(point)
        while k > 0 and least < best:
            for _ in range(min(k, 6)):
                k -= 1
                for i in range(_BLOCK):
                    d = point[k] - blocks[b, k, i]
                    sums[i] += d * d
            least = sums[0]
            for i in range(_BLOCK):
                least = sums[i] if sums[i] < least else least
        if least < best:
            best = least
            if best < near:
                break
    return best


def _ordered(rows: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Rows that have a score, the lowest first; those of equal scores stay in order."""
    scored = rows[~np.isnan(score[rows])]
    return scored[np.argsort(score[scored], kind="stable")]


def _turns(counts: dict[str, int]) -> Iterator[str]:
    """Each reason as often as it counts, spread evenly."""
    which = np.repeat([REASONS.index(reason) for reason in counts], list(counts.values()))
    when = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts.values()])
    return (REASONS[i] for i in which[np.lexsort((which, when))])


def _check(candidates: Candidates) -> None:
    ids, points = candidates.pose_id, candidates.points
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise InputError(f"the pool has pose {twice[0]} more than once: give each pose one row")
    # The extremes show NaN and infinity as well, and need no array of the points' size.
    if len(points) and not np.isfinite([points.min(), points.max()]).all():
        bad = ids[~np.isfinite(points).all(1)][0]
        raise InputError(f"pose {bad} has a joint that is not finite: take it out of the pool")

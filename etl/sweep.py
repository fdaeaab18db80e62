"""How many images a policy would keep at other bounds of one rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pyarrow as pa

from schemas.errors import ConfigError
from schemas.policy import Policy, decide

MAX_BOUNDS = 1000


@dataclass(frozen=True)
class Point:
    """What is kept at one bound.

    Attributes:
        bound: of the rule.
        kept: images that the whole policy keeps.
        alone: images that the rule by itself would keep.
    """

    bound: float
    kept: int
    alone: int


@dataclass(frozen=True)
class Sweep:
    """What a policy keeps of `images` at each bound of the rule on `column`; `now` is as its file says."""

    policy: Policy
    column: str
    images: int
    now: int
    points: tuple[Point, ...]


def parse_bounds(text: str) -> list[float]:
    """Numbers as `0.5,0.7,0.8`, or as `0.5:0.95:0.05`, which is first, last (inclusive) and step."""
    try:
        if ":" not in text:
            return [float(Decimal(part)) for part in text.split(",")]
        first, last, step = (Decimal(part) for part in text.split(":"))
        # In decimals, for the last one to be met.
        count = int((last - first) / step) + 1
    except (ArithmeticError, ValueError, InvalidOperation) as error:
        raise ConfigError(f"{text!r} is no range of numbers, such as 0.5:0.95:0.05 or 0.5,0.7,0.8") from error
    if not 0 < count <= MAX_BOUNDS:
        raise ConfigError(f"{text!r} has {max(count, 0):,} numbers; give between 1 and {MAX_BOUNDS:,}")
    return [float(first + i * step) for i in range(count)]


def sweep(rows: pa.Table, policy: Policy, column: str, bounds: Sequence[float]) -> Sweep:
    """Decides on the same rows at every bound.

    rows: as `etl.filter.Measured.rows` reads them. Raises ConfigError unless one rule has the bound.
    """
    place = policy.place_of(column)
    points = []
    for bound in bounds:
        decision = decide(policy.with_bound(column, bound), rows)
        alone = rows.num_rows - int(decision.alone[place])
        points.append(Point(bound, int(decision.keep.sum()), alone))
    return Sweep(policy, column, rows.num_rows, int(decide(policy, rows).keep.sum()), tuple(points))


def plot_sweep(swept: Sweep, path: Path) -> None:
    """Draws both curves into a picture file. Raises ConfigError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("matplotlib is not installed: pip install 'posedreamer[mine]'") from error
    bounds = [p.bound for p in swept.points]
    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(bounds, [p.alone for p in swept.points], lw=5, c="#c9c9c9", label="this rule alone")
    axes.plot(bounds, [p.kept for p in swept.points], "o-", ms=3, c="#0b6fb8", label="the whole policy")
    axes.axhline(swept.now, ls=":", c="#444444", lw=1, label=f"{swept.policy.name} as it is")
    axes.set_xlabel(f"bound on {swept.column}")
    axes.set_ylabel("images kept")
    axes.set_ylim(0, swept.images * 1.02)
    shares = axes.twinx()
    shares.set_ylim(0, 1.02)
    shares.set_ylabel(f"share of {swept.images:,}")
    shares.spines["top"].set_visible(False)
    axes.spines["top"].set_visible(False)
    axes.legend(frameon=False)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be written: {error}") from error

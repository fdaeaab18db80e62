"""What mining did, on one page: how good its predictions are, what they come from, what its rounds met."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from etl.evaluate import GOOD_OKS
from schemas.curriculum import HARD, NOVEL, RANDOM, REASONS, UNCERTAIN
from schemas.errors import ConfigError, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS = 1500
"""Images that are drawn one by one; more are counted in cells."""
_GROUP = 15
"""Images that a running median is taken of, at the least."""
_ROUNDS = 8
"""Rounds that one figure has room for."""
_WIDTH = 0.22
"""Of one box, of the distance between two rounds."""
_SHEET = (4, 3)
_INK, _FAINT, _BLUE, _VERMILION = "#262626", "#8a8a8a", "#0072B2", "#D55E00"
_COLORS = {HARD: _VERMILION, UNCERTAIN: "#E69F00", NOVEL: _BLUE, RANDOM: "#D0D0D0"}
"""Okabe and Ito's, which people see apart whatever colours they do not see; their greys differ as well."""


@dataclass(frozen=True)
class HardPose:
    """A pose that was expected to go wrong.

    Attributes:
        pose_id: as text.
        picture: (H, W, 3) uint8 RGB, its generated image, or its control image while there is none.
        predicted_oks: what chose it.
        measured_oks: of that image; None: not measured.
    """

    pose_id: str
    picture: np.ndarray
    predicted_oks: float
    measured_oks: float | None


@dataclass(frozen=True)
class ReportData:
    """What a report shows. An image in which nobody was found has OKS 0; NaN is one that nobody measured.

    Attributes:
        predicted, measured: (N,) OKS of images that the model was not trained on.
        spearman, mae: of those; None where they are not defined.
        importance: gain of each feature.
        parts: body part of each feature.
        rounds: columns round, reason and oks; one row an image.
        hardest: hardest first; the sheet has room for 12.
    """

    predicted: np.ndarray
    measured: np.ndarray
    spearman: float | None
    mae: float | None
    importance: Mapping[str, float]
    parts: Mapping[str, str]
    rounds: pd.DataFrame
    hardest: Sequence[HardPose]

    def part_shares(self) -> pd.DataFrame:
        """Columns part, share (of the whole gain) and best (its strongest feature), the largest share first.

        Raises InputError for a feature that belongs to no part.
        """
        lost = [name for name in self.importance if name not in self.parts]
        if lost:
            raise InputError(f"feature {lost[0]} belongs to no body part ({len(lost)} like it)")
        gains = pd.DataFrame(
            [(self.parts[name], name, float(gain)) for name, gain in self.importance.items()],
            columns=["part", "best", "share"],
        )
        gains["share"] /= gains["share"].sum() or 1.0
        gains = gains.sort_values(["share", "best"], ascending=[False, True], ignore_index=True)
        found = gains.groupby("part", as_index=False).agg({"share": "sum", "best": "first"})
        return found.sort_values(["share", "part"], ascending=[False, True], ignore_index=True)

    def round_facts(self) -> pd.DataFrame:
        """One row a round and reason, and one a round with reason `all`: images, unmeasured, mean, median and
        rejected (share below 0.8). Numbers are NaN where nothing was measured.
        """
        everything = pd.concat([self.rounds, self.rounds.assign(reason="all")])
        order = {reason: place for place, reason in enumerate((*REASONS, "all"))}
        facts = []
        for (number, reason), rows in everything.groupby(["round", "reason"]):
            oks = rows["oks"].dropna().to_numpy(np.float32)
            some = len(oks) > 0
            facts.append(
                {
                    "round": number,
                    "reason": reason,
                    "images": len(rows),
                    "unmeasured": len(rows) - len(oks),
                    "mean": float(oks.mean(dtype=np.float64)) if some else np.nan,
                    "median": float(np.median(oks)) if some else np.nan,
                    "rejected": float((oks < np.float32(GOOD_OKS)).mean()) if some else np.nan,
                }
            )
        names = ["round", "reason", "images", "unmeasured", "mean", "median", "rejected"]
        table = pd.DataFrame(facts, columns=names)
        return table.sort_values("reason", key=lambda c: c.map(order)).sort_values(
            "round", kind="stable", ignore_index=True
        )


def write_report(data: ReportData, out: Path) -> list[Path]:
    """Writes `report.md` and the pictures that it shows into a folder; returns their paths, the page first.

    A picture that there is nothing for is left out, the page says why, and one of an earlier report goes.
    Raises ConfigError when matplotlib is missing or the folder cannot be written to.
    """
    drawn: dict[str, Figure] = {}
    for name, draw in _PICTURES.items():
        figure = draw(data)
        if figure is not None:
            drawn[name] = figure
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in _PICTURES:
            if name in drawn:
                drawn[name].savefig(out / name)
            else:
                (out / name).unlink(missing_ok=True)
        (out / "report.md").write_text(page(data, drawn), "utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written to: {error}") from error
    return [out / "report.md", *(out / name for name in drawn)]


def page(data: ReportData, pictures: Collection[str]) -> str:
    """The report as Markdown; it shows those of its pictures that there are."""
    sections = (_predicted_text, _importance_text, _rounds_text, _hardest_text)
    lines = ["# Mining report", ""]
    for name, section in zip(_PICTURES, sections, strict=True):
        title, *text = section(data)
        shown = [f"![{title}]({name})", ""] if name in pictures else []
        lines += [f"## {title}", "", *shown, *text, ""]
    return "\n".join(lines).rstrip() + "\n"


def draw_predicted(data: ReportData) -> "Figure | None":
    """Measured against predicted OKS of the held-out images, and the running median with its quartiles."""
    predicted, measured = _both(data)
    if not len(predicted):
        return None
    figure, (axes,) = _figure(7.6, 6.4)
    if len(predicted) > _DOTS:
        cells = axes.hexbin(
            predicted,
            measured,
            gridsize=36,
            mincnt=1,
            bins="log",
            cmap="Blues",
            edgecolors=_FAINT,
            linewidths=0.3,
        )
        figure.colorbar(cells, ax=axes, label="images in a cell (logarithmic)", format="%d")
    else:
        axes.scatter(predicted, measured, s=14, alpha=0.45, color=_BLUE, linewidths=0, label="one image")
    axes.axline((0, 0), slope=1, color=_INK, linestyle="--", linewidth=1.2, label="measured as predicted")
    groups = running_median(predicted, measured)
    if len(groups):
        at, low, middle, high = groups.T
        axes.plot(at, middle, color=_VERMILION, linewidth=2.4, label="running median")
        axes.plot(at, low, color=_VERMILION, linewidth=1.4, linestyle=":", label="running quartiles")
        axes.plot(at, high, color=_VERMILION, linewidth=1.4, linestyle=":")
    pad = 0.02
    axes.set_xlim(max(predicted.min() - pad, -pad), min(predicted.max() + pad, 1 + pad))
    axes.set_ylim(-pad, 1 + pad)
    axes.set_xlabel("predicted OKS (0 to 1)")
    axes.set_ylabel("measured OKS (0 to 1)")
    axes.set_title(f"{len(predicted):,} held-out images: {_quality(data)}")
    axes.legend(loc="best", frameon=True, framealpha=0.9)
    return figure


def running_median(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(G, 4) float64: median x, and the quartiles of y, in groups of equally many along x.

    Up to 20 groups of at least 15; none where there are fewer than three.
    """
    groups = min(20, len(x) // _GROUP)
    if groups < 3:
        return np.empty((0, 4))
    order = np.argsort(x, kind="stable")
    return np.array(
        [[np.median(x[g]), *np.percentile(y[g], (25, 50, 75))] for g in np.array_split(order, groups)]
    )


def draw_importance(data: ReportData) -> "Figure | None":
    """Share of the gain by body part, the largest on top."""
    shares = data.part_shares()
    if not len(shares):
        return None
    figure, (axes,) = _figure(7.6, 1.3 + 0.34 * len(shares))
    bars = axes.barh(shares["part"], 100 * shares["share"], color=_BLUE, height=0.7)
    axes.bar_label(bars, [f"{100 * share:.1f}" for share in shares["share"]], padding=4, color=_INK)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.02)
    axes.set_xlabel("share of the model's gain (%)")
    axes.set_title("What the prediction comes from")
    return figure


def draw_rounds(data: ReportData) -> "Figure | None":
    """OKS of each round by what picked the poses, over the share that a limit of 0.8 rejects."""
    facts = data.round_facts()
    facts = facts[(facts["reason"] != "all") & (facts["unmeasured"] < facts["images"])]
    numbers = sorted(facts["round"].unique())
    if not numbers:
        return None
    shown = numbers[-_ROUNDS:]
    facts = facts[facts["round"].isin(shown)]
    many = facts.groupby("round")["reason"].transform("size")
    place = facts.groupby("round").cumcount() - (many - 1) / 2
    facts = facts.assign(at=facts["round"].map(shown.index) + _WIDTH * place)
    oks = data.rounds.dropna(subset="oks").groupby(["round", "reason"])["oks"]
    figure, (boxes, shares) = _figure(4.6 + 0.33 * len(facts), 7.2, rows=(3, 2))
    for reason in REASONS:
        own = facts[facts["reason"] == reason]
        if not len(own):
            continue
        boxes.boxplot(
            [oks.get_group((number, reason)).to_numpy(np.float64) for number in own["round"]],
            positions=own["at"].to_numpy(),
            widths=0.85 * _WIDTH,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": _COLORS[reason], "edgecolor": _INK},
            medianprops={"color": _INK, "linewidth": 2},
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": _FAINT},
        )
        rejected = 100 * own["rejected"].to_numpy()
        bars = shares.bar(
            own["at"], rejected, 0.85 * _WIDTH, color=_COLORS[reason], edgecolor=_INK, label=reason
        )
        shares.bar_label(bars, [f"{share:.0f}" for share in rejected], padding=2, fontsize=9)
    boxes.axhline(GOOD_OKS, color=_INK, linestyle="--", linewidth=1, label=f"OKS {GOOD_OKS}")
    boxes.set_ylim(-0.02, 1.02)
    boxes.set_ylabel("measured OKS (0 to 1)")
    left_out = "" if shown == numbers else f", the newest {len(shown)} of {len(numbers)}"
    boxes.set_title(f"OKS of each round by what picked its poses{left_out}")
    boxes.set_xticks(range(len(shown)), [""] * len(shown))
    shares.set_ylim(0, 112)
    shares.set_yticks(range(0, 101, 25))
    shares.set_ylabel(f"OKS below {GOOD_OKS} (%)")
    shares.set_xlabel("round")
    shares.set_xticks(range(len(shown)), [str(number) for number in shown])
    for axes in (boxes, shares):
        axes.set_xlim(-0.6, len(shown) - 0.4)
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return figure


def draw_hardest(data: ReportData) -> "Figure | None":
    """The hardest poses as pictures, four side by side, up to twelve."""
    poses = _shown(data)
    if not poses:
        return None
    columns = min(_SHEET[0], len(poses))
    rows = -(-len(poses) // columns)
    figure, places = _figure(0.4 + 2.8 * columns, 0.5 + 3.25 * rows, rows=(1,) * rows, columns=columns)
    for axes in places:
        axes.axis("off")
    for pose, axes in zip(poses, places, strict=False):
        axes.imshow(pose.picture, interpolation="lanczos")
        axes.set_title(f"{pose.pose_id}\npredicted {pose.predicted_oks:.2f}, {_measured(pose)}", fontsize=10)
    figure.suptitle("Hardest by predicted OKS")
    return figure


_PICTURES: Mapping[str, Callable[[ReportData], "Figure | None"]] = {
    "predicted_and_measured.png": draw_predicted,
    "importance.png": draw_importance,
    "oks_by_round.png": draw_rounds,
    "hardest.png": draw_hardest,
}


def _figure(
    width: float, height: float, rows: tuple[int, ...] = (1,), columns: int = 1
) -> "tuple[Figure, list[Axes]]":
    """A figure of this size, inches of 100 pixels, with its axes row by row; `rows` are relative heights.

    It belongs to no window and no list of figures, so nothing is left behind in the process.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ConfigError("matplotlib is not installed: pip install 'posedreamer[mine]'") from error
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure((width, height), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=rows)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)


def _both(data: ReportData) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured OKS of the images that have both."""
    predicted, measured = (np.asarray(a, np.float64) for a in (data.predicted, data.measured))
    known = np.isfinite(predicted) & np.isfinite(measured)
    return predicted[known], measured[known]


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _quality(data: ReportData) -> str:
    return f"Spearman {_number(data.spearman, 2)}, mean absolute error {_number(data.mae)}"


def _shown(data: ReportData) -> Sequence[HardPose]:
    return data.hardest[: _SHEET[0] * _SHEET[1]]


def _measured(pose: HardPose) -> str:
    return "not measured" if pose.measured_oks is None else f"measured {pose.measured_oks:.2f}"


def _predicted_text(data: ReportData) -> Iterator[str]:
    yield "Predicted and measured OKS"
    predicted, measured = _both(data)
    left_out = len(data.predicted) - len(predicted)
    if not len(predicted):
        yield "No held-out image has both a prediction and a measurement."
        return
    yield from _table(
        ["held-out images", "Spearman", "mean absolute error", "mean predicted", "mean measured"],
        [
            [
                f"{len(predicted):,}",
                _number(data.spearman),
                _number(data.mae),
                _number(predicted.mean()),
                _number(measured.mean()),
            ]
        ],
    )
    if left_out:
        yield ""
        yield f"{left_out:,} more have no prediction or no measurement."
    if not len(running_median(predicted, measured)):
        yield ""
        yield f"A running median takes {3 * _GROUP} images: none is drawn."


def _importance_text(data: ReportData) -> Iterator[str]:
    yield "What the prediction comes from"
    shares = data.part_shares()
    if not len(shares):
        yield "The model has no features to show."
        return
    if not shares["share"].any():
        yield "No feature has any gain: the model predicts one number for all poses."
        yield ""
    yield from _table(
        ["body part", "share of the gain, %", "strongest feature"],
        [
            [str(row["part"]), f"{100 * row['share']:.1f}", f"`{row['best']}`"]
            for row in shares.to_dict("records")
        ],
    )


def _rounds_text(data: ReportData) -> Iterator[str]:
    yield "OKS by round"
    facts = data.round_facts()
    if not len(facts):
        yield "No round has any images yet."
        return
    if facts["round"].nunique() == 1:
        yield "There is one round so far, and nothing to compare it with."
        yield ""
    missing = int(facts.loc[facts["reason"] == "all", "unmeasured"].sum())
    if missing:
        yield f"{missing:,} images were not measured; they count in none of these numbers."
        yield ""
    # What all of a round reached says nothing new where one reason picked it.
    facts = facts[(facts["reason"] != "all") | (facts.groupby("round")["reason"].transform("size") > 2)]
    yield from _table(
        ["round", "picked by", "measured images", "mean OKS", "median OKS", f"OKS below {GOOD_OKS}, %"],
        [
            [
                str(row["round"]),
                str(row["reason"]),
                f"{row['images'] - row['unmeasured']:,}",
                _number(row["mean"]),
                _number(row["median"]),
                _number(100 * row["rejected"], 1),
            ]
            for row in facts.to_dict("records")
        ],
    )


def _hardest_text(data: ReportData) -> Iterator[str]:
    yield "The hardest poses"
    if not data.hardest:
        yield "There is no scored pose to show."
        return
    yield from _table(
        ["pose", "predicted OKS", "measured OKS"],
        [
            [f"`{p.pose_id}`", _number(p.predicted_oks), _measured(p).removeprefix("measured ")]
            for p in _shown(data)
        ],
    )


def _table(names: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"

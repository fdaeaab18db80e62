"""A mining report shows what it was given, says what is missing, and can be read."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from etl.mining_report import (
    HardPose,
    ReportData,
    draw_hardest,
    draw_importance,
    draw_predicted,
    draw_rounds,
    page,
    running_median,
    write_report,
)
from schemas.curriculum import HARD, NOVEL, RANDOM, REASONS, UNCERTAIN
from schemas.errors import ConfigError, InputError

PICTURES = ["predicted_and_measured.png", "importance.png", "oks_by_round.png", "hardest.png"]
GAIN = {"left_elbow.0": 30.0, "left_wrist.0": 20.0, "camera.yaw": 40.0, "betas.0": 10.0}
PARTS = {"left_elbow.0": "left arm", "left_wrist.0": "left arm", "camera.yaw": "camera", "betas.0": "shape"}


def rounds(numbers=(1, 2, 3), reasons=REASONS, n=20):
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"round": r, "reason": reason, "oks": rng.random(n).astype(np.float32)})
        for r in numbers
        for reason in ((RANDOM,) if r == 1 else reasons)
    ]
    return pd.concat(frames, ignore_index=True)


def poses(n=12):
    return tuple(
        HardPose(
            f"{i:016x}", np.full((40, 30, 3), 10 * i, np.uint8), i / 20, None if i == 1 else 0.5 + i / 100
        )
        for i in range(n)
    )


def report(n=200, **changes):
    rng = np.random.default_rng(1)
    measured = rng.random(n)
    predicted = 0.6 + 0.3 * measured
    data = ReportData(predicted, measured, 0.634, 0.0712, GAIN, PARTS, rounds(), poses())
    return replace(data, **changes)


NOTHING = report(
    predicted=np.empty(0),
    measured=np.empty(0),
    importance={},
    rounds=rounds().iloc[:0],
    hardest=(),
)


def test_a_page_and_four_pictures_are_written(tmp_path):
    paths = write_report(report(), tmp_path / "deep" / "report")
    assert [p.name for p in paths] == ["report.md", *PICTURES]
    text = paths[0].read_text()
    for path in paths[1:]:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) >= 200
            assert max(picture.size) <= 1600
            assert np.asarray(picture.convert("L")).std() > 5
        assert f"]({path.name})" in text
    assert "| 200 | 0.634 | 0.071 |" in text
    assert "| left arm | 50.0 | `left_elbow.0` |" in text
    assert f"| `{0:016x}` | 0.000 | 0.50 |" in text
    assert f"| `{1:016x}` | 0.050 | not measured |" in text


def test_the_scatter_holds_every_pair_and_the_title_the_score():
    data = report(50)
    figure = draw_predicted(data)
    axes = figure.axes[0]
    shown = axes.collections[0].get_offsets()
    np.testing.assert_allclose(shown, np.stack([data.predicted, data.measured], 1))
    assert "50 held-out images" in axes.get_title()
    assert "Spearman 0.63" in axes.get_title()
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["measured as predicted"].get_slope() == 1
    np.testing.assert_allclose(
        lines["running median"].get_xydata(), running_median(data.predicted, data.measured)[:, [0, 2]]
    )


def test_many_images_are_counted_in_cells():
    figure = draw_predicted(report(5000))
    cells = figure.axes[0].collections[0]
    assert len(cells.get_offsets()) < 2000
    assert cells.get_array().sum() == 5000


def test_the_running_median_and_its_quartiles():
    x = np.random.default_rng(0).permutation(300) / 300
    groups = running_median(x, x**2)
    assert groups.shape == (20, 4)
    assert (np.diff(groups[:, 0]) > 0).all()
    np.testing.assert_allclose(groups[:, 2], np.median(np.sort(x**2).reshape(20, 15), 1))
    assert (groups[:, 1] < groups[:, 2]).all()
    assert (groups[:, 2] < groups[:, 3]).all()
    assert len(running_median(x[:44], x[:44])) == 0
    assert len(running_median(x[:45], x[:45])) == 3


def test_images_without_a_measurement_are_left_out_and_counted():
    data = report(60)
    data.measured[:50] = np.nan
    assert len(draw_predicted(data).axes[0].collections[0].get_offsets()) == 10
    text = page(data, ())
    assert "| 10 | 0.634 |" in text
    assert "50 more have no prediction or no measurement" in text
    assert "running median takes 45 images" in text


def test_importance_is_the_share_of_each_part_the_largest_on_top():
    axes = draw_importance(report()).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True)) == pytest.approx(
        {"left arm": 50, "camera": 40, "shape": 10}
    )
    assert names == ["left arm", "camera", "shape"]
    assert axes.yaxis_inverted()


def test_a_model_without_any_gain_is_said():
    data = report(importance=dict.fromkeys(GAIN, 0.0))
    assert data.part_shares()["share"].tolist() == [0, 0, 0]
    assert "predicts one number for all poses" in page(data, ())


def test_a_feature_of_no_part_is_refused_and_named(tmp_path):
    with pytest.raises(InputError, match=r"feature gaze belongs to no body part \(1 like it\)"):
        write_report(report(importance=GAIN | {"gaze": 1.0}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_round_facts_are_what_pandas_says():
    frame = pd.DataFrame(
        {
            "round": [1, 1, 1, 2, 2, 2, 2],
            "reason": [RANDOM] * 3 + [RANDOM, HARD, HARD, NOVEL],
            "oks": np.array([0.9, 0.8, 0.1, 0.9, 0.2, 0.4, np.nan], np.float32),
        }
    )
    facts = report(rounds=frame).round_facts().set_index(["round", "reason"])
    assert list(facts.index) == [(1, RANDOM), (1, "all"), (2, HARD), (2, NOVEL), (2, RANDOM), (2, "all")]
    # 0.8 as it is stored is what 0.8 is compared with.
    assert facts.loc[(1, RANDOM), "rejected"] == pytest.approx(1 / 3)
    assert facts.loc[(2, HARD)].tolist() == pytest.approx([2, 0, 0.3, 0.3, 1.0])
    assert facts.loc[(2, NOVEL), ["images", "unmeasured"]].tolist() == [1, 1]
    assert np.isnan(facts.loc[(2, NOVEL), "rejected"])
    assert facts.loc[(2, "all"), "mean"] == pytest.approx(0.5)


def test_rounds_have_a_box_and_a_bar_for_each_reason():
    data = report()
    boxes, shares = draw_rounds(data).axes
    facts = data.round_facts()
    facts = facts[facts["reason"] != "all"]
    assert len(boxes.patches) == len(shares.patches) == len(facts) == 9
    heights = sorted(bar.get_height() for bar in shares.patches)
    np.testing.assert_allclose(heights, sorted(100 * facts["rejected"]))
    medians = sorted(line.get_ydata()[0] for line in boxes.lines if line.get_linewidth() == 2)
    np.testing.assert_allclose(medians, sorted(facts["median"]), rtol=1e-6)
    # The only box of the first round stands over its number, the others left to right in their order.
    centres = sorted(bar.get_x() + bar.get_width() / 2 for bar in shares.patches)
    assert centres[0] == pytest.approx(0)
    np.testing.assert_allclose(np.mean(centres[1:5]), 1)
    second = sorted((b for b in shares.patches if 0.5 < b.get_x() < 1.5), key=lambda b: b.get_x())
    labels = {c[0].get_facecolor(): c.get_label() for c in shares.containers if hasattr(c, "patches")}
    assert [labels[bar.get_facecolor()] for bar in second] == [HARD, UNCERTAIN, NOVEL, RANDOM]


def test_reasons_are_told_apart_without_seeing_colours():
    _, shares = draw_rounds(report()).axes
    colors = {c.get_label(): to_rgb(c[0].get_facecolor()) for c in shares.containers if hasattr(c, "patches")}
    assert len(set(colors.values())) == len(REASONS)
    luminance = sorted(np.array(list(colors.values())) @ (0.2126, 0.7152, 0.0722))
    assert np.diff(luminance).min() > 0.05


def test_of_many_rounds_the_newest_are_drawn_and_all_are_in_the_table():
    data = report(rounds=rounds(range(1, 13)))
    figure = draw_rounds(data)
    boxes, shares = figure.axes
    assert [tick.get_text() for tick in shares.get_xticklabels()] == [str(r) for r in range(5, 13)]
    assert "the newest 8 of 12" in boxes.get_title()
    assert figure.bbox.width < 1600
    assert page(data, ()).count(f"| {HARD} |") == 11


def test_one_round_is_said_to_be_one():
    text = page(report(rounds=rounds((1,))), ())
    assert "There is one round so far" in text
    assert "| 1 | random | 20 |" in text
    assert "| 1 | all |" not in text


def test_the_sheet_shows_the_first_twelve_pictures_with_their_scores():
    figure = draw_hardest(report(hardest=poses(14)))
    assert len(figure.axes) == 12
    for i, (axes, pose) in enumerate(zip(figure.axes, poses(12), strict=True)):
        np.testing.assert_array_equal(axes.images[0].get_array(), pose.picture)
        name, scores = axes.get_title().split("\n")
        assert name == pose.pose_id
        assert scores == f"predicted {i / 20:.2f}, " + ("not measured" if i == 1 else f"measured 0.{50 + i}")
    few = draw_hardest(report(hardest=poses(5)))
    assert len([axes for axes in few.axes if axes.images]) == 5


def test_what_there_is_nothing_for_is_left_out_and_said(tmp_path):
    for name in PICTURES:
        (tmp_path / name).write_bytes(b"of an earlier report")
    paths = write_report(NOTHING, tmp_path)
    assert [p.name for p in paths] == ["report.md"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.md"]
    text = paths[0].read_text()
    assert "![" not in text
    for said in ("No held-out image", "no features", "No round has any images", "no scored pose"):
        assert said in text
    unmeasured = report(rounds=rounds((1,)).assign(oks=np.nan))
    assert draw_rounds(unmeasured) is None
    assert "20 images were not measured" in page(unmeasured, ())


@pytest.mark.parametrize(
    "data",
    [report(), report(3000, rounds=rounds(range(1, 9)), hardest=poses(5)), report(7, hardest=poses(1))],
)
@pytest.mark.parametrize("draw", [draw_predicted, draw_importance, draw_rounds, draw_hardest])
def test_no_text_runs_into_another_or_out_of_the_picture(draw, data):
    from matplotlib.text import Text

    figure = draw(data)
    figure.canvas.draw()
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in axis.get_ticklabels(which="both")
        if not axes.axison
        or not axis.get_view_interval()[0] <= _place(axis, label) <= axis.get_view_interval()[1]
    }
    extents = {t: t.get_window_extent() for t in texts if t not in ticks}
    assert len(extents) >= 2
    for text, box in extents.items():
        assert box.height >= 9, text
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    for (one, box), (other, its) in itertools.combinations(extents.items(), 2):
        assert not box.overlaps(its), (one, other)


def _place(axis, label):
    low, high = sorted(axis.get_view_interval())
    where = label.get_position()[0 if axis.axis_name == "x" else 1]
    return where if low <= where <= high else axis.get_view_interval()[0] - 1


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'posedreamer\[mine\]'"):
        write_report(report(), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match=f"--out {blocked}/report: cannot be written to"):
        write_report(report(), blocked / "report")


def test_drawing_leaves_nothing_open():
    draw_rounds(report())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()

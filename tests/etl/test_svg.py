"""Plots are well-formed, say their numbers, and are drawn to scale."""

from xml.etree import ElementTree

import numpy as np
import pytest

from etl.svg import bars, fitted, funnel, histogram, number, share, short, ticks


def drawn(svg: str, kind: str) -> list[dict[str, float]]:
    marks = [r for r in ElementTree.fromstring(svg).iter("rect") if r.get("class") == kind]
    return [{k: float(r.get(k)) for k in ("x", "y", "width", "height")} for r in marks]


def test_a_histogram_is_to_scale_and_describes_itself():
    svg = histogram(np.arange(5) * 10.0, np.array([4, 0, 8, 2]), "tilt", "°", "of <b> & so on")
    heights = [r["height"] for r in drawn(svg, "bar")]
    assert heights == pytest.approx([heights[1] / 2, heights[1], heights[1] / 4], abs=0.2)
    feet = {round(r["y"] + r["height"], 0) for r in drawn(svg, "bar")}
    assert len(feet) == 1
    root = ElementTree.fromstring(svg)
    assert (root.find("title").text, root.find("desc").text) == ("tilt", "of <b> & so on")
    said = [t.text for t in root.iter("text")]
    assert "tilt (°)" in said
    assert "rows" in said
    assert {"0", "20", "40"} <= set(said)
    assert "10 to 20: 0" not in svg
    assert "20 to 30: 8" in svg


def test_whole_numbers_stand_below_their_bars():
    root = ElementTree.fromstring(
        histogram(np.arange(1, 5.0), np.array([3, 1, 2]), "persons", "", "", whole=True)
    )
    middles = [float(r.get("x")) + float(r.get("width")) / 2 for r in root.iter("rect")]
    labels = {t.text: float(t.get("x")) for t in root.iter("text") if float(t.get("y")) > 150}
    assert [labels[k] for k in ("1", "2", "3")] == pytest.approx(middles, abs=0.2)


def test_bars_are_to_scale_with_counts_and_shares():
    svg = bars([("red", 30, True), ("<script>", 15, True), ("none", 5, False)], 50, "top", "")
    widths = [r["width"] for r in drawn(svg, "bar") + drawn(svg, "rest")]
    assert widths == pytest.approx([widths[0], widths[0] / 2, widths[0] / 6], abs=0.2)
    said = " ".join(ElementTree.fromstring(svg).itertext())
    assert "30 (60.0%)" in said
    assert "<script>" in said
    assert "<script>" not in svg


def test_a_funnel_shows_what_is_left_and_what_is_taken():
    svg = funnel([("measured", 200, 0), ("oks >= 0.8", 150, 50), ("persons <= 4", 150, 0)], 200, "t", "")
    left, taken = drawn(svg, "bar"), drawn(svg, "bad")
    assert [r["width"] for r in left] == pytest.approx([760, 570, 570])
    assert [(r["x"], r["width"]) for r in taken] == [(570, 190)]
    assert "150 left, 50 rejected" in svg


def test_ticks_are_round():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-180, 180, 6, (1.5, 3, 4.5, 9)) == [-180, -90, 0, 90, 180]
    assert ticks(0.31, 0.58, 5) == [0.4, 0.5]


def test_numbers_are_short():
    assert [number(x) for x in (0.123456, 12.0, 12345.6, -0.0, float("nan"))] == [
        "0.123", "12", "12,346", "0", "-",
    ]  # fmt: skip
    assert [short(x) for x in (0, 950, 1500, 2_500_000)] == ["0", "950", "1.5k", "2.5M"]
    assert (share(1, 8), share(0, 0)) == ("12.5%", "-")
    assert fitted("abcdefghij", 40) == "abcd…"

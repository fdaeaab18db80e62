"""Plots as SVG inside an HTML page: no script, no file beside it, colours from the page's style sheet.

Each has a title and a description for those who do not see it; the page colours the classes `bar`, `rest`,
`bad`, `line` and `faint`.
"""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 8, 44
_DECIMAL, _DEGREES = (1, 2, 5), (1.5, 3, 4.5, 9)
_ROW = 21
_LABEL = 164
_LETTER = 7.0
"""Width of a letter, pixels, of the page's 12 pixel type, on the safe side."""


def histogram(
    edges: np.ndarray, counts: np.ndarray, name: str, unit: str, about: str, *, whole: bool = False
) -> str:
    """Bars over bins of rows. edges: (B + 1,); counts: (B,) int64; whole: the numbers are whole."""
    if whole and edges[1] - edges[0] == 1:
        edges = edges - 0.5  # each number stands below the middle of its bar
    high = max(int(counts.max()), 1)
    ys = [y for y in ticks(0, high, 4) if y == int(y)]
    top = max(high, ys[-1])
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    low, span = float(edges[0]), float(edges[-1] - edges[0])

    def x(value: float) -> float:
        return _LEFT + (value - low) / span * width

    def y(count: float) -> float:
        return _TOP + height * (1 - count / top)

    parts = []
    for tick in ys:
        parts.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "faint"))
        parts.append(_text(_LEFT - 5, y(tick) + 4, short(tick), "end"))
    bar = width / len(counts)
    gap = min(1.5, bar / 5)
    for i, count in enumerate(counts.tolist()):
        if count:
            said = f"{number(edges[i])} to {number(edges[i + 1])}: {count:,}"
            parts.append(_rect(_LEFT + i * bar + gap / 2, y(count), bar - gap, y(0) - y(count), "bar", said))
    parts.append(_line(_LEFT, y(0), _WIDTH - _RIGHT, y(0), "line"))
    for tick in ticks(low, low + span, 6, _DEGREES if unit == "°" and span > 90 else _DECIMAL):
        parts.append(_line(x(tick), y(0), x(tick), y(0) + 4, "line"))
        parts.append(_text(x(tick), y(0) + 17, number(tick), "middle"))
    axis = f"{name} ({unit})" if unit else name
    parts.append(_text(_LEFT + width / 2, _HEIGHT - 6, axis, "middle"))
    parts.append(f'<g transform="rotate(-90)">{_text(-_TOP - height / 2, 11, "rows", "middle")}</g>')
    return _svg(_WIDTH, _HEIGHT, name, about, parts)


def bars(rows: Sequence[tuple[str, int, bool]], total: int, title: str, about: str) -> str:
    """A bar a word, with its count and its share of the total: (word, count, whether it is a word at all)."""
    most = max((count for _, count, _ in rows), default=0) or 1
    room = _WIDTH - _LABEL - 104
    parts = []
    for i, (word, count, real) in enumerate(rows):
        y = i * _ROW + 3
        parts.append(_text(_LABEL - 6, y + 13, fitted(word, _LABEL - 8), "end", word))
        long = max(room * count / most, 1 if count else 0)
        kind = "bar" if real else "rest"
        parts.append(_rect(_LABEL, y + 2, long, _ROW - 7, kind, f"{word}: {count:,}"))
        parts.append(_text(_LABEL + long + 5, y + 13, f"{count:,} ({share(count, total)})", "start"))
    return _svg(_WIDTH, len(rows) * _ROW + 6, title, about, parts)


def funnel(steps: Sequence[tuple[str, int, int]], images: int, title: str, about: str) -> str:
    """What is left after each step and what it takes away: (label, left, taken)."""
    width, row = 760, 44
    parts = []
    for i, (label, left, taken) in enumerate(steps):
        y = i * row
        said = f"{left:,} left" + (f", {taken:,} rejected" if taken else "")
        parts.append(_text(0, y + 14, fitted(label, width - len(said) * _LETTER - 20), "start", label))
        parts.append(_text(width, y + 14, said, "end"))
        here, gone = width * left / max(images, 1), width * taken / max(images, 1)
        parts.append(_rect(0, y + 20, here, 14, "bar", f"{left:,} left"))
        if taken:
            parts.append(_rect(here, y + 20, max(gone, 1), 14, "bad", f"{taken:,} rejected"))
    return _svg(width, len(steps) * row, title, about, parts)


def ticks(low: float, high: float, most: int, steps: Sequence[float] = _DECIMAL) -> list[float]:
    """Round numbers from low to high, about `most` of them, one of the steps times a power of ten apart."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * k for k in (*steps, 10) if size * k >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number to three figures, the thousands apart."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value + 0.0:.3g}"


def short(value: float) -> str:
    """A count in few letters: 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def fitted(text: str, room: float) -> str:
    """The beginning of a text, as much as there is room for, pixels."""
    letters = max(int(room / _LETTER), 1)
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _svg(width: float, height: float, title: str, about: str, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {width} {height}"><title>{escape(title)}</title>'
        f"<desc>{escape(about)}</desc>{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rect(x: float, y: float, width: float, height: float, kind: str, said: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place}><title>{escape(said)}</title></rect>'


def _text(x: float, y: float, text: str, anchor: str, whole: str = "") -> str:
    more = f"<title>{escape(whole)}</title>" if whole not in ("", text) else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}{more}</text>'

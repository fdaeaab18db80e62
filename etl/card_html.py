"""The dataset card as one HTML page: no script, nothing to fetch, pictures and plots inside.

All text that is not this module's own is escaped, and the page's policy forbids scripts and requests, so that
a caption stays a caption.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources

from etl import svg
from etl.card import Card, Numbers, Words
from etl.card_gallery import TILE, Shown
from etl.card_text import (
    SECTIONS,
    Table,
    as_yaml,
    clean,
    columns_table,
    facts_table,
    funnel,
    funnel_table,
    ingredients,
    lead,
    limits,
    numbers_table,
    origins_table,
    sizes,
    title,
    versions_tables,
    word_rows,
    words_of,
)
from etl.svg import number, share

_SAFE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def card_html(card: Card) -> str:
    """The whole page."""
    style = (resources.files("etl") / "data" / "card.css").read_text("utf-8")
    head = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_SAFE}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title(card))}</title><style>{style}</style></head><body><main>",
    ]
    return "\n".join([*head, *_body(card), "</main></body></html>", ""])


def _body(card: Card) -> Iterator[str]:
    yield f"<header><h1>{_text(title(card))}</h1><p>{_text(lead(card))}</p>"
    if card.release.deprecated:
        yield f'<p class="warning">Deprecated: {_text(card.release.deprecated)}</p>'
    if card.release.notes:
        yield f'<p class="notes" dir="auto">{_text(card.release.notes)}</p>'
    tiles = (f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in sizes(card).items())
    yield f"<dl>{''.join(tiles)}</dl></header>"
    parts = [
        ("Gallery", _gallery(card)),
        ("Policy", _policy(card)),
        *((name, _section(card, section, about)) for section, (name, about) in SECTIONS.items()),
        ("Sources and licences", [_table(origins_table(card))]),
        ("Provenance", _provenance(card)),
        ("Columns", [_table(columns_table(card))]),
        ("Known limits", [f"<ul>{''.join(f'<li>{_code(limit)}</li>' for limit in limits(card))}</ul>"]),
    ]
    links = (f'<a href="#{_anchor(name)}">{name}</a>' for name, _ in parts)
    yield f'<nav aria-label="Sections">{" ".join(links)}</nav>'
    for name, lines in parts:
        yield f'<section id="{_anchor(name)}"><h2>{name}</h2>'
        yield from lines
        yield "</section>"


def _gallery(card: Card) -> Iterator[str]:
    yield (
        f"<p>{len(card.gallery)} of {card.release.rows:,} rows, drawn by a hash of their ids: what the "
        "generator was shown, what it painted, and the label's keypoints on that, hidden ones too; the "
        "subject's left is orange, its right blue.</p>"
    )
    yield f'<div class="gallery">{"".join(map(_shown, card.gallery))}</div>'


def _shown(shown: Shown) -> str:
    facts = [
        "OKS not measured" if shown.oks is None else f"OKS {shown.oks:.2f}",
        f"{shown.source}: {shown.sequence}, frame {shown.frame}",
    ]
    picture = f'<p class="warning">{_text(shown.fault)}</p>'
    if shown.jpeg is not None:
        alt = f"Control image, image, and image with the label's keypoints: {shown.caption}"
        data = b64encode(shown.jpeg).decode()
        picture = f'<img alt="{_text(alt)}" width="484" height="{TILE}" src="data:image/jpeg;base64,{data}">'
    return (
        f'<figure>{picture}<figcaption><span dir="auto">{_text(shown.caption)}</span>'
        f"<small>{_text(' · '.join(facts))}<br>image_id {shown.image_id}</small></figcaption></figure>"
    )


def _policy(card: Card) -> Iterator[str]:
    described = card.manifest["policy"].get("description")
    if described:
        yield f"<p>{_text(described)}</p>"
    found = card.funnel
    about = f"{found.kept:,} of {found.images:,} measured images are kept."
    yield f"<p>{about}</p>"
    yield f'<div class="wide">{svg.funnel(funnel(card), found.images, "What each rule rejects", about)}</div>'
    yield _table(funnel_table(card))
    yield f"<pre>{_text(as_yaml(card.manifest['policy']))}</pre>"


def _section(card: Card, section: str, about: str) -> Iterator[str]:
    yield f"<p>{about}</p>"
    # Where all numbers are one, the table says it all.
    numbers = [n for n in card.numbers if n.section == section and n.counted.low < n.counted.high]
    bars = [_bars(one, card.release.rows) for one in words_of(card, section)]
    for kind, figures in (("plots", list(map(_histogram, numbers))), ("plots words", bars)):
        if figures:
            yield f'<div class="{kind}">{"".join(figures)}</div>'
    table = numbers_table(card, section)
    if table.rows:
        yield _table(table)


def _histogram(numbers: Numbers) -> str:
    found = numbers.counted
    about = f"mean {number(found.mean)}, median {number(found.quantile(0.5))}, {found.n:,} rows"
    about += f", {found.missing:,} missing" if found.missing else ""
    said = f"{numbers.doc}: {about}, from {number(found.low)} to {number(found.high)}"
    plot = svg.histogram(*found.bins(), numbers.name, numbers.unit, said, whole=found.whole)
    return _figure(numbers.name, numbers.doc, about, plot)


def _bars(words: Words, rows: int) -> str:
    shown = word_rows(words)
    said = f"{words.doc}: " + ", ".join(f"{word} {share(count, rows)}" for word, count, _ in shown)
    return _figure(words.name, words.doc, "", svg.bars(shown, rows, words.name, said))


def _figure(name: str, doc: str, about: str, plot: str) -> str:
    more = f"<small>{_text(about)}</small>" if about else ""
    return f"<figure><figcaption><b>{_text(name)}</b> {_text(doc)}{more}</figcaption>{plot}</figure>"


def _provenance(card: Card) -> Iterator[str]:
    yield _table(facts_table(card))
    yield "<h3>What made images, labels and metrics</h3>"
    yield f"<pre>{_text(as_yaml(ingredients(card)))}</pre>"
    yield "<h3>Versions</h3>"
    yield f'<div class="pair">{"".join(map(_table, versions_tables(card)))}</div>'


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        marks = [' class="n"' if i >= table.numbers else "" for i in range(len(cells))]
        scope = ' scope="col"' if tag == "th" else ""
        made = (f"<{tag}{scope}{mark}>{_text(c)}</{tag}>" for c, mark in zip(cells, marks, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    head, body = row(table.names, "th"), "\n".join(row(cells, "td") for cells in table.rows)
    return f'<div class="table"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _text(text: object) -> str:
    return escape(clean(text))


def _code(text: str) -> str:
    """Text with what stands between backquotes as code."""
    return "".join(f"<code>{_text(t)}</code>" if i % 2 else _text(t) for i, t in enumerate(text.split("`")))

"""The dataset card as Markdown, with the front matter that the Hugging Face Hub reads."""

import re
from collections.abc import Iterator

from etl.card import Card, Words
from etl.card_text import (
    SECTIONS,
    Table,
    as_yaml,
    clean,
    columns_table,
    facts_table,
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
from etl.svg import share

_SIZES = ((3, "1K"), (4, "10K"), (5, "100K"), (6, "1M"), (7, "10M"), (8, "100M"), (9, "1B"), (10, "10B"))
_LICENCES = re.compile(
    r"apache-2\.0|mit|cc0-1\.0|cc-by-(nc-|nc-sa-|nc-nd-|sa-)?[34]\.0|cc-by-nd-4\.0|odc-by|odbl|pddl|"
    r"cdla-(sharing-1\.0|permissive-[12]\.0)|c-uda"
)
"""Those of the Hub's identifiers that data goes by."""


def card_markdown(card: Card, *, exported: bool = False) -> str:
    """The whole page; it ends with a line break.

    exported: whether it stands beside rows in the files of Hugging Face's `datasets`.
    """
    lines = ["---", as_yaml(front_matter(card)).rstrip(), "---", "", f"# {title(card)}", ""]
    if card.release.deprecated:
        lines += [f"**Deprecated:** {_text(card.release.deprecated)}", ""]
    lines += [lead(card), "", "`card.html` beside this file shows the same with plots and pictures.", ""]
    lines += [*_table(Table(list(sizes(card)), [list(sizes(card).values())], 0)), ""]
    if card.release.notes:
        lines += [*(f"> {_text(line)}" for line in card.release.notes.splitlines()), ""]
    lines += [*(_EXPORTED if exported else _reading(card)), "## Policy", "", *_table(funnel_table(card)), ""]
    lines += [*_fenced(as_yaml(card.manifest["policy"])), ""]
    for section, (name, about) in SECTIONS.items():
        lines += [f"## {name}", "", about, ""]
        numbers = numbers_table(card, section)
        lines += [*_table(numbers), ""] if numbers.rows else []
        words = [(one.name, one.doc, _shares(one, card.release.rows)) for one in words_of(card, section)]
        lines += [*_table(Table(("word", "meaning", "share of the rows"), words)), ""] if words else []
    lines += ["## Sources and licences", "", *_table(origins_table(card)), ""]
    lines += ["## Provenance", "", *_table(facts_table(card)), "", *_fenced(as_yaml(ingredients(card))), ""]
    for versions in versions_tables(card):
        lines += [*_table(versions), ""]
    lines += ["## Columns", "", *_table(columns_table(card)), ""]
    lines += ["## Known limits", "", *(f"- {_text(limit, code=True)}" for limit in limits(card))]
    return "\n".join(lines) + "\n"


def front_matter(card: Card) -> dict[str, object]:
    """What the Hub's search goes by."""
    return {
        "pretty_name": title(card),
        **_licence(card),
        "size_categories": [size_category(card.release.rows)],
        "task_categories": ["keypoint-detection", "image-to-3d"],
        "annotations_creators": ["machine-generated"],
        "tags": ["synthetic", "human-pose-estimation", "human-mesh-recovery", "smpl-x", "posedreamer"],
    }


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows: `1K<n<10K`."""
    low = ""
    for power, name in _SIZES:
        if rows < 10**power:
            return f"{low}<n<{name}" if low else f"n<{name}"
        low = name
    return "n>10B"


def _licence(card: Card) -> dict[str, str]:
    """One identifier where all files state the same licence; no file's words are stretched to others."""
    licences = {text for one in card.origins for text in one.licences}
    if not licences:
        return {"license": "unknown"}
    words = {re.sub(r"\s+", "-", clean(text).lower()) for text in licences}
    word = words.pop()
    if words or not _LICENCES.fullmatch(word) or any(one.unlicensed for one in card.origins):
        return {"license": "other", "license_name": "of-the-sources"}
    return {"license": word}


def _shares(words: Words, rows: int) -> str:
    return ", ".join(f"{word} {share(count, rows)}" for word, count, _ in word_rows(words))


_EXPORTED = (
    "```python",
    "from datasets import load_dataset",
    "",
    'rows = load_dataset("path/of/this/folder", split="train")',
    "```",
    "",
    "`manifest.json` beside this file says which of the release's rows are here.",
    "",
)


def _reading(card: Card) -> Iterator[str]:
    yield from ("```python", "from posedreamer import Lake", "")
    yield f'release = Lake("lake").release("{card.release.name}")'
    yield 'release.to_pandas(["image_path", "caption", "oks"], where="oks >= 0.9")'
    yield from ("```", "")


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.names)} |"
    yield "|" + "".join("---:|" if i >= table.numbers else "---|" for i in range(len(table.names)))
    for row in table.rows:
        yield f"| {' | '.join(_text(cell) for cell in row)} |"


def _fenced(text: str) -> list[str]:
    """A block that its text cannot end."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{fence}yaml", clean(text).rstrip(), fence]


def _text(text: str, *, code: bool = False) -> str:
    """Text that means itself, on one line: no markup, no HTML, no link. code: backquotes mark code."""
    line = " ".join(clean(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\*_\[\]|~#!])" if code else r"([\\`*_\[\]|~#!])", r"\\\1", line)
    # Many readers make links of bare addresses.
    return re.sub(r"(?i)\b(https?|ftp)://", r"\1:\\/\\/", line).replace("www.", "www\\.")

"""What both pages of a dataset card say: its tables, and its known limits."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import yaml

from etl.card import CAMERAS, CAPTION, ORIGIN, POSES, QUALITY, Card, Words
from etl.svg import number, share

TOP = 12
"""Words of a kind that are shown by themselves."""

SECTIONS = {
    QUALITY: ("Measurements", "What was measured on the images."),
    POSES: ("Poses", "How the bodies of the labels stand; angles are seen from the camera."),
    CAMERAS: ("Cameras", "Where the cameras stand, and what they see."),
    CAPTION: ("Captions", "What the captions name, and so what was asked for; not what the images show."),
    ORIGIN: ("Origin", "Where poses and captions are from, and how the images were made."),
}


@dataclass(frozen=True)
class Table:
    """Rows of text below names; columns from the place `numbers` on hold numbers."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 99


def clean(text: object) -> str:
    """A text without characters that are not to be seen: they could hide or turn round what follows."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def title(card: Card) -> str:
    return f"posedreamer dataset, release {card.release.name}"


def lead(card: Card) -> str:
    """What the dataset is, in a sentence."""
    return (
        f"{card.release.rows:,} generated images of people with SMPL-X labels in camera space, published on "
        f"{card.release.created_at:%Y-%m-%d} by the policy {card.release.policy}."
    )


def sizes(card: Card) -> dict[str, str]:
    """The counts, and how large the images are."""
    size, unit = float(card.image_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return {name: f"{count:,}" for name, count in card.counts.items()} | {"images": f"{size:.3g} {unit}"}


def funnel(card: Card) -> list[tuple[str, int, int]]:
    """Each step's label, the images that are left after it, and those that it rejects."""
    left = card.funnel.images
    steps = [("measured images", left, 0)]
    for step in card.funnel.steps:
        left -= step.rejected
        steps.append((clean(step.rule), left, step.rejected))
    return steps


def funnel_table(card: Card) -> Table:
    reasons = ["", *(clean(step.reason) for step in card.funnel.steps)]
    rows = [
        (rule, why, f"{taken:,}", f"{left:,}", share(left, card.funnel.images))
        for (rule, left, taken), why in zip(funnel(card), reasons, strict=True)
    ]
    return Table(("rule", "why", "rejected first", "left", "share left"), rows, 2)


def numbers_table(card: Card, section: str) -> Table:
    rows = []
    for one in card.numbers:
        if one.section == section:
            found = one.counted
            quartiles = [found.quantile(q) for q in (0.25, 0.5, 0.75)]
            values = [number(v) for v in (found.mean, found.low, *quartiles, found.high)]
            rows.append((one.name, one.unit or "-", f"{found.n:,}", f"{found.missing:,}", *values))
    names = ("number", "unit", "rows", "missing", "mean", "least", "25 %", "median", "75 %", "greatest")
    return Table(names, rows, 2)


def words_of(card: Card, section: str) -> list[Words]:
    """Those that any row says."""
    return [words for words in card.words if words.section == section and words.counted.n]


def word_rows(words: Words) -> list[tuple[str, int, bool]]:
    """(word, rows, True) of the most frequent words, then (what, rows, False) of all others and of none."""
    found = words.counted
    top = found.top(TOP)
    rest = found.n - sum(count for _, count in top)
    if all(word.isdecimal() for word, _ in top):
        top.sort(key=lambda item: int(item[0]))
    rows = [(clean(word), count, True) for word, count in top]
    if rest:
        more = "more than " if found.full else ""
        rows.append((f"{more}{len(found.counts) - len(top):,} others", rest, False))
    if found.missing:
        rows.append(("not said" if words.section == CAPTION else "none", found.missing, False))
    return rows


def origins_table(card: Card) -> Table:
    rows = []
    for one in card.origins:
        licences = "; ".join(clean(text) for text in one.licences)
        if one.unlicensed:
            licences += f"{'; ' if licences else ''}not stated for {one.unlicensed:,} files"
        formats = ", ".join(one.formats)
        made = ("from no file", "-") if not one.files else (formats, licences)
        rows.append((one.what, clean(one.source), *made, f"{one.files:,}", f"{one.images:,}"))
    return Table(("what", "source", "read as", "licence", "files", "rows"), rows, 4)


def facts_table(card: Card) -> Table:
    """What the release is, in the lake."""
    release, manifest = card.release, card.manifest
    facts = {
        "release": release.name,
        "published (UTC)": f"{release.created_at:%Y-%m-%d %H:%M}",
        "follows": release.parent or "no release",
        "version of the table dataset": str(release.dataset_version),
        "Parquet files": f"{len(manifest['dataset_files']):,}",
        "manifest": release.manifest_path,
        "SHA-256 of the manifest": release.manifest_sha256,
    }
    facts |= {f"fingerprint: {name}": value for name, value in manifest["fingerprints"].items()}
    return Table(("fact", "value"), [(name, clean(value)) for name, value in facts.items()])


def versions_tables(card: Card) -> tuple[Table, Table]:
    """Of the lake's tables, and of the software."""
    tables = [(name, str(version)) for name, version in card.manifest["table_versions"].items()]
    software = [(name, clean(version)) for name, version in card.manifest["software"].items()]
    return Table(("table", "version"), tables), Table(("software", "version"), software)


def columns_table(card: Card) -> Table:
    rows = []
    for field in card.release.schema:
        about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        kind = str(field.type)
        if pa.types.is_fixed_size_list(field.type):
            kind = f"{field.type.value_type} × {field.type.list_size}"
        null = " or missing" if field.nullable else ""
        rows.append((field.name, kind + null, about.get("unit", "-"), about["doc"].replace("`", "")))
    return Table(("column", "type", "unit", "meaning"), rows)


def as_yaml(value: object) -> str:
    """Without anchors, in the given order."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def ingredients(card: Card) -> dict[str, dict[str, object]]:
    """What made images, labels and metrics, for people: parameters by their own names."""
    return {
        name: {key.removeprefix("parameters."): value for key, value in found.items()}
        for name, found in card.ingredients.items()
    }


def limits(card: Card) -> list[str]:
    """What a user has to know first: what holds for every release, and what was found in this one."""
    said = [
        "Labels are exact for the body that was asked for. A generator may have painted another pose, hidden "
        "limbs or further people; `oks` says how well an image agrees with its label as far as a detector "
        "can tell, and detectors err.",
        f"The policy {card.release.policy} chose these rows by what was measured, so what the generator "
        "paints badly, and what the detector sees badly, is rarer here than among all samples.",
        "What captions name was asked for; nobody checked that an image shows it. Demographic terms are "
        "words of the captions, read in the generator's way, and say nothing about a real person.",
        "Numbers are of labels and measurements of this release alone; they do not say how it compares to "
        "photographs.",
    ]
    generators = [name for name, _ in card.word("generator").counted.top(TOP)]
    if "shaded" in generators:
        said.append("Images by `shaded` are renders of a clothed body, not photographs.")
    if generators != ["shaded"]:
        said.append(
            "The people are nobody in particular, but a generator that was trained on photographs may come "
            "close to one of them."
        )
    oks, persons = card.number("oks").counted, card.number("persons").counted
    if oks.missing:
        said.append(f"{oks.missing:,} rows ({share(oks.missing, card.release.rows)}) have no OKS.")
    if persons.high > 1:
        said.append(
            f"In some images the detector sees more than one person, up to {number(persons.high)}; one is "
            "labelled."
        )
    bodies = card.word("gender").counted.top(3)
    if len(bodies) == 1:
        said.append(f"All labels are of the {bodies[0][0]} body model.")
    if card.cut_prompts:
        said.append(f"The generator read only the beginning of {card.cut_prompts:,} prompts.")
    for one in card.origins:
        if one.unlicensed:
            said.append(
                f"Nobody stated a licence for {one.unlicensed:,} of {one.files:,} files of the {one.what} "
                f"source {clean(one.source)}: ask its owner before you pass the dataset on."
            )
    said += [
        f"There are more different words of `{words.name}` than are told apart; some are counted as others."
        for words in card.words
        if words.counted.full
    ]
    faults = [clean(shown.fault) for shown in card.gallery if shown.fault]
    if faults:
        said.append(f"{len(faults)} of the gallery's pictures cannot be shown, such as {faults[0]}.")
    return said

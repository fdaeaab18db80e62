"""Writes the dataset card of a release: `card.md` and `card.html`."""

from pathlib import Path

from etl.card import read_card
from etl.card_html import card_html
from etl.card_markdown import card_markdown
from etl.query import Release
from schemas.errors import ConfigError


def write_card(release: Release, folder: Path | None = None) -> list[str]:
    """Writes the card and returns the paths of its two pages.

    folder: where to; by default beside the release's manifest in the lake, and paths are relative to that.

    The same release gives the same bytes as long as nobody deprecates it. Raises ConfigError when the folder
    cannot be written to, and LakeError when what the release pins is gone.
    """
    card = read_card(release)
    pages = {"card.md": card_markdown(card), "card.html": card_html(card)}
    if folder is None:
        place = release.manifest_path.rpartition("/")[0]
        paths = [f"{place}/{name}" for name in pages]
        for path, text in zip(paths, pages.values(), strict=True):
            release.lake.store.write(path, text.encode())
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written to: {error}") from error
    return [str(folder / name) for name in pages]

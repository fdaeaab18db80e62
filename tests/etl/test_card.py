"""A dataset card says of its release what pandas says, escapes what it is given, and needs nothing else."""

import io
import json
import re
import shutil
import subprocess
from base64 import b64decode
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from PIL import Image
from typer.testing import CliRunner

import etl.run
from etl.card import read_card
from etl.card_html import card_html
from etl.card_markdown import card_markdown, size_category
from etl.card_page import write_card
from etl.cli import app
from etl.lake import Lake
from etl.query import Release
from etl.release import create_release
from etl.release_events import deprecate_release
from etl.stages import Stages
from schemas.errors import ConfigError
from schemas.ids import mix
from tests.lake_rows import IMAGES, LABELS, fill, random_rows, selected
from udfs.picture import encode

EVIL = (
    '<script>document.title = "owned"</script> "a" | `b` **c** ![d](http://evil.example/x.png) '
    "<img src=http://evil.example/y onerror=alert(1)> \x1b[31m\u202e https://evil.example/z"
)
LICENCES = ["CC BY 4.0", "", "non-commercial | research"]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def put(lake: Lake, table: str, rows: pa.Table) -> None:
    lake.table(table).commit([lake.table(table).write(rows)])


def rewrite(lake: Lake, table: str, **given: list) -> pa.Table:
    """Other values in columns of a table."""
    rows = lake.table(table).read()
    for name, values in given.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.field(name), pa.array(values, rows.field(name).type))
    lake.table(table).replace([lake.table(table).write(rows)])
    return rows


def picture(i: int) -> bytes:
    pixels = np.full((24, 32, 3), (40 + i) % 256, np.uint8)
    return encode(pixels, "jpeg")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Lake:
    """A lake with a release, its pictures, and all that may stand beside a release's rows."""
    lake = Lake.create(tmp_path_factory.mktemp("card") / "lake")
    n = 100
    fill(lake, n)
    rng = np.random.default_rng(7)
    paths = [f"files/controls/{i}.png" for i in range(n)]
    rewrite(
        lake,
        "labels",
        control_path=paths,
        image_height=[24] * n,
        image_width=[32] * n,
        keypoints_2d=rng.uniform(0, 32, (n, 34)).astype(np.float32).tolist(),
        focal=rng.uniform(50, 90, (n, 2)).astype(np.float32).tolist(),
    )
    paths += lake.table("images").read(["image_path"]).column(0).to_pylist()
    for i, path in enumerate(paths):
        lake.store.write(path, picture(i))
    some = n // 2
    captions = rewrite(
        lake,
        "captions",
        text=[f"{EVIL} {i}" for i in range(some)],
        source=["web"] * some,
        top_color=rng.choice(["teal", "red", None, "<b>"], some).tolist(),
        content_id=[None] * some,
    )
    # The same captions, read with other settings: the same all the same.
    place = captions.schema.get_field_index("fingerprint")
    put(lake, "captions", captions.set_column(place, captions.field(place), pa.array(["f" * 16] * some)))
    poses = rewrite(lake, "poses", content_id=[i % 9 for i in range(some)]).to_pandas()
    source = poses.drop_duplicates("content_id").set_index("content_id")["source"]
    given = {"content_id": list(range(9)), "source": source[list(range(9))].tolist(), "licence": LICENCES * 3}
    put(lake, "sources", random_rows("sources", 9, **given))
    for k, many in enumerate((40, 20)):
        given = {"pose_id": poses["pose_id"][:many].tolist(), "fingerprint": f"{k}" * 16}
        put(lake, "scores_plausibility", random_rows("scores_plausibility", many, 50 + k, **given))
    images = lake.table("images").read(["image_id"]).column(0).to_pylist()
    given = {"image_id": images, "fingerprint": "9" * 16}
    put(lake, "metrics_colors", random_rows("metrics_colors", n, 60, **given))
    made = json.dumps({"parameters.generator.adapter_weights": [0.5], "models.lora": "c0ffee"})
    put(lake, "fingerprints", random_rows("fingerprints", 1, fingerprint=IMAGES, ingredients=made))
    create_release(lake, "1.0.0", selected(lake), label_fingerprint=LABELS, notes=f"To be read.\n{EVIL}")
    return lake


@pytest.fixture(scope="module")
def release(filled) -> Release:
    return filled.release("1.0.0")


@pytest.fixture(scope="module")
def card(release):
    return read_card(release)


@pytest.fixture(scope="module")
def rows(filled, release) -> pd.DataFrame:
    """The release's rows joined by pandas with what stands beside them."""
    lake = filled
    found = release.to_pandas()
    captions = lake.table("captions").to_pandas().drop_duplicates("caption_id")
    samples = lake.table("samples").to_pandas()
    scores = lake.table("scores_plausibility").to_pandas()
    colors = lake.table("metrics_colors").to_pandas()
    scores = scores[scores["fingerprint"] == "0" * 16]
    found = found.merge(captions[["caption_id", "top_color", "lighting"]], on="caption_id")
    camera = [name for name in samples if name.startswith("camera_")]
    found = found.merge(samples[["sample_id", "pick_reason", *camera]], on="sample_id")
    found = found.merge(colors.drop(columns="fingerprint"), on="image_id")
    return found.merge(scores.drop(columns="fingerprint"), on="pose_id", how="left")


@pytest.fixture
def small(monkeypatch):
    """Cards of few pictures, which are soon drawn."""
    monkeypatch.setattr("etl.card.GALLERY", 2)


class Page(HTMLParser):
    """Elements of a page, and the text outside of its style sheet."""

    VOID = ("meta", "img", "br", "line", "rect")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID or (tag == "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(card) -> str:
    return card_html(card)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_counts_are_pandas(card, rows):
    assert card.counts == {
        "rows": len(rows),
        "poses": rows["pose_id"].nunique(),
        "captions": rows["caption_id"].nunique(),
        "sequences": len(rows[["source", "sequence"]].drop_duplicates()),
        "sources": rows["source"].nunique(),
        "rounds": rows["round"].nunique(),
    }
    assert len(rows) > 24


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("oks", 1), ("person_score", 1), ("persons", 1), ("coverage", 1), ("camera_distance", 1),
        ("camera_focal", 1), ("camera_yaw", 180 / np.pi), ("camera_elevation", 180 / np.pi),
        ("plausibility", 1), ("tilt", 180 / np.pi), ("colors_right", 1),
    ],
)  # fmt: skip
def test_numbers_are_pandas(card, rows, name, factor):
    expected = rows[name].astype(np.float64).dropna() * factor
    found = card.number(name).counted
    # A pose without scores is no row of their table, and so not a missing number of it.
    missing = 0 if name in ("plausibility", "tilt") else rows[name].isna().sum()
    assert (found.n, found.missing) == (len(expected), missing)
    assert found.mean == pytest.approx(expected.mean())
    assert (found.low, found.high) == pytest.approx((expected.min(), expected.max()))
    span = np.ptp(expected)
    for q in (0.25, 0.5, 0.75):
        exact = np.quantile(expected, q, method="inverted_cdf")
        assert exact - span / 800 <= found.quantile(q) <= exact + 1e-9 * abs(exact)


@pytest.mark.parametrize("name", ["source", "round", "generator", "gender", "top_color", "lighting",
                                  "pick_reason", "top_color_read"])  # fmt: skip
def test_words_are_pandas(card, rows, name):
    found = card.word(name).counted
    assert found.counts == rows[name].dropna().astype(str).value_counts().to_dict()
    assert found.missing == rows[name].isna().sum()


def test_a_measured_yes_or_no_is_counted(card, rows):
    found = card.word("top_color_right").counted
    assert found.counts == {"yes": (rows["top_color_right"] == True).sum(),  # noqa: E712
                            "no": (rows["top_color_right"] == False).sum()}  # noqa: E712  # fmt: skip
    assert found.missing == rows["top_color_right"].isna().sum()


def test_label_angles_and_views_are_counted(card, release):
    focal = release.array("focal")[:, 0].astype(np.float64)
    view = card.number("field_of_view").counted
    assert view.mean == pytest.approx(np.degrees(2 * np.arctan(16 / focal)).mean())
    seen = (np.stack(release.array("keypoints_visible")) == 2).sum(1)
    assert card.number("keypoints_seen").counted.mean == pytest.approx(seen.mean())
    assert card.number("arm_raise").counted.n == release.rows
    assert card.word("image_size").counted.counts == {"32 × 24": release.rows}


def test_the_funnel_is_what_was_selected(card, filled, release):
    decided = filled.table("selections").to_pandas()
    decided = decided[decided["selection"] == release.selection]
    assert (card.funnel.images, card.funnel.kept) == (len(decided), decided["keep"].sum())
    rules = {step.rule: step.rejected for step in card.funnel.steps}
    assert rules == decided["rejected_by"].value_counts().to_dict()
    assert next(iter(rules.values())) > 10


def test_sources_carry_their_licences(card, filled, rows):
    poses = filled.table("poses").to_pandas()
    used = poses[poses["pose_id"].isin(rows["pose_id"])]
    licence = {i: LICENCES[i % 3] for i in range(9)}
    stated = filled.table("sources").to_pandas().set_index("content_id")["source"]
    for origin in (o for o in card.origins if o.what == "poses"):
        files = [i for i in used["content_id"].unique() if stated[i] == origin.source]
        assert origin.files == len(files)
        assert set(origin.licences) == {licence[i] for i in files} - {""}
        assert origin.unlicensed == sum(not licence[i] for i in files)
        assert origin.images == (rows["source"] == origin.source).sum()
    (web,) = (o for o in card.origins if o.what == "captions")
    assert (web.source, web.files, web.images) == ("web", 0, len(rows))


def test_the_gallery_is_drawn_by_a_hash_and_shows_the_label(card, release, rows):
    ids = rows["image_id"].to_numpy()
    expected = ids[np.argsort(mix(ids, "card"))][:24]
    assert [shown.image_id for shown in card.gallery] == expected.tolist()
    for shown in card.gallery[:4]:
        tiles = np.asarray(Image.open(io.BytesIO(shown.jpeg))).astype(int)
        assert tiles.shape == (160, 484, 3)
        plain, drawn = tiles[:, 162:322], tiles[:, 324:]
        assert (abs(plain - drawn).max(-1) > 60).mean() > 0.02
        orange = (drawn[..., 0] - drawn[..., 2]) > 120
        assert orange.any()


def test_what_comes_after_the_release_changes_nothing(filled, card, html, tmp_path):
    lake = Lake(shutil.copytree(filled.url, tmp_path / "elsewhere"))
    fill(lake, 20, seed=99)
    again = lake.release("1.0.0")
    write_card(again, tmp_path / "out")
    assert (tmp_path / "out" / "card.html").read_text() == html
    assert (tmp_path / "out" / "card.md").read_text() == card_markdown(card)


def test_a_deprecated_release_says_so(filled, small, tmp_path):
    lake = Lake(shutil.copytree(filled.url, tmp_path / "lake"))
    deprecate_release(lake, "1.0.0", "mirrored [hands]")
    with pytest.warns(match="mirrored"):
        told = read_card(lake.release("1.0.0"))
    assert "Deprecated: mirrored [hands]" in Page(card_html(told)).text
    assert "**Deprecated:** mirrored \\[hands\\]" in card_markdown(told)


def test_the_page_is_whole_and_asks_for_nothing(page):
    assert page.open == []
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for tag, attrs in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        assert not any(name.startswith("on") for name in attrs)
        assert (attrs.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert (attrs.get("href") or "#").startswith("#")
        assert "url(" not in (attrs.get("style") or "")
    for anchor in page.all("a"):
        assert any(attrs.get("id") == anchor["href"][1:] for attrs in page.all("section"))


def test_the_style_sheet_fetches_nothing(html):
    style = re.search("<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def test_pictures_and_plots_are_described(page, card):
    images = page.all("img")
    assert len(images) == len(card.gallery) == 24
    for attrs, shown in zip(images, card.gallery, strict=True):
        assert "<script>" in attrs["alt"]
        assert shown.caption.split()[-1] == attrs["alt"].split()[-1]
        assert b64decode(attrs["src"].partition(",")[2]) == shown.jpeg
    plots = [i for i, (tag, _) in enumerate(page.elements) if tag == "svg"]
    assert len(plots) > 30
    for i in plots:
        assert page.elements[i][1]["role"] == "img"
        assert [tag for tag, _ in page.elements[i + 1 : i + 3]] == ["title", "desc"]


def test_captions_are_text_and_nothing_else(page, html, card):
    assert '<script>document.title = "owned"</script>' in page.text
    assert "\x1b" not in html
    assert "\u202e" not in html
    text = card_markdown(card).split("---\n", 2)[2]
    found = Page(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text))
    assert {tag for tag, _ in found.elements} <= {
        "h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "ul", "li", "strong",
        "blockquote",
    }  # fmt: skip
    assert '<script>document.title = "owned"</script>' in found.text
    assert not found.all("img")
    assert not found.all("a")


def test_the_page_says_the_numbers_and_the_provenance(page, card, release):
    said = " ".join(page.text.split())
    assert f"{card.funnel.kept:,} of {card.funnel.images:,} measured images are kept" in said
    assert release.manifest_sha256 in said
    assert "generator.adapter_weights" in said
    assert "c0ffee" in said
    for name, version in (release.manifest()["software"] | release.manifest()["table_versions"]).items():
        assert name in said
        assert str(version) in said
    assert "name: lenient" in said
    assert "non-commercial | research" in said
    assert "Nobody stated a licence for" in said
    mean = f"mean {card.number('oks').counted.mean:.3g}"
    assert mean in said


def test_the_hub_reads_the_front_matter(card, release, tmp_path):
    text = card_markdown(card)
    (tmp_path / "README.md").write_text(text, "utf-8")
    data = DatasetCard.load(tmp_path / "README.md").data
    assert (data.license, data.license_name) == ("other", "of-the-sources")
    assert data.size_categories == [size_category(release.rows)] == ["n<1K"]
    assert "smpl-x" in data.tags
    assert [size_category(n) for n in (999, 1000, 99_999, 10**7)] == [
        "n<1K", "1K<n<10K", "10K<n<100K", "10M<n<100M",
    ]  # fmt: skip


def test_one_licence_of_all_files_is_the_datasets(filled, small, tmp_path):
    lake = Lake(shutil.copytree(filled.url, tmp_path / "lake"))
    lake.table("sources").replace(
        [lake.table("sources").write(random_rows("sources", 9, content_id=list(range(9)), licence="CC BY 4.0",
                                                 source="demo"))]
    )  # fmt: skip
    create_release(lake, "2.0.0", selected(lake), label_fingerprint=LABELS)
    matter = yaml.safe_load(card_markdown(read_card(lake.release("2.0.0"))).split("---")[1])
    assert matter["license"] == "cc-by-4.0"


def test_a_picture_that_is_gone_is_said(filled, card, tmp_path):
    lake = Lake(shutil.copytree(filled.url, tmp_path / "lake"))
    made = lake.release("1.0.0")
    first = made.to_pandas(["image_path"], ids=[card.gallery[0].image_id])["image_path"][0]
    lake.store.write(first, b"no picture")
    told = read_card(made)
    assert told.gallery[0].jpeg is None
    said = Page(card_html(told)).text
    assert said.count(first) == 2
    assert "1 of the gallery's pictures cannot be shown" in said


@pytest.fixture
def folder(filled, tmp_path, monkeypatch):
    shutil.copytree(filled.url, tmp_path / "lake")
    (tmp_path / "pipeline.yaml").write_text("lake: lake\nposes: [{name: demo, path: bundled}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_the_card(folder, small):
    run = CliRunner()
    assert run.invoke(app, ["release", "tag", "1.0.0", "stable"]).exit_code == 0
    result = run.invoke(app, ["release", "card", "stable", "--out", "out/deep"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "out/deep/card.html" in result.output
    assert run.invoke(app, ["release", "card", "1.0.0"]).exit_code == 0
    place = folder / "lake" / "files" / "releases" / "1.0.0"
    for name, words in (("card.md", "# posedreamer dataset, release 1.0.0"), ("card.html", "</html>")):
        written = (place / name).read_text("utf-8")
        assert words in written
        assert (folder / "out" / "deep" / name).read_text("utf-8") == written
    (folder / "file").write_text("")
    refused = run.invoke(app, ["release", "card", "1.0.0", "--out", "file"])
    assert isinstance(refused.exception, ConfigError)
    assert "--out file: cannot be written to" in str(refused.exception)


def test_publishing_writes_the_card_unless_it_is_not_wanted(folder, small, monkeypatch):
    chosen = selected(Lake(folder / "lake"))
    stages = SimpleNamespace(labels=SimpleNamespace(fingerprint=SimpleNamespace(value=LABELS)))
    monkeypatch.setattr(etl.run, "select_images", lambda lake, settings, policy: chosen)
    monkeypatch.setattr(Stages, "latest", lambda lake, settings, as_run: stages)
    run = CliRunner()
    assert run.invoke(app, ["release", "create", "1.1.0"], catch_exceptions=False).exit_code == 0
    assert run.invoke(app, ["release", "create", "1.2.0", "--no-card"], catch_exceptions=False).exit_code == 0
    releases = folder / "lake" / "files" / "releases"
    assert "release 1.1.0" in (releases / "1.1.0" / "card.html").read_text("utf-8")
    assert not list((releases / "1.2.0").glob("card*"))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_chromium_draws_the_page(html, tmp_path):
    (tmp_path / "card.html").write_text(html, "utf-8")
    shot = tmp_path / "card.png"
    subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", "--window-size=1240,4000",
         (tmp_path / "card.html").as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    drawn = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    bars = abs(drawn - (0x00, 0x72, 0xB2)).max(-1) < 8
    labels = (drawn[..., 0] > 180) & (drawn[..., 0] - drawn[..., 2] > 120)
    assert bars.mean() > 0.005
    assert labels.mean() > 0.0003

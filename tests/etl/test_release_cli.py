"""The `release` commands say what they did, and refuse in a sentence."""

import shutil
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import etl.run
from etl.cli import app, main
from etl.lake import Lake
from etl.release import create_release
from etl.stages import Stages
from schemas.errors import ConfigError, LakeError
from tests.lake_rows import LABELS, fill, give_files, selected


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two releases, and a pipeline file beside their lake."""
    folder = tmp_path_factory.mktemp("release_cli")
    lake = Lake.create(folder / "lake")
    fill(lake, 40)
    give_files(lake)
    for name, policy in (("0.1.0", "lenient"), ("0.2.0", "strict")):
        create_release(lake, name, selected(lake, policy), label_fingerprint=LABELS, notes=f"notes {name}")
    (folder / "pipeline.yaml").write_text("lake: lake\nposes: [{name: demo, path: bundled}]\n")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    copy = shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(copy)
    monkeypatch.setattr("etl.display.console.width", 300)
    return copy


def release(*words: str) -> str:
    result = CliRunner().invoke(app, ["release", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_the_list_shows_parents_tags_and_deprecation(folder):
    release("tag", "0.2.0", "stable")
    release("deprecate", "0.1.0", "--reason", "hands were mirrored")
    listed = release("list")
    assert "deprecated: hands were mirrored notes 0.1.0" in listed
    assert "0.1.0 stable notes 0.2.0" in listed
    assert "no release is tagged stable" in release("untag", "stable")
    assert "stable" not in release("list")


def test_notes_that_are_no_text_are_refused_before_anything_is_written(folder):
    (folder / "notes.txt").write_bytes(b"caf\xe9")
    before = Lake(folder / "lake").tables()
    result = CliRunner().invoke(app, ["release", "create", "0.3.0", "--notes", "notes.txt"])
    assert isinstance(result.exception, ConfigError)
    assert "cannot be read as UTF-8 text" in str(result.exception)
    assert Lake(folder / "lake").tables() == before


def test_show_gives_the_facts_of_the_manifest(folder):
    release("tag", "0.2.0", "stable")
    shown = release("show", "stable")
    lake = Lake(folder / "lake")
    opened = lake.release("0.2.0")
    manifest = opened.manifest()
    assert "Release 0.2.0" in shown
    assert "status stable" in shown
    assert f"parent 0.1.0 rows {opened.rows}" in shown
    assert f"manifest SHA-256 {opened.manifest_sha256}" in shown
    for section in ("fingerprints", "table_versions", "software"):
        for name, value in manifest[section].items():
            assert f"{name} {value}" in shown
    assert "name: strict" in shown


def test_diff_counts_rows_and_says_why(folder):
    shown = release("diff", "0.1.0", "0.2.0")
    lake = Lake(folder / "lake")
    lost = lake.release("0.1.0").rows - lake.release("0.2.0").rows
    assert lost > 0
    assert "another policy" in shown
    assert f"{lake.release('0.2.0').rows} rows are the same in both" in shown
    assert "oks (all)" in shown


def test_a_deleted_release_is_off_the_list(folder):
    parent = CliRunner().invoke(app, ["release", "delete", "0.1.0"])
    assert isinstance(parent.exception, ConfigError)
    assert "--force" in str(parent.exception)
    assert "release 0.1.0 is deleted" in release("delete", "0.1.0", "--force", "--reason", "withdrawn")
    assert "notes 0.1.0" not in release("list")
    gone = CliRunner().invoke(app, ["release", "show", "0.1.0"])
    assert isinstance(gone.exception, LakeError)
    assert "withdrawn" in str(gone.exception)


def test_a_parent_is_the_newest_or_the_one_that_is_named(folder, monkeypatch):
    chosen = selected(Lake(folder / "lake"))
    stages = SimpleNamespace(labels=SimpleNamespace(fingerprint=SimpleNamespace(value=LABELS)))
    monkeypatch.setattr(etl.run, "select_images", lambda lake, settings, policy: chosen)
    monkeypatch.setattr(Stages, "latest", lambda lake, settings, as_run: stages)
    assert "published release 0.3.0" in release("create", "0.3.0", "--parent", "0.1.0", "--no-card")
    release("create", "0.4.0", "--no-card")
    release("create", "0.5.0", "--parent", "none", "--no-card")
    lake = Lake(folder / "lake")
    assert [lake.release(name).parent for name in ("0.3.0", "0.4.0", "0.5.0")] == ["0.1.0", "0.3.0", None]


def test_a_damaged_file_is_named(folder):
    assert "Release 0.2.0 is intact" in release("verify", "0.2.0")
    lake = Lake(folder / "lake")
    path = lake.release("0.2.0").to_pandas(["image_path"])["image_path"].iloc[0]
    lake.store.write(path, b"x")
    result = CliRunner().invoke(app, ["release", "verify", "0.2.0"])
    assert isinstance(result.exception, LakeError)
    assert path in result.output


def test_opening_a_deprecated_release_warns_in_a_sentence(folder, monkeypatch, capsys):
    release("deprecate", "0.1.0", "--reason", "hands were [mirrored]")
    monkeypatch.setattr(sys, "argv", ["posedreamer", "release", "verify", "0.1.0"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr().err
    assert said == "warning: release 0.1.0 is deprecated: hands were [mirrored]\n"

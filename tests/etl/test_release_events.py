"""What becomes of a release later: tags move, deprecation warns, a deleted name never comes back."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from etl.lake import Lake
from etl.release import create_release, list_releases
from etl.release_events import (
    delete_release,
    deprecate_release,
    read_states,
    tag_release,
    untag_release,
)
from schemas.errors import ConfigError, DeprecatedRelease, LakeError
from schemas.tables import RELEASES
from tests.lake_rows import LABELS, fill, selected

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three releases, each the next one's parent."""
    lake = Lake.create(tmp_path_factory.mktemp("releases") / "lake")
    fill(lake, 40)
    for name in ("0.1.0", "0.2.0", "0.3.0"):
        create_release(lake, name, selected(lake), label_fingerprint=LABELS)
    return lake


@pytest.fixture
def lake(made, tmp_path):
    return Lake(shutil.copytree(made.url, tmp_path / "lake"))


def test_a_tag_names_one_release_and_moves(lake):
    tag_release(lake, "0.1.0", "stable")
    tag_release(lake, "0.1.0", "paper")
    assert lake.release("stable").name == "0.1.0"
    tag_release(lake, "0.3.0", "stable")
    assert (lake.release("stable").name, lake.release("paper").name) == ("0.3.0", "0.1.0")
    assert lake.release("0.3.0").tags == ("stable",)
    assert lake.releases()["tags"].tolist() == ["paper", "", "stable"]
    untag_release(lake, "paper")
    with pytest.raises(LakeError, match=r"has no release 'paper'; there are .*0\.3\.0, and the tags stable"):
        lake.release("paper")
    with pytest.raises(LakeError, match="no release is tagged 'paper'; tags are stable"):
        untag_release(lake, "paper")


@pytest.mark.parametrize("tag", ["1.0.0", "", "-x", "none", "a b", "a/b", "x" * 65, "stable\n"])
def test_what_is_no_tag_is_refused(lake, tag):
    with pytest.raises(ConfigError, match="is no tag"):
        tag_release(lake, "0.1.0", tag)


def test_only_a_release_gets_a_tag(lake):
    tag_release(lake, "0.1.0", "stable")
    for name in ("9.9.9", "stable"):
        with pytest.raises(LakeError, match="has no release"):
            tag_release(lake, name, "best")


def test_a_deprecated_release_reads_as_before_and_says_why(lake):
    before = lake.release("0.2.0").to_arrow()
    deprecate_release(lake, "0.2.0", "left and right were swapped")
    with pytest.warns(DeprecatedRelease, match=r"release 0\.2\.0 is deprecated: left and right") as seen:
        opened = lake.release("0.2.0")
    assert seen[0].filename == __file__, "the warning names the line that opened it"
    assert opened.to_arrow().equals(before)
    assert opened.deprecated == "left and right were swapped"
    assert lake.releases()["deprecated"].tolist() == [None, "left and right were swapped", None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lake.release("0.1.0")
        assert len(list_releases(lake)) == 3
    with pytest.raises(ConfigError, match="without a reason"):
        deprecate_release(lake, "0.1.0", " ")


def test_a_parent_or_a_tagged_release_is_deleted_by_force_alone(lake):
    tag_release(lake, "0.2.0", "stable")
    with pytest.raises(ConfigError, match=r"0\.2\.0 is the parent of 0\.3\.0 and tagged stable; --force"):
        delete_release(lake, "0.2.0")
    assert lake.release("stable").name == "0.2.0"
    delete_release(lake, "0.3.0")
    with pytest.raises(ConfigError, match=r"release 0\.2\.0 is tagged stable; --force"):
        delete_release(lake, "0.2.0")
    delete_release(lake, "0.2.0", force=True)
    with pytest.raises(LakeError, match="has no release 'stable'"):
        lake.release("stable")
    assert lake.releases()["release"].tolist() == ["0.1.0"]


def test_a_deleted_name_never_comes_back(lake):
    delete_release(lake, "0.3.0", reason="a licence was withdrawn")
    with pytest.raises(LakeError, match=r"release 0\.3\.0 was deleted on \d{4}-\d\d-\d\d: a licence"):
        lake.release("0.3.0")
    for again in (delete_release, lambda lake, name: tag_release(lake, name, "stable")):
        with pytest.raises(LakeError, match="was deleted"):
            again(lake, "0.3.0")
    with pytest.raises(ConfigError, match=r"release 0\.3\.0 was deleted, and its name is not used again"):
        create_release(lake, "0.3.0", selected(lake), label_fingerprint=LABELS)
    assert create_release(lake, "0.4.0", selected(lake), label_fingerprint=LABELS).parent == "0.2.0"


def test_events_leave_rows_and_versions_of_releases_alone(lake):
    versions = lake.tables()
    tag_release(lake, "0.1.0", "stable")
    deprecate_release(lake, "0.1.0", "old")
    delete_release(lake, "0.1.0", force=True)
    assert {k: v for k, v in lake.tables().items() if k != "release_events"} == versions
    rows = lake.table("release_events").read().sort_by("number").to_pandas()
    assert rows["event"].tolist() == ["tag", "deprecate", "delete"]
    assert rows["number"].tolist() == [0, 1, 2]


def test_an_old_lake_has_no_events_and_no_parents(lake, tmp_path):
    """Made before there were events, and before releases had parents."""
    rows = lake.table("releases").read(where="release == '0.1.0'").drop_columns(["parent"])
    old = Lake.create(tmp_path / "older")
    write_deltalake(old.table("releases").uri, rows)
    assert old.release("0.1.0").parent is None
    assert read_states(old).events == 0
    tag_release(old, "0.1.0", "stable")
    assert old.release("stable").rows == lake.release("0.1.0").rows
    more = pa.Table.from_pylist([{**rows.to_pylist()[0], "release": "0.2.0", "parent": "0.1.0"}], RELEASES)
    old.table("releases").append(more)
    assert [r.parent for r in list_releases(old)] == [None, "0.1.0"]


_TAG = """
import sys
from etl.lake import Lake
from etl.release_events import tag_release
lake = Lake(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for i in range(4):
    tag_release(lake, sys.argv[2], f"{sys.argv[3]}{i}")
    tag_release(lake, sys.argv[2], "both")
"""


def test_processes_that_tag_at_once_lose_no_event(lake):
    each = [("0.1.0", "a"), ("0.2.0", "b")]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _TAG, lake.url, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for words in each
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    states = read_states(lake)
    assert states.events == 16
    assert {k: v for k, v in states.tags.items() if k != "both"} == {
        f"{tag}{i}": name for name, tag in each for i in range(4)
    }
    assert states.tags["both"] in ("0.1.0", "0.2.0")

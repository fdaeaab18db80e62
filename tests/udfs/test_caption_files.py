import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import InputError
from schemas.source import CaptionSource
from schemas.tables import CAPTIONS
from udfs.caption_files import read_caption_file


def source(**settings):
    return CaptionSource(name="s", path="p", **settings)


def read(data, path, **settings):
    return read_caption_file(data if isinstance(data, bytes) else data.encode(), path, source(**settings))


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def coco(*captions):
    return json.dumps(
        {"annotations": [{"image_id": 7 + i, "id": i, "caption": c} for i, c in enumerate(captions)]}
    )


ROWS = [("k1", "a man in a red shirt"), ("k2", "a woman, sitting")]
SAME = {
    "x.csv": 'id,caption\nk1,a man in a red shirt\nk2,"a woman, sitting"\n',
    "x.jsonl": "".join(json.dumps({"id": k, "caption": c}) + "\n" for k, c in ROWS),
    "x.parquet": parquet(id=[k for k, _ in ROWS], caption=[c for _, c in ROWS]),
}


@pytest.mark.parametrize("path", SAME)
def test_every_kind_of_file_gives_the_same_rows(path):
    file = read(SAME[path], path, key_column="id")
    assert file.captions.schema == CAPTIONS
    assert list(zip(file.captions["key"].to_pylist(), file.captions["text"].to_pylist(), strict=True)) == ROWS
    assert file.captions["top_color"].to_pylist() == ["red", None]
    assert not file.rejected
    expected = read(SAME["x.csv"], "x.csv", key_column="id").captions
    assert file.captions == expected


def test_coco_captions_are_keyed_by_image():
    file = read(coco("a man", "a woman"), "captions.json")
    assert file.kind == "coco"
    assert file.captions["key"].to_pylist() == ["7", "8"]


def test_without_a_key_column_the_row_is_the_key():
    assert read(SAME["x.csv"], "x.csv").captions["key"].to_pylist() == ["0", "1"]


def test_bad_rows_are_refused_alone():
    file = read(coco("a man", "", "  \n", None, 5, ["a"], "x" * 10_001, "y" * 10_000, "\x07"), "c.json")
    assert file.captions["text"].to_pylist() == ["a man", "y" * 10_000]
    assert [r.row for r in file.rejected] == [1, 2, 3, 4, 5, 6, 8]
    messages = [r.message for r in file.rejected]
    assert messages[0] == "row 1: the caption is empty"
    assert "missing" in messages[2]
    assert "int, not text" in messages[3]
    assert "10001 characters" in messages[5]
    assert len(file.captions) + len(file.rejected) == file.facts["rows"]


def test_a_broken_line_is_refused_by_number():
    data = '{"caption": "a"}\n{"caption": "b"\n\n[1]\n{"caption": "c"}\n{"other": 1}\n'
    file = read(data, "x.jsonl")
    assert file.captions["text"].to_pylist() == ["a", "c"]
    assert [r.row for r in file.rejected] == [1, 3, 5]
    assert "line 2: no JSON" in file.rejected[0].message


def test_white_space_is_one_blank_and_what_prints_nothing_goes():
    file = read(
        coco("  a\tman \r\n in\u00a0 a\u2003hat ", "a\x00 man\u202e b\ufeffat", "e\u0301t\u00e9 \u4eba"),
        "c.json",
    )
    assert file.captions["text"].to_pylist() == ["a man in a hat", "a man bat", "e\u0301t\u00e9 \u4eba"]
    assert file.facts["unprintable_characters_removed_from"] == 1


def test_a_text_twice_under_a_key_is_one_caption():
    rows = [{"image_id": i, "caption": c} for i, c in ((1, "a"), (1, " a "), (2, "a"))]
    file = read(json.dumps({"annotations": rows}), "c.json")
    assert file.captions["key"].to_pylist() == ["1", "2"]
    assert len(set(file.captions["caption_id"].to_pylist())) == 2
    assert file.facts["repeated_rows"] == 1


@pytest.mark.parametrize(
    ("data", "path", "complaint"),
    [
        ("caption\né\n".encode("latin-1"), "x.csv", "not UTF-8, byte 8 in line 2 is 0xe9"),
        ("caption\na\n".encode("utf-16"), "x.csv", "not UTF-8"),
        ("text\na\n", "x.csv", "no column 'caption'; it has 'text'. Set `text_column`"),
        ("", "x.csv", "no column 'caption'; it has none"),
        ('caption\n"a', "x.csv", "broken CSV"),
        ('{"text": "a"}\n', "x.jsonl", "no column 'caption'; it has 'text'"),
        ("{", "x.json", "no JSON"),
        ('{"caption": "a"}\n{"caption": "b"}', "x.json", "kind `jsonl`"),
        ("[1]", "x.json", "no list `annotations`"),
        ('{"annotations": [{"bbox": []}]}', "x.json", "instances or keypoints"),
        ("[" * 100_000, "x.json", "no JSON"),
        (parquet(text=["a"]), "x.parquet", "no column 'caption'"),
        (parquet(caption=["a"])[:30], "x.parquet", "not a whole Parquet"),
        ("a", "x.txt", "ends in .json"),
    ],
)
def test_a_file_of_no_use_says_why(data, path, complaint):
    with pytest.raises(InputError) as error:
        read(data, path)
    assert complaint in str(error.value)
    assert str(error.value).startswith(path)


def test_parquet_values_that_are_no_text_are_refused():
    file = read(parquet(caption=pa.array([1, 2])), "x.parquet")
    assert len(file.captions) == 0
    assert file.captions.schema == CAPTIONS
    assert len(file.rejected) == 2


def test_a_byte_order_mark_is_no_part_of_a_column_name():
    assert len(read("\ufeffcaption\na\n", "x.csv").captions) == 1


def test_real_coco(real_data):
    path = real_data / "captions_coco_val2017_people.json"
    file = read_caption_file(path.read_bytes(), path.name, source())
    content = json.loads(path.read_text())["annotations"]
    assert not file.rejected
    assert len(file.captions) + file.facts.get("repeated_rows", 0) == len(content) == 6944
    pairs = {(str(a["image_id"]), " ".join(a["caption"].split())) for a in content}
    assert set(zip(file.captions["key"].to_pylist(), file.captions["text"].to_pylist(), strict=True)) == pairs

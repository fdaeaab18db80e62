"""The tables are what every Delta reader knows, documented, and enough to publish from."""

import pyarrow as pa
import pytest
from deltalake import Schema
from pycocotools.cocoeval import Params

from schemas.coco import FLIP, KEYPOINT_NAMES, SIGMAS, SKELETON, SMPLX_INDEX
from schemas.smplx_params import SMPLX_PARAMS
from schemas.tables import DATASET, LABEL_COLUMNS, TABLES, subset

PLAIN = (pa.int8(), pa.int32(), pa.int64(), pa.float32(), pa.string(), pa.bool_(), pa.timestamp("us", "UTC"))


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_plain_documented_and_unique(name):
    spec = TABLES[name]
    assert len(set(spec.schema.names)) == len(spec.schema.names)
    for field in spec.schema:
        kind = field.type.value_type if pa.types.is_fixed_size_list(field.type) else field.type
        assert kind in PLAIN
        assert field.metadata[b"doc"]
        if b"low" in field.metadata and b"high" in field.metadata:
            assert float(field.metadata[b"low"]) <= float(field.metadata[b"high"])
    protocol = Schema.from_arrow(spec.schema)
    assert [f.name for f in protocol.fields] == spec.schema.names


@pytest.mark.parametrize("name", TABLES)
def test_keys_and_contents_are_columns(name):
    spec = TABLES[name]
    assert set(spec.key) <= set(spec.schema.names)
    if spec.content:
        assert spec.schema.field(spec.content).type == pa.int64()
        assert not spec.schema.field(spec.content).nullable


def test_label_arrays_are_never_null():
    assert not [f.name for f in LABEL_COLUMNS if f.nullable]


def test_the_published_rows_hold_every_parameter():
    for name, length in SMPLX_PARAMS.items():
        assert DATASET.field(name).type == pa.list_(pa.float32(), length)
    assert sum(SMPLX_PARAMS[k] for k in ("body_pose", "global_orient")) == 66


def test_a_subset_keeps_fields_with_their_facts():
    part = subset(DATASET, ("oks", "image_id"))
    assert part.names == ["oks", "image_id"]
    assert part.field("oks").metadata == DATASET.field("oks").metadata


def test_keypoints_agree_with_pycocotools():
    sigmas = Params(iouType="keypoints").kpt_oks_sigmas
    assert list(SIGMAS) == pytest.approx(sigmas.tolist(), rel=1e-12)
    assert len(KEYPOINT_NAMES) == len(SMPLX_INDEX) == 17
    assert len({frozenset(pair) for pair in SKELETON}) == 19
    for i, j in enumerate(FLIP):
        mirrored = KEYPOINT_NAMES[i].replace("left", "#").replace("right", "left").replace("#", "right")
        assert mirrored == KEYPOINT_NAMES[j]

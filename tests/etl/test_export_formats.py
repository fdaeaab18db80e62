"""What an export holds, as the libraries read it that its users would use."""

import hashlib
import io
import shutil
import time

import datasets
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import smplx
import torch
import webdataset
from huggingface_hub import DatasetCard
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from etl.export import FORMATS, export_release
from etl.exports.bedlam import person_boxes
from etl.lake import Lake
from etl.release import create_release
from schemas.coco import KEYPOINT_NAMES
from schemas.ids import hex_id
from schemas.policy import Policy
from schemas.smplx_params import SMPLX_PARAMS
from schemas.tables import published
from tests.lake_rows import LABELS, fill, measure, selected
from udfs.columns import list_column
from udfs.labels import Labels
from udfs.picture import encode
from udfs.standin import standin_path
from udfs.udf import Worker

ROWS, SIZE = 14, 160
METRICS = ("colors", "silhouette")
COLUMNS = published(METRICS)
LISTS = [f.name for f in COLUMNS if pa.types.is_nested(f.type)]
SCALARS = [name for name in COLUMNS.names if name not in LISTS]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """People as the labels' own UDF sees them, with JPEG and PNG images that show nothing of them."""
    lake = Lake.create(tmp_path_factory.mktemp("formats") / "lake")
    fill(lake, ROWS, seed=5)
    samples = lake.table("samples").read(["sample_id"]).column(0)
    labels = Labels().setup(Worker("cpu", lake.store))(_people(samples.to_pylist()))
    fingerprints = pa.repeat(LABELS, ROWS)
    table = lake.table("labels")
    table.replace(
        [table.write(labels.append_column("fingerprint", fingerprints).select(table.spec.schema.names))]
    )
    rng = np.random.default_rng(0)
    table = lake.table("images")
    images = table.read()
    paths, digests = [], []
    for i, path in enumerate(images.column("image_path").to_pylist()):
        kind = ("jpg", "png")[i % 2]
        data = encode(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), "jpeg" if kind == "jpg" else kind)
        paths.append(path.replace("jpg", kind))
        digests.append(hashlib.sha256(data).hexdigest())
        lake.store.write(paths[-1], data)
    for name, values in (("image_path", paths), ("image_sha256", digests)):
        images = images.set_column(images.column_names.index(name), name, pa.array(values))
    table.replace([table.write(images)])
    rules = [{"column": "oks", "min": 0, "missing": "keep"}]
    for name in METRICS:
        measure(lake, name)
    chosen = selected(lake, Policy.model_validate({"name": "all", "rules": rules}), METRICS)
    create_release(lake, "1.0.0", chosen, label_fingerprint=LABELS)
    return lake.release("1.0.0")


def _people(ids: list[int]) -> pa.Table:
    """Samples to label: some cropped, some close enough to leave the image."""
    rng = np.random.default_rng(1)
    n = len(ids)
    pose = {name: rng.normal(0, 0.2, (n, k)) for name, k in SMPLX_PARAMS.items() if name != "transl"}
    pose["global_orient"] = rng.normal(0, 0.3, (n, 3))
    lists = {name: list_column(values, pa.list_(pa.float32())) for name, values in pose.items()}
    near = np.arange(n) % 3 == 0
    return pa.table(
        {
            "sample_id": pa.array(ids, pa.int64()),
            "gender": ["neutral"] * n,
            **lists,
            "camera_yaw": pa.array(rng.uniform(-3, 3, n), pa.float32()),
            "camera_elevation": pa.array(rng.uniform(-0.2, 0.3, n), pa.float32()),
            "camera_distance": pa.array(np.where(near, 1.3, 3.0), pa.float32()),
            "camera_focal": pa.array(np.full(n, 200), pa.float32()),
            "camera_margin": pa.array(np.where(near, 0, 0.1), pa.float32(), mask=near),
            "image_height": pa.array(np.full(n, SIZE), pa.int32()),
            "image_width": pa.array(np.full(n, SIZE), pa.int32()),
        }
    )


@pytest.fixture(scope="module")
def exported(release, tmp_path_factory):
    """Folder by format, exported once."""
    root = tmp_path_factory.mktemp("exported")
    for name in FORMATS:
        rows = 5 if name in ("webdataset", "datasets", "npz") else None
        export_release(release, name, root / name, rows=rows)
    return root


@pytest.fixture(scope="module")
def frame(release) -> pd.DataFrame:
    return release.to_pandas(arrays="numpy")


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    path = shutil.copy(standin_path(), tmp_path_factory.mktemp("body") / "SMPLX_NEUTRAL.npz")
    return smplx.create(str(path), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True)


def picture(release, row) -> bytes:
    return release.lake.store.read(row.image_path)


def same(found: object, wanted: object) -> None:
    """One value of a release and the same value from an export, to the last bit; NULL is NULL."""
    if isinstance(wanted, np.ndarray):
        assert np.asarray(found).dtype.kind == wanted.dtype.kind
        np.testing.assert_array_equal(np.asarray(found, wanted.dtype).ravel(), wanted, strict=True)
    elif pd.isna(wanted):
        assert found is None or pd.isna(found)
    elif isinstance(wanted, np.float32 | float):
        assert np.float32(found) == np.float32(wanted)
    else:
        assert found == wanted


def test_webdataset_reads_images_captions_and_labels(release, exported, frame):
    shards = sorted(map(str, (exported / "webdataset").glob("*.tar")))
    assert len(shards) == 3
    read = list(webdataset.WebDataset(shards, shardshuffle=False))
    decoded = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(read) == len(decoded) == ROWS
    for raw, sample, row in zip(read, decoded, frame.itertuples(), strict=True):
        kind = row.image_path.rsplit(".")[-1]
        assert sample["__key__"] == hex_id(row.image_id)
        assert raw[kind] == picture(release, row)
        assert sample[kind].size == (SIZE, SIZE)
        assert sample["json"].keys() == set(SCALARS)
        for name in SCALARS:
            same(sample["json"][name], getattr(row, name))
        measured = {name for name in LISTS if getattr(row, name) is not None}
        assert sample["npz"].keys() == measured
        for name in measured:
            same(sample["npz"][name], getattr(row, name))
        assert sample["npz"]["joints_3d"].shape == (127, 3)
    assert frame["keypoints"].isna().any()
    assert '"oks": 0.' in read[0]["json"].decode()


@pytest.mark.parametrize("how", ["folder", "parquet"])
def test_datasets_reads_images_and_columns(release, exported, frame, tmp_path, how):
    folder = str(exported / "datasets")
    if how == "folder":
        found = datasets.load_dataset(folder, split="train", cache_dir=tmp_path)
    else:
        files = str(exported / "datasets" / "data" / "*.parquet")
        found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=tmp_path)
    assert found.column_names == ["image", *COLUMNS.names]
    assert isinstance(found.features["image"], datasets.Image)
    assert found.features["body_pose"] == datasets.List(datasets.Value("float32"), length=63)
    assert len(found) == ROWS
    for sample, row in zip(found, frame.itertuples(), strict=True):
        assert np.array_equal(
            np.asarray(sample["image"]), np.asarray(Image.open(io.BytesIO(picture(release, row))))
        )
        for name in COLUMNS.names:
            same(sample[name], getattr(row, name))
    raw = found.cast_column("image", datasets.Image(decode=False))[3]["image"]
    assert raw["bytes"] == picture(release, frame.iloc[3])


def test_the_hub_shows_the_releases_card(release, exported):
    page = DatasetCard.load(exported / "datasets" / "README.md")
    assert page.data.pretty_name == "posedreamer dataset, release 1.0.0"
    assert "intersection over union of the people in the image" in page.text, "its columns"
    assert "load_dataset" in page.text
    assert release.manifest_sha256 in (exported / "datasets" / "card.html").read_text()


def test_pandas_and_imagefolder_read_the_plain_export(release, exported, frame, tmp_path):
    folder = exported / "parquet"
    found = pd.read_parquet(folder / "metadata.parquet")
    assert list(found.columns) == ["file_name", *COLUMNS.names]
    assert len(found) == ROWS
    for a, b in zip(found.itertuples(), frame.itertuples(), strict=True):
        assert (folder / a.file_name).read_bytes() == picture(release, b)
        for name in COLUMNS.names:
            same(getattr(a, name), getattr(b, name))
    images = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=tmp_path)
    by_id = {
        i: (c, m) for i, c, m in zip(images["image_id"], images["caption"], images["image"], strict=True)
    }
    assert {i: c for i, (c, _) in by_id.items()} == dict(
        zip(frame["image_id"], frame["caption"], strict=True)
    )
    assert all(image.size == (SIZE, SIZE) for _, image in by_id.values())


def test_pycocotools_finds_every_person_and_agrees_with_itself(release, exported, frame, capsys):
    folder = exported / "coco"
    truth = COCO(folder / "annotations" / "person_keypoints.json")
    (category,) = truth.loadCats(truth.getCatIds())
    assert tuple(category["keypoints"]) == KEYPOINT_NAMES
    assert [16, 14] in category["skeleton"]
    assert np.min(category["skeleton"]) == 1
    assert truth.getImgIds() == frame["image_id"].tolist()
    for row in frame.itertuples():
        (image,) = truth.loadImgs([row.image_id])
        (person,) = truth.loadAnns(truth.getAnnIds([row.image_id]))
        assert (folder / "images" / image["file_name"]).read_bytes() == picture(release, row)
        assert (image["width"], image["height"]) == (row.image_width, row.image_height)
        same(np.array(person["bbox"], np.float32), row.bbox)
        x, y, v = np.array(person["keypoints"]).reshape(17, 3).T
        assert v.tolist() == row.keypoints_visible.tolist()
        assert person["num_keypoints"] == (v > 0).sum()
        points = np.stack([x, y], axis=1).astype(np.float32)
        assert np.array_equal(points[v > 0], row.keypoints_2d.reshape(17, 2)[v > 0])
        assert not points[v == 0].any()
        control = Image.open(io.BytesIO(release.lake.store.read(row.control_path)))
        assert person["area"] == np.count_nonzero(np.asarray(control).any(axis=2))
    assert {v for a in truth.anns.values() for v in a["keypoints"][2::3]} == {0, 1, 2}
    answers = [{**a, "score": 1.0} for a in truth.anns.values()]
    result = COCOeval(truth, truth.loadRes(answers), "keypoints")
    result.evaluate()
    result.accumulate()
    result.summarize()
    assert result.stats[[0, 1, 5]].tolist() == [1, 1, 1]


def test_the_npz_has_what_bedlams_reader_takes(release, exported, frame, layer):
    folder = exported / "npz"
    parts = [np.load(path, allow_pickle=False) for path in sorted(folder.glob("labels-*.npz"))]
    assert [len(part["scale"]) for part in parts] == [5, 5, 4]
    data = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}
    assert data["pose_cam"].shape == (ROWS, 165)
    assert {data[name].dtype.kind for name in data} == {"f", "U", "i"}
    for name, row in zip(data["imgname"], frame.itertuples(), strict=True):
        assert (folder / "images" / name).read_bytes() == picture(release, row)
    pose = torch.tensor(data["pose_cam"])
    # The slices are those of BEDLAM's own code.
    with torch.no_grad():
        out = layer(
            betas=torch.tensor(data["shape"]),
            global_orient=pose[:, :3],
            body_pose=pose[:, 3:66],
            jaw_pose=pose[:, 66:69],
            leye_pose=pose[:, 69:72],
            reye_pose=pose[:, 72:75],
            left_hand_pose=pose[:, 75:120],
            right_hand_pose=pose[:, 120:165],
            expression=torch.tensor(data["expression"]),
            transl=torch.tensor(data["trans_cam"]),
        )
    joints = out.joints.numpy() + data["cam_ext"][:, None, :3, 3]
    np.testing.assert_allclose(joints, release.array("joints_3d"), atol=1e-4)
    pixels = np.einsum("nij,nkj->nki", data["cam_int"], joints)
    np.testing.assert_allclose(pixels[..., :2] / pixels[..., 2:], data["gtkps"][..., :2], atol=0.02)
    assert np.array_equal(data["gtkps"][..., :2], release.array("joints_2d"))
    assert (data["gtkps"][..., 2] == 1).all()
    assert data["image_id"].tolist() == frame["image_id"].tolist()
    # BEDLAM crops a square of 200 * scale pixels around the centre.
    for row, center, scale in zip(frame.itertuples(), data["center"], data["scale"], strict=True):
        points = row.joints_2d.reshape(127, 2)[:22]
        inside = points[((points >= 0) & (points <= SIZE)).all(axis=1)]
        if len(inside) >= 12:
            assert (np.abs(inside - center) <= 100 * scale / 1.2 + 1e-3).all()
            assert np.ptp(inside, axis=0).max() * 1.2 / 200 == pytest.approx(scale, rel=1e-5)


def test_a_person_of_few_joints_in_the_image_has_the_labels_box():
    joints = np.zeros((2, 127, 2), np.float32)
    joints[0] = np.linspace([10, 20], [30, 80], 127)
    joints[1, 5:] = -50
    center, scale = person_boxes(
        joints, np.float32([[0, 0, 1, 1], [40, 50, 20, 10]]), np.array([[99, 99]] * 2)
    )
    np.testing.assert_allclose(center[1], [50, 55])
    np.testing.assert_allclose(scale[1], 20 * 1.2 / 200)
    np.testing.assert_allclose(center[0], (joints[0, 0] + joints[0, 21]) / 2)


def test_h5py_reads_the_layout_of_the_reference(release, exported, frame, layer):
    found = {name: [] for name in SMPLX_PARAMS}
    for row in frame.itertuples():
        key = hex_id(row.image_id)
        with h5py.File(exported / "hdf5" / "labels" / key[:2] / f"{key}.h5") as file:
            shapes = {name: data.shape for name, data in file.items()}
            assert file.attrs["caption"] == row.caption
            assert file.attrs["image_id"] == key
            assert (exported / "hdf5" / file.attrs["image"]).read_bytes() == picture(release, row)
            for name in (n for n in file if n != "img_shape"):
                same(file[name][()], getattr(row, name))
            assert file["img_shape"][()].tolist() == [row.image_width, row.image_height]
            for name in found:
                found[name].append(torch.tensor(file[name][()].reshape(1, -1)))
    assert shapes == {
        "betas": (1, 10),
        "global_orient": (1, 3),
        "body_pose": (1, 63),
        "left_hand_pose": (15, 3),
        "right_hand_pose": (15, 3),
        "jaw_pose": (1, 3),
        "leye_pose": (1, 3),
        "reye_pose": (1, 3),
        "expression": (1, 10),
        "transl": (1, 3),
        "focal": (1, 2),
        "princpt": (1, 2),
        "bbox": (4,),
        "img_shape": (2,),
        "joints_3d": (127, 3),
        "joints_2d": (127, 2),
        "markers_3d": (80, 3),
        "markers_2d": (80, 2),
    }
    with torch.no_grad():
        joints = layer(**{name: torch.cat(rows) for name, rows in found.items()}).joints.numpy()
    np.testing.assert_allclose(joints, release.array("joints_3d"), atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_tomorrow_the_same_bytes(release, exported, tmp_path, monkeypatch, format):
    """No clock, no user and no hash seed is in the files."""
    tomorrow = time.time() + 100_000
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(tomorrow))
    rows = 5 if format in ("webdataset", "datasets", "npz") else None
    export_release(release, format, tmp_path / "again", rows=rows)
    first, second = (
        (folder / "SHA256SUMS").read_text() for folder in (exported / format, tmp_path / "again")
    )
    assert first == second

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    MobileNetV2ImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    pipeline,
)

from schemas.errors import ModelError, RowError
from schemas.metrics import metric_outputs
from schemas.pipeline import ModelSettings
from tests.labelled import labelled_images
from tests.tiny_pipelines import Folder, with_columns
from udfs.keypoint_quality import area_under_roc, similar
from udfs.model_metric import Checkpoint
from udfs.person_mask import PersonMask
from udfs.picture import decode, encode
from udfs.silhouette import Silhouette, overlap, segmentation
from udfs.udf import Worker

N = 32


@pytest.fixture(scope="module")
def shown():
    files = Folder()
    rows = labelled_images(files, N, seed=61)
    return files, rows


@pytest.fixture(scope="module")
def measured(shown):
    files, rows = shown
    return Silhouette().setup(Worker("cpu", files))(rows.select(Silhouette.inputs))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A SegFormer with random weights; its second class is a person."""
    folder = tmp_path_factory.mktemp("segformer")
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
            id2label={0: "wall", 1: "person, individual", 2: "sky"},
        )
    )  # fmt: skip
    # So that some pixels are people's and some are not, whatever the random weights say.
    model.decode_head.classifier.weight.data *= 20
    model.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_overlap_is_counted_in_pixels():
    people, body = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    people[:2], body[1:] = True, True
    assert overlap(people, body) == {
        "silhouette_iou": 5 / 20,
        "silhouette_precision": 5 / 10,
        "silhouette_recall": 5 / 15,
    }
    nobody = np.zeros((4, 5), bool)
    assert overlap(nobody, body) == {
        "silhouette_iou": 0,
        "silhouette_precision": None,
        "silhouette_recall": 0,
    }
    assert set(overlap(nobody, nobody).values()) == {None}


def test_renders_fill_their_labels(measured):
    assert measured.schema.equals(metric_outputs("silhouette"))
    iou = measured["silhouette_iou"].to_numpy()
    assert np.median(iou) > 0.85
    assert iou.min() > 0.6


def test_images_fill_their_own_labels_better_than_others_alike(shown, measured):
    files, rows = shown
    other = similar(np.stack(rows["bbox"].to_pylist()))
    exchanged = with_columns(rows, control_path=rows["control_path"].take(pa.array(other)).to_pylist())
    wrong = Silhouette().setup(Worker("cpu", files))(exchanged.select(Silhouette.inputs))
    own, others = (t["silhouette_iou"].to_numpy() for t in (measured, wrong))
    assert area_under_roc(own, others) > 0.97


def test_a_second_person_lowers_precision_and_a_hidden_one_recall(shown, measured):
    files, rows = shown
    left, right = (decode(files.read(f"{k}.png"), "")[0] for k in (0, 1))
    half = np.array(left)
    half[64:] = half[:4].mean((0, 1)).astype(np.uint8)
    files.write("half.png", encode(half, "png"))
    files.write("two.png", encode(np.concatenate([left, right], 1), "png"))
    body = decode(files.read(rows["control_path"][0].as_py()), "")[0]
    files.write("wide.png", encode(np.concatenate([body, np.zeros_like(body)], 1), "png"))
    facts = {
        "image_id": pa.array([0, 1]),
        "image_path": ["half.png", "two.png"],
        "image_height": pa.array([128, 128], pa.int32()),
        "image_width": pa.array([128, 256], pa.int32()),
        "control_path": [rows["control_path"][0].as_py(), "wide.png"],
    }
    found = Silhouette().setup(Worker("cpu", files))(pa.table(facts)).to_pylist()
    before = measured.to_pylist()[0]
    assert found[0]["silhouette_recall"] < before["silhouette_recall"] - 0.2
    assert found[0]["silhouette_precision"] > before["silhouette_precision"] - 0.1
    assert found[1]["silhouette_precision"] < before["silhouette_precision"] - 0.2


def test_people_in_photographs_are_found_roughly(real_data):
    """It learned from renders alone. Against COCO's own masks of everybody in the photograph."""
    folder = real_data / "coco_people"
    coco = COCO(folder / "person_keypoints.json")
    pictures, truth = [], []
    for number, facts in coco.imgs.items():
        pictures.append(np.asarray(Image.open(folder / facts["file_name"]).convert("RGB")))
        masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(number))]
        truth.append(np.any(masks, axis=0))
    found = [share > 0.5 for share in PersonMask.load().shares(pictures)]
    recall = [(f & t).sum() / t.sum() for f, t in zip(found, truth, strict=True)]
    assert np.median(recall) > 0.6
    # A mask that covered as much anywhere would have this share of the people.
    assert np.mean(recall) > 3 * np.mean([f.mean() for f in found])


def test_a_checkpoint_of_transformers_finds_what_its_own_pipeline_finds(shown, checkpoint):
    files, rows = shown
    udf = Silhouette(settings=ModelSettings(model=str(checkpoint))).pinned()
    found = udf.setup(Worker("cpu", files))(rows.slice(0, 4).select(Silhouette.inputs))
    theirs = pipeline("image-segmentation", model=str(checkpoint), device="cpu")
    shares = []
    for k, row in enumerate(rows.slice(0, 4).to_pylist()):
        picture = Image.fromarray(decode(files.read(f"{k}.png"), "")[0])
        masks = {s["label"]: np.asarray(s["mask"]) > 0 for s in theirs(picture, subtask="semantic")}
        person = masks.get("person, individual", np.zeros((128, 128), bool))
        shares.append(person.mean())
        body = decode(files.read(row["control_path"]), "")[0].any(-1)
        wanted, got = overlap(person, body), found.slice(k, 1).to_pylist()[0]
        for name, value in wanted.items():
            assert got[name] == (None if value is None else pytest.approx(value, abs=1e-6))
    assert 0.02 < np.mean(shares) < 0.98, "the random model tells pixels apart"


def test_the_fingerprint_is_of_what_the_model_is_and_not_of_its_place(checkpoint, tmp_path):
    default = Silhouette().pinned()
    here = Silhouette(settings=ModelSettings(model=str(checkpoint))).pinned()
    moved = tmp_path / "elsewhere"
    moved.symlink_to(checkpoint)
    there = Silhouette(settings=ModelSettings(model=str(moved))).pinned()
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint() != default.fingerprint()


def test_models_that_cannot_look_for_people_are_refused(shown, checkpoint, tmp_path):
    files, _ = shown

    def refused(folder, match):
        with pytest.raises(ModelError, match=match):
            Silhouette(settings=ModelSettings(model=str(folder))).pinned().setup(Worker("cpu", files))

    def copied(name, **facts):
        folder = tmp_path / name
        folder.mkdir()
        for file in checkpoint.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | facts))
        return folder

    refused(tmp_path / "nothing", "there is no such folder")
    refused(tmp_path, "no config.json")
    refused(copied("no_people", id2label={"0": "wall", "1": "tree", "2": "sky"}), "no class `person`")
    refused(copied("another", decoder_hidden_size=24), "cannot load it|has no weights for")
    padded = copied("padded")
    facts = json.loads((padded / "preprocessor_config.json").read_text())
    (padded / "preprocessor_config.json").write_text(json.dumps(facts | {"do_pad": True}))
    refused(padded, "pads pictures")
    pickled = copied("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(pickled, "pickle")
    with pytest.raises(ModelError, match="leave revision out"):
        Silhouette(settings=ModelSettings(model=str(checkpoint), revision="main")).pinned()
    with pytest.raises(ModelError, match="is not the one"):
        Silhouette(digests=(("model", "another"),)).setup(Worker("cpu", files))


def test_a_processor_that_would_crop_shows_the_model_the_whole_picture(tmp_path):
    model = MobileNetV2ForSemanticSegmentation(
        MobileNetV2Config(depth_multiplier=0.35, num_labels=2, id2label={0: "wall", 1: "person"})
    ).eval()
    model.save_pretrained(tmp_path)
    MobileNetV2ImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
    ).save_pretrained(tmp_path)
    seen = []
    find = segmentation(Checkpoint.find(ModelSettings(model=str(tmp_path))), "cpu")
    forward = MobileNetV2ForSemanticSegmentation.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MobileNetV2ForSemanticSegmentation,
            "forward",
            lambda self, pixel_values: seen.append(pixel_values.shape[2:]) or forward(self, pixel_values),
        )
        assert find([np.zeros((96, 192, 3), np.uint8)])[0].shape == (96, 192)
    assert seen == [(64, 128)]


def test_an_image_that_is_broken_is_named(shown):
    files, rows = shown
    files.write("broken.png", files.read("0.png")[:200])
    facts = {"image_path": "broken.png"}
    broken = with_columns(rows.slice(0, 1).select(Silhouette.inputs), **facts)
    with pytest.raises(RowError, match=r"broken\.png"):
        Silhouette().setup(Worker("cpu", files))(broken)

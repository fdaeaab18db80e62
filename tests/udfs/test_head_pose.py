import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from schemas.errors import ModelError, RowError
from schemas.metrics import metric_outputs
from schemas.pipeline import ModelSettings
from tests.labelled import labelled_images
from tests.tiny_pipelines import Folder, with_columns
from udfs.columns import matrix
from udfs.head_angles import angles, from_six, head_rotations
from udfs.head_crop import SIDE, head_picture, head_squares
from udfs.head_pose import HeadPose, six_numbers
from udfs.model_metric import Checkpoint
from udfs.oks import CONFIDENT
from udfs.picture import decode, encode
from udfs.udf import Worker

N = 40


@pytest.fixture(scope="module")
def shown():
    """People of 256 pixels from all around."""
    files = Folder()
    return files, labelled_images(files, N, seed=71, side=256)


@pytest.fixture(scope="module")
def apply(shown):
    return HeadPose().setup(Worker("cpu", shown[0]))


@pytest.fixture(scope="module")
def measured(shown, apply):
    return apply(shown[1].select(HeadPose.inputs))


def saved(folder, outputs=6):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=16, num_labels=outputs,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_heads_of_renders_are_seen_as_they_are_turned(measured):
    assert measured.schema.equals(metric_outputs("head_pose"))
    known = measured["head_rotation_error"].drop_null().to_numpy()
    assert len(known) >= 0.9 * N
    assert np.median(known) < 25
    assert np.median(measured["head_pose_error"].drop_null().to_numpy()) < 20


def test_another_heads_label_is_far_off(shown, apply, measured):
    _, rows = shown
    turned = np.roll(matrix(rows, "global_orient"), 1, 0)
    other = apply(with_columns(rows, global_orient=turned.tolist()).select(HeadPose.inputs))
    own, others = (t["head_rotation_error"].drop_null().to_numpy() for t in (measured, other))
    assert np.median(others) > 3 * np.median(own)


def test_the_angles_are_those_of_the_image_and_not_of_the_label(shown, apply, measured):
    _, rows = shown
    other = apply(
        with_columns(rows, global_orient=np.zeros((N, 3), np.float32).tolist()).select(HeadPose.inputs)
    )
    for name in ("heads", "head_roll", "head_pitch", "head_yaw"):
        assert other[name].equals(measured[name])
    truth = angles(head_rotations({k: matrix(rows, k) for k in ("global_orient", "body_pose")}))
    yaw = np.array(measured["head_yaw"].to_pylist(), float)
    off = np.abs((yaw - truth[:, 2] + 180) % 360 - 180)
    assert np.nanmedian(off) < 20


def test_of_two_heads_the_labelled_one_counts(shown, apply, measured):
    files, rows = shown
    pictures = [decode(files.read(f"{k}.png"), "")[0] for k in (0, 1)]
    files.write("both.png", encode(np.concatenate(pictures, 1), "png"))
    both = with_columns(rows.slice(0, 2), image_path="both.png", image_width=512)
    aside = np.array([256.0, 0])
    points = np.array(matrix(both, "keypoints_2d")).reshape(2, 17, 2)
    points[1] += aside
    princpt = np.array(matrix(both, "princpt"))
    princpt[1] += aside
    both = with_columns(both, keypoints_2d=points.reshape(2, 34).tolist(), princpt=princpt.tolist())
    found = apply(both.select(HeadPose.inputs)).to_pylist()
    alone = measured.to_pylist()[:2]

    def apart(a, b):
        return abs((a["head_yaw"] - b["head_yaw"] + 180) % 360 - 180)

    # Half as large in the network's square, so not to the degree; but each is that of its label.
    assert [row["heads"] for row in found] == [2, 2]
    assert apart(found[0], alone[0]) < apart(found[0], alone[1])
    assert apart(found[1], alone[1]) < apart(found[1], alone[0])


def test_what_is_not_to_be_seen_is_not_measured(shown, apply):
    files, rows = shown
    files.write("empty.png", encode(np.full((256, 256, 3), 128, np.uint8), "png"))
    row = rows.slice(0, 1)
    hidden = np.array(row["keypoints_visible"].to_pylist())
    hidden[:, :5] = 0
    for changed, heads in (
        (with_columns(row, image_path="empty.png"), 0),
        (with_columns(row, keypoints_visible=hidden.tolist()), 1),
    ):
        found = apply(changed.select(HeadPose.inputs)).to_pylist()[0]
        assert found["heads"] == heads
        assert {v for k, v in found.items() if k not in ("image_id", "heads")} == {None}
    files.write("broken.png", b"no picture")
    with pytest.raises(RowError, match=r"broken\.png"):
        apply(with_columns(row, image_path="broken.png").select(HeadPose.inputs))


def test_a_row_has_the_same_answer_in_any_batch(shown, apply, measured):
    _, rows = shown
    one = apply(rows.slice(3, 1).select(HeadPose.inputs)).to_pylist()[0]
    many = measured.to_pylist()[3]
    assert one["image_id"] == many["image_id"]
    for name in ("head_roll", "head_pitch", "head_yaw", "head_pose_error"):
        assert one[name] == pytest.approx(many[name], abs=0.05)


def test_the_square_holds_the_head_whichever_way_it_is_turned(shown):
    _, rows = shown
    points = matrix(rows, "keypoints_2d").reshape(N, 17, 2)
    middle, side = head_squares(points, matrix(rows, "bbox"))
    skull = matrix(rows, "joints_2d").reshape(N, 127, 2)[:, 15]
    assert (np.abs(skull - middle).max(1) < side / 2).all()
    ears = np.linalg.norm(points[:, 3] - points[:, 4], axis=1)
    assert (side > 1.4 * ears).all()
    assert (side < 0.5 * matrix(rows, "bbox")[:, 2:].max(1)).mean() > 0.9


def test_a_head_at_the_edge_is_padded_with_black():
    picture = np.full((50, 60, 3), 200, np.uint8)
    found = head_picture(picture, np.array([0.0, 25.0]), 32.0)
    assert found.shape == (SIDE, SIDE, 3)
    assert (found[:, : SIDE // 2 - 2] == 0).all()
    assert (found[:, SIDE // 2 + 2 :] == 200).all()
    exact = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert (head_picture(exact, np.array([SIDE / 2, SIDE / 2]), SIDE) == exact).all()


def test_heads_are_found_in_photographs(real_data):
    """The networks have never seen a photograph: they find some heads, and say nothing of the others."""
    from udfs.head_network import HeadNetwork
    from udfs.keypoint_network import KeypointNetwork
    from udfs.keypoints import WEIGHTS

    files = sorted((real_data / "coco_people").glob("*.jpg"))
    pictures = [np.asarray(Image.open(f).convert("RGB")) for f in files]
    found = KeypointNetwork.load(WEIGHTS).detect(pictures)
    heads = []
    for picture, people in zip(pictures, found, strict=True):
        sure = (people.keypoints[:, :5, 2] > CONFIDENT).sum(1) >= 2
        for middle, side in zip(*head_squares(people.keypoints[sure], people.boxes[sure]), strict=True):
            heads.append(head_picture(picture, middle, float(side)))
    assert len(heads) >= 5
    rotations = HeadNetwork.load().rotations(np.stack(heads))
    assert np.allclose(np.linalg.det(rotations), 1)
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-6)


def test_a_checkpoint_of_transformers_reads_heads(shown, tmp_path):
    files, rows = shown
    folder = saved(tmp_path / "vit")
    udf = HeadPose(settings=ModelSettings(model=str(folder))).pinned()
    assert udf.fingerprint() != HeadPose().pinned().fingerprint()
    found = udf.setup(Worker("cpu", files))(rows.slice(0, 4).select(HeadPose.inputs))
    assert found["head_pose_error"].null_count < 4
    heads = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    inputs = ViTImageProcessor.from_pretrained(folder)(list(heads), return_tensors="pt")
    with torch.inference_mode():
        wanted = ViTForImageClassification.from_pretrained(folder)(**inputs).logits.numpy()
    read = six_numbers(Checkpoint.find(udf.settings), "cpu")
    assert np.allclose(read(heads), from_six(wanted), atol=1e-5)


def test_a_checkpoint_with_other_outputs_is_refused(shown, tmp_path):
    folder = saved(tmp_path / "classes", outputs=4)
    with pytest.raises(ModelError, match="has 4 outputs; a model of head rotations has 6"):
        HeadPose(settings=ModelSettings(model=str(folder))).pinned().setup(Worker("cpu", shown[0]))

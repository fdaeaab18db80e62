import numpy as np
import pytest

from udfs.oks import match, oks


def coco_oks(keypoints, truth, visible, area):
    """The same numbers from pycocotools, one image a person."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    n = len(keypoints)
    gt, dt = COCO(), COCO()
    images = [{"id": i + 1, "width": 640, "height": 480} for i in range(n)]
    categories = [{"id": 1, "name": "person"}]
    gt.dataset = {"images": images, "categories": categories, "annotations": []}
    dt.dataset = {"images": images, "categories": categories, "annotations": []}
    for i in range(n):
        flat = np.concatenate([truth[i], visible[i][:, None]], 1).ravel().tolist()
        common = {"id": i + 1, "image_id": i + 1, "category_id": 1, "area": float(area[i]), "iscrowd": 0}
        gt.dataset["annotations"].append(
            common | {"keypoints": flat, "num_keypoints": int((visible[i] > 0).sum()), "bbox": [0, 0, 1, 1]}
        )
        flat = np.concatenate([keypoints[i], np.ones((17, 1))], 1).ravel().tolist()
        dt.dataset["annotations"].append(common | {"keypoints": flat, "score": 0.9, "bbox": [0, 0, 1, 1]})
    gt.createIndex()
    dt.createIndex()
    evaluation = COCOeval(gt, dt, "keypoints")
    evaluation._prepare()
    return np.array([evaluation.computeOks(i + 1, 1)[0, 0] for i in range(n)])


def test_oks_equals_pycocotools_on_random_people():
    rng = np.random.default_rng(0)
    n = 200
    truth = rng.uniform(0, 400, (n, 17, 2))
    spread = rng.choice([0.5, 3.0, 15.0, 80.0], (n, 1, 1))
    keypoints = truth + rng.normal(0, 1, (n, 17, 2)) * spread
    visible = rng.integers(0, 3, (n, 17))
    visible[np.arange(n), rng.integers(0, 17, n)] = 2
    area = rng.uniform(100, 90_000, n)
    ours = oks(keypoints, truth, visible, area)
    assert ours.std() > 0.2
    np.testing.assert_allclose(ours, coco_oks(keypoints, truth, visible, area), atol=1e-6)


def test_keypoints_outside_of_the_image_do_not_count():
    truth = np.full((1, 17, 2), 50.0)
    keypoints = truth.copy()
    keypoints[:, :5] += 1000
    visible = np.full((1, 17), 2)
    visible[:, :5] = 0
    assert oks(keypoints, truth, visible, np.array([100.0])) == pytest.approx(1)
    assert oks(keypoints, truth, visible * 0 + 2, np.array([100.0])) == pytest.approx(12 / 17)
    assert np.isnan(oks(keypoints, truth, visible * 0, np.array([100.0])))[0]


def person(x, y, confident=17):
    points = np.zeros((17, 3))
    points[:, 0], points[:, 1], points[:confident, 2] = x, y, 0.9
    return points


def test_the_nearest_person_is_matched():
    truth, visible = np.full((17, 2), 100.0), np.full(17, 2)
    assert match(np.stack([person(150, 100), person(110, 100), person(90, 130)]), truth, visible) == 1


def test_a_person_with_three_confident_keypoints_is_no_match_and_one_with_four_is():
    truth, visible = np.full((17, 2), 100.0), np.full(17, 2)
    assert match(np.stack([person(101, 100, confident=3), person(160, 100)]), truth, visible) == 1
    assert match(np.stack([person(101, 100, confident=4), person(160, 100)]), truth, visible) == 0
    assert match(np.stack([person(101, 100, confident=3)]), truth, visible) is None
    assert match(np.zeros((0, 17, 3)), truth, visible) is None

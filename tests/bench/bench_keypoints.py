"""How good the shipped keypoint network is, and how fast: `python -m tests.bench.bench_keypoints`.

Every set is 256 x 256 renders of poses, cameras, clothes and scenes that training never saw. A picture's
shuffled label is that of the other picture whose box is most like its own, in place and size. The real
poses and the photographs are read from ../shared/data; their sets are left out where it is absent.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from udfs.body import Body
from udfs.keypoint_network import KeypointNetwork
from udfs.keypoint_quality import Quality, agreement, measure
from udfs.keypoint_renders import Poses, Renders, make_renders, wild_poses
from udfs.keypoints import WEIGHTS
from udfs.nano_renders import make_pairs
from udfs.nano_training import sample
from udfs.pipelines import NANO
from udfs.random_poses import random_poses
from udfs.shaded import Model

DATA = Path(__file__).parents[3] / "shared" / "data"
SEED = 777_777
SIDE = 128


def real_poses(path: Path) -> Poses:
    """Frames drawn from a file of real poses; their heading is the camera's to choose."""
    with np.load(path, allow_pickle=False) as data:
        if "body_pose" in data:
            names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
            pool = {name: data[name] for name in names}
        else:
            poses = data["poses"]
            pool = {"body_pose": poses[:, 3:66], "left_hand_pose": poses[:, 66:111]}
            pool["right_hand_pose"] = poses[:, 111:156]
            pool["global_orient"] = np.zeros((len(poses), 3))
    # Wild camera-space orientations are undone: people stand as the plan's cameras see them.
    pool["global_orient"] = np.zeros_like(pool["global_orient"])

    def draw(count: int, seed: int) -> dict[str, np.ndarray]:
        rows = np.random.default_rng(seed).integers(0, len(pool["body_pose"]), count)
        return {name: values[rows] for name, values in pool.items()}

    return draw


def line(name: str, quality: Quality) -> str:
    low, high = np.percentile(quality.matching, [10, 25])
    return (
        f"{name:28} {len(quality.matching):5d} {quality.median:10.3f} {high:7.3f} {low:7.3f} "
        f"{(quality.matching > 0.85).mean():10.3f} {np.median(quality.shuffled):9.3f} {quality.auc:7.4f} "
        f"{(quality.counts == 1).mean():8.3f}"
    )


def of(network: KeypointNetwork, renders: Renders) -> Quality:
    pictures = list(renders.pictures[..., :3])
    return measure(network, pictures, renders.keypoints, renders.visible, renders.boxes)


def counts(network: KeypointNetwork, renders: Renders) -> dict[str, float]:
    """Share of pictures whose people are counted right: nobody, one, two side by side, two overlapping."""
    pictures = renders.pictures[..., :3]
    half = len(pictures) // 2
    wide = [np.concatenate([pictures[i], pictures[half + i]], axis=1) for i in range(half)]
    near = []
    for i in range(half):
        front = np.roll(renders.pictures[half + i].astype(np.float32), 70, axis=1)
        front[:, :70, 3] = 0
        behind = np.roll(pictures[i], -45, axis=1).astype(np.float32)
        near.append((behind + (front[..., :3] - behind) * front[..., 3:] / 255).astype(np.uint8))

    def share(images: list[np.ndarray], people: int) -> float:
        found: list[int] = []
        for start in range(0, len(images), 32):
            found += [len(p.scores) for p in network.detect(images[start : start + 32])]
        return float(np.mean(np.array(found) == people))

    return {
        "nobody": share(list(renders.backgrounds), 0),
        "one": share(list(pictures), 1),
        "two, side by side": share(wide, 2),
        "two, one before the other": share(near, 2),
    }


def photographs(network: KeypointNetwork) -> list[str]:
    folder = DATA / "coco_people"
    facts = json.loads((folder / "person_keypoints.json").read_text())
    lines = []
    for image in facts["images"]:
        picture = np.asarray(Image.open(folder / image["file_name"]).convert("RGB"))
        people = network.detect([picture])[0]
        labelled = [a for a in facts["annotations"] if a["image_id"] == image["id"]]
        best = []
        for annotation in labelled:
            points = np.array(annotation["keypoints"], float).reshape(17, 3)
            if annotation["num_keypoints"] >= 5:
                best.append(agreement(people, points[:, :2], points[:, 2]))
        scores = ", ".join(f"{s:.2f}" for s in best)
        lines.append(
            f"{image['file_name']}: {len(labelled)} labelled, {len(people.scores)} found, OKS {scores}"
        )
    return lines


def painted(network: KeypointNetwork, model: Model, count: int) -> dict[str, Quality]:
    """The same samples as the renderer and as the nano model paint them, at the nano model's size."""
    pipe = DiffusionPipeline.from_pretrained(NANO, dtype=torch.float32, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_pairs(model, random_poses, count, SEED + 100, SIDE, Path(folder))
        pictures = {"shaded": pairs.pictures, "nano": sample(pipe, pairs.controls, pairs.prompts, 4)}
        visible = 2 * ((pairs.keypoints >= 0) & (pairs.keypoints < SIDE)).all(-1).astype(np.int8)
        return {
            f"{name}, {SIDE} x {SIDE}": measure(network, list(p), pairs.keypoints, visible, pairs.boxes)
            for name, p in pictures.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=256, help="pictures a set")
    given = parser.parse_args()
    torch.set_num_threads(2)
    network = KeypointNetwork.load(given.weights)
    model = Model.load(Body.load(None))
    margin = (0.1, 0.1)
    sets: dict[str, Poses] = {"random poses": random_poses, "wild poses": wild_poses}
    for name, file in (
        ("real SMPL-X", "smplx_wholebody_500.npz"),
        ("real AMASS", "amass_smplh_601frames.npz"),
    ):
        if (DATA / file).is_file():
            sets[f"{name} poses"] = real_poses(DATA / file)
    out = sys.stdout.write
    out(
        f"{'set':28} {'n':>5} {'median OKS':>10} {'p25':>7} {'p10':>7} {'over 0.85':>10} "
        f"{'shuffled':>9} {'AUC':>7} {'1 person':>8}\n"
    )
    every: list[Quality] = []
    first: Renders | None = None
    for index, (name, poses) in enumerate(sets.items()):
        began = time.perf_counter()
        renders = make_renders(model, poses, given.count, SEED + index, margin=margin)
        painting = given.count / (time.perf_counter() - began)
        first = first or renders
        every.append(of(network, renders))
        out(line(name, every[-1]) + "\n")
    matching, shuffled = (np.concatenate([getattr(q, n) for q in every]) for n in ("matching", "shuffled"))
    out(line("all", Quality(matching, shuffled, np.concatenate([q.counts for q in every]))) + "\n")
    assert first is not None
    for name, share in counts(network, first).items():
        out(f"people counted right, {name}: {share:.3f}\n")
    began = time.perf_counter()
    of(network, first)
    seeing = given.count / (time.perf_counter() - began)
    out(f"shaded {painting:.1f} images/s, network {seeing:.1f} images/s\n")
    for name, quality in painted(network, model, given.count).items():
        out(line(name, quality) + "\n")
    if (DATA / "coco_people").is_dir():
        out("photographs (nothing like them was in the training):\n  ")
        out("\n  ".join(photographs(network)) + "\n")


if __name__ == "__main__":
    main()

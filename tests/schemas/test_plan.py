import pytest
from pydantic import ValidationError

from schemas.fingerprint import fingerprint
from schemas.plan import Camera, Plan


def test_focal_scales_with_the_image_as_posedreamer_has_it():
    assert Plan(image_size=(1024, 1024)).focal == 890
    assert Plan(image_size=(256, 256)).focal == 222.5
    assert Plan(image_size=(512, 256)).focal == 445
    assert Plan(camera=Camera(focal=300)).focal == 300


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "no place for it"},
        {"prompt": "{caption} and {caption}"},
        {"draws": 0},
        {"image_size": (8, 256)},
        {"camera": {"yaw": (10, -10)}},
        {"camera": {"elevation": (0, 90)}},
        {"camera": {"distance": (0, 3)}},
        {"camera": {"distance": (1, float("nan"))}},
        {"camera": {"zoom": 2}},
        {"pairing": "best"},
        {"part": {"low": 0.5, "high": 0.5}},
        {"part": {"high": 1.5}},
        {"part": {"by": "frame"}},
    ],
)
def test_what_cannot_be_planned_is_refused(wrong):
    with pytest.raises(ValidationError):
        Plan(**wrong)


def test_every_setting_of_a_plan_shapes_its_fingerprint():
    changes = [
        {"pairing": "random"}, {"captions_per_pose": 2}, {"draws": 2}, {"image_size": (256, 128)},
        {"betas": "keep"}, {"prompt": "{caption}"}, {"seed": 1}, {"round": 1},
        {"part": {"high": 0.5}},
        *({"camera": c} for c in ({"yaw": (0, 1)}, {"elevation": (0, 1)}, {"distance": (1, 2)}, {"focal": 9},
                                  {"margin": None}, {"each_draw": False})),
    ]  # fmt: skip
    values = {fingerprint("samples", 1, {"plan": Plan(**change)}).value for change in [{}, *changes]}
    assert len(values) == 1 + len(changes)
    touched = {next(iter(c)) for c in changes}
    assert touched == set(Plan.model_fields)

"""Every ingredient of a result changes its fingerprint, and the difference is said."""

import dataclasses
import json
from enum import Enum
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from schemas.fingerprint import Fingerprint, difference, fingerprint


class Mode(Enum):
    FAST = "fast"


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True)

    size: int = 256
    names: tuple[str, ...] = ("a", "b")


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    mode: Mode = Mode.FAST


BASE = {
    "udf": "labels",
    "version": 1,
    "parameters": {"size": 512, "threshold": 0.3, "outer": Outer(), "kinds": {"b", "a"}, "none": None},
    "models": {"body": "abc", "detector": "def"},
    "upstream": {"samples": "0011"},
}


def made(**changes: object) -> Fingerprint:
    return fingerprint(**(BASE | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"udf": "other"}, 'udf "labels" -> "other"'),
        ({"version": 2}, "version 1 -> 2"),
        ({"parameters": BASE["parameters"] | {"size": 256}}, "parameters.size 512 -> 256"),
        (
            {"parameters": BASE["parameters"] | {"threshold": 0.30000000000000004}},
            "parameters.threshold 0.3 -> ",
        ),
        ({"parameters": BASE["parameters"] | {"none": 0}}, "parameters.none (none) -> 0"),
        ({"parameters": BASE["parameters"] | {"new": True}}, "parameters.new (none) -> true"),
        (
            {"parameters": BASE["parameters"] | {"outer": Outer(Inner(size=1))}},
            "parameters.outer.inner.size 256 -> 1",
        ),
        (
            {"parameters": BASE["parameters"] | {"outer": Outer(Inner(names=("b", "a")))}},
            'parameters.outer.inner.names ["a", "b"] -> ["b", "a"]',
        ),
        ({"models": {"body": "abd", "detector": "def"}}, 'models.body "abc" -> "abd"'),
        ({"models": {"body": "def", "detector": "abc"}}, 'models.body "abc" -> "def", models.detector'),
        ({"upstream": {"samples": "0012"}}, 'upstream.samples "0011" -> "0012"'),
        ({"upstream": {}}, 'upstream.samples "0011" -> (none)'),
    ],
)
def test_every_ingredient_alone_changes_it_and_is_named(changes, said):
    other = made(**changes)
    assert other.value != made().value
    assert difference(made().json, other.json).startswith(said)


def test_the_order_of_names_changes_nothing():
    turned = dict(reversed(BASE["parameters"].items()))
    assert made(parameters=turned).value == made().value
    assert difference(made().json, made(parameters=turned).json) == "nothing"
    assert made(parameters=BASE["parameters"] | {"kinds": {"a", "b"}}).value == made().value


def test_the_value_is_sixteen_hexadecimal_digits_and_pinned():
    one = fingerprint("udf", 1, {"a": 1, "b": [1, 2.5, "x", None, True]}, {"m": "d"}, {"u": "f"})
    assert one.value == "a0344666b48aaf70"
    assert json.loads(one.json)["parameters.b"] == [1, 2.5, "x", None, True]


def test_dotted_names_do_not_run_into_each_other():
    values = {
        fingerprint("u", 1, {"a": {"b": 1}}).value,
        fingerprint("u", 1, {"a": [{"b": 1}]}).value,
        fingerprint("u", 1, {"a": 1}, {"a": "1"}).value,
        fingerprint("u", 1, {"a": [1, 2]}).value,
        fingerprint("u", 1, {"a": "[1, 2]"}).value,
        fingerprint("u", 1, {"a": 1}).value,
        fingerprint("u", 1, {"a": 1.5}).value,
        fingerprint("u", 1, {"a": True}).value,
        fingerprint("u", 1, {"a": "1"}).value,
    }
    assert len(values) == 9


def test_lists_may_hold_anything_that_a_parameter_may():
    values = [
        [[1, 2], [3]],
        [[1], [2, 3]],
        [Mode.FAST],
        ["fast", 1],
        [Inner()],
        [Inner(size=1)],
        [Outer()],
        [[{"a": 1}]],
    ]
    assert len({fingerprint("u", 1, {"x": v}).value for v in values}) == len(values)
    assert fingerprint("u", 1, {"x": (Mode.FAST,)}).value == fingerprint("u", 1, {"x": ["fast"]}).value


@pytest.mark.parametrize(
    "value", [[Path("/a")], Path("/models/body.npz"), object(), b"bytes", lambda: 1, [object()]]
)
def test_what_has_no_stable_text_is_refused(value):
    with pytest.raises(TypeError, match=r"parameters\.x"):
        fingerprint("u", 1, {"x": value}).json  # noqa: B018


def test_long_values_are_cut_in_the_difference():
    text = difference(made().json, made(models={"body": "x" * 500, "detector": "def"}).json)
    assert len(text) < 120

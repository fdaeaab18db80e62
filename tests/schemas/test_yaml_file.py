"""A complaint about settings names the file, the line, the key and the way out."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ConfigError
from schemas.yaml_file import load_yaml


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(Strict):
    column: str
    min: float | None = None


class Policy(Strict):
    name: str
    rules: tuple[Rule, ...] = ()


class Shaded(Strict):
    kind: Literal["shaded"] = "shaded"
    quality: int = Field(default=90, ge=1, le=100)


class Flux(Strict):
    kind: Literal["flux"]
    steps: int = 25


class Pipeline(Strict):
    policy: Policy | None = None
    generator: Annotated[Shaded | Flux, Field(discriminator="kind")] = Shaded()
    either: Shaded | Policy | None = None
    threshold: float | Literal["auto"] = "auto"


GOOD = """\
# a comment
policy:
  name: strict
  rules:
    - column: oks
      min: 0.8

    - column: persons
      min: 1
generator:
  kind: flux
  steps: 4
"""


def refused(text: str, model: type[BaseModel] = Pipeline) -> str:
    with pytest.raises(ConfigError) as caught:
        load_yaml(text, "file.yaml", model)
    return str(caught.value)


def test_a_good_file_is_read():
    loaded = load_yaml(GOOD, "file.yaml", Pipeline)
    assert loaded.policy.rules == (Rule(column="oks", min=0.8), Rule(column="persons", min=1))
    assert loaded.generator == Flux(kind="flux", steps=4)


def test_an_empty_file_means_the_defaults():
    assert load_yaml("# nothing\n", "file.yaml", Pipeline) == Pipeline()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min: 1", "mni: 1", "file.yaml line 9: policy.rules[1].mni: unknown key; did you mean min?"),
        ("  name: strict\n", "", "file.yaml line 2: policy.name: is missing"),
        ("kind: flux", "kind: fluks", "file.yaml line 10: generator: "),
        ("steps: 4", "steps: many", "file.yaml line 12: generator.steps: input should be a valid integer"),
        ("steps: 4", "quality: 4", "file.yaml line 12: generator.quality: unknown key"),
        ("name: strict", "name: strict\n  name: again", "file.yaml line 4: policy: name is there twice, "),
        ("policy:", "polisy:", "file.yaml line 2: polisy: unknown key; did you mean policy?"),
        ("steps: 4", "steps: [", "file.yaml line 13: "),
        ("min: 1", "on: 1", "file.yaml line 9: policy.rules[1]: key on is no text; put it in quotes"),
        ("min: 1", "min: !!python/object/apply:os.getcwd []", "file.yaml line 9: could not determine"),
    ],
)
def test_a_complaint_names_line_and_key(old, new, message):
    assert refused(GOOD.replace(old, new)).startswith(message)


def test_all_complaints_come_at_once_in_the_order_of_the_file():
    text = GOOD.replace("min: 1", "mni: 1").replace("steps: 4", "steps: many").replace("0.8", "high")
    assert [line.split(":")[0] for line in refused(text).splitlines()] == [
        "file.yaml line 6",
        "file.yaml line 9",
        "file.yaml line 12",
    ]


def test_a_value_that_fits_no_member_of_a_union_gets_the_nearest_members_complaint():
    message = refused("either:\n  kind: shaded\n  quality: 200\n")
    assert message == ("file.yaml line 3: either.quality: input should be less than or equal to 100, not 200")
    assert refused("threshold: high\n").startswith("file.yaml line 1: threshold: ")


def test_aliases_are_refused():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefg", "bcdefgh", strict=True)
    )
    assert "no anchors and aliases" in refused(bomb)


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\x00", "a: '", "[" * 5000, "just words"])
def test_what_is_no_mapping_is_refused(text):
    assert refused(text).startswith("file.yaml")

import pytest
from pydantic import ValidationError

from schemas.source import CaptionSource, GrammarSource, PoseSource


@pytest.mark.parametrize("model", [PoseSource, CaptionSource])
def test_an_unknown_key_is_refused(model):
    with pytest.raises(ValidationError, match="evry"):
        model(name="a", path="b", evry=2)


def test_frames_are_chosen_in_one_way():
    with pytest.raises(ValidationError, match="every and frames_per_sequence"):
        PoseSource(name="a", path="b", every=2, frames_per_sequence=5)


@pytest.mark.parametrize("name", ["", "../up", "a b", "a/b", "-a"])
def test_a_name_is_a_word(name):
    with pytest.raises(ValidationError):
        PoseSource(name=name, path="b")


def test_a_probability_is_no_percentage():
    with pytest.raises(ValidationError):
        GrammarSource(demographic=60)


def test_a_source_cannot_be_changed():
    with pytest.raises(ValidationError):
        PoseSource(name="a", path="b").path = "c"

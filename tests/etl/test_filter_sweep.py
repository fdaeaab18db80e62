"""A sweep counts what a policy keeps at each bound, as pandas does."""

import builtins

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from etl.sweep import parse_bounds, plot_sweep, sweep
from schemas.errors import ConfigError
from schemas.policy import Policy


@pytest.fixture
def rows() -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "image_id": np.arange(500),
            "oks": pa.array(rng.random(500), pa.float32(), mask=rng.random(500) < 0.1),
            "persons": pa.array(rng.integers(0, 3, 500), pa.int32()),
        }
    )


@pytest.fixture
def policy() -> Policy:
    return Policy(name="p", rules=[{"column": "persons", "equals": 1}, {"column": "oks", "min": 0.8}])


def test_a_range_meets_its_end_in_decimals():
    assert parse_bounds("0.5:0.95:0.05") == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert parse_bounds("3:1:-1") == [3.0, 2.0, 1.0]
    assert parse_bounds("0.5,0.81") == [0.5, 0.81]
    assert parse_bounds("2") == [2.0]


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:0", "1:2:x", "1:2:3:4", "0,,1"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ConfigError, match="is no range of numbers, such as"):
        parse_bounds(text)


@pytest.mark.parametrize("text", ["1:0:0.1", "0:1:0.0001"])
def test_a_range_of_none_or_of_too_many_is_refused(text):
    with pytest.raises(ConfigError, match="give between 1 and 1,000"):
        parse_bounds(text)


def test_every_bound_is_counted_for_the_policy_and_the_rule_alone(rows, policy):
    bounds = [0.1, 0.5, 0.7]
    swept = sweep(rows, policy, "oks", bounds)
    frame = rows.to_pandas()
    for bound, point in zip(bounds, swept.points, strict=True):
        good = frame["oks"] >= np.float32(bound)
        assert (point.bound, point.alone) == (bound, good.sum())
        assert point.kept == (good & (frame["persons"] == 1)).sum()
    assert swept.now == ((frame["oks"] >= np.float32(0.8)) & (frame["persons"] == 1)).sum()
    assert swept.images == 500


def test_a_column_without_a_rule_is_said(rows, policy):
    with pytest.raises(ConfigError, match="policy p has no rule on person_score"):
        sweep(rows, policy, "person_score", [0.5])


def test_the_plot_is_a_picture_with_both_curves(rows, policy, tmp_path):
    path = tmp_path / "sweep.png"
    plot_sweep(sweep(rows, policy, "oks", parse_bounds("0:1:0.1")), path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    blue, grey = (0x0B, 0x6F, 0xB8), (0xC9, 0xC9, 0xC9)
    for color in (blue, grey):
        assert (pixels == color).all(1).sum() > 200
    with pytest.raises(ConfigError, match="cannot be written"):
        plot_sweep(sweep(rows, policy, "oks", [0.5]), tmp_path / "none" / "x.png")


def test_a_missing_matplotlib_is_named_with_its_extra(rows, policy, tmp_path, monkeypatch):
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'posedreamer\[mine\]'"):
        plot_sweep(sweep(rows, policy, "oks", [0.5]), tmp_path / "x.png")

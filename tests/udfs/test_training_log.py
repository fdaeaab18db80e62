import json

import pytest

from udfs.training_log import TrainingLog


def log(folder, step=0):
    return TrainingLog(folder, step, tensorboard=False)


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", "3", '{"step": 3, "loss": 0.1', "\x00\x00"])
def test_a_line_that_a_kill_left_torn_is_dropped(tmp_path, torn):
    with log(tmp_path) as first:
        first.write(1, {"loss": 0.5})
        first.write(2, {"loss": 0.25})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(torn)
    with log(tmp_path, 2) as second:
        second.write(3, {"loss": 0.125})
    assert rows(tmp_path) == [{"step": s, "loss": 0.5**s} for s in (1, 2, 3)]
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_log_knows_what_was_measured_at_the_step_it_goes_on_from(tmp_path):
    with log(tmp_path) as first:
        assert first.last == {}
        for step in (1, 2, 3):
            first.write(step, {"loss": float(step)})
    assert log(tmp_path, 2).last == {"loss": 2.0}
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]
    assert log(tmp_path, 5).last == {}

import threading

import pytest

from udfs.threads import each


@pytest.mark.parametrize("setting", ["1", "3", "2,1", "", "nonsense"])
def test_everything_is_done_once_however_many_threads_there_are(setting, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    done = []
    each(done.append, 50)
    assert sorted(done) == list(range(50))


def test_the_threads_that_the_process_may_use_are_not_exceeded(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    meet = threading.Barrier(2, timeout=10)
    names = set()

    def work(_: int) -> None:
        meet.wait()
        names.add(threading.get_ident())

    each(work, 6)
    assert len(names) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    each(lambda _: names.add(threading.get_ident()), 6)
    assert names >= {threading.get_ident()}
    assert len(names) == 3


def test_an_error_comes_out():
    def fail(i: int) -> None:
        if i == 3:
            raise ValueError("piece 3")

    with pytest.raises(ValueError, match="piece 3"):
        each(fail, 5)


def test_nothing_to_do():
    each(lambda _: pytest.fail("called"), 0)

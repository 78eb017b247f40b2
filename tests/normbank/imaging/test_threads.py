"""The same list, whoever made its parts."""

import threading

import pytest

from normbank.imaging.threads import in_threads


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
def test_results_keep_the_order_of_the_items(count):
    assert in_threads(lambda n: n * n, range(count)) == [n * n for n in range(count)]


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_there_is_a_thread_a_core_but_never_many(monkeypatch, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    threads = set(in_threads(lambda _: threading.get_ident(), range(1000)))
    assert len(threads) <= min(cores, 4)
    assert (threading.get_ident() in threads) == (cores == 1)


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda n: 1 // (n - 5), range(10))

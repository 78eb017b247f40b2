from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from normbank.budget import MemoryBudget, _cgroup_limits, memory_bytes
from normbank.cancellation import Cancellation
from normbank.errors import AbandonedError, BusyError, TooLargeError
from tests.support.api import wait_until


def test_what_would_never_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(TooLargeError) as refused, MemoryBudget(100).reserved(101):
        pass
    assert refused.value.code == "needs_too_much_memory"
    assert refused.value.facts == {"needed_bytes": 101, "budget_bytes": 100}


def test_who_waits_too_long_is_told_to_come_again_and_takes_nothing_along() -> None:
    budget = MemoryBudget(100, patience_s=0.05)
    with budget.reserved(60):
        with pytest.raises(BusyError) as refused, budget.reserved(50):
            pass
        assert refused.value.code == "memory_full"
        assert refused.value.retry_after_s >= 1
        with budget.reserved(40):
            assert budget.reserved_bytes == 100
    assert budget.reserved_bytes == 0


def test_no_more_is_at_work_at_once_than_fits() -> None:
    budget, two, let_go = MemoryBudget(100), threading.Barrier(3), threading.Event()
    holding: list[int] = []

    def work(number: int) -> None:
        with budget.reserved(40):
            holding.append(number)
            if number < 2:
                two.wait(10)
                let_go.wait(10)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    two.wait(10)
    third = threading.Thread(target=work, args=(2,))
    third.start()
    wait_until(lambda: len(budget._waiting) == 1)
    assert sorted(holding) == [0, 1]
    let_go.set()
    for thread in (*threads, third):
        thread.join()
    assert sorted(holding) == [0, 1, 2]
    assert budget.reserved_bytes == 0


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        (lambda budget, cancellation: cancellation.cancel(), AbandonedError),
        (lambda budget, cancellation: budget.close(), BusyError),
    ],
)
def test_who_waits_is_let_go_at_once_when_nobody_needs_it_or_all_ends(
    end: Callable[[MemoryBudget, Cancellation], None], raised: type[Exception]
) -> None:
    budget, cancellation, errors = MemoryBudget(100), Cancellation(), []

    def work() -> None:
        try:
            with budget.reserved(50, cancellation):
                pass
        except (AbandonedError, BusyError) as error:
            errors.append(error)

    with budget.reserved(60):
        waiting = threading.Thread(target=work)
        waiting.start()
        wait_until(lambda: len(budget._waiting) == 1)
        end(budget, cancellation)
        waiting.join(5)
        assert [type(error) for error in errors] == [raised]
        assert budget.reserved_bytes == 60
    assert budget.reserved_bytes == 0


def test_a_large_scan_is_not_passed_by_small_ones() -> None:
    budget, order = MemoryBudget(100), []

    def work(name: str, needed: int) -> None:
        with budget.reserved(needed):
            order.append(name)

    with budget.reserved(60):
        large = threading.Thread(target=work, args=("large", 90))
        large.start()
        wait_until(lambda: len(budget._waiting) == 1)
        small = threading.Thread(target=work, args=("small", 20))
        small.start()
        wait_until(lambda: len(budget._waiting) == 2)
        assert order == []  # the small one would fit
    large.join()
    small.join()
    assert order == ["large", "small"]


def test_a_container_counts_not_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory_bytes() <= machine
    (tmp_path / "memory.max").write_text("1000000\n")
    assert 1000000 in _cgroup_limits(tmp_path)
    monkeypatch.setattr("normbank.budget._cgroup_limits", lambda: [1000000])
    assert memory_bytes() == 1000000
    (tmp_path / "memory.max").write_text("max\n")
    assert _cgroup_limits(tmp_path) == []

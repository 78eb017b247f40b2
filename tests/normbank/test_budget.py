from __future__ import annotations

import threading
from pathlib import Path

import pytest

from normbank.budget import MemoryBudget, _cgroup_limits, memory_bytes
from normbank.errors import BusyError, TooLargeError
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
    budget, most, lock = MemoryBudget(100), [0], threading.Lock()

    def work() -> None:
        with budget.reserved(40), lock:
            most[0] = max(most[0], budget.reserved_bytes)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 100
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


def test_a_container_counts_not_its_machine(tmp_path: Path) -> None:
    assert 0 < memory_bytes() < 1 << 50
    (tmp_path / "memory.max").write_text("1000000\n")
    assert 1000000 in _cgroup_limits(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert _cgroup_limits(tmp_path) == []

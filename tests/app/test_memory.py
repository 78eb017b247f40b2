"""Requests share a budget of memory: what fits waits its turn, what never fits is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from normbank.config import Settings
from tests.support.api import Api, as_form, nifti, pair, serve

NEEDED = 400 << 20  # of the default scan, and a little more
DOMAIN = {"id": "ward", "name": "Ward", "label_scheme": "freesurfer"}


@pytest.fixture
def tight(own_settings: Settings) -> Iterator[Api]:
    """A service with memory for one scan, and little patience."""
    update = {"memory_budget_bytes": NEEDED, "memory_wait_s": 0.1}
    with serve(own_settings.model_copy(update=update)) as api:
        api.make_keys()
        api.add_domain()
        yield api


def wide() -> bytes:
    """Few voxels that become many: 500 mm along each axis."""
    return nifti(spacing_mm=12.5)


def test_a_scan_that_needs_more_than_all_memory_is_413_with_both_numbers(tight: Api) -> None:
    problem = tight.segment(wide())
    assert (problem.status_code, problem.json()["code"]) == (413, "needs_too_much_memory")
    assert problem.json()["needed_bytes"] > problem.json()["budget_bytes"] == NEEDED
    assert tight.stored_blobs() == 0


def test_while_others_hold_the_memory_requests_are_told_when_to_come_again(tight: Api) -> None:
    memory = tight.core.memory
    with memory.reserved(NEEDED):
        answers = [
            tight.segment(),
            tight.segment(headers={"Prefer": "respond-async"}),
            tight.admin.post("/domains", files=[*as_form(DOMAIN), *pair()]),
        ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "memory_full")
        assert int(answer.headers["Retry-After"]) >= 1
    assert answers[2].json()["pair"] == 0
    assert tight.segment().status_code == 200
    assert memory.reserved_bytes == 0

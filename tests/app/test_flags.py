"""Doubts wherever a client looks: body, header, record and metrics; and what is held back."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from normbank.entities import Role
from simulate.odd_scans import ODD_SCANS
from tests.support.api import Api

JSON = {"Accept": "application/json"}


def odd(kind: str) -> bytes:
    data = np.zeros((40, 40, 40), np.float32)
    data[10:30, 10:30, 10:30] = 100
    return ODD_SCANS[kind](data, np.diag([2.0, 2.0, 2.0, 1.0])).file


def counted(api: Api, code: str) -> float:
    lines = api.client(Role.MONITOR).get("/metrics").text.splitlines()
    wanted = f'normbank_flags_total{{code="{code}"}} '
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


def codes(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(flag["code"], flag["severity"]) for flag in answer.json()["flags"]]


def test_a_doubtful_answer_says_so_everywhere(api: Api) -> None:
    api.add_domain()
    answer = api.segment(odd("forms turned by 20 degrees"), headers=JSON)
    assert answer.status_code == 200
    assert codes(answer) == [("forms_disagree", "warning")]
    assert answer.headers["X-Normbank-Flags"] == "forms_disagree"
    again = api.admin.get(f"/segmentations/{answer.json()['id']}")
    assert again.json()["flags"] == answer.json()["flags"]
    assert counted(api, "forms_disagree") == 1


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("no form, stored RAS", "orientation_unknown"),
        ("forms of unlike handedness", "forms_disagree"),
        ("pixdim half of the sform's", "size_doubtful"),
    ],
)
def test_a_severe_doubt_holds_the_answer_back_unless_it_is_asked_for(
    api: Api, kind: str, code: str
) -> None:
    api.add_domain()
    refused = api.segment(odd(kind))
    assert (refused.status_code, refused.json()["code"]) == (422, "implausible")
    assert codes(refused) == [(code, "severe")]
    assert refused.json()["flags"][0]["detail"] in refused.json()["detail"]
    assert api.stored_blobs() == 0
    taken = api.segment(odd(kind), params={"accept": "doubtful"}, headers=JSON)
    assert taken.status_code == 200
    assert codes(taken) == [(code, "severe")]
    assert taken.headers["X-Normbank-Flags"] == code
    assert counted(api, code) == 2


def test_a_scan_in_order_has_no_flags(api: Api) -> None:
    api.add_domain()
    answer = api.segment(odd("as it is"), headers=JSON)
    assert codes(answer) == []
    assert "X-Normbank-Flags" not in answer.headers

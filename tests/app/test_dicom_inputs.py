"""Every malformed, mixed or exotic series through `POST /segment`: refused, said why, kept nothing.

`NORMBANK_TEST_TABLE=FILE` writes what was answered as a table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from normbank.config import Settings
from tests.normbank.dicom.test_package import BAD
from tests.normbank.dicom.test_refused import IMAGES
from tests.support.api import Api, serve
from tests.support.dicom import CANARY, as_bytes

TABLE = os.environ.get("NORMBANK_TEST_TABLE", "")
HEAD = "| input | status | code | words |\n|---|--:|---|---|\n"
# What the limits of an installation refuse, and the limits of this one do not.
BY_LIMITS = {"many-bombs", "large-member", "huge-frames"}


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    if TABLE:
        Path(TABLE).write_text(HEAD + "\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def refusing(shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("refusing")
    settings = shared_settings.model_copy(update={"data_dir": folder, "min_thickness_mm": 30.0})
    with serve(settings) as api:
        yield api


def refused(api: Api, parts: list[bytes], name: str, rows: list[str]) -> str:
    """The code of the answer, which must be a refusal that keeps and quotes nothing."""
    api.make_keys()
    api.add_domain()
    files = [("scan", (f"{CANARY}-{number}", part)) for number, part in enumerate(parts)]
    answer = api.admin.post("/segment", files=files, data={"domain": "drawn"})
    body = answer.json()
    rows.append(f"| {name} | {answer.status_code} | `{body['code']}` | {body['detail']} |")
    assert answer.status_code in (413, 415, 422), answer.text
    for word in (*CANARY.split("^"), "canary-1", "canary-2"):
        assert word not in answer.text
    assert (api.stored_blobs(), api.spooled()) == (0, 0)
    return str(body["code"])


@pytest.mark.parametrize("name", [name for name in IMAGES if name not in BY_LIMITS])
@pytest.mark.usefixtures("engine")
def test_images_that_are_no_whole_volume(refusing: Api, name: str, rows: list[str]) -> None:
    make, code = IMAGES[name]
    parts = [as_bytes(image) for image in make()]
    assert refused(refusing, parts, name, rows) == code


@pytest.mark.parametrize("name", [name for name in BAD if name not in BY_LIMITS])
@pytest.mark.usefixtures("engine")
def test_zips_that_are_none(refusing: Api, name: str, rows: list[str]) -> None:
    make: Callable[[], bytes]
    make, code = BAD[name]
    assert refused(refusing, [make()], f"zip: {name}", rows) == code

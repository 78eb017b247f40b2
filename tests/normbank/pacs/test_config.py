"""The PACS file: what it may say, and the line that tells where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from normbank.errors import NormbankError
from normbank.pacs.config import read_pacs_file

PINNED = """
[[pacs]]
name = "main"
dicomweb_url = "http://127.0.0.1:8042/dicom-web/"
username_env = "TEST_PACS_USER"
password_env = "TEST_PACS_PASSWORD"
seg = "binary"
watch = true

[[pacs.route]]
match = { SeriesDescription = { regex = "mprage" }, MagneticFieldStrength = { min = 2.5 } }
domain = "ward-7"
store = false

[[pacs.route]]
domain = "auto"

[[pacs]]
name = "archive"
dicomweb_url = "https://archive.example:8443/rs"
"""


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PACS_USER", "normbank")
    monkeypatch.setenv("TEST_PACS_PASSWORD", "hidden-word")


def written(folder: Path, text: str) -> Path:
    path = folder / "pacs.toml"
    path.write_text(text)
    return path


def test_the_pinned_keys_are_understood(tmp_path: Path) -> None:
    file = read_pacs_file(written(tmp_path, PINNED))
    main = file.get("main")
    assert main.dicomweb_url == "http://127.0.0.1:8042/dicom-web"
    assert main.credentials == ("normbank", "hidden-word")
    assert main.seg == "binary"
    assert [(route.domain, route.store) for route in main.route] == [
        ("ward-7", False),
        ("auto", True),
    ]
    archive = file.get("archive")
    assert (archive.credentials, archive.seg, archive.watch) == (None, "labelmap", False)
    assert [pacs.name for pacs in file.watched] == ["main"]
    assert "hidden-word" not in repr(file)


def test_without_a_file_there_is_no_pacs() -> None:
    assert read_pacs_file(None).pacs == ()
    with pytest.raises(NormbankError, match="names none") as caught:
        read_pacs_file(None).get("main")
    assert caught.value.code == "unknown_pacs"


def one(**keys: str) -> str:
    """A file with one PACS whose keys are changed."""
    lines = {"name": '"main"', "dicomweb_url": '"http://host/rs"', **keys}
    return "[[pacs]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (one(colour='"red"'), "pacs 1 'main', colour: there is no such key"),
        (one(dicomweb_url='"ftp://host"'), "pacs 1 'main', dicomweb_url: must be an address"),
        (one(dicomweb_url='"http://host:port/"'), "dicomweb_url: "),
        (one(dicomweb_url='"http://me:secret@host/"'), "must hold no credentials"),
        (one(username_env='"TEST_PACS_USER"'), "username_env and password_env go together"),
        (
            one(username_env='"TEST_PACS_USER"', password_env='"NOT_THERE"'),
            "pacs 1 'main': the environment variable NOT_THERE is not set",
        ),
        (one(ca_file='"/nowhere/ca.pem"'), "ca_file: there is no such file"),
        (one(seg='"mesh"'), "pacs 1 'main', seg: Input should be 'labelmap' or 'binary'"),
        (one(read_timeout_s="0"), "read_timeout_s: Input should be greater than 0"),
        (one(name='"two words"'), "pacs 1 'two words', name: "),
        (one() + one(), "the name 'main' is used twice"),
        (one() + "[[pacs.route]]\nmatch = { Rows = { least = 3 } }", "route 1, match: 'Rows'"),
        (one() + '[[pacs.route]]\ndomain = "Ward 7"', "pacs 1 'main', route 1, domain: "),
        ("[[pacs]]\nname = main", "at line 2, column 8"),
        ("pacs = 3", "pacs: "),
        ("[[server]]\nname = 'x'", "server: there is no such key"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_in_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(NormbankError) as caught:
        read_pacs_file(written(tmp_path, text))
    message = str(caught.value)
    assert caught.value.code == "bad_pacs_file"
    assert said in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_ca_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(NormbankError, match="ca_file: holds no certificates"):
        read_pacs_file(written(tmp_path, one(ca_file=f'"{tmp_path}/ca.pem"')))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NormbankError, match="No such file"):
        read_pacs_file(tmp_path / "missing.toml")

"""`normbank segment` writes each scan's labels once, under a name that is the scan's alone."""

from __future__ import annotations

import csv
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.client import zipped
from cli.main import app
from cli.output.files import distinct_names
from cli.output.results import ResultsFolder
from cli.output.volumes import COLUMNS, append_row, read_records
from cli.scans import find_scans
from normbank.config import Settings
from normbank.entities import Role
from tests.support.api import Api, nifti, serve, wait_until
from tests.support.dicom import Phantom, as_bytes, write_series

ANSWER = {"domain": "drawn", "version": 1, "volumes_mm3": {"left-hippocampus": 8.0}}


@pytest.fixture
def api(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Api]:
    data = tmp_path / "service"
    settings = Settings(database_url=database_url, redis_url=redis_url, data_dir=data)
    with serve(settings) as running:
        wait_until(lambda: running.client(None).get("/readyz").status_code == 200)
        running.make_keys()
        running.add_domain()
        yield running


def segment(url: str, key: str, *arguments: str | Path) -> Result:
    words = ["segment", *map(str, arguments), "--url", url, "--key", key]
    return CliRunner().invoke(app, words, env={"COLUMNS": "160", "NO_COLOR": "1"})


@pytest.fixture
def run(api: Api, tmp_path: Path):
    """Segment into one folder; a name stands for what lies in the test's folder."""

    def run(*arguments: str) -> Result:
        words = [tmp_path / word if (tmp_path / word).exists() else word for word in arguments]
        return segment(api.url, api.keys[Role.SEGMENT], *words, "-o", tmp_path / "out")

    return run


def write_scan(path: Path, size: int = 10) -> Path:
    """A scan with a bright cube of so many voxels' edge, which its labels show."""
    data = np.zeros((40, 40, 40), np.float32)
    data[5 : 5 + size, 10:30, 10:30] = 100
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(("mgz", "mgh")):
        nib.save(nib.MGHImage(data, np.diag([2.0, 2, 2, 1])), path)
    else:
        path.write_bytes(nifti(data))
    return path


def size_in(labels: Path) -> int:
    """The edge of the cube in labels."""
    return int(np.asarray(nib.load(labels).dataobj).any(axis=(1, 2)).sum())


def written(tmp_path: Path) -> dict[str, int]:
    """The labels there are, with the cube's edge in each."""
    return {path.name: size_in(path) for path in sorted((tmp_path / "out").glob("*.nii.gz"))}


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_patients_whose_files_share_a_name_are_told_apart_in_one_call(run, tmp_path):
    for number in (1, 2, 3):
        write_scan(tmp_path / f"sub-0{number}" / "mri" / "T1.mgz", 10 + number)
    ended = run("sub-01/mri/T1.mgz", "sub-02", "sub-03")
    assert ended.exit_code == 0, ended.output
    assert written(tmp_path) == {f"sub-0{n}_mri_T1_labels.nii.gz": 10 + n for n in (1, 2, 3)}
    assert "3 written" in ended.stdout


def test_patients_whose_files_share_a_name_are_told_apart_in_calls_of_their_own(run, tmp_path):
    for number in (1, 2, 3):
        write_scan(tmp_path / f"sub-0{number}" / "mri" / "T1.mgz", 10 + number)
        assert run(f"sub-0{number}/mri/T1.mgz").exit_code == 0
    assert written(tmp_path) == {
        "T1_labels.nii.gz": 11,
        "sub-02_mri_T1_labels.nii.gz": 12,
        "sub-03_mri_T1_labels.nii.gz": 13,
    }
    table = rows(tmp_path / "out" / "volumes.csv")
    assert [(row["source"], row["labels"]) for row in table] == [
        (str(tmp_path / "sub-01/mri/T1.mgz"), "T1_labels.nii.gz"),
        (str(tmp_path / "sub-02/mri/T1.mgz"), "sub-02_mri_T1_labels.nii.gz"),
        (str(tmp_path / "sub-03/mri/T1.mgz"), "sub-03_mri_T1_labels.nii.gz"),
    ]
    volumes = [float(row["left-hippocampus_mm3"]) for row in table]
    assert volumes == [20 * 20 * 8.0 * n for n in (11, 12, 13)]


def test_names_of_bids_stay_as_they_are(run, tmp_path):
    for name in ("sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_ses-1_T1w"):
        subject, session, _ = name.split("_")
        write_scan(tmp_path / "bids" / subject / session / "anat" / f"{name}.nii.gz")
    assert run("bids").exit_code == 0
    assert list(written(tmp_path)) == [
        "sub-01_ses-1_T1w_labels.nii.gz",
        "sub-01_ses-2_T1w_labels.nii.gz",
        "sub-02_ses-1_T1w_labels.nii.gz",
    ]


def test_a_scan_that_has_labels_is_skipped_and_the_rest_is_done(run, api, tmp_path):
    write_scan(tmp_path / "scans" / "a.nii.gz", 11)
    run("scans")
    write_scan(tmp_path / "scans" / "a.nii.gz", 15)
    write_scan(tmp_path / "scans" / "b.nii.gz", 12)
    ended = run("scans")
    assert ended.exit_code == 0
    assert "1 written, 1 skipped" in ended.stdout
    said = next(line for line in ended.stdout.splitlines() if line.startswith("skipped"))
    assert str(tmp_path / "scans" / "a.nii.gz") in said
    assert "by drawn version 1; --overwrite segments it again" in said
    assert written(tmp_path) == {"a_labels.nii.gz": 11, "b_labels.nii.gz": 12}
    assert api.core.segmentations.traffic("drawn").count == 2


def test_overwriting_replaces_the_scans_own_labels_and_the_last_row_counts(run, tmp_path):
    write_scan(tmp_path / "one" / "T1.nii", 11)
    write_scan(tmp_path / "two" / "T1.nii", 12)
    run("one/T1.nii")
    run("two/T1.nii")
    write_scan(tmp_path / "two" / "T1.nii", 16)
    assert run("two/T1.nii", "--overwrite").exit_code == 0
    assert written(tmp_path) == {"T1_labels.nii.gz": 11, "two_T1_labels.nii.gz": 16}
    table = rows(tmp_path / "out" / "volumes.csv")
    assert [row["labels"] for row in table] == [
        "T1_labels.nii.gz", "two_T1_labels.nii.gz", "two_T1_labels.nii.gz"
    ]  # fmt: skip
    assert float(table[-1]["left-hippocampus_mm3"]) == 16 * 20 * 20 * 8.0


def test_labels_that_nobody_knows_the_scan_of_are_never_touched(run, tmp_path):
    stranger = tmp_path / "out" / "T1_labels.nii.gz"
    stranger.parent.mkdir()
    stranger.write_bytes(b"another patient's")
    write_scan(tmp_path / "sub-01" / "T1.nii", 11)
    for more in ((), ("--overwrite",)):
        assert run("sub-01", *more).exit_code == 0
        assert stranger.read_bytes() == b"another patient's"
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        "T1_labels.nii.gz",
        "sub-01_T1_labels.nii.gz",
    ]


def test_labels_that_were_deleted_are_made_again_under_their_name(run, tmp_path):
    write_scan(tmp_path / "a" / "T1.nii", 11)
    write_scan(tmp_path / "b" / "T1.nii", 12)
    run("a", "b")
    (tmp_path / "out" / "a_T1_labels.nii.gz").unlink()
    assert "1 written, 1 skipped" in run("a", "b").stdout
    assert written(tmp_path) == {"a_T1_labels.nii.gz": 11, "b_T1_labels.nii.gz": 12}


def test_a_failed_scan_is_named_with_its_reason_and_the_others_are_done(run, tmp_path):
    write_scan(tmp_path / "scans" / "a.nii.gz", 11)
    (tmp_path / "scans" / "b.nii.gz").write_bytes(b"Dear radiologist")
    (tmp_path / "scans" / "c.nii.gz").symlink_to("nowhere")
    write_scan(tmp_path / "scans" / "d.nii.gz", 12)
    (tmp_path / "empty").mkdir()
    ended = run("scans", "empty")
    assert ended.exit_code == 1
    assert written(tmp_path) == {"a_labels.nii.gz": 11, "d_labels.nii.gz": 12}
    assert "2 written, 3 failed" in ended.stdout
    failed = [line for line in ended.stdout.splitlines() if line.startswith("failed")]
    assert any("b.nii.gz: The file is neither NIfTI nor MGH" in line for line in failed)
    assert any("(415 unknown_file_kind)" in line for line in failed)
    assert any("c.nii.gz: No such file" in line for line in failed)
    assert any("empty: the folder holds no scan" in line for line in failed)
    assert "b.nii.gz" in ended.stderr


def test_a_refused_key_ends_the_call_at_the_first_scan(api, tmp_path):
    for name in "abc":
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
    ended = segment(api.url, "nb_no_key", tmp_path / "scans", "-o", tmp_path / "out")
    assert ended.exit_code == 1
    assert "1 failed, 2 not tried" in ended.stdout
    assert ended.stderr.count("normbank:") == 1


def test_no_service_ends_the_call_at_the_first_scan(tmp_path):
    for name in "ab":
        write_scan(tmp_path / f"{name}.nii.gz")
    ended = segment("http://127.0.0.1:9", "x", tmp_path, "-o", tmp_path / "out")
    assert ended.exit_code == 1
    assert "1 failed, 1 not tried" in ended.stdout
    assert "`normbank up` starts one" in ended.stderr


def test_a_table_of_an_older_layout_stays_as_it_is(run, tmp_path):
    table = tmp_path / "out" / "volumes.csv"
    table.parent.mkdir()
    table.write_text("scan,left-hippocampus_mm3\r\nT1,3912.0\r\n")
    before = table.read_bytes()
    write_scan(tmp_path / "a.nii")
    write_scan(tmp_path / "b.nii")
    ended = run("a.nii")
    assert "volumes_2.csv; volumes.csv has other columns and stays as it is" in ended.stdout
    run("b.nii")
    assert table.read_bytes() == before
    assert [Path(row["source"]).name for row in rows(table.with_name("volumes_2.csv"))] == [
        "a.nii",
        "b.nii",
    ]
    assert "2 skipped" in run("a.nii", "b.nii").stdout


def test_names_with_brackets_and_bytes_that_are_no_text_are_written_and_shown(run, tmp_path):
    scans = [
        write_scan(tmp_path / "scans" / "[T1] Müller; 2.nii"),
        write_scan(Path(os.fsdecode(bytes(tmp_path) + b"/scans/M\xfcller.nii"))),
    ]
    ended = run("scans")
    assert ended.exit_code == 0, ended.output
    assert "[T1] Müller; 2.nii" in ended.stdout
    assert set(read_records(tmp_path / "out")) == set(scans)
    assert "2 skipped" in run("scans").stdout


# What a folder holds


def test_a_folder_is_searched_for_images_alone_in_sorted_order(tmp_path):
    wanted = ["a/x.MGH", "a/z.nii", "b.nii.gz", "c.mgz", "d/e/f/g.nii"]
    others = [
        "._b.nii.gz", ".hidden/x.nii", "a/x.json", "b_labels.nii.gz", "notes.txt", "z.nii.gz.part"
    ]  # fmt: skip
    for name in [*wanted, *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    selection = find_scans([tmp_path])
    assert [str(scan.relative_to(tmp_path)) for scan in selection.scans] == wanted
    assert selection.problems == []


def test_files_and_folders_mix_and_no_scan_is_taken_twice(tmp_path, monkeypatch):
    for name in ("a/1.nii", "a/2.nii", "b_labels.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    named = [Path("a/2.nii"), Path("a"), Path("a/../a/1.nii"), Path("b_labels.nii.gz")]
    selection = find_scans(named)
    assert selection.scans == [
        tmp_path / name for name in ("a/2.nii", "a/1.nii", "b_labels.nii.gz")
    ]


def test_links_in_a_circle_are_harmless_and_real_folders_name_their_scans(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "deep" / "x.nii").touch()
    (tmp_path / "sub" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "also").symlink_to(tmp_path / "sub")
    assert find_scans([tmp_path]).scans == [tmp_path / "sub" / "deep" / "x.nii"]
    assert find_scans([tmp_path / "also"]).scans[0] == tmp_path / "also" / "deep" / "x.nii"


# Names


@pytest.mark.parametrize(
    ("scan", "others", "name"),
    [
        ("/d/T1.nii", [], "T1"),
        ("/d/s1/mri/T1.mgz", ["/d/s2/mri/T1.mgz"], "s1_mri_T1"),
        ("/d/s1/mri/T1.mgz", ["/d/s2/mri/t1.MGZ"], "s1_mri_T1"),
        ("/d/s1/mri/T1.mgz", ["/d/s1/mri/T1.nii"], "T1.mgz"),
        ("/d/s1/T1.mgz", ["/d/s1/T1.nii", "/d/s2/T1.mgz", "/d/s2/T1.nii"], "s1_T1.mgz"),
        ("/T1.nii", ["/d/T1.nii"], "T1.nii_"),
        ("/d/.cache/.x.nii", ["/e/.x.nii"], "cache_.x"),
    ],
)
def test_a_name_has_as_much_of_the_path_as_it_takes(scan, others, name):
    first = next(distinct_names(Path(scan), [Path(other) for other in others]))
    assert first == name or (name == "T1.nii_" and first.startswith("T1_"))


def test_a_name_is_never_too_long_for_a_file_system(tmp_path):
    scan = Path("/", *["x" * 150] * 5, "T1.nii")
    others = [Path("/other", *scan.parts[2:])]
    for name in distinct_names(scan, others):
        assert len(name.encode()) <= 200


def test_folders_that_only_look_alike_once_joined_get_names_of_their_own(tmp_path):
    scans = [Path("/d/a/b_T1.nii"), Path("/d/a_b/T1.nii"), Path("/e/T1.nii"), Path("/b/T1.nii")]
    results = ResultsFolder(tmp_path, scans)
    labels = [results.add(scan, b"x", ANSWER)[0].name for scan in scans]
    assert len({name.casefold() for name in labels}) == len(scans)


def test_calls_side_by_side_take_no_name_twice_and_tear_no_row(tmp_path):
    scans = [Path(f"/d/s{number}/T1.nii") for number in range(40)]

    def add(scan: Path) -> str:
        folder = ResultsFolder(tmp_path, [scan])  # each knows only of its own scan
        return folder.add(scan, str(scan).encode(), ANSWER)[0].name

    with ThreadPoolExecutor(8) as pool:
        labels = list(pool.map(add, scans))
    assert len(set(labels)) == len(scans)
    for scan, name in zip(scans, labels, strict=True):
        assert (tmp_path / name).read_bytes() == str(scan).encode()
    assert len(rows(tmp_path / "volumes.csv")) == len(scans)
    assert not list(tmp_path.glob(".*.part"))


# volumes.csv


def test_flags_are_joined_by_their_codes(tmp_path):
    flags = [{"code": "partial_head", "severity": "warning", "detail": "x"},
             {"code": "no_left_caudate", "severity": "severe", "detail": "y"}]  # fmt: skip
    append_row(tmp_path, "a_labels.nii.gz", Path("/a.nii"), {**ANSWER, "flags": flags})
    append_row(tmp_path, "b_labels.nii.gz", Path("/b.nii"), ANSWER)
    table = rows(tmp_path / "volumes.csv")
    assert tuple(table[0])[: len(COLUMNS)] == COLUMNS
    assert [row["flags"] for row in table] == ["partial_head;no_left_caudate", ""]


def test_a_structure_that_the_table_has_no_column_for_goes_to_another_table(tmp_path):
    append_row(tmp_path, "a", Path("/a.nii"), ANSWER)
    more = {**ANSWER, "volumes_mm3": {"left-hippocampus": 1.0, "left-claustrum": 2.0}}
    assert append_row(tmp_path, "b", Path("/b.nii"), more).name == "volumes_2.csv"
    assert append_row(tmp_path, "c", Path("/c.nii"), ANSWER).name == "volumes.csv"
    assert set(read_records(tmp_path)) == {Path(f"/{name}.nii") for name in "abc"}


def test_a_row_that_broke_off_spoils_none_after_it(tmp_path):
    append_row(tmp_path, "a", Path("/a.nii"), ANSWER)
    with (tmp_path / "volumes.csv").open("a") as file:
        file.write("/b.nii,b_lab")
    append_row(tmp_path, "c", Path("/c.nii"), ANSWER)
    assert list(read_records(tmp_path)) == [Path("/a.nii"), Path("/c.nii")]


def test_a_row_that_names_a_file_elsewhere_is_not_followed(tmp_path):
    append_row(tmp_path, "../precious.nii.gz", Path("/a.nii"), ANSWER)
    labels, _ = ResultsFolder(tmp_path, []).add(Path("/a.nii"), b"x", ANSWER)
    assert labels.parent == tmp_path


# Flags

FLAGS = [
    {"code": "sides", "severity": "severe", "structure": "caudate", "detail": "Left is missing."},
    {"code": "noisy", "severity": "info", "detail": "The scan is noisy."},
]
IMPLAUSIBLE = {"status": 422, "code": "implausible", "detail": "Not plausible.", "flags": FLAGS}


class FlaggingService(BaseHTTPRequestHandler):
    """Answers every scan as a service does that holds its labels for implausible."""

    received: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        accepted = self.path.endswith("?accept=doubtful")
        answer = {**ANSWER, "id": "1", "flags": FLAGS} if accepted else IMPLAUSIBLE
        self.answer(200 if accepted else 422, json.dumps(answer).encode())

    def do_GET(self) -> None:
        self.answer(200, nifti())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def flagging_service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), FlaggingService) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_implausible_labels_are_refused_with_their_flags_in_words_until_they_are_accepted(
    tmp_path,
):
    scan = write_scan(tmp_path / "a.nii")
    with flagging_service() as url:
        refused = segment(url, "key", scan, "-o", tmp_path / "out")
        accepted = segment(url, "key", scan, "-o", tmp_path / "out", "--accept-doubtful")
    assert refused.exit_code == 1
    for sentence in (
        "Not plausible. (422 implausible)",
        "severe: caudate: Left is missing. (sides)",
        "info: The scan is noisy. (noisy)",
        "--accept-doubtful takes the labels with these flags",
    ):
        assert sentence in refused.stdout
        assert sentence in refused.stderr
    assert accepted.exit_code == 0
    assert "severe: caudate: Left is missing. (sides)" in accepted.stdout
    assert rows(tmp_path / "out" / "volumes.csv")[0]["flags"] == "sides;noisy"


def test_no_name_of_a_file_or_a_folder_is_sent(tmp_path):
    scan = write_scan(tmp_path / "Kanarienvogel" / "Kanarienvogel.nii")
    sidecar = tmp_path / "Kanarienvogel.json"
    sidecar.write_text('{"Manufacturer": "Siemens"}')
    FlaggingService.received.clear()
    with flagging_service() as url:
        segment(url, "key", scan, "--sidecar", sidecar, "-o", tmp_path / "out")
    assert b"Siemens" in FlaggingService.received[0]
    assert b"Kanarienvogel" not in FlaggingService.received[0]


def test_the_help_says_what_the_table_holds_and_what_accepts_doubtful_labels():
    text = CliRunner().invoke(app, ["segment", "--help"], env={"COLUMNS": "200"}).stdout
    for words in ("--accept-doubtful", "--overwrite", "the last one counts", "volumes.csv"):
        assert words in text


def test_series_of_dicom_files_are_scans_whatever_the_files_are_called(tmp_path: Path) -> None:
    alone, both = tmp_path / "sub-01" / "mprage", tmp_path / "sub-02"
    write_series(Phantom().images(), alone)
    (alone / "LICENSE").write_bytes(b"You may copy this.\n")
    first, second = Phantom().images(), Phantom(series="2").images()
    for image in second:
        image.SeriesNumber = 12
    write_series(first, both)
    for number, image in enumerate(second):
        (both / f"other-{number}").write_bytes(as_bytes(image))
    selection = find_scans([tmp_path])
    assert selection.scans == [alone, both / "series-12", both / "series-7"]
    assert {scan: len(files) for scan, files in selection.series.items()} == dict.fromkeys(
        selection.scans, 16
    )
    with zipped(selection.series[alone]) as packed, zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == [str(number) for number in range(16)]
        assert archive.read("0") in {path.read_bytes() for path in alone.iterdir()}

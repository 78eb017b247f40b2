"""`normbank segment`: scans in, labels and volumes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.client import DEFAULT_URL, ApiError, Client, ClientError
from cli.options import Data, Key, Url, open_client
from cli.output.results import ResultsFolder
from cli.output.segmentation import (
    SegmentReport,
    print_report,
    print_segmentation,
    scan_progress,
    shown,
)
from cli.output.terminal import fail, note
from cli.scans import ScanSelection, find_scans

REFUSED_KEY = (401, 403)


def segment(
    scans: Annotated[
        list[Path],
        typer.Argument(
            exists=True, help="NIfTI (.nii, .nii.gz), MGH (.mgz, .mgh), DICOM, or folders."
        ),
    ],
    domain: Annotated[str, typer.Option(help="Domain id, or `auto`.")] = "auto",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the labels.")] = Path(),
    sidecar: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="BIDS JSON with the header's facts."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Segment again what has labels, over them.")
    ] = False,
    accept_doubtful: Annotated[
        bool,
        typer.Option(
            "--accept-doubtful",
            help="Take labels that the service holds for implausible, with their flags.",
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Segment scans: one NAME_labels.nii.gz each, and a row in volumes.csv.

    Folders are searched to any depth, for DICOM series too, which go by their folders. NAME is
    the scan's, after as many of its folders as tell it from other scans, in this call or an
    earlier one: sub-01_mri_T1_labels.nii.gz. A scan that has labels is skipped, unless
    --overwrite; other files are never touched.

    volumes.csv holds the scan's full path, the labels' file, domain, version, flags and mm³ of
    each structure. Rows are only added: of several for one scan, the last one counts.

    The exit code is 1 when a scan failed; the others are segmented nevertheless.
    """
    selection = find_scans(scans)
    report = SegmentReport(failed=list(selection.problems))
    parameters = {"accept": "doubtful"} if accept_doubtful else {}
    with open_client(url, key, data) as client:
        results = _open_results(output, selection)
        batch = _Batch(
            client, results, domain, sidecar, overwrite, parameters, report, selection.series
        )
        try:
            batch.run(selection)
        finally:
            print_report(report)
    if report.failed:
        raise typer.Exit(1)


def _open_results(output: Path, selection: ScanSelection) -> ResultsFolder:
    try:
        return ResultsFolder(output, selection.scans)
    except OSError as error:
        fail(f"the folder {shown(output)} cannot be used: {error.strerror}")


@dataclass(frozen=True)
class _Batch:
    """The scans of a call, one after another.

    Attributes
    ----------
    parameters : of each request's query
    report : what is told of each scan
    series : files of the scans that are DICOM series
    """

    client: Client
    results: ResultsFolder
    domain: str
    sidecar: Path | None
    overwrite: bool
    parameters: dict[str, str]
    report: SegmentReport
    series: dict[Path, tuple[Path, ...]]

    def run(self, selection: ScanSelection) -> None:
        """Segment what has no labels yet, up to a failure that all would share."""
        with scan_progress() as progress:
            bar = progress.add_task("", total=len(selection.scans))
            for number, scan in enumerate(selection.scans):
                progress.update(bar, completed=number, description=shown(Path(scan.name)))
                if self._is_done(scan):
                    continue
                try:
                    labels, segmentation = self._segment(scan)
                except (ClientError, OSError) as error:
                    self._fail(scan, error)
                    if _is_shared(error):
                        self.report.not_tried.extend(selection.scans[number + 1 :])
                        return
                else:
                    print_segmentation(progress.console, scan, labels, segmentation)
            progress.update(bar, completed=len(selection.scans), description="")

    def _is_done(self, scan: Path) -> bool:
        """Whether a scan is to be skipped, which the report then says."""
        done = None if self.overwrite else self.results.done(scan)
        if done is None:
            return False
        labels, record = done
        why = (
            f"{shown(labels)} is there, by {record.domain} version {record.version}; "
            "--overwrite segments it again"
        )
        self.report.skipped.append((scan, why))
        return True

    def _segment(self, scan: Path) -> tuple[Path, dict[str, object]]:
        """Segment a scan and write what comes of it."""
        files = self.series.get(scan, scan)
        segmentation = self.client.segment(
            files, self.domain, sidecar=self.sidecar, **self.parameters
        )
        content = self.client.labels(segmentation["id"])
        labels, table = self.results.add(scan, content, segmentation)
        self.report.written.append((scan, labels))
        self.report.tables.add(table)
        return labels, dict(segmentation)

    def _fail(self, scan: Path, error: Exception) -> None:
        why = str(error.strerror or error) if isinstance(error, OSError) else str(error)
        if isinstance(error, ApiError) and error.code == "implausible":
            why += "\n  --accept-doubtful takes the labels with these flags"
        note(f"normbank: {shown(scan)}: {why}")
        self.report.failed.append((scan, why))


def _is_shared(error: Exception) -> bool:
    """Whether the next scans would fail likewise: no service, or a key it refuses."""
    if isinstance(error, ApiError):
        return error.status in REFUSED_KEY
    return isinstance(error, ClientError)

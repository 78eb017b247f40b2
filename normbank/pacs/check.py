"""Every step of the way to a PACS, tried one after another, in words."""

from __future__ import annotations

import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from normbank.errors import NormbankError, PacsUnreachableError
from normbank.imaging.scan import Limits
from normbank.pacs.changes import OrthancChanges, open_source
from normbank.pacs.client import PacsClient
from normbank.pacs.config import Pacs
from normbank.pacs.query import FoundSeries
from normbank.pacs.routes import choose

LOOKED_AT = 50
ROUTED = 10


@dataclass(frozen=True, slots=True)
class Step:
    """How one step went.

    Attributes
    ----------
    name : of the step
    ok : None: it was left out
    said : what was found, or what is wrong and what to do
    """

    name: str
    ok: bool | None
    said: str


def check_pacs(pacs: Pacs, limits: Limits, *, store: bool = False) -> Iterator[Step]:
    """Walk the way to a PACS and back; ends at the first step that fails.

    Parameters
    ----------
    store : also store a tiny picture of nobody, in a study of its own, and find it again
    """
    found: list[FoundSeries] = []
    with PacsClient(pacs, limits) as client:
        steps: list[tuple[str, Callable[[], str | None]]] = [
            ("connection", lambda: _connect(pacs)),
            ("query (QIDO-RS)", lambda: _query(client, found)),
            ("retrieve (WADO-RS)", lambda: _retrieve(client, found)),
            ("routes", lambda: _routes(client, found)),
            ("follow", lambda: _follow(client)),
            ("store (STOW-RS)", lambda: _store(client) if store else None),
        ]
        for name, work in steps:
            try:
                said = work()
            except NormbankError as error:
                yield Step(name, False, f"{error} ({error.code})")
                return
            yield Step(name, None if said is None else True, said or _LEFT_OUT[name])


_LEFT_OUT = {
    "retrieve (WADO-RS)": "not tried: the PACS has no MR series yet",
    "routes": "not tried: the PACS has no MR series yet",
    "store (STOW-RS)": "not tried: it would leave something there; --store tries it",
}


def _connect(pacs: Pacs) -> str:
    url = urlsplit(pacs.dicomweb_url)
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    except OSError as error:
        raise PacsUnreachableError(
            f"The host '{host}' has no address: look at dicomweb_url, and at the name server."
        ) from error
    try:
        socket.create_connection((host, port), timeout=pacs.connect_timeout_s).close()
    except OSError as error:
        raise PacsUnreachableError(
            f"{host} ({address[0]}) takes no connection at port {port}: does the PACS run, is "
            "the port right, is there a firewall between?"
        ) from error
    secret = "TLS will be asked for" if url.scheme == "https" else "without TLS"
    return f"{host} ({address[0]}) takes connections at port {port}, {secret}"


def _query(client: PacsClient, found: list[FoundSeries]) -> str:
    found.extend(islice(client.find_series({"Modality": "MR"}), LOOKED_AT))
    who = "with the user's credentials" if client.pacs.credentials else "without credentials"
    if not found:
        return f"answers {who}; it lists no MR series"
    many = (
        f"{LOOKED_AT} MR series or more" if len(found) == LOOKED_AT else f"{len(found)} MR series"
    )
    counted = all(one.count is not None for one in found)
    counts = "" if counted else "; it does not say how many instances a series has"
    return f"answers {who}; it lists {many}{counts}"


def _retrieve(client: PacsClient, found: list[FoundSeries]) -> str | None:
    if not found:
        return None
    small = min(found, key=lambda one: one.count or 1000)
    with tempfile.TemporaryDirectory(prefix="normbank-check-") as folder:
        count = client.fetch(small.study, small.series, Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        first = min(Path(folder).iterdir())
        try:
            syntax = dcmread(first, stop_before_pixels=True).file_meta.TransferSyntaxUID.name
        except (InvalidDicomError, AttributeError) as error:
            raise NormbankError(
                "What it sent is no DICOM file: is there a proxy between that changes answers?",
                code="pacs_refused",
            ) from error
    return f"a series of {count} instances came whole, {size / 1e6:.1f} MB, {syntax}"


def _routes(client: PacsClient, found: list[FoundSeries]) -> str | None:
    """How many of the series that are there would be taken, and why others would not."""
    taken, reasons, looked_at = 0, Counter[str](), found[:ROUTED]
    for one in looked_at:
        instances = client.instances(one.study, one.series)
        if instances:
            facts = client.header(one.study, one.series, instances[0])
            choice = choose(client.pacs, facts, len(instances))
            taken += choice.route is not None
            reasons.update([choice.reason] if choice.route is None else [])
    if not looked_at:
        return None
    others = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    left = f"; of the others: {others}" if others else ""
    return f"{taken} of {len(looked_at)} MR series would be segmented{left}"


def _follow(client: PacsClient) -> str:
    source = open_source(client)
    if isinstance(source, OrthancChanges):
        how = "by Orthanc's list of changes"
    else:
        days = client.pacs.watch_days
        how = f"by queries for studies of the last {days} days" if days else "by queries"
    if client.pacs.watch:
        return f"the listener follows it {how}, every {client.pacs.poll_s:g} s"
    return f"could be followed {how}; the file does not say watch = true"


def _store(client: PacsClient) -> str:
    picture = tiny_picture()
    client.store(str(picture.StudyInstanceUID), [picture])
    return (
        "stored a tiny picture and found it again; delete the study of patient NORMBANK^TEST, "
        f"study UID {picture.StudyInstanceUID}"
    )


def tiny_picture() -> Dataset:
    """A secondary capture of 8 x 8 pixels, of nobody, in a study of its own."""
    picture = Dataset()
    picture.file_meta = FileMetaDataset()
    picture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    picture.SOPClassUID, picture.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    picture.StudyInstanceUID, picture.SeriesInstanceUID = generate_uid(), generate_uid()
    picture.PatientName, picture.PatientID = "NORMBANK^TEST", "NORMBANK-TEST"
    picture.PatientBirthDate = picture.PatientSex = picture.AccessionNumber = ""
    picture.StudyDate = picture.StudyTime = picture.StudyID = picture.ReferringPhysicianName = ""
    picture.StudyDescription = "Test of a connection by normbank, to be deleted"
    picture.Modality, picture.ConversionType = "OT", "SYN"
    picture.SeriesNumber = picture.InstanceNumber = 1
    picture.Rows = picture.Columns = 8
    picture.SamplesPerPixel, picture.PhotometricInterpretation = 1, "MONOCHROME2"
    picture.BitsAllocated = picture.BitsStored = 8
    picture.HighBit, picture.PixelRepresentation = 7, 0
    picture.PixelData = bytes(64)
    return picture

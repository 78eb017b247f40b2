"""`normbank demo`: the main job from end to end, on anatomy that packages bring."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import numpy.typing as npt
import typer

from cli.client import Client, ClientError
from cli.local.bootstrap import ADMIN_KEY
from cli.local.processes import child_environment, end_with_parent, log_tail, python
from cli.output.adaptation import follow_job, print_adaptation
from cli.output.files import scan_name
from cli.output.tables import change_table, table, volumes_table
from cli.output.terminal import console, fail
from normbank.anatomy import STRUCTURES, labels_to_classes
from normbank.entities import JobState

NEW_DOMAIN = "new-scanner"
CASES = 4
SEED = 7
# A light recipe: a demonstration on two cores has two minutes, not twenty.
RECIPE = {
    "seed": SEED,
    "steps": 60,
    "batch_size": 4,
    "validate_every": 20,
    "slice_stride": 8,
}
TEMPLATE_NOTE = (
    "The scan is the MNI152 T1 template (ICBM 2009a): an average of 152 people, skull-stripped. "
    "No single person looks like it, and its edges are softer than a scan's."
)

_nibabel: Any = nibabel  # it has no types for what is used here


@dataclass(frozen=True)
class LabelledFiles:
    """Files of a simulated person: scan and labels."""

    scan: Path
    labels: Path


def demo(
    scan: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A scan of yours; else the MNI template."),
    ] = None,
    domain: Annotated[str, typer.Option(help="The domain that segments it.")] = "sim-t1w-3t",
    out: Annotated[Path, typer.Option(help="Where labels and picture go.")] = Path("out"),
) -> None:
    """Segment a real scan, teach the service a new scanner, prove that nothing else changed."""
    out.mkdir(parents=True, exist_ok=True)
    steps = _Steps()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        steps.begin("starting PostgreSQL, Valkey, the API and a worker")
        with _service(out) as client:
            scan = scan or _template_scan(out)
            steps.begin(f"1. POST /segment: {scan.name}, domain {domain}")
            fingerprints = {domain: _segment_and_show(client, scan, domain, out)}
            _learn_and_prove(client, scan, out, fingerprints, steps)
            steps.begin("ending the service")
    except ClientError as error:
        fail(str(error))
    console().print(table("Where the time went", ("step", "s"), steps.seconds()))
    _say(f"done in {steps.total_s:.0f} s; see {out}/")


class _Steps:
    """Stopwatch of the demo's steps."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def begin(self, words: str) -> None:
        """Print a step's title and end the one before."""
        self._begun.append((words, time.monotonic()))
        console().print(f"\n[bold]{words}[/bold]")

    def seconds(self) -> list[tuple[str, str]]:
        """Whole seconds of every step, the last one until now."""
        ends = [began for _, began in self._begun[1:]] + [time.monotonic()]
        steps = zip(self._begun, ends, strict=True)
        return [(words, f"{end - began:.0f}") for (words, began), end in steps]

    @property
    def total_s(self) -> float:
        return time.monotonic() - self._begun[0][1]


def _segment_and_show(client: Client, scan: Path, domain: str, out: Path) -> str:
    """Segment one scan, write labels and picture; returns the sha256 of its logits."""
    # Imported here because matplotlib is an extra.
    from cli.output.overlay import draw_overlay

    segmentation = client.segment(scan, domain, certify="true")
    labels, picture = out / f"{scan_name(scan)}_labels.nii.gz", out / f"{scan_name(scan)}.png"
    labels.write_bytes(client.labels(segmentation["id"]))
    title = f"{scan.name}: {segmentation['domain']} version {segmentation['version']}"
    console().print(volumes_table(title, segmentation["volumes_mm3"]))
    draw_overlay(scan, labels, picture, f"{title}; the patient's right is on the left")
    _say(f"{segmentation['timings_s'].get('total', 0):.0f} s; labels {labels}, picture {picture}")
    return str(segmentation["quality"]["logits_sha256"])


def _learn_and_prove(
    client: Client, scan: Path, out: Path, before: dict[str, str], steps: _Steps
) -> None:
    """Adapt a new scanner to four cases, and compare the old domains before and after.

    Parameters
    ----------
    before : fingerprints that are known already; the others are added
    """
    old = [domain["id"] for domain in client.items("/domains")]
    steps.begin(f"2. Fingerprints of the {len(old)} old domains on {scan.name}, before")
    for domain in old:
        before[domain] = before.get(domain) or _fingerprint(client, scan, domain)
    steps.begin(f"3. POST /domains: a new scanner, {CASES} labelled cases (simulated)")
    *cases, held_out = _write_cases(out / "cases", CASES + 1)
    fields = {
        "id": NEW_DOMAIN,
        "name": "New scanner (simulated)",
        "label_scheme": "freesurfer",
        # Said in full, because CSF would be left out: most protocols draw only part of it.
        "structures": ",".join(STRUCTURES[1:]),
    }
    client.send_cases(
        "/domains",
        fields,
        [case.scan for case in cases],
        [case.labels for case in cases],
        accept_doubtful=True,
    )
    steps.begin(f"4. POST /domains/{NEW_DOMAIN}/adapt: the worker learns")
    parent = _adapt(client)
    steps.begin("5. A fifth person on the new scanner, whom nobody has seen")
    _show_held_out(client, held_out, parent)
    steps.begin(f"6. The old domains on {scan.name}, after")
    _show_proof(before, {domain: _fingerprint(client, scan, domain) for domain in old})


def _adapt(client: Client) -> str:
    """Adapt the new domain and print its scores; returns the domain that it started from."""
    job = follow_job(client, client.adapt(NEW_DOMAIN, RECIPE)["id"])
    if job["state"] != JobState.SUCCEEDED:
        fail(f"the adaptation {job['state']}: {(job.get('error') or {}).get('detail', '')}")
    print_adaptation(client, NEW_DOMAIN, job)
    newest = client.get(f"/domains/{NEW_DOMAIN}/versions")["items"][-1]
    return str(newest["parent"]).partition("@")[0]


def _show_held_out(client: Client, case: LabelledFiles, parent: str) -> None:
    """Dice of the nearest old domain and of the new one, for one unseen person."""
    truth = _classes(case.labels, "freesurfer")
    scores = {}
    for domain in (parent, NEW_DOMAIN):
        labels = case.scan.with_name(f"labels-{domain}.nii.gz")
        labels.write_bytes(
            client.labels(client.segment(case.scan, domain, accept="doubtful")["id"])
        )
        scores[domain] = _dice(_classes(labels, "normbank"), truth)
    before, after = scores[parent], scores[NEW_DOMAIN]
    means = (sum(before.values()) / len(before), sum(after.values()) / len(after))
    title = f"Dice on the unseen person: {parent} (nearest old domain) → {NEW_DOMAIN}"
    console().print(change_table(title, before, after, means))


def _show_proof(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Print every old domain's fingerprints; ends the command if one has changed."""
    rows = [
        (domain, sha256[:16], after[domain][:16], "equal" if after[domain] == sha256 else "CHANGED")
        for domain, sha256 in before.items()
    ]
    title = "Old domains: sha256 of all logits of the scan"
    console().print(table(title, ("domain", "before", "after", ""), rows))
    if dict(before) != dict(after):
        fail("an old domain's output has changed")
    _say("the old domains' outputs did not change by one bit")


def _fingerprint(client: Client, scan: Path, domain: str) -> str:
    """sha256 of the logits that a domain gives for a scan."""
    # A domain of another contrast sees no anatomy here: its answer is asked for all the same.
    segmentation = client.segment(scan, domain, accept="doubtful", certify="true")
    return str(segmentation["quality"]["logits_sha256"])


@contextmanager
def _service(out: Path) -> Iterator[Client]:
    """Run `normbank up` on a free port with a temporary data folder."""
    with tempfile.TemporaryDirectory(dir=out, prefix="service-") as folder:
        data, log = Path(folder) / "data", Path(folder) / "up.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                python("cli", "up", "--data", str(data), "--port", "0"),
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                text=True,
                preexec_fn=end_with_parent(signal.SIGTERM),
            )
        try:
            assert process.stdout is not None
            status, _, url = process.stdout.readline().strip().partition(" ")
            if status != "ready":
                fail(f"the service did not start\n{log_tail(log)}")
            with Client(url, (data / ADMIN_KEY).read_text().strip()) as client:
                yield client
        finally:
            process.terminate()
            process.communicate()


def _environment() -> dict[str, str]:
    """Environment without the databases that the outer one names."""
    outer = ("NORMBANK_DATABASE_URL", "NORMBANK_REDIS_URL", "NORMBANK_BLOB_URL")
    return child_environment(dict.fromkeys(outer, ""))


def _template_scan(out: Path) -> Path:
    # Imported here because only the demo's extra brings the data.
    from simulate.atlas import template

    _say(TEMPLATE_NOTE)
    data, affine = template()
    path = out / "mni152_t1.nii.gz"
    _write_image(data.astype(np.uint8), affine, path)
    return path


def _write_cases(folder: Path, count: int) -> Sequence[LabelledFiles]:
    """Simulate `count` people on the new scanner and write their files."""
    from simulate.atlas import make_cases

    folder.mkdir(exist_ok=True)
    cases = []
    for number, (data, labels, affine) in enumerate(make_cases(count, SEED)):
        case = LabelledFiles(folder / f"scan{number}.nii.gz", folder / f"labels{number}.nii.gz")
        _write_image(np.rint(data).astype(np.int16), affine, case.scan)
        _write_image(labels.astype(np.int16), affine, case.labels)
        cases.append(case)
    return cases


def _classes(labels: Path, scheme: str) -> npt.NDArray[np.uint8]:
    ids = np.asanyarray(_nibabel.load(labels).dataobj).astype(np.int32)
    return labels_to_classes(ids, scheme, STRUCTURES)


def _write_image(data: npt.NDArray[Any], affine: npt.NDArray[np.float64], path: Path) -> None:
    _nibabel.save(_nibabel.Nifti1Image(data, affine), path)


def _dice(answer: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Dice of the evaluated structures, both sides together."""
    # Imported here because SciPy takes half a second, of every other command too.
    from normbank.imaging.metrics import dice_by_structure

    return {name: of or 0.0 for name, of in dice_by_structure(answer, truth, STRUCTURES).items()}


def _say(words: str) -> None:
    console().print(words, markup=False, soft_wrap=True)
    sys.stdout.flush()

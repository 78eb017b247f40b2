"""Mutated requests to a running service.

    python -m bench.chaos.requests [--requests 3000] [--seed 0]

Starts a service of its own. Each request is a sound one of `TEMPLATES` with some bytes of
its body, a header, its path or its query changed. Prints one JSON line for each template:
how often each status came, and the slowest answer; then one for what was answered 5xx, and
whether the service works afterwards.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx
import nibabel
import numpy as np

from bench.chaos.mutations import Generator, mutated, mutated_gzip
from bench.chaos.service import DOMAIN, Service, running

BOUNDARY = "frontier"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content-Type": "application/json"}
SIDECAR = b'{"Manufacturer": "Siemens", "MagneticFieldStrength": 3, "EchoTime": 0.003}'
MATCH = b'{"Manufacturer": "Siemens", "EchoTime": {"min": 0.001, "max": 0.01}}'
HEADERS = ("Accept", "Prefer", "If-Match", "Idempotency-Key", "Content-Type", "X-Request-Id")
LISTED = 10

_nibabel: Any = nibabel  # it has no types for what is used here


class Template(NamedTuple):
    """A sound request.

    Attributes
    ----------
    parts : of a form, with their file names; empty: `body` is sent as it is
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    parts: tuple[tuple[str, str, bytes], ...] = ()


def thin_image(values: int) -> bytes:
    """A sound file that is no head, so that no network is asked: it is 20 mm thick."""
    data = np.random.default_rng(0).integers(0, values, (20, 60, 60)).astype(np.int16)
    image = _nibabel.Nifti1Image(data, np.diag([1.0, 3.0, 3.0, 1.0]))
    return bytes(image.to_bytes())


SCAN, LABELS = thin_image(1000), thin_image(3)
FIELDS = (("id", "", b"ward-7"), ("label_scheme", "", b"freesurfer"), ("match", "", MATCH))
TEMPLATES = {
    "segment": Template(
        "POST",
        "/segment",
        FORM,
        parts=(
            ("domain", "", DOMAIN.encode()),
            ("sidecar", "", SIDECAR),
            ("scan", "scan.nii", SCAN),
        ),
    ),
    "segment, asynchronous": Template(
        "POST",
        "/segment",
        {**FORM, "Prefer": "respond-async"},
        parts=(("domain", "", DOMAIN.encode()), ("scan", "scan.nii", SCAN)),
    ),
    "new domain": Template(
        "POST",
        "/domains",
        FORM,
        parts=(*FIELDS, ("scans", "s.nii", SCAN), ("labels", "l.nii", LABELS)),
    ),
    "cases": Template(
        "POST",
        f"/domains/{DOMAIN}/cases",
        FORM,
        parts=(("scans", "s.nii", SCAN), ("labels", "l.nii", LABELS)),
    ),
    "import": Template("POST", "/domains/import", FORM, parts=(("pack", "p", SCAN),)),
    "patch": Template(
        "PATCH",
        f"/domains/{DOMAIN}",
        {**JSON, "If-Match": '"1"'},
        b'{"name": "Ward 7", "match": ' + MATCH + b"}",
    ),
    "adapt": Template(
        "POST", f"/domains/{DOMAIN}/adapt", JSON, b'{"steps": 10, "seed": 1, "gate_floor": 0.5}'
    ),
    "domains": Template("GET", "/domains?limit=5&cursor=abc"),
    "metrics": Template("GET", f"/domains/{DOMAIN}/metrics?limit=5"),
    "jobs": Template("GET", "/jobs/0b5a0a7e-9c1f-4a58-8f0e-0d7d5f3f4c11"),
    "labels": Template("GET", "/segmentations/0b5a0a7e-9c1f-4a58-8f0e-0d7d5f3f4c11/labels"),
    "promote": Template("POST", f"/domains/{DOMAIN}/versions/1/promote", {"If-Match": '"1"'}, b""),
}


def form_of(parts: tuple[tuple[str, str, bytes], ...], rng: Generator) -> bytes:
    """A multipart body, the content of one of its parts mutated."""
    chosen = int(rng.integers(len(parts)))
    lines = []
    for number, (name, file, content) in enumerate(parts):
        changed = content
        if number == chosen:
            changed = (
                mutated_gzip(content, rng)
                if file and rng.random() < 0.3
                else (mutated(content, rng))
            )
        file_name = f'; filename="{file}"' if file else ""
        head = f'Content-Disposition: form-data; name="{name}"{file_name}'
        lines += [f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode(), changed, b"\r\n"]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def request_of(template: Template, rng: Generator) -> dict[str, Any]:
    """What to send: one thing about the template is mutated."""
    path, headers, body = template.path, dict(template.headers), template.body
    if template.parts:
        body = form_of(template.parts, rng)
    kind = rng.integers(4)
    if kind == 0 and body:
        body = mutated(body, rng, len(body) if len(body) < 4096 else 512)
    elif kind == 1:
        name = HEADERS[rng.integers(len(HEADERS))]
        value = mutated(headers.get(name, "application/json; q=0.5").encode(), rng, 40)
        headers[name] = "".join(chr(byte) for byte in value if 32 < byte < 127) or "x"
    elif kind == 2:
        changed = mutated(path[1:].encode(), rng, 80)
        path = "/" + "".join(
            f"%{byte:02x}" if rng.random() < 0.2 else chr(byte)
            for byte in changed
            if 32 < byte < 127
        )
    return {"method": template.method, "url": path, "headers": headers, "content": body}


def attack(service: Service, requests: int, seed: int) -> list[dict[str, Any]]:
    """Send them all; what was answered 5xx."""
    rng, failures = np.random.default_rng(seed), []
    key = {"Authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=service.url, headers=key, timeout=120, trust_env=False) as client:
        for name, template in TEMPLATES.items():
            statuses, slowest_s = Counter[str](), 0.0
            for _ in range(requests // len(TEMPLATES) + 1):
                started = time.perf_counter()
                try:
                    answer = client.send(client.build_request(**request_of(template, rng)))
                    statuses[str(answer.status_code)] += 1
                    if answer.status_code >= 500:
                        failures.append({"template": name, "answer": answer.text[:300]})
                except httpx.InvalidURL:
                    statuses["not sendable"] += 1
                except httpx.TransportError as error:
                    statuses[type(error).__name__] += 1
                slowest_s = max(slowest_s, time.perf_counter() - started)
            found = {"template": name, "slowest_s": round(slowest_s, 2), **dict(statuses)}
            print(json.dumps(found), flush=True)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with running() as service:
        failures = attack(service, options.requests, options.seed)
        print(
            json.dumps(
                {
                    "server_errors": len(failures),
                    "first": failures[:LISTED],
                    "works": service.works(),
                    "zombies": service.zombies(),
                }
            )
        )


if __name__ == "__main__":
    main()

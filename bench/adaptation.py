"""A new scanner through the running service: how long each step of its adaptation takes.

    python bench/adaptation.py MANIFEST DOMAIN [--recipe JSON] [--url …] [--key …]

Needs a running service. The manifest is one of `normbank train`; its rows with
the role `adapt` of one domain are sent as a new domain, which is then adapted.
Prints one JSON line: seconds from the request to the published version, and of
every step as the job names them (asked several times a second).
"""

from __future__ import annotations

import argparse
import json
import secrets
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from cli.client import DEFAULT_URL, FINISHED
from cli.options import connect
from training.manifest import read_manifest

ASK_EVERY_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("domain")
    parser.add_argument("--recipe", type=json.loads, default={})
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default="")
    parser.add_argument("--service-data", type=Path, default=None)
    options = parser.parse_args()
    rows = [
        row
        for row in read_manifest(options.manifest)
        if row.domain == options.domain and row.role == "adapt"
    ]
    if not rows:
        raise SystemExit(f"no row of {options.manifest} has the role `adapt` for {options.domain}")
    name = f"{options.domain}-{secrets.token_hex(3)}"
    with connect(options.url, options.key, options.service_data) as client:
        engine = client.get("/backbone")["engine"]
        fields = {"id": name, "name": name, "label_scheme": rows[0].scheme}
        client.send_cases("/domains", fields, [r.scan for r in rows], [r.labels for r in rows])
        started = last = time.perf_counter()
        job: dict[str, Any] = dict(client.adapt(name, options.recipe))
        steps: dict[str, float] = defaultdict(float)
        while job["state"] not in FINISHED:
            time.sleep(ASK_EVERY_S)
            doing = (job["step"] or job["state"]).split(",")[0]
            job, now = client.get(f"/jobs/{job['id']}"), time.perf_counter()
            steps[doing] += now - last
            last = now
    if job["state"] != "succeeded":
        raise SystemExit(f"the adaptation ended {job['state']}: {job['error']}")
    result = job["result"]
    print(
        json.dumps(
            {
                "seconds": round(last - started, 1),
                "steps_s": {step: round(seconds, 1) for step, seconds in steps.items()},
                "cases": len(rows),
                "dice_before": result["dice_before"],
                "dice_after": result["dice_after"],
                "recipe": options.recipe,
                **{key: engine[key] for key in ("device", "precision", "threads", "torch")},
            }
        )
    )


if __name__ == "__main__":
    main()

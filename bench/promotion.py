"""Promotions under load: every answer holds the labels of the version that it names.

    python bench/promotion.py SCAN --domain ID [--seconds 60] [--url …] [--key …]

Needs a running service with a domain of two versions or more (adapt it twice).
Each version is promoted alone first and asked for the scan: those are the
labels it has to give. Then clients ask without pause while the active version
changes every few seconds. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
import time
from collections import Counter
from pathlib import Path

from cli.client import DEFAULT_URL, ApiError, Client
from cli.options import connect


def labels_of(client: Client, scan: Path, domain: str) -> tuple[int, str]:
    """The version that answered, and a hash of its labels."""
    segmentation = client.segment(scan, domain)
    labels = client.labels(str(segmentation["id"]))
    return int(segmentation["version"]), hashlib.sha256(labels).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default="")
    parser.add_argument("--service-data", type=Path, default=None)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    answered: Counter[int] = Counter()
    done = threading.Event()
    with connect(options.url, options.key, options.service_data) as admin:

        def promote(number: int) -> None:
            admin.change("POST", options.domain, f"/versions/{number}/promote")

        listed = admin.get(f"/domains/{options.domain}/versions")["items"]
        numbers = sorted(item["number"] for item in listed if item["quarantined"] is None)[-2:]
        expected = {}
        for number in numbers:
            promote(number)
            named, expected[number] = labels_of(admin, options.scan, options.domain)
            assert named == number
        if len(set(expected.values())) < 2:
            raise SystemExit("both versions answer alike: nothing could be seen")

        def ask() -> None:
            with connect(options.url, options.key, options.service_data) as client:
                while not done.is_set():
                    try:
                        version, labels = labels_of(client, options.scan, options.domain)
                    except ApiError as error:
                        counts[f"failed: {error}"] += 1
                        continue
                    answered[version] += 1
                    counts["right" if expected[version] == labels else "wrong"] += 1

        clients = [threading.Thread(target=ask) for _ in range(options.clients)]
        for thread in clients:
            thread.start()
        moves, began = 0, time.monotonic()
        while time.monotonic() - began < options.seconds:
            time.sleep(options.every)
            promote(numbers[moves % 2])
            moves += 1
        done.set()
        for thread in clients:
            thread.join()
    print(
        json.dumps(
            {
                "promotions": moves,
                "answers": sum(answered.values()),
                "by_version": {str(number): answered[number] for number in numbers},
                **{name: counts[name] for name in ("right", "wrong")},
                "failed": {n: c for n, c in counts.items() if n.startswith("failed")},
            }
        )
    )


if __name__ == "__main__":
    main()

"""How long `normbank up` takes until `/readyz` is green.

    python bench/start.py [--times 3]

The first start makes a new data folder in a temporary place, the others find
it. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from cli.local.processes import child_environment, log_tail, python
from experiments.kit.environment import environment
from models.predict import choose_device, choose_precision


def start(data: Path) -> float:
    """Seconds until the service says that it is ready; it is ended again."""
    errors = data.with_suffix(".err")
    began = time.perf_counter()
    with errors.open("w") as file:
        up = subprocess.Popen(
            python("cli", "up", "--data", str(data), "--port", "0"),
            env=child_environment({}),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    assert up.stdout is not None
    try:
        line = up.stdout.readline()
        took = time.perf_counter() - began
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=60)
    if not line.startswith("ready "):
        raise SystemExit(log_tail(errors))
    return round(took, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        new_s, *again_s = [start(Path(folder) / "data") for _ in range(options.times)]
    device = choose_device()
    precision = choose_precision("auto", device)
    print(json.dumps({"new_s": new_s, "again_s": again_s, **environment(device, precision)}))


if __name__ == "__main__":
    main()

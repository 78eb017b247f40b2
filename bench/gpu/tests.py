"""Stage 1: the tests that need a GPU; in a rehearsal, what of them a CPU can do."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.gpu.pack import PROJECT
from bench.gpu.scene import Scene

FILE = "tests/models/test_gpu.py"


def run(scene: Scene) -> None:
    """Run pytest and keep how it ended, with the end of what it said."""
    began = time.time()
    command = [sys.executable, "-m", "pytest", FILE, "--noconftest", "-p", "no:cacheprovider"]
    # Other versions of PyTorch warn of other things.
    command += ["-o", "filterwarnings=default", "--durations=10", "-rA"]
    command += ["-k", "cpu and bits"] if scene.smoke else ["-m", "gpu"]
    done = subprocess.run(
        command, cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    facts = {"status": done.returncode, "seconds": round(time.time() - began, 1)}
    scene.keep("tests", {**facts, "said": done.stdout[-12000:].splitlines()}, done=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])

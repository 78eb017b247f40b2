"""A quarter of an hour on a GPU: every stage with a limit of its own, results as they come.

    python -m bench.gpu --pack DIR --out DIR --minutes M [--stages a,b] [--resume DIR] [--smoke]

Stages, most valuable first: `tests`, `forward`, `training`; and, for a second
call, `adaptation`, `heads`, `table2`. A stage that is done is not run again; a
training goes on from its checkpoint. `--resume` is a folder that an earlier
call has left, on a machine that is gone. At most 8 files come to lie in
`--out`: a JSON for each stage, `backbone.tar` and `checkpoint.pt`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.gpu.scene import Scene


@dataclass(frozen=True)
class Stage:
    """One part of the plan.

    Attributes
    ----------
    least_s : it is not begun with less
    most_s : after which it is killed
    """

    name: str
    least_s: float
    most_s: float


FIRST = (Stage("tests", 5, 60), Stage("forward", 10, 75), Stage("training", 30, 480))
SECOND = (Stage("adaptation", 10, 100), Stage("heads", 10, 60), Stage("table2", 20, 480))
PLAN = {stage.name: stage for stage in (*FIRST, *SECOND)}
GRACE_S = 5.0
"""A stage is told to end so long before it is killed."""


def run_stage(scene: Scene, stage: Stage, seconds: float) -> str:
    """Run one stage in a process of its own, and all its children, for so long at most."""
    command = [sys.executable, "-m", "bench.gpu.stage", stage.name]
    command += ["--pack", str(scene.pack), "--out", str(scene.out), "--work", str(scene.work)]
    command += ["--seconds", str(max(1.0, seconds - GRACE_S))]
    child = subprocess.Popen(
        command + ["--smoke"] * scene.smoke, start_new_session=True, env=os.environ
    )
    try:
        status = child.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:  # also what a stage that has ended left behind
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for draft in scene.out.glob("*.draft"):
            draft.unlink()
    return {0: "done", None: "killed at its limit"}.get(status, f"failed with {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="for all stages together")
    parser.add_argument("--stages", default=",".join(PLAN), help="comma-separated, in order")
    parser.add_argument("--resume", type=Path, help="what an earlier call has left in its --out")
    parser.add_argument("--work", type=Path, default=Path("/tmp/normbank-gpu"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on the CPU")
    options = parser.parse_args()
    ends = time.time() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.resume is not None:
        for path in options.resume.iterdir():
            shutil.copyfile(path, options.out / path.name)
    scene = Scene(options.pack, options.out, options.work, ends, options.smoke)
    failed = []
    for name in options.stages.split(","):
        stage, began = PLAN[name], time.time()
        if scene.kept(name).get("done"):
            print(f"{name}: done before", flush=True)
            continue
        seconds = min(stage.most_s * (3 if scene.smoke else 1), scene.left_s)
        if seconds < stage.least_s:
            print(f"{name}: no time left", flush=True)
            continue
        how = run_stage(scene, stage, seconds)
        print(f"{name}: {how} after {time.time() - began:.0f} s", flush=True)
        if how.startswith("failed"):
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

"""One stage by its name, as `python -m bench.gpu` starts it."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from bench.gpu.scene import Scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    for folder in ("--pack", "--out", "--work"):
        parser.add_argument(folder, type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    scene = Scene(
        options.pack, options.out, options.work, time.time() + options.seconds, options.smoke
    )
    try:
        importlib.import_module(f"bench.gpu.{options.name}").run(scene)
    except Exception:  # whatever went wrong, the machine is gone soon: it has to come back
        why = traceback.format_exc()[-4000:]
        scene.keep(options.name, {**scene.kept(options.name), "error": why})
        print(why, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

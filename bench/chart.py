"""A picture of what the benchmarks printed.

    python bench/chart.py --peers FILE --forward FILE --registry FILE --out PICTURE.png

Each file holds the JSON line of its benchmark, as the last line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.kit.figures import COLOURS, save

OURS, OTHERS = COLOURS[0], "#9aa5b1"


def last_line(path: Path) -> dict[str, Any]:
    """The JSON object that a benchmark printed last."""
    found: dict[str, Any] = json.loads(path.read_text().strip().splitlines()[-1])
    return found


def bars(
    axes: Axes, title: str, values: dict[str, float], ours: set[str], *, form: str, unit: str
) -> None:
    """One bar for each way, ours in a colour of its own."""
    names = list(values)[::-1]
    drawn = axes.barh(
        names, [values[n] for n in names], color=[OURS if n in ours else OTHERS for n in names]
    )
    axes.bar_label(drawn, fmt=form, padding=3)
    axes.set_title(title, loc="left")
    axes.set_xlabel(unit)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def growth(axes: Axes, rows: list[dict[str, float]]) -> None:
    """What a request, a page of the list and a new domain cost, by the number of domains."""
    domains = [row["domains"] for row in rows]
    names = {
        "new_domain_live_ms": "a new domain is live",
        "list_page_ms": "a page of the list",
        "request_ms": "a request finds its version",
    }
    for (key, label), colour in zip(names.items(), COLOURS, strict=False):
        axes.plot(domains, [row[key] for row in rows], marker="o", label=label, color=colour)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("domains")
    axes.set_ylabel("ms")
    axes.set_title("A growing registry", loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("peers", "forward", "registry", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    peers, forward = last_line(options.peers), last_line(options.forward)
    figure = Figure(figsize=(15, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    libraries = {
        "normbank, 64 domains mixed": peers["ours_ms"],
        "OpenVINO, one domain": peers["openvino_ms"],
        "PyTorch, the bank": peers["ms_per_slice"]["eager"],
        "ONNX Runtime, one domain": peers["onnxruntime_ms"],
    }
    mixed = {"normbank, 64 domains mixed"}
    unit = "ms a slice, 192×224"
    bars(left, "The network in other libraries", libraries, mixed, form="%.1f", unit=unit)
    many = {
        "one domain": forward["one_over_dedicated"],
        "64 domains mixed": forward["mixed_over_dedicated"],
        "loading a domain each time": forward["swapped_over_dedicated"],
        f"among {forward['domains']:,} domains": forward[f"time_{forward['domains']}_over_1"],
    }
    ours = set(many) - {"loading a domain each time"}
    unit = "time, over one domain's own network (last: over one stored domain)"
    bars(middle, "The bank", many, ours, form="%.3f", unit=unit)
    middle.axvline(1, color="black", linewidth=0.8, linestyle=":")
    growth(right, last_line(options.registry)["sizes"])
    figure.suptitle(f"{peers['device']}, {peers['precision']}", x=0.01, ha="left", fontsize=9)
    save(figure, options.out.parent, options.out.stem, kinds=["png"])


if __name__ == "__main__":
    main()

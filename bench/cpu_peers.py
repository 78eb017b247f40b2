"""The service's network on a CPU against plain networks in OpenVINO and in ONNX Runtime.

    python bench/cpu_peers.py [--pairs 31] [--batch 4]

The peers are the network of one domain, batch norm folded into the filters:
in OpenVINO's fastest precision here (float32, bfloat16, or int8 as NNCF
quantises it), in ONNX Runtime in float32; ours is the bank as the service runs
it, every slice of another one of 64 domains. The same slices, interleaved.
Prints one JSON line; times are medians per slice, ratios medians over pairs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import warnings
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle, islice
from typing import Any

import numpy as np
import onnxruntime
import torch

from bench.dedicated import Dedicated, best_in_openvino
from bench.forward import interleaved, neighbours, ratio
from experiments.kit.environment import environment
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from models.predict import Predictor


def in_onnxruntime(network: torch.nn.Module, slices: torch.Tensor) -> Callable[[], object]:
    """A call that runs a network in ONNX Runtime, float32: its CPU kernels know no bfloat16."""
    file: Any = io.BytesIO()  # the older exporter takes it; its type names paths alone
    torch.onnx.export(network.eval(), (slices,), file, input_names=["slices"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin between runs would slow down whoever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"slices": slices.numpy()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument(
        "--batch", type=int, default=0, help="slices, a divisor of 64; 0: the service's own"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    device = torch.device("cpu")
    backbone = load_backbone()
    state = read_states(SHIPPED, backbone)["sim-t1w-3t"]
    ours = Predictor(
        backbone,
        device=device,
        precision=None,
        batch_slices=options.batch,
        backend="auto",
    )
    for banked_state in (state, *islice(neighbours(state), 63)):
        ours.bank.add(banked_state)
    random = np.random.default_rng(0)
    slices = random.random((ours.batch_slices, *backbone.spec.slice_shape), np.float32)
    turns = cycle(np.split(random.permutation(64), 64 // ours.batch_slices))
    batch, folded = torch.from_numpy(slices)[:, None], Dedicated(backbone, state)
    best, peer = best_in_openvino(folded, batch)
    times = interleaved(
        options.pairs,
        {
            "ours": lambda: ours.logits(slices, next(turns)),
            "openvino": peer,
            "onnxruntime": in_onnxruntime(folded, batch),
        },
        lambda: None,
    )
    medians = {
        f"{name}_ms": round(1000 * statistics.median(t) / ours.batch_slices, 2)
        for name, t in times.items()
    }
    print(
        json.dumps(
            {
                "over_openvino": round(ratio(times, "ours", "openvino"), 4),
                "over_onnxruntime": round(ratio(times, "ours", "onnxruntime"), 4),
                **medians,
                "backend": ours.backend,
                "ms_per_slice": dict(ours.selection.ms_per_slice),
                "onnxruntime": version("onnxruntime"),
                "openvino": version("openvino"),
                "openvino_precision": best,
                "batch_slices": ours.batch_slices,
                "slice": list(backbone.spec.slice_shape),
                "pairs": options.pairs,
                **environment(device, ours.precision),
            }
        )
    )


if __name__ == "__main__":
    main()

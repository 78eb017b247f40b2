"""Stage 2: what serving many domains costs on the device, against one domain's own network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.dedicated import Dedicated
from bench.forward import neighbours
from bench.gpu.scene import Scene
from models.backbone import Backbone
from models.backends import BankedNetwork
from models.bank import Bank
from models.network import UNet
from models.predict import ADAPTED_KEPT, Predictor
from models.state import State

BATCHES = (64, 32, 160, 96, 128)
SCAN = 160  # slices of a head that hold something
MIXED = 64
STORED = 10_000
EAGER, GRAPHS, INDUCTOR, RECORDED = "eager", "CUDA graphs", "inductor", "inductor, CUDA graphs"


def run(scene: Scene) -> None:
    """Measure, most telling first, and keep every figure as soon as there is one."""
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    Forward(scene).run()


class Forward:
    """All measurements on one shipped state and its neighbours."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.device, self.precision = scene, scene.device, scene.precision
        self.backbone, states = scene.backbone()
        self.state = states["sim-t1w-3t"]
        self.flop = slice_flop(self.backbone, self.state)
        self.facts: dict[str, Any] = {
            "gflop_per_slice": round(self.flop / 1e9, 2),
            "slice": list(self.backbone.spec.slice_shape),
            "rows": [],
        }

    def run(self) -> None:
        scene, smoke = self.scene, self.scene.smoke
        self.facts["peak_tflops"] = round(peak_tflops(scene), 3)
        compiled = [RECORDED, INDUCTOR] if self.device.type == "cuda" else []
        ways = [EAGER, *([GRAPHS] if self.device.type == "cuda" else [])]
        for batch in BATCHES[:1] if not smoke else (2,):
            self.compare(batch, ways)
        self.product(2 if smoke else 64)
        self.stored(64 if smoke else STORED, 2 if smoke else 64)
        for batch in () if smoke else BATCHES[1:]:
            self.compare(batch, ways)
        for batch in () if smoke else BATCHES[:3]:  # compiling takes tens of seconds
            self.compare(batch, compiled)
        scene.keep("forward", self.facts, done=True)

    def compare(self, batch: int, ways: list[str]) -> None:
        """Dedicated, one domain and many mixed, on slices that lie on the device."""
        slices = torch.rand(batch, 1, *self.backbone.spec.slice_shape, device=self.device)
        slices = slices.to(self.precision).contiguous(memory_format=torch.channels_last)
        bank = Bank(self.backbone, self.device)
        for state in islice(neighbours(self.state), MIXED):
            bank.add(state)
        dedicated = self.placed(Dedicated(self.backbone, self.state))
        banked = BankedNetwork(cast(UNet, self.placed(self.backbone.network)))
        one_domain = bank.gather(torch.zeros(batch, dtype=torch.int64))
        mixed = bank.gather(torch.arange(batch) % MIXED)
        for way in ways:
            for name, network, inputs in (
                ("dedicated", dedicated, (slices,)),
                ("one domain", banked, (slices, *one_domain)),
                ("64 mixed", banked, (slices, *mixed)),
            ):
                if self.scene.left_s < (25 if way in (INDUCTOR, RECORDED) else 3):
                    return
                with torch.inference_mode():
                    seconds = self.scene.seconds(called(network, inputs, way))
                self.row(name, way, batch, seconds / batch)

    def placed(self, network: nn.Module) -> nn.Module:
        import copy

        copied: nn.Module = copy.deepcopy(network).to(self.device, self.precision)
        copied = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert isinstance(copied, nn.Module)
        return copied

    def row(self, name: str, way: str, batch: int, seconds: float) -> None:
        """One figure: seconds of a slice."""
        tflops = self.flop / seconds / 1e12
        self.facts["rows"].append(
            {
                "what": name,
                "how": way,
                "batch": batch,
                "us_per_slice": round(1e6 * seconds, 2),
                "slices_per_s": round(1 / seconds, 1),
                "tflops": round(tflops, 3),
                "share_of_peak": round(tflops / self.facts["peak_tflops"], 4),
            }
        )
        self.scene.keep("forward", self.facts)

    def product(self, batch: int) -> None:
        """Through the product's predictor, from host memory: 64 domains with adapters in turn."""
        predictor = self.predictor(batch)
        spec, rows = self.backbone.spec, []
        random = torch.Generator().manual_seed(1)
        for state in islice(neighbours(self.state), 4 if self.scene.smoke else MIXED):
            beside = 0.01 * torch.randn(spec.adapter_size, generator=random)
            adapted = State(state.rows, state.backbone, adapters=beside.bfloat16())
            rows.append(predictor.bank.add(adapted))
        plain = predictor.bank.add(self.state)
        slices = np.random.default_rng(0).random((batch, *spec.slice_shape), np.float32)
        passes = 1 if self.scene.smoke else -(-SCAN // batch)
        before = self.memory()

        def scan(row: int) -> None:
            for _ in range(passes):
                predictor.logits(slices, np.full(batch, row))

        turn = iter(range(10**9))
        for name, call in (
            ("product, one domain", lambda: scan(plain)),
            ("product, one domain with adapters", lambda: scan(rows[0])),
            ("product, 64 with adapters in turn", lambda: scan(rows[next(turn) % len(rows)])),
        ):
            self.row(name, EAGER, batch, self.scene.seconds(call) / passes / batch)
        kept = min(len(rows), ADAPTED_KEPT)
        self.facts["bytes_per_kept_domain_with_adapters"] = (self.memory() - before) // kept
        self.facts["bytes_per_domain"] = predictor.bank.bytes_per_domain

    def stored(self, count: int, batch: int) -> None:
        """Any of very many domains against the only one, from host memory."""
        slices = np.random.default_rng(0).random(
            (batch, *self.backbone.spec.slice_shape), np.float32
        )
        few, many = self.predictor(batch), self.predictor(batch)
        few.bank.add(self.state)
        before = self.memory()
        for state in islice(neighbours(self.state), count):
            many.bank.add(state)
        self.facts["stored"] = count
        self.facts["device_bytes_of_stored"] = self.memory() - before
        anywhere = np.random.default_rng(1).permutation(count)[:batch]
        for name, predictor, domains in (
            ("product, the only domain", few, np.zeros(batch, np.int64)),
            ("product, any of all stored", many, anywhere),
        ):
            seconds = self.scene.seconds(partial(predictor.logits, slices, domains))
            self.row(name, EAGER, batch, seconds / batch)

    def predictor(self, batch: int) -> Predictor:
        return Predictor(
            self.backbone, device=self.device, precision=self.precision, batch_slices=batch
        )

    def memory(self) -> int:
        return torch.cuda.memory_allocated() if self.device.type == "cuda" else 0


def called(
    network: Callable[..., object], inputs: tuple[Tensor, ...], way: str
) -> Callable[[], object]:
    """A call of a network on fixed inputs, in one of four ways."""
    if way == GRAPHS:
        return recorded(network, inputs)
    if way in (INDUCTOR, RECORDED):
        mode = "reduce-overhead" if way == RECORDED else None
        network = torch.compile(network, mode=mode, dynamic=False)
    return lambda: network(*inputs)


def recorded(network: Callable[..., object], inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    """Its launches, recorded once."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            network(*inputs)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(*inputs)
    return graph.replay


def slice_flop(backbone: Backbone, state: State) -> int:
    """Floating-point operations of one slice in a dedicated network."""
    slices = torch.zeros(1, 1, *backbone.spec.slice_shape)
    with FlopCounterMode(display=False) as counter:
        Dedicated(backbone, state)(slices)
    return int(counter.get_total_flops())


def peak_tflops(scene: Scene) -> float:
    """What a large matrix product reaches here, random numbers, best of several sizes."""
    rates = []
    for size in sizes(scene):
        left, right = (
            torch.randn(size, size, device=scene.device, dtype=scene.precision) for _ in range(2)
        )
        seconds = scene.seconds(partial(torch.matmul, left, right))
        rates.append(2 * size**3 / seconds / 1e12)
    return max(rates)


def sizes(scene: Scene) -> Iterator[int]:
    yield from (512,) if scene.smoke else (8192, 12288)

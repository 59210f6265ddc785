"""How to write a fusion block: two convolutions or one on a concat, bias map or affine inputs.

    python benchmarks/fusion_forms.py [--variant parnet-s] [--rounds 60]

All four are exact. Each arm is the whole network as one engine on ONNX Runtime, every usable core,
spinning off, alternated in one process. The answer is in ``PartGraph.fusion``'s docstring.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from arms import time_arms
from networks import random_parnet
from report import write_results

from parnet_deploy.builder.onnx_merge import merge_segment
from parnet_deploy.export.fuse import FusedNetwork, Tensors, affine, fuse_network
from parnet_deploy.export.to_onnx import PartGraph, part_to_onnx
from parnet_deploy.input_size import InputSize
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import Arm
from parnet_deploy.placement import one
from parnet_deploy.reference import Reference
from parnet_deploy.runtime.onnxruntime.cpu import open_session
from parnet_deploy.spec import BlockSpec

SIDE = 224


def main() -> None:
    """Measure and write ``results/fusion-forms-<variant>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="parnet-s")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    model = random_parnet(args.variant)
    network = fuse_network(model.state_dict(), model.spec)
    image = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), dtype=np.float32)
    with torch.inference_mode():
        logits = model(torch.from_numpy(image)).numpy()
    forms = {
        "two convolutions, bias map": PartGraph,
        "concat, bias map": type("Concat", (_Form,), {"concat": True}),
        "two convolutions, affine": type("Affine", (_Form,), {"state": model.state_dict()}),
        "concat, affine": type("Both", (_Form,), {"concat": True, "state": model.state_dict()}),
    }
    environment = describe_machine()
    arms, nodes = [], {}
    for name, form in forms.items():
        data, nodes[name] = _engine(network, form)
        session = open_session(data, threads=usable_cores())
        run = _runner(session)
        arms.append(Arm(name=name, run=run, load_ms=None, note=""))
    latencies, errors = time_arms(arms, Reference(image=image, logits=logits), args.rounds)
    write_results(
        f"fusion-forms-{args.variant}",
        latencies,
        ours="two convolutions, bias map",
        errors=errors,
        conditions={"input": f"1x3x{SIDE}x{SIDE}", "threads": usable_cores(), "nodes": nodes},
        environment=environment,
    )


def _runner(session: object):
    return lambda image: session.run(None, {"image": image})[0]


def _engine(network: FusedNetwork, form: type[PartGraph]) -> tuple[bytes, int]:
    size = InputSize(low=(SIDE, SIDE), high=(SIDE, SIDE))
    spec = network.spec
    parts = {part.name: part_to_onnx(network, part, size, form) for part in spec.parts}
    model = merge_segment(one(spec).segments[0], spec, parts)
    return model.SerializeToString(), len(model.graph.node)


class _Form(PartGraph):
    """A fusion block in one of the forms that were not chosen."""

    concat = False
    state: Tensors | None = None

    def fusion(self, block: BlockSpec, inputs: Sequence[str]) -> str:
        """See ``PartGraph.fusion``."""
        gate = self.gate(block, inputs, ["gate_a", "gate_b"])
        fields = self.network.block(block.name)
        weights = [fields[f"conv_{side}.weight"].numpy() for side in "ab"]
        reads = list(inputs)
        if self.state is not None:
            for index in range(2):
                reads[index], weights[index] = self._affine(
                    block, inputs[index], index, weights[index], self.state
                )
        bias = None if self.state is None else fields
        if self.concat:
            merged = np.concatenate(weights, axis=1)
            out = self._plain_conv(block, "conv", self._regroup(block, reads), merged, bias)
        else:
            a = self._plain_conv(block, "conv_a", reads[0], weights[0], bias)
            b = self._plain_conv(block, "conv_b", reads[1], weights[1], None)
            out = self.node("Add", [a, b], f"{block.name}/sum")
        if self.state is None:
            out = self.node("Add", [out, self.bias_map(block, inputs[0])], f"{block.name}/bias")
        return self.node("Mul", [out, gate], f"{block.name}/gated")

    def _affine(
        self, block: BlockSpec, x: str, index: int, weight: np.ndarray, state: Tensors
    ) -> tuple[str, np.ndarray]:
        """BatchNorm as Mul and Add before the convolution, whose kernel then is not scaled."""
        name = f"{block.name}/{'ab'[index]}"
        scale, shift = (
            t.numpy().astype(np.float32) for t in affine(state, f"{block.norm}.b{index + 1}")
        )
        half, outputs = block.in_channels // 2, block.out_channels // 2
        folded = np.repeat(scale.reshape(2, 1, half), outputs, axis=1).reshape(-1, half, 1, 1)
        constants = (
            self.constant(f"{name}.{what}", value.reshape(1, -1, 1, 1))
            for what, value in (("scale", scale), ("shift", shift))
        )
        scaled = self.node("Mul", [x, next(constants)], f"{name}_scaled")
        return self.node("Add", [scaled, next(constants)], f"{name}_affine"), weight / folded

    def _regroup(self, block: BlockSpec, reads: Sequence[str]) -> str:
        """First halves of both inputs, then second halves: what the two groups read."""
        half = block.in_channels // 2
        pieces = []
        for low in (0, half):
            for side, x in zip("ab", reads, strict=True):
                name = f"{block.name}/{side}{low}"
                bounds = [
                    self.constant(f"{name}.{what}", np.array([value]))
                    for what, value in (("from", low), ("to", low + half), ("axis", 1))
                ]
                pieces.append(self.node("Slice", [x, *bounds], name))
        return self.node("Concat", pieces, f"{block.name}/concat", axis=1)

    def _plain_conv(
        self,
        block: BlockSpec,
        name: str,
        x: str,
        weight: np.ndarray,
        bias: Mapping[str, torch.Tensor] | None,
    ) -> str:
        inputs = [x, self.constant(f"{block.name}.{name}.w", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{block.name}.{name}.b", bias["conv.bias"].numpy()))
        return self.node(
            "Conv",
            inputs,
            f"{block.name}/{name}",
            kernel_shape=[3, 3],
            strides=[block.stride] * 2,
            pads=[1] * 4,
            group=2,
        )


if __name__ == "__main__":
    main()

"""What the model of scaling assumes about GPUs and the links between them, with sources."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from math import ceil, log2

from benchmarks.report.results import RESULTS
from benchmarks.report.steps import SHIPPED
from benchmarks.scaling.counts import BASE

STEP = RESULTS / "nvidia-h100-80gb" / "step.json"
"""The base model's training step on one H100, as benchmarks.step_lease measured it."""


@dataclass(frozen=True)
class Device:
    """A GPU and its host, as the base model's step showed them.

    `flops_per_s`: counted FLOPs of the step's passes over the time of their kernels. `host_seconds`: what the host
    takes for one forward and backward pass of `host_layers` layers, whatever the number of examples.
    `activation_bytes`: for each token-layer and unit of the hidden size. `parameters_per_s`: the optimiser's update.
    """

    name: str
    memory: float
    flops_per_s: float
    host_seconds: float
    host_layers: int
    activation_bytes: float
    parameters_per_s: float


def measured_h100() -> Device:
    """From the stored step of 16 examples of the base model, compiled, on an H100 80GB."""
    record = json.loads(STEP.read_text("utf-8"))
    facts, variant = record["facts"], record["variants"][SHIPPED]
    optimizer = variant["kinds_ms"]["optimiser"] / 1e3
    passes = sum(variant["kinds_ms"].values()) / 1e3 - optimizer
    activations = variant["peak_bytes"] - BYTES_PER_PARAMETER * BASE.parameters
    return Device(
        name=facts["machine"]["gpu"]["name"],
        memory=80e9,
        flops_per_s=facts["flops"] / passes,
        host_seconds=statistics.median(variant["seconds"]) - optimizer,
        host_layers=BASE.layers,
        activation_bytes=activations / (facts["examples"] * BASE.token_layers * BASE.hidden_size),
        parameters_per_s=BASE.parameters / optimizer,
    )


BYTES_PER_PARAMETER = 4 + 4 + 2 + 2
"""Parameter and gradient in float32, two moments in bfloat16."""


@dataclass(frozen=True)
class Network:
    """Links of nodes of `gpus_per_node` GPUs. Rates are bytes/s in one direction.

    `node_rate` is that of all of a node's adapters together. `efficiency` is the share of a link's rate that large
    collectives reach. A hop of a ring or a tree takes `hop_seconds` inside a node and `node_hop_seconds` between two.
    """

    name: str
    node_rate: float
    gpu_rate: float = 450e9
    gpus_per_node: int = 8
    efficiency: float = 0.8
    hop_seconds: float = 2e-6
    node_hop_seconds: float = 6e-6
    launch_seconds: float = 15e-6

    def nodes(self, gpus: int) -> int:
        return ceil(gpus / self.gpus_per_node)

    def ring_seconds(self, gpus: int, size: float) -> float:
        """An all-gather to `size` bytes on each GPU, or a reduce-scatter of `size` bytes of each.

        A ring through all GPUs: every node receives the bytes once, over all its adapters together, since one ring
        runs through each of them.
        """
        if gpus == 1:
            return 0.0
        nodes = self.nodes(gpus)
        rate = self.efficiency * (self.gpu_rate if nodes == 1 else min(self.gpu_rate, self.node_rate))
        hops = (gpus - nodes) * self.hop_seconds + (nodes - 1) * self.node_hop_seconds
        return self.launch_seconds + hops + (gpus - 1) / gpus * size / rate

    def all_reduce_seconds(self, gpus: int, size: float) -> float:
        """The sum of `size` bytes of each GPU on all of them: twice a ring's bytes, and a tree's number of hops."""
        if gpus == 1:
            return 0.0
        nodes = self.nodes(gpus)
        rate = self.efficiency * (self.gpu_rate if nodes == 1 else min(self.gpu_rate, self.node_rate))
        inside = min(gpus, self.gpus_per_node) - 1
        hops = 2 * (inside * self.hop_seconds + log2(nodes) * self.node_hop_seconds)
        return self.launch_seconds + hops + 2 * (gpus - 1) / gpus * size / rate

    def across_nodes_seconds(self, gpus: int, size: float) -> float:
        """The sum over nodes of `size` bytes of each GPU; GPUs of a node have other bytes and share its adapters."""
        nodes = self.nodes(gpus)
        if nodes == 1:
            return 0.0
        rate = self.efficiency * self.node_rate / min(gpus, self.gpus_per_node)
        return self.launch_seconds + 2 * log2(nodes) * self.node_hop_seconds + 2 * (nodes - 1) / nodes * size / rate


FAST = Network("NDR InfiniBand", node_rate=8 * 50e9)
SLOW = Network("25 GB/s a node", node_rate=25e9)

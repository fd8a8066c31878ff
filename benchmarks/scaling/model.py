"""Step time and memory of pretraining on many GPUs, from counted FLOPs and bytes, measured rates and stated links.

Communication counts where it is exposed: where it takes longer than the work beside which it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal

from benchmarks.scaling.counts import PROBLEMS, ROWS, Sizes
from benchmarks.scaling.machines import BYTES_PER_PARAMETER, Device, Network

Parallel = Literal["ddp", "hybrid", "fsdp"]
FLOAT32, BFLOAT16 = 4, 2
BUCKET = 25 << 20
"""Bytes of gradients that DDP sums at a time."""
OUTSIDE_LAYERS = 4
"""Tensors [tokens, hidden] that an encoder keeps outside its layers; assumed."""
USABLE = 0.9
"""Share of a GPU's memory that a setting may fill: the rest is for the libraries and for fragmentation."""
FORWARD = 1 / 3
"""Share of the forward pass in the work of a forward and backward pass."""
PRODUCTS = 4
"""Products of logits: forward, once more in the backward pass, and the gradients of both sides."""


@dataclass(frozen=True)
class Setting:
    """How a step is run: `train.parallel` (hybrid: fsdp with `train.fsdp_ranks` of a node), `train.recompute_layers`,
    and `train.accumulate` micro-batches, with `train.grad_cache` if there are several."""

    parallel: Parallel = "ddp"
    recompute: bool = False
    micro_batches: int = 1

    def __str__(self) -> str:
        parts = [self.parallel, *(["recompute"] if self.recompute else [])]
        return ", ".join([*parts, *([f"{self.micro_batches} micro-batches"] if self.micro_batches > 1 else [])])

    @property
    def complexity(self) -> tuple[bool, bool, int, int]:
        order: tuple[Parallel, ...] = ("ddp", "hybrid", "fsdp")
        return self.micro_batches > 1, self.recompute, order.index(self.parallel), self.micro_batches


@dataclass(frozen=True)
class Job:
    """A model trained on a global batch by a number of GPUs that divides it."""

    sizes: Sizes
    batch: int
    gpus: int
    device: Device = field(repr=False)
    network: Network = field(repr=False)

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.batch % self.gpus:
            raise ValueError(f"gpus must divide the batch, {self.batch}; got {self.gpus}")

    @property
    def examples(self) -> int:
        """Examples of one GPU."""
        return self.batch // self.gpus

    @property
    def passes_seconds(self) -> float:
        """The kernels of one forward and backward pass over a GPU's examples, nothing recomputed."""
        return self.examples * self.sizes.flops / self.device.flops_per_s


@dataclass(frozen=True)
class Step:
    """Seconds and bytes of one step on each GPU.

    `passes` are the kernels of the forward and backward passes; `host` is what the host takes longer than they do.
    `weights` and `candidates` are exposed communication, `hidden` is what other work hides. `states` are parameters,
    gradients and moments; `vectors` is what the loss holds, and `cached` what GradCache's second pass keeps of it.
    """

    job: Job
    setting: Setting
    passes: float
    host: float
    loss: float
    optimizer: float
    weights: float
    candidates: float
    hidden: float
    states: float
    activations: float
    vectors: float
    cached: float

    @property
    def exposed(self) -> float:
        return self.weights + self.candidates

    @property
    def seconds(self) -> float:
        return self.passes + self.host + self.loss + self.optimizer + self.exposed

    @property
    def memory(self) -> float:
        """The loss runs beside a step's activations, but with micro-batches while there are none."""
        if self.setting.micro_batches > 1:
            return self.states + max(self.activations + self.cached, self.vectors)
        return self.states + self.activations + self.vectors

    @property
    def rate(self) -> float:
        """Examples a second, of all GPUs."""
        return self.job.batch / self.seconds

    @property
    def use(self) -> float:
        """The share of the step that the kernels of its passes need, nothing recomputed: at most 1."""
        return self.job.passes_seconds / self.seconds

    @property
    def fits(self) -> bool:
        return self.memory <= USABLE * self.job.device.memory


def step(job: Job, setting: Setting) -> Step:
    """One step. Raises ValueError unless the micro-batches divide a GPU's examples."""
    if setting.micro_batches < 1 or job.examples % setting.micro_batches:
        raise ValueError(f"micro_batches must divide a GPU's {job.examples} examples; got {setting.micro_batches}")
    again = FORWARD if setting.recompute else 0.0
    shares = FORWARD, 1 - FORWARD + again
    forward, backward = (_pass_seconds(job, setting, share) for share in shares)
    several = setting.micro_batches > 1
    forwards, backwards = setting.micro_batches * (1 + several), setting.micro_batches
    kernels = job.passes_seconds / setting.micro_batches * (forwards * shares[0] + backwards * shares[1])
    own, others = loss_flops(job)
    weights, hidden = _weights_seconds(job, setting, forward, backward, forwards, backwards)
    gathers, counts = _candidate_seconds(job)
    # Each way, the logits among a GPU's own vectors are computed meanwhile.
    exposed = counts + max(0.0, gathers - own / job.device.flops_per_s)
    shards = shard_ranks(job, setting.parallel)
    return Step(
        job,
        setting,
        passes=kernels,
        host=forwards * forward + backwards * backward - kernels,
        loss=(own + others) / job.device.flops_per_s,
        optimizer=job.sizes.parameters / shards / job.device.parameters_per_s,
        weights=weights,
        candidates=exposed,
        hidden=hidden + gathers + counts - exposed,
        states=state_bytes(job, setting.parallel),
        activations=activation_bytes(job, setting),
        vectors=vector_bytes(job),
        cached=own_vector_bytes(job),
    )


def settings(job: Job) -> Iterator[Setting]:
    """The settings that the job can run with; micro-batches in powers of two."""
    kinds: list[Parallel] = ["ddp"]
    kinds += ["fsdp"] if job.gpus > 1 else []
    kinds += ["hybrid"] if job.network.nodes(job.gpus) > 1 else []
    count = 1
    while job.examples % count == 0:
        yield from (Setting(kind, recompute, count) for kind in kinds for recompute in (False, True))
        count *= 2


def best(job: Job, *, vectors: bool = True) -> Step | None:
    """The simplest setting that fits and is within 1% of the fastest; None if none fits.

    Without `vectors`, what the loss holds takes no memory.
    """
    found = [step(job, setting) for setting in settings(job)]
    fitting = [one for one in found if (one if vectors else replace(one, vectors=0.0, cached=0.0)).fits]
    if not fitting:
        return None
    fastest = min(found.seconds for found in fitting)
    return min((f for f in fitting if f.seconds <= 1.01 * fastest), key=lambda f: f.setting.complexity)


def shard_ranks(job: Job, parallel: Parallel) -> int:
    """GPUs that share one copy of the parameters."""
    return {"ddp": 1, "hybrid": min(job.gpus, job.network.gpus_per_node), "fsdp": job.gpus}[parallel]


def loss_flops(job: Job) -> tuple[int, int]:
    """FLOPs of the contrastive logits of a GPU's pairs: with its own candidates, and with those of all others."""
    products, mine = PRODUCTS * 2 * job.sizes.hidden_size, job.examples
    own = sum(problem.own for problem in PROBLEMS) * mine**2
    others = sum(problem.others for problem in PROBLEMS) * mine * (job.batch - mine)
    return products * own, products * others


def state_bytes(job: Job, parallel: Parallel) -> float:
    """Parameters, gradients and moments, with what FSDP holds beside its shards."""
    sizes = job.sizes
    if job.gpus == 1 or parallel == "ddp":
        return BYTES_PER_PARAMETER * sizes.parameters
    layer = sizes.layer_matrices / sizes.layers
    # Two layers gathered and two layers' gradients; what is not a layer's matrix, and its gradient, whole.
    whole = 2 * layer * (BFLOAT16 + FLOAT32) + 2 * FLOAT32 * sizes.other_parameters
    return BYTES_PER_PARAMETER * sizes.parameters / shard_ranks(job, parallel) + whole


def activation_bytes(job: Job, setting: Setting) -> float:
    """What a micro-batch's forward pass keeps for its backward pass, at the peak."""
    sizes, examples = job.sizes, job.examples // setting.micro_batches
    width = examples * sizes.hidden_size
    if not setting.recompute:
        return job.device.activation_bytes * sizes.token_layers * width
    # The inputs of all layers, everything of the layer that is recomputed, and what is outside of layers.
    inputs = BFLOAT16 * sizes.token_layers * width
    outside = OUTSIDE_LAYERS * BFLOAT16 * sizes.tokens * width
    return inputs + outside + job.device.activation_bytes * sizes.widest_tokens * width


def own_vector_bytes(job: Job) -> float:
    """A GPU's own vectors with their gradients."""
    return 2 * ROWS * job.examples * BFLOAT16 * job.sizes.hidden_size


def vector_bytes(job: Job) -> float:
    """A GPU's own vectors with their gradients, the gathered ones, and twice the largest side of a problem.

    That is the gathered buffer with the rows of others picked from it, or their gradients with the buffer that is
    summed over GPUs.
    """
    row, own = BFLOAT16 * job.sizes.hidden_size, own_vector_bytes(job)
    if job.gpus == 1:
        return own
    largest = max(problem.pairs + problem.extras for problem in PROBLEMS)
    return own + (ROWS * (job.batch - job.examples) + 2 * largest * job.batch) * row


def _pass_seconds(job: Job, setting: Setting, share: float) -> float:
    """A share of a forward and backward pass over a micro-batch: the kernels' time, or the host's if that is longer."""
    kernels = share * job.passes_seconds / setting.micro_batches
    return max(kernels, share * job.device.host_seconds * job.sizes.layers / job.device.host_layers)


def _weights_seconds(
    job: Job, setting: Setting, forward: float, backward: float, forwards: int, backwards: int
) -> tuple[float, float]:
    """Communication of parameters and gradients in a step: exposed, and hidden."""
    if job.gpus == 1:
        return 0.0, 0.0
    if setting.parallel == "ddp":
        # Once a step, in the last backward pass; nothing runs beside the last bucket.
        buckets = ceil(FLOAT32 * job.sizes.parameters / BUCKET)
        bucket = job.network.all_reduce_seconds(job.gpus, FLOAT32 * job.sizes.parameters / buckets)
        exposed = bucket + max(0.0, (buckets - 1) * bucket - backward)
        return exposed, buckets * bucket - exposed
    layer = job.sizes.layer_matrices / job.sizes.layers
    other = FLOAT32 * job.sizes.other_parameters
    gather, reduce = _gather(job, setting, BFLOAT16 * layer), _reduce(job, setting, FLOAT32 * layer)
    # What is outside layers stays gathered until a backward pass, through the whole first pass of GradCache.
    others = _gather(job, setting, other) + _reduce(job, setting, other)
    layers = job.sizes.layers
    of_forward, of_backward = (layers - 1) * gather, layers * gather + (layers - 1) * reduce
    # Nothing runs beside the gather of the first layer, nor beside the last sum.
    exposed = forwards * (gather + max(0.0, of_forward - forward))
    exposed += backwards * (others + reduce + max(0.0, of_backward - backward))
    return exposed, forwards * (gather + of_forward) + backwards * (others + reduce + of_backward) - exposed


def _gather(job: Job, setting: Setting, size: float) -> float:
    return job.network.ring_seconds(shard_ranks(job, setting.parallel), size)


def _reduce(job: Job, setting: Setting, size: float) -> float:
    """A reduce-scatter among the GPUs of a copy; a hybrid then sums its shards over nodes."""
    shards = shard_ranks(job, setting.parallel)
    across = 0.0 if shards == job.gpus else job.network.across_nodes_seconds(job.gpus, size / shards)
    return job.network.ring_seconds(shards, size) + across


def _candidate_seconds(job: Job) -> tuple[float, float]:
    """Gathering both sides of each problem and summing their gradients; and, before, exchanging numbers of rows."""
    row = BFLOAT16 * job.sizes.hidden_size * job.batch
    sides = [rows for problem in PROBLEMS for rows in (problem.pairs, problem.pairs + problem.extras)]
    gathers = sum(2 * job.network.ring_seconds(job.gpus, rows * row) for rows in sides)
    return gathers, len(PROBLEMS) * job.network.ring_seconds(job.gpus, 0)

"""docs/scaling.md: the model of 8 to 512 GPUs in tables and text. Every number and every choice is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise
from textwrap import fill

from benchmarks.report.tables import size
from benchmarks.scaling.counts import BASE, LARGE, PROBLEMS, ROWS, Sizes
from benchmarks.scaling.machines import BYTES_PER_PARAMETER, FAST, SLOW, Device, Network, measured_h100
from benchmarks.scaling.model import USABLE, Job, Parallel, Setting, Step, activation_bytes, best, loss_flops, step
from benchmarks.scaling.plot import Curve
from reserve_kernels.bench.report import duration, markdown

MODELS, NETWORKS = (BASE, LARGE), (FAST, SLOW)
BATCHES = (1024, 32768)
GPUS = (8, 16, 32, 64, 128, 256, 512)
SHARDED_ON = (8, 64, 512)
WORTH = 1.5
"""Twice the GPUs are worth it if they give this many times the examples/s."""
NOISE = 0.05
"""Share of the passes' FLOPs from which the loss counts."""
WIDTH = 120
FIGURE = "scaling-model.svg"
HEAD = """# Scaling

`make bench-report` writes this page from [benchmarks/scaling](../benchmarks/scaling) and
[benchmarks/results](../benchmarks/results); `make test` fails if it is out of date. `make scaling` measures its first
half anew.
"""
FIGURES_FOOT = """Columns: "host" is what the host takes longer than the kernels. "Against 8 GPUs" is the rate of one
GPU over that with 8 GPUs: above 100% where more GPUs need no recomputation. "Use" is the share of the step that the
passes need, nothing recomputed."""


@cache
def device() -> Device:
    return measured_h100()


@cache
def steps(sizes: Sizes, batch: int, network: Network, on: Device | None = None) -> tuple[Step, ...]:
    """The best step for each of GPUS that fits one."""
    found = (best(Job(sizes, batch, gpus, on or device(), network)) for gpus in GPUS)
    return tuple(one for one in found if one is not None)


def page(measured: Sequence[str] = ()) -> str:
    """The page's text. `measured`: sections with what was measured, which come first."""
    sections = (
        *measured,
        _modelled(),
        _stops(),
        _settings(),
        _sharding(),
        _loss(),
        _inputs(),
        _assumptions(),
        _figures(),
    )
    return "\n".join([HEAD, *(_wrapped(section.strip()) + "\n" for section in sections)])


def _wrapped(text: str) -> str:
    """`text` with its paragraphs filled: numbers differ in length. Tables, lists, headings and tags stay."""
    return "\n\n".join(
        block if block.lstrip()[:1] in "|-#<!" else fill(block, WIDTH, break_long_words=False, break_on_hyphens=False)
        for block in text.split("\n\n")
    )


def curves() -> list[Curve]:
    """What the plot shows; the dotted curves are for a host that never limits."""
    found = []
    for batch in BATCHES:
        for sizes in MODELS:
            for network, style, on in _plotted():
                steps_ = steps(sizes, batch, network, on)
                gpus, rates = tuple(s.job.gpus for s in steps_), tuple(round(s.rate, 3) for s in steps_)
                label = network.name if on is device() else f"{network.name}, host not counted"
                found.append(Curve(batch, sizes.name, label, style, gpus, rates))
    return found


def _plotted() -> Iterator[tuple[Network, str, Device]]:
    yield FAST, "o-", device()
    yield SLOW, "s--", device()
    yield FAST, ":", _fast_host()


def _fast_host() -> Device:
    return replace(device(), host_seconds=0.0)


def _modelled() -> str:
    return f"""## Modelled: 8 to 512 GPUs

**Everything below is modelled**: a count of FLOPs and bytes, at the rates that one H100 was measured at with the base
model ([kernels/step.md](kernels/step.md)) and at stated rates of links. No run on several GPUs was measured. The
[assumptions](#assumptions) are listed with their sources.

![Examples a second by number of GPUs](figures/{FIGURE})
"""


def _cases() -> Iterator[tuple[Sizes, int, Network]]:
    for sizes in MODELS:
        for batch in BATCHES:
            for network in NETWORKS:
                yield sizes, batch, network


def last_worth(found: Sequence[Step]) -> tuple[Step, Step | None]:
    """The step after the last doubling of GPUs that is worth it, and that of the next doubling; None after the last."""
    for before, after in pairwise(found):
        if after.rate < WORTH * before.rate:
            return before, after
    return found[-1], None


PARTS = {
    "host": "the host",
    "candidates": "gathering candidates",
    "weights": "parameters and gradients",
    "loss": "the loss",
    "passes": "recomputation",
}


def reason(before: Step, after: Step) -> str:
    """The part of the step whose GPU-seconds grow most from one number of GPUs to the next."""
    growth = {part: after.job.gpus * getattr(after, part) - before.job.gpus * getattr(before, part) for part in PARTS}
    return PARTS[max(growth, key=lambda part: growth[part])]


def _stops() -> str:
    rows = []
    for sizes, batch, network in _cases():
        cells: list[object] = [sizes.name, batch, network.name]
        for on in (device(), _fast_host()):
            last, after = last_worth(steps(sizes, batch, network, on))
            count = f"beyond {last.job.gpus}" if after is None else last.job.gpus
            cells += [count, last.job.examples, "" if after is None else reason(last, after)]
        rows.append(cells)
    head = ["model", "batch", "network", "scales to", "examples a GPU", "limit"]
    host, first = _host_seconds(BASE), BASE.flops / device().flops_per_s
    return f"""### Where it stops scaling

"Scales to" is the last number of GPUs at which the doubling before it gave at least {WORTH:g} times the examples a
second. The last three columns leave out the host's time.

{markdown([*head, "scales to, host not counted", "examples a GPU", "limit"], rows)}

The host takes {duration(host)} for a forward and backward pass of the base model, however few examples it has, and the
GPU's kernels {duration(first)} an example: with fewer than {host / first:.0f} examples each, GPUs wait for their hosts.
Fewer launches in a step are worth more than any setting there. That the host sets this time is inferred, not measured
([kernels/step.md](kernels/step.md#by-the-clock-the-host-is-too-slow)).
"""


def _host_seconds(sizes: Sizes) -> float:
    return device().host_seconds * sizes.layers / device().host_layers


def _settings() -> str:
    rows = []
    for sizes, batch, network in _cases():
        parts = []
        for setting, group in groupby(steps(sizes, batch, network), key=_described):
            counts = [one.job.gpus for one in group]
            parts.append(f"{_range(counts)}: {setting}")
        rows.append([sizes.name, batch, network.name, "; ".join(parts)])
    return f"""### Which setting to use where

The simplest setting that fits in {USABLE:.0%} of {size(device().memory)} and whose step is within 1% of the fastest.

{markdown(["model", "batch", "network", "GPUs: setting"], rows)}

| setting | in the configuration |
| --- | --- |
| ddp | `train.parallel ddp` |
| fsdp | `train.parallel fsdp`: all GPUs share one copy |
| hybrid | `train.parallel fsdp` and `train.fsdp_ranks {FAST.gpus_per_node}`: the GPUs of a node share a copy |
| recompute | `train.recompute_layers` |
| micro-batches of N | `train.grad_cache`, which keeps the contrastive batch whole, and `train.accumulate` set to the \
examples of a GPU over N |

Recomputation and GradCache cost a forward pass each. Recomputation allows larger micro-batches, which the host slows
less, and needs no second setting; GradCache is for batches that do not fit even so, and both together cost both.
"""


def _described(one: Step) -> str:
    """The setting with the size of its micro-batches, not their number, which differs with that of the GPUs."""
    setting = one.setting
    if setting.micro_batches == 1:
        return str(setting)
    whole = replace(setting, micro_batches=1)
    return f"{whole}, micro-batches of {one.job.examples // setting.micro_batches}"


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _sharding() -> str:
    rows = []
    for sizes in MODELS:
        for gpus in SHARDED_ON:
            for parallel in ("ddp", "hybrid", "fsdp"):
                if parallel == "hybrid" and gpus == FAST.gpus_per_node:
                    continue
                fast, slow = (_sharded(sizes, gpus, parallel, network) for network in NETWORKS)
                exposed = [f"{duration(s.weights)} ({s.weights / s.seconds:.1%})" for s in (fast, slow)]
                rows.append([sizes.name, gpus, parallel, size(fast.states), *exposed])
    head = ["model", "GPUs", "setting", "parameters, gradients, moments"]
    head += [f"exposed, {network.name}" for network in NETWORKS]
    most = SHARDED_ON[-1]
    saved = _sharded(LARGE, most, "ddp", FAST).states - _sharded(LARGE, most, "fsdp", FAST).states
    whole, nodes = (duration(_sharded(LARGE, most, p, FAST).weights) for p in ("fsdp", "hybrid"))
    found = [one for case in _cases() for one in steps(*case)]
    sharded = [one for one in found if one.setting.parallel != "ddp"]
    names = ", ".join(
        f"{s.job.sizes.name} with a batch of {s.job.batch} on {s.job.gpus} GPUs, {s.job.network.name}" for s in sharded
    )
    return f"""### What sharding costs

16 examples a GPU, `train.recompute_layers`. Exposed is communication of parameters and gradients that the passes do
not hide, with its share of the step.

{markdown(head, rows)}

FSDP saves up to {size(saved)} of memory with the large model. Activations are the larger part for both models, so
sharding is for parameters that outgrow a GPU. Of the {len(found)} cases above, {len(sharded)} choose
it{f" ({names})" if names else ""}: FSDP moves a part of its bytes in the forward pass, which
hides more of them where links are slow. A ring over all GPUs has a hop for each, and a step has rings for every layer:
on {most} GPUs with {FAST.name}, the large model exposes {whole} sharded over all, and {nodes} sharded within nodes.
"""


def _sharded(sizes: Sizes, gpus: int, parallel: Parallel, network: Network) -> Step:
    return step(Job(sizes, 16 * gpus, gpus, device(), network), Setting(parallel, recompute=True))


def loss_share(sizes: Sizes, batch: int, gpus: int) -> float:
    """FLOPs of the contrastive logits over those of the passes, products made twice included."""
    job = Job(sizes, batch, gpus, device(), FAST)
    return sum(loss_flops(job)) / (job.examples * sizes.flops)


def first_loud(sizes: Sizes, gpus: int) -> int:
    """The first power of two as a batch at which the loss is more than NOISE of the passes' FLOPs."""
    batch = gpus
    while loss_share(sizes, batch, gpus) <= NOISE:
        batch *= 2
    return batch


def _loss() -> str:
    gpus, rows = 512, []
    for sizes in MODELS:
        for batch in (1024, 4096, 8192, 16384, 32768):
            found = step(Job(sizes, batch, gpus, device(), FAST), Setting(recompute=True))
            slow = step(Job(sizes, batch, gpus, device(), SLOW), Setting(recompute=True))
            row = [sizes.name, batch, f"{loss_share(sizes, batch, gpus):.1%}", duration(found.loss)]
            rows.append([*row, size(found.vectors), duration(found.candidates), duration(slow.candidates)])
    head = ["model", "batch", "loss over passes, FLOPs", "loss", "vectors", *(n.name for n in NETWORKS)]
    chosen = [one for case in _cases() for one in steps(*case)]
    changed = sum(one.setting != free.setting for one in chosen if (free := best(one.job, vectors=False)))
    rows_by_problem = ", ".join(f"{p.name} {p.rows}" for p in PROBLEMS)
    return f"""### When the loss counts

Each GPU compares its vectors with those of all: its FLOPs grow with the batch, and so do the gathered vectors, {ROWS}
an example ({rows_by_problem}). For {gpus} GPUs; the last two columns are the exposed time of gathering candidates and
summing their gradients.

{markdown(head, rows)}

The loss exceeds {NOISE:.0%} of the passes' FLOPs from a batch of {first_loud(BASE, gpus)} with the base model and
{first_loud(LARGE, gpus)} with the large one. If the vectors took no memory, {changed or "none"} of the {len(chosen)}
settings above would change: [kernels/contrastive.md](kernels/contrastive.md#ranks) says why they are gathered whole.
With a small batch on many GPUs the hops of {4 * len(PROBLEMS)} collectives take longer than their bytes.
"""


def _inputs() -> str:
    busiest = max(
        (s for sizes, batch, _ in _cases() for s in steps(sizes, batch, FAST)), key=lambda s: s.rate / s.job.gpus
    )
    rate, example = busiest.rate / busiest.job.gpus, BASE.image_bytes + BASE.sound_bytes
    return f"""### What the input needs

An example is {size(BASE.image_bytes)} of frames and {size(BASE.sound_bytes)} of sounds on its way to the GPU. The
fastest case, {rate:.0f} examples a second and GPU ({busiest.job.sizes.name}, batch {busiest.job.batch},
{busiest.job.gpus} GPUs), needs {size(rate * example)}/s, little for PCIe. Each host must prepare
{FAST.gpus_per_node * rate:.0f} examples a second; whether its processors can is not modelled.
"""


def _assumptions() -> str:
    d, fast, slow = device(), FAST, SLOW
    plain = Job(BASE, 16, 1, d, FAST), Job(LARGE, 16, 1, d, FAST)
    kept, recomputed = (
        [size(activation_bytes(job, Setting(recompute=recompute)) / 16) for job in plain] for recompute in (False, True)
    )
    rows = [
        ["FLOPs of a pass", f"{d.flops_per_s / 1e12:.0f} TFLOP/s", f"measured: {d.name}, base, 16 examples"],
        ["host, a pass of the base model", duration(d.host_seconds), "measured, by the clock; grows with the layers"],
        ["optimizer", f"{d.parameters_per_s / 1e9:.0f} G parameters/s", "measured"],
        [
            "activations of an example",
            f"base {kept[0]}, large {kept[1]}",
            "base measured, large by token-layers x width",
        ],
        ["the same, recomputing", f"base {recomputed[0]}, large {recomputed[1]}", "counted"],
        ["the large model", "the FLOP/s of base, for the passes and the loss", "assumed"],
        [
            "GPU to GPU in a node",
            f"{fast.gpu_rate / 1e9:.0f} GB/s a direction",
            "NVIDIA H100 datasheet: NVLink 900 GB/s, both",
        ],
        [fast.name, f"{fast.node_rate / 1e9:.0f} GB/s a node", "a port of 400 Gb/s a GPU: NVIDIA DGX H100 datasheet"],
        ["the other network", f"{slow.node_rate / 1e9:.0f} GB/s a node", "assumed: one port of 200 Gb/s"],
        ["share of a link that collectives reach", f"{fast.efficiency:.0%}", "assumed"],
        [
            "a hop in a node, between nodes",
            f"{duration(fast.hop_seconds)}, {duration(fast.node_hop_seconds)}",
            "assumed",
        ],
        ["start of a collective", duration(fast.launch_seconds), "assumed"],
    ]
    counted = [
        ["parameters", *(f"{s.parameters:,}" for s in MODELS)],
        ["FLOPs of an example, both passes", *(f"{s.flops / 1e12:.2f} T" for s in MODELS)],
        ["token-layers of an example", *(f"{s.token_layers:,}" for s in MODELS)],
        ["parameters, gradients, moments", *(size(BYTES_PER_PARAMETER * s.parameters) for s in MODELS)],
    ]
    return f"""### Assumptions

{markdown(["quantity", "value", "source"], rows)}

{markdown(["counted", *(s.name for s in MODELS)], counted)}

- **Passes**: the kernels' time or the host's, whichever is longer, for forward and backward apart; forward is a third.
  Recomputation runs the layers' forward again in each backward pass; GradCache runs every micro-batch's forward twice.
- **DDP** sums gradients in buckets of 25 MiB beside the last backward pass. Nothing runs beside the last bucket.
- **FSDP** gathers the layers' matrices in bfloat16 in each forward and backward pass, everything else in float32 once
  a backward pass, and reduces gradients in float32 after each backward pass.
- **Collectives**: rings through all GPUs, one for each network adapter of a node; sums over all GPUs take a tree's
  hops. They take nothing from the GPU's kernels.
- **Candidates** are gathered in bfloat16, and their gradients reduced in it. Only the logits among a GPU's own vectors
  hide that.
- **Not modelled**: stragglers, failures, loading, checkpoints, fewer examples than fill a GPU's kernels.
"""


def _figures() -> str:
    parts = ["### Every figure\n"]
    for sizes, batch, network in _cases():
        found = steps(sizes, batch, network)
        rows = [_row(one, found[0]) for one in found]
        head = ["GPUs", "examples a GPU", "setting", "memory", "kernels", "host", "loss", "optimizer"]
        head += ["communication", "exposed", "step", "examples/s", "against 8 GPUs", "use"]
        title = f"{sizes.name}, batch {batch}, {network.name}, modelled"
        parts.append(f"<details><summary>{title}</summary>\n\n{markdown(head, rows)}\n\n</details>\n")
    parts.append(FIGURES_FOOT)
    return "\n".join(parts)


def _row(one: Step, first: Step) -> list[object]:
    relative = one.rate / one.job.gpus / (first.rate / first.job.gpus)
    return [
        one.job.gpus,
        one.job.examples,
        one.setting,
        size(one.memory),
        *(_ms(value) for value in (one.passes, one.host, one.loss, one.optimizer)),
        _ms(one.exposed + one.hidden),
        _ms(one.exposed),
        _ms(one.seconds),
        f"{one.rate:.0f}",
        f"{relative:.0%}",
        f"{one.use:.0%}",
    ]


def _ms(value: float) -> str:
    return f"{1e3 * value:.1f} ms" if value < 1 else f"{1e3 * value:.0f} ms"

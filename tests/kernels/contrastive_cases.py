"""Inputs for contrastive_loss, SPEC 8 written out, and the acceptance rule for all that the op gives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reserve_kernels import contrastive_loss
from tests.kernels.numerics import assert_as_good_as_reference

DRAWS = 16

every_backend = pytest.mark.parametrize("backend", ["dense", "chunked", "reference"])


def make_inputs(pairs=37, extra=11, dim=64, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        normal = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        # Away from zero: the gradients of a short vector, and their roundings, would exceed all others.
        return (normal + normal.sign()).to(dtype)

    return {"x": draw(pairs), "y": draw(pairs), "x_extra": draw(extra // 2), "y_extra": draw(extra)}


def dense(x, y, log_scale, x_extra=None, y_extra=None):
    """SPEC 8 written out: cross-entropy on materialised logits."""

    def prepare(v):
        return (
            v / torch.sqrt(v.square().sum(-1, keepdim=True) + 1e-5) * torch.exp(log_scale.clamp(max=math.log(100)) / 2)
        )

    xs, ys = (
        prepare(torch.cat([x, x_extra]) if x_extra is not None else x),
        prepare(torch.cat([y, y_extra]) if y_extra is not None else y),
    )
    n = torch.arange(x.shape[0], device=x.device)
    forward = torch.nn.functional.cross_entropy(xs[: len(x)] @ ys.T, n, reduction="none")
    backward = torch.nn.functional.cross_entropy(ys[: len(y)] @ xs.T, n, reduction="none")
    return (forward.mean() + backward.mean()) / 2, forward, backward


def on_backend(name):
    return lambda **arguments: contrastive_loss(**arguments, backend=name)


def losses_and_gradients(run, inputs, dtype, log_scale=1.3, device="cpu"):
    """The losses with the gradient of the temperature, and the gradients of the vectors."""
    leaves = {k: v.to(device, dtype).requires_grad_() for k, v in inputs.items()}
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    leaves["log_scale"] = torch.tensor(log_scale, dtype=statistics, device=device).requires_grad_()
    loss, *per_pair = run(**leaves)
    *vectors, of_log_scale = torch.autograd.grad(loss, leaves.values())
    # Scalars join the losses of the pairs: alone, the roundings that the rule compares with may cancel by chance.
    return [torch.cat([loss[None], *per_pair, of_log_scale[None]]), *vectors]


def compare_with_float64(backend, make: Callable[[int], dict], dtype, log_scale=1.3, device="cpu", ours=1):
    """Losses and all gradients by the acceptance rule. `make` gives the inputs of a seed.

    The reference runs on DRAWS seeds and the back end on the first `ours` of them: the largest error of one problem
    depends on chance, so it differs between processors.
    """
    runs = [(dense, torch.float64), (on_backend("reference"), dtype), (on_backend(backend), dtype)]
    truth, plain, out = (
        [losses_and_gradients(run, make(seed), each, log_scale, device) for seed in range(count)]
        for (run, each), count in zip(runs, (DRAWS, DRAWS, ours), strict=True)
    )
    for place in range(len(out[0])):
        truths, plains, outs = ([draw[place] for draw in each] for each in (truth, plain, out))
        first = (torch.stack(each[:ours]) for each in (outs, truths, plains))
        assert_as_good_as_reference(*first, zip(truths, plains, strict=True))


class Sizes(TorchDispatchMode):
    """Collects the numbers of elements of what PyTorch's operations return."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.sizes.extend(v.numel() for v in tree_leaves(out) if isinstance(v, torch.Tensor))
        return out


class Ops(TorchDispatchMode):
    """Collects the names of the ops that run. Under it a call is made of the registered op."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))

"""The ring of contrastive_loss, played in one process by ranks that all have the same vectors."""

from __future__ import annotations

import math
import weakref
from collections import Counter

import pytest
import torch

from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive import passes, ring
from reserve_kernels.contrastive.reference import STANDARD, Scaling, statistics_dtype
from tests.kernels.contrastive_cases import make_inputs

SIZE = 8


class Mirrors(ring.Ring):
    """What a rank sends to the right is what it receives from the left, because all ranks are alike."""

    def __init__(self, pairs: int, extras: int) -> None:
        self.pairs, self.extras, self.size, self.rank = [pairs] * SIZE, [extras] * SIZE, SIZE, 3
        self.alive: Counter[int] = Counter()
        self.most: Counter[int] = Counter()

    def shift(self, sent: torch.Tensor, shape: tuple[int, ...], tag: int) -> ring.Arriving:
        assert sent.shape == shape
        received = sent.clone()
        self.alive[tag] += 1
        weakref.finalize(received, lambda: self.alive.subtract([tag]))
        self.most[tag] = max(self.most[tag], self.alive[tag])
        return ring.Arriving(sent, received, [])


def mirrored(inputs, bias=None, scaling=STANDARD, log_scale=1.3):
    """The losses of one of the ranks, and the gradients of all ranks' losses by its vectors."""
    leaves = [inputs[name].requires_grad_() for name in ("x", "y", "x_extra", "y_extra")]
    scalars = [torch.tensor(log_scale, dtype=statistics_dtype(leaves[0].dtype), requires_grad=True)]
    of_bias = None if bias is None else torch.tensor(bias, dtype=scalars[0].dtype)
    ranks = Mirrors(len(leaves[1]), len(leaves[3]))
    losses = ring._RingLosses.apply(ranks, scaling, scalars[0], of_bias, *leaves)
    return [*losses, *torch.autograd.grad(losses[0], leaves)], ranks


def repeated(inputs, **arguments):
    """One process with everyone's vectors. The gradients of one rank's are those of the sum of the ranks' losses."""
    leaves = {k: v.requires_grad_() for k, v in inputs.items()}
    everyone = {k: torch.cat([v] * SIZE) for k, v in leaves.items()}
    out = contrastive_loss(**everyone, **arguments)
    count = len(leaves["x"])
    # Each leaf stands for SIZE ranks, and the sum over the ranks is SIZE times the mean.
    return [out.loss, out.x_to_y[:count], out.y_to_x[:count], *torch.autograd.grad(out.loss, leaves.values())]


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block_bytes", [1, 8 << 20])
@pytest.mark.parametrize("scaling", [STANDARD, Scaling(False)])
def test_equal_ranks_give_what_one_process_gives(monkeypatch, kind, dtype, block_bytes, scaling):
    monkeypatch.setattr(passes, "BLOCK_BYTES", block_bytes)
    arguments = {"kind": kind, "log_scale": 1.3 if scaling.normalize else -2.0, "normalize": scaling.normalize}
    if kind == "sigmoid":
        arguments["bias"] = -2.0
    inputs = make_inputs(37, 12, dtype=dtype)
    out, _ = mirrored({k: v.clone() for k, v in inputs.items()}, arguments.get("bias"), scaling, arguments["log_scale"])
    expected = repeated({k: v.double() for k, v in inputs.items()}, **arguments)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 3e-2}[dtype]
    for own, truth in zip(out, expected, strict=True):
        assert (own.double() - truth).abs().max() <= tolerance * max(truth.abs().max(), 1e-3)


@pytest.mark.parametrize("bias", [None, -2.0])
def test_a_rank_holds_two_visitors_at_a_time(bias):
    """Gathered, it would hold those of all seven others."""
    _, ranks = mirrored(make_inputs(37, 12), bias)
    assert ranks.most[ring.VECTORS] == 2
    assert ranks.most[ring.COLLECTED] <= 2
    assert not any(ranks.alive.values())


@pytest.mark.parametrize("bias", [None, -2.0])
def test_each_block_is_multiplied_once_forward_and_three_times_backward(monkeypatch, bias):
    """For both directions together; gathering ranks multiply other ranks' blocks once for each."""
    from reserve_kernels.contrastive import turns

    flops = Counter()

    def count(name):
        plain = getattr(turns, name)

        def counted(*arguments):
            left, right = arguments[-2:] if name == "add_product" else arguments[:2]
            flops["done"] += left.shape[0] * left.shape[1] * right.shape[1]
            return plain(*arguments)

        monkeypatch.setattr(turns, name, counted)

    count("product")
    count("add_product")
    mirrored(make_inputs(37, 0), bias)
    assert flops["done"] == 4 * SIZE * 37 * 37 * 64


@pytest.mark.parametrize("bias", [None, -2.0])
def test_log_scale_at_its_bound_has_a_gradient(bias):
    """In float32 ln 100 is above what Python has for it."""
    found = []
    for dtype in (torch.float32, torch.float64):
        log_scale = torch.tensor(math.log(100.0), dtype=dtype, requires_grad=True)
        of_bias = None if bias is None else torch.tensor(bias, dtype=dtype)
        vectors = make_inputs(5, 2, dtype=dtype).values()
        loss = ring._RingLosses.apply(Mirrors(5, 2), STANDARD, log_scale, of_bias, *vectors)[0]
        found.append(torch.autograd.grad(loss, log_scale)[0].double())
    torch.testing.assert_close(*found, rtol=1e-3, atol=0)


@pytest.mark.parametrize("bias", [None, -2.0])
def test_vectors_without_numbers_give_log_scale_no_gradient(bias):
    log_scale = torch.tensor(1.0, requires_grad=True)
    of_bias = None if bias is None else torch.tensor(bias)
    loss = ring._RingLosses.apply(Mirrors(5, 2), STANDARD, log_scale, of_bias, *make_inputs(5, 2, 0).values())[0]
    assert torch.autograd.grad(loss, log_scale)[0] == 0


def test_no_vectors_at_all():
    out, _ = mirrored(make_inputs(0, 0))
    assert out[0] == 0


def test_a_double_backward_is_refused():
    inputs = {k: v.requires_grad_() for k, v in make_inputs(5, 2).items()}
    loss = ring._RingLosses.apply(Mirrors(5, 2), STANDARD, torch.tensor(1.0), None, *inputs.values())[0]
    with pytest.raises(RuntimeError, match="contrastive_loss has no double backward"):
        torch.autograd.grad(loss, inputs["x"], create_graph=True)

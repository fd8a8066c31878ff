"""What contrastive_loss keeps for its backward pass, and how much exists at once."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive import LOGITS_BUDGET, blocks, eager, passes
from tests.kernels.contrastive_cases import Sizes, make_inputs


def saved_sizes(dtype=torch.float32, **arguments):
    """Numbers of elements that a call saves for the backward pass, besides its inputs."""
    inputs = {k: v.requires_grad_() for k, v in make_inputs(40, 20, dtype=dtype).items()}
    known, saved = {v.data_ptr() for v in inputs.values()}, []

    def pack(tensor):
        if tensor.data_ptr() not in known:
            saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        contrastive_loss(**inputs, log_scale=torch.tensor(1.0, requires_grad=True), **arguments)
    return saved


def test_only_the_inputs_and_a_number_a_row_are_saved():
    assert max(saved_sizes(backend="chunked")) <= 40


# Logits and both scaled sides: of 40 pairs of dimension 64, of x with 20 candidates, and of y with 10.
PAIRS, OF_X, OF_Y = (40 * other + (40 + other) * 64 for other in (40, 20, 10))


@pytest.mark.parametrize(
    "stored", [[OF_Y], [OF_X], [PAIRS], [PAIRS, OF_Y], [PAIRS, OF_X], [PAIRS, OF_X, OF_Y]], ids=str
)
@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.bfloat16, 4), (torch.float64, 8)])
def test_the_budget_decides_what_is_stored(stored, dtype, itemsize):
    """One problem after another, as long as it fits what is left."""
    needed = itemsize * sum(stored)
    under, over = (saved_sizes(dtype, logits_budget=budget) for budget in (needed - 1, needed))
    assert [size for size in over if size > 40] == stored
    assert [size for size in under if size > 40] != stored


def test_short_rows_with_long_vectors_are_not_stored_by_a_small_budget():
    """Scaled vectors are stored beside the logits, and here are nearly all."""
    x, saved = torch.randn(4, 100_000, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
        contrastive_loss(x, x, 1.0, logits_budget=1000)
    assert sum(size for size in saved if size != x.nbytes) < 1000


@pytest.mark.parametrize(("pairs", "unused"), [(16, 0), (360, 0), (365, 1 << 20), (2890, 1 << 20), (2895, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_what_the_allocator_would_return_is_followed_by_unused_memory(pairs, unused, dtype):
    """That is from half a MiB to 32 MiB of logits and scaled vectors."""
    x = torch.randn(pairs, 2, dtype=dtype)
    *_, memory = blocks.logsumexp_dense(x, x, torch.tensor(1.0), True)
    assert memory.nbytes == 4 * (pairs * pairs + 4 * pairs)
    assert memory.untyped_storage().nbytes() - memory.nbytes == unused


def test_without_a_gradient_no_logits_are_stored(monkeypatch):
    inputs, used = make_inputs(), []
    forward = eager.forward
    monkeypatch.setattr(eager, "forward", lambda *arguments: used.append(arguments[4]) or forward(*arguments))
    contrastive_loss(**inputs, log_scale=1.0)
    with torch.no_grad():
        contrastive_loss(**inputs, log_scale=torch.tensor(1.0, requires_grad=True))
    assert set(used) == {"chunked"}
    contrastive_loss(**inputs, log_scale=torch.tensor(1.0, requires_grad=True))
    assert used[-1] == "dense"


def test_the_usual_budget_is_a_gibibyte():
    assert LOGITS_BUDGET == 2**30


def test_all_logits_never_exist_at_once(monkeypatch):
    monkeypatch.setattr(passes, "BLOCK_BYTES", 1 << 16)
    x, y, log_scale = torch.randn(600, 8), torch.randn(600, 8), torch.tensor(1.0)
    grads = tuple(torch.randn(600) for _ in range(3))
    with Sizes() as results:
        row_lse, column_lse, _, nothing = blocks.logsumexp_chunked(x, y, log_scale, True)
        blocks.logsumexp_blocks_backward(grads, x, y, log_scale, row_lse, column_lse, nothing, True)
    assert max(results.sizes) <= max((1 << 16) // 4, x.numel())

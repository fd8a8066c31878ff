"""The transformer's layers against PyTorch's, and the independence of packed sequences."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from reserve.model.transformer import AttentionPool, Transformer, quick_gelu


def test_quick_gelu() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(quick_gelu(x), x / (1 + torch.exp(-1.702 * x)))


def test_pool_is_multi_head_attention_with_the_mean_as_query() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(128).double()
    windows = torch.randn(5, 4, 128, dtype=torch.float64)
    expected, _ = F.multi_head_attention_forward(
        windows.mean(1)[None],
        windows.transpose(0, 1),
        windows.transpose(0, 1),
        embed_dim_to_check=128,
        num_heads=2,
        in_proj_weight=torch.cat((pool.query.weight, pool.key.weight, pool.value.weight)),
        in_proj_bias=torch.cat((pool.query.bias, pool.key.bias, pool.value.bias)),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.out.weight,
        out_proj_bias=pool.out.bias,
    )
    torch.testing.assert_close(pool(windows), expected[0], rtol=1e-12, atol=1e-12)


def test_sequences_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    transformer = Transformer(64, 2, "reserve").double()
    x, angles = torch.randn(12, 64, dtype=torch.float64), torch.randn(12, 16, dtype=torch.float64)
    lengths = [3, 0, 8, 1]
    cu_seqlens = torch.tensor([0, 3, 3, 11, 12], dtype=torch.int32)
    together = transformer(x, cu_seqlens, 8, angles)
    start = 0
    for length in lengths:
        rows = slice(start, start := start + length)
        alone = transformer(x[rows], torch.tensor([0, length], dtype=torch.int32), length, angles[rows])
        torch.testing.assert_close(together[rows], alone, rtol=1e-12, atol=1e-12)


def _run(transformer: Transformer, dtype: torch.dtype) -> tuple[list[torch.Tensor], int]:
    """The output and the gradients of the input and the weights, and the bytes that autograd saved besides the weights.

    Tensors that several operations save count once.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 64, generator=generator).requires_grad_()
    angles = torch.randn(40, 16, generator=generator)
    cu_seqlens = torch.tensor([0, 17, 40], dtype=torch.int32)
    weights = {p.untyped_storage().data_ptr() for p in transformer.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}  # alive, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        out = transformer(x, cu_seqlens, 23, angles)
    gradients = torch.autograd.grad(out.float().square().sum(), [x, *transformer.parameters()])
    return [out.detach(), *gradients], sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputing_layers_saves_memory_and_changes_no_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    transformer = Transformer(64, 3, "reserve")
    expected, kept = _run(transformer, dtype)
    transformer.recompute = True
    ours, kept_less = _run(transformer, dtype)
    for value, truth in zip(ours, expected, strict=True):
        assert torch.equal(value, truth)
    # Of a layer only its input: 64 numbers a token, where one without recomputation keeps more than 64 * 10.
    assert kept_less < kept / 3

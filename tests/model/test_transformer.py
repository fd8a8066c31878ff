"""The transformer's layers against PyTorch's, and the independence of packed sequences."""

from __future__ import annotations

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

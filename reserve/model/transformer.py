"""The pre-norm transformer of all four encoders, over packed sequences (SPEC 4)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from reserve.model.placement import is_plain_linear
from reserve_kernels import bias_quick_gelu, rotary_attention
from reserve_kernels.precision import computing_dtype

HEAD_SIZE = 64
LAYER_NORM_EPS = 1e-5


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


class Norm(nn.LayerNorm):
    """Layer norm with statistics, weight and bias in float32 at least, rounded once, to the computing dtype.

    So the residual stream has that dtype on every device, as in the reference. Autocast alone would keep it in float32
    on a GPU and in bfloat16 on a CPU.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, LAYER_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).to(computing_dtype(x.dtype, x.device))


class Attention(nn.Module):
    """Self-attention over packed tokens [tokens, hidden]. qkv has a bias, the projection does not."""

    def __init__(self, hidden_size: int, rotary: str) -> None:
        super().__init__()
        self.rotary = rotary
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.projection = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, angles: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, -1, HEAD_SIZE))
        out = rotary_attention(qkv, cu_seqlens, max_seqlen, angles=angles, rotary=self.rotary)
        return self.projection(out.flatten(-2))


class Mlp(nn.Module):
    """Two linear layers with a hidden size four times as large. Only the first has a bias."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.intermediate = nn.Linear(hidden_size, 4 * hidden_size)
        self.out = nn.Linear(4 * hidden_size, hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.intermediate
        if not is_plain_linear(layer):
            return self.out(bias_quick_gelu(layer(x)))
        # The activation adds the bias, and keeps only what the product gave it.
        return self.out(bias_quick_gelu(F.linear(x, layer.weight), layer.bias))


class Layer(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, hidden_size: int, rotary: str) -> None:
        super().__init__()
        self.attention_norm = Norm(hidden_size)
        self.attention = Attention(hidden_size, rotary)
        self.mlp_norm = Norm(hidden_size)
        self.mlp = Mlp(hidden_size)

    def forward(self, x: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, angles: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), cu_seqlens, max_seqlen, angles)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """A norm, `num_layers` layers and a final norm over packed sequences.

    With `recompute`, the backward pass runs each layer again, so that only its input is kept.
    """

    def __init__(self, hidden_size: int, num_layers: int, rotary: str) -> None:
        super().__init__()
        self.pre_norm = Norm(hidden_size)
        self.layers = nn.ModuleList(Layer(hidden_size, rotary) for _ in range(num_layers))
        self.final_norm = Norm(hidden_size)
        self.recompute = False

    def forward(self, x: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, angles: torch.Tensor) -> torch.Tensor:
        """x [tokens, hidden], cu_seqlens int32 [sequences + 1], angles [tokens, 16] -> [tokens, hidden]."""
        x = self.pre_norm(x)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                # Layers draw no random numbers.
                x = checkpoint(layer, x, cu_seqlens, max_seqlen, angles, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, cu_seqlens, max_seqlen, angles)
        return self.final_norm(x)


class AttentionPool(nn.Module):
    """Pools windows of tokens: the query is the window's mean, keys and values its tokens (SPEC 4: seq_attnpool)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """[..., tokens, hidden] -> [..., hidden]."""
        query = self.query(windows.mean(-2)).unflatten(-1, (-1, HEAD_SIZE))
        key = self.key(windows).unflatten(-1, (-1, HEAD_SIZE))
        value = self.value(windows).unflatten(-1, (-1, HEAD_SIZE))
        # With one query per window, two small contractions do it; attention kernels would pad four keys to a tile.
        # The query is scaled, not the scores, which would overflow in float16; 1/8 is exact in every dtype.
        scores = torch.einsum("...hd,...thd->...ht", query * HEAD_SIZE**-0.5, key)
        pooled = torch.einsum("...ht,...thd->...hd", F.softmax(scores, dim=-1), value)
        return self.out(pooled.flatten(-2))

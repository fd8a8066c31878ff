"""The encoders of frames, audio clips and text spans, all over packed sequences (SPEC 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn

from reserve.batch.coordinates import centred_coordinates, grid_coordinates, with_cls
from reserve.batch.packing import PackedSpans
from reserve.config import MEL_CHANNELS, ModelConfig
from reserve.model.placement import module_dtype
from reserve.model.rotary import rotary_angles
from reserve.model.transformer import AttentionPool, Transformer
from reserve_kernels.precision import computing_dtype


class Encoded(NamedTuple):
    """Encodings of n inputs: `cls` [n, hidden], `pooled` [n, joint tokens, hidden], `seq` [n, L, hidden]."""

    cls: torch.Tensor
    pooled: torch.Tensor
    seq: torch.Tensor


class ClsTransformer(nn.Module):
    """A transformer that prepends a CLS token to every sequence."""

    def __init__(self, hidden_size: int, num_layers: int, rotary: str) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(hidden_size))
        self.transformer = Transformer(hidden_size, num_layers, rotary)
        self.cls_projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: torch.Tensor, coordinates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [n, L, hidden] at coordinates [L, axes], on its device -> cls [n, hidden], seq [n, L, hidden]."""
        n, length, hidden = x.shape
        x = torch.cat((self.cls.to(x.dtype).expand(n, 1, hidden), x), dim=1)
        cu_seqlens = torch.arange(n + 1, dtype=torch.int32, device=x.device) * (length + 1)
        angles = rotary_angles(with_cls(coordinates), x.dtype).repeat(n, 1)
        out = self.transformer(x.flatten(0, 1), cu_seqlens, length + 1, angles).view(n, length + 1, hidden)
        return self.cls_projection(out[:, 0]), out[:, 1:]


class PackedClsTransformer(ClsTransformer):
    """A transformer of sequences that are packed with their CLS tokens."""

    def forward(self, x: torch.Tensor, spans: PackedSpans) -> torch.Tensor:  # type: ignore[override]
        """x [tokens, hidden], whose rows at CLS tokens do not count -> cls [n, hidden]."""
        x = torch.where(spans.is_cls[:, None], self.cls.to(x.dtype), x)
        out = self.transformer(x, spans.cu_seqlens, spans.max_seqlen, rotary_angles(spans.coordinates, x.dtype))
        return self.cls_projection(out[spans.cu_seqlens[:-1]])


def patchify(images: torch.Tensor, patch: int, dtype: torch.dtype) -> torch.Tensor:
    """Images [n, height, width, 3], uint8 or floating in [0, 1] -> patches in `dtype` with values in [0, 1].

    Returns [n, height / patch, width / patch, patch * patch * 3].
    """
    tiles = rearrange(images, "n (h p) (w q) c -> n h w p q c", p=patch, q=patch)
    # Converted on the way to its place, and divided there: two passes. Bytes are exact in bfloat16, and a quotient is
    # rounded once: as if computed in float32.
    patches = tiles.to(dtype, memory_format=torch.contiguous_format).flatten(3)
    return patches if images.is_floating_point() else patches.div_(255)


class VisionEncoder(nn.Module):
    """A ViT on 16-pixel patches, then attention pooling of 2x2 windows."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch, self.ratio = config.vit_patch_size, config.vit_pooling_ratio
        self.embedding = nn.Linear(3 * config.vit_patch_size**2, config.hidden_size)
        self.encoder = ClsTransformer(config.hidden_size, config.vit_num_layers, config.rotary)
        self.pool = AttentionPool(config.hidden_size)

    def forward(self, images: torch.Tensor) -> Encoded:
        """[n, height, width, 3], uint8 or floating in [0, 1] -> 1 CLS and height * width / 1024 joint tokens each.

        Any grid that the pooling ratio divides works: coordinates depend on the size of the images.
        """
        patches = patchify(images, self.patch, computing_dtype(module_dtype(self), images.device))
        _, h, w, _ = patches.shape
        cls, seq = self.encoder(self.embedding(patches.flatten(1, 2)), grid_coordinates(h, w, images.device))
        windows = rearrange(
            seq, "n (h i w j) d -> n (h w) (i j) d", h=h // self.ratio, i=self.ratio, j=self.ratio, d=seq.shape[-1]
        )
        return Encoded(cls, self.pool(windows), seq)


class AudioEncoder(nn.Module):
    """A transformer on pairs of mel frames, then attention pooling of windows of 5."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch = config.audio_patch_size
        self.window = config.audio_seq_length // (config.audio_patch_size * config.audio_token_length)
        # A convolution of width and stride `patch` is a linear layer on that many flattened frames.
        self.embedding = nn.Linear(config.audio_patch_size * MEL_CHANNELS, config.hidden_size)
        self.encoder = ClsTransformer(config.hidden_size, config.audio_num_layers, config.rotary)
        self.pool = AttentionPool(config.hidden_size)

    def forward(self, clips: torch.Tensor) -> Encoded:
        """[n, 60, 65] log-mels and playback speed -> 1 CLS and 6 joint tokens each."""
        x = self.embedding(rearrange(clips.to(module_dtype(self)), "n (t p) c -> n t (p c)", p=self.patch))
        length = x.shape[1]
        cls, seq = self.encoder(x, centred_coordinates(length, x.device)[:, None] / length)
        return Encoded(cls, self.pool(seq.unflatten(1, (-1, self.window))), seq)


class SpanEncoder(nn.Module):
    """A transformer on the tokens of text spans, without their padding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = PackedClsTransformer(config.hidden_size, config.span_num_layers, config.rotary)

    def forward(self, spans: PackedSpans, tokens: torch.Tensor) -> torch.Tensor:
        """n packed spans and the embeddings of their tokens [tokens, hidden] -> [n, hidden]."""
        return self.encoder(tokens.to(computing_dtype(tokens.dtype, tokens.device)), spans)

"""The model as one would write it in plain PyTorch: sequences padded to fixed lengths, and masked.

It shares the weights of a `MerlotReserve` and computes the same loss and gradients, so it is the peer of a training
step. Shapes do not depend on the batch, which suits torch.compile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from benchmarks.contrastive_peers import dense
from reserve.batch.coordinates import centred_coordinates, grid_coordinates, with_cls
from reserve.batch.movable import Movable
from reserve.config import Config
from reserve.model.encoders import AudioEncoder, ClsTransformer, SpanEncoder, VisionEncoder
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.rotary import rotary_angles
from reserve.model.transformer import HEAD_SIZE, Layer, Transformer
from reserve.tasks.pretrain.batch import PretrainBatch, Targets
from reserve.tasks.task import Loss

STREAMS_WITH_IMAGES = ("text2audio", "audio2text")


@dataclass
class PaddedSequences(Movable):
    """Positions and masks of n sequences of length L, for one encoder.

    `scale` [n or 1, L, 64]: the factors by which the diagonal rotary form multiplies queries and keys. `mask`: added to
    the scores, 0 or -inf, [n, 1, 1 or L, L]; None if all tokens attend to each other.
    """

    scale: torch.Tensor
    mask: torch.Tensor | None


@dataclass
class PaddedBatch(Movable):
    """A `PretrainBatch` padded: joint sequences to data.seq_len, text spans to their longest length and CLS.

    `joint_ids` int64 [sequences, L]: words, PAD elsewhere. Where `joint_is_pooled` bool [sequences, L], the token is
    row `joint_pooled` of the pooled audio and image tokens. `span_ids` int64 [spans, 1 + length]. `targets` count rows
    of the flattened joint sequences.
    """

    images: torch.Tensor
    audio_clips: torch.Tensor
    joint_ids: torch.Tensor
    joint_is_pooled: torch.Tensor
    joint_pooled: torch.Tensor
    span_ids: torch.Tensor
    vision: PaddedSequences
    audio: PaddedSequences
    spans: PaddedSequences
    joint: PaddedSequences
    targets: Targets


def padded_batch(batch: PretrainBatch, config: Config, dtype: torch.dtype = torch.float32) -> PaddedBatch:
    """Pads a packed batch that is on the CPU. `dtype` is that of the queries, so that no step converts masks."""
    data, model = config.data, config.model
    if model.rotary != "reserve":
        raise ValueError(f'the padded model supports model.rotary "reserve" only; got {model.rotary!r}')
    packed, spans, targets = batch.joint, batch.spans, batch.targets
    assert batch.audio_clips is not None
    assert spans is not None

    lengths = _sequence_lengths(batch)
    slot = _slots(lengths, data.seq_len)
    shape = (len(lengths), data.seq_len)
    num_text, num_audio = len(packed.text_ids), batch.audio_clips[..., 0, 0].numel() * model.audio_token_length
    is_text = packed.order < num_text
    ids = _scattered(packed.text_ids[packed.order[is_text]], slot[is_text], shape)
    pooled = torch.cat((packed.audio_index, num_audio + packed.image_index))[packed.order[~is_text] - num_text]
    # The other tokens read different rows too: a GPU would sum the gradients of one row, all zero, one after another.
    num_images = batch.images.flatten(0, -4).shape[0] * model.pooled_grid[0] * model.pooled_grid[1]
    joint_pooled = torch.arange(shape[0] * shape[1]) % (num_audio + num_images)
    joint_pooled[slot[~is_text]] = pooled
    groups = packed.cu_seqlens.diff().long()
    group = _scattered(1 + torch.arange(len(groups)).repeat_interleave(groups), slot, shape)
    coordinates = _scattered(packed.coordinates, slot, shape)

    span_lengths = spans.cu_seqlens.diff().long().numpy()
    span_shape = (len(span_lengths), 1 + model.text_span_length)
    span_slot = _slots(span_lengths, span_shape[1])
    is_token = _scattered(torch.ones_like(span_slot), span_slot, span_shape)

    def moved(rows: torch.Tensor) -> torch.Tensor:
        return torch.where(rows >= 0, slot[rows.clamp_min(0)], -1)

    patches = model.audio_seq_length // model.audio_patch_size
    return PaddedBatch(
        images=batch.images,
        audio_clips=batch.audio_clips,
        joint_ids=ids,
        joint_is_pooled=_scattered(~is_text, slot, shape),
        joint_pooled=joint_pooled.view(shape),
        span_ids=_scattered(spans.token_ids, span_slot, span_shape),
        vision=PaddedSequences(_scale(with_cls(grid_coordinates(*model.output_grid)), dtype)[None], None),
        audio=PaddedSequences(_scale(with_cls(centred_coordinates(patches)[:, None] / patches), dtype)[None], None),
        # Padding queries attend to the tokens of their span; nothing reads their outputs.
        spans=PaddedSequences(
            _scale(_scattered(spans.coordinates, span_slot, span_shape), dtype), _mask(is_token[:, None] > 0, dtype)
        ),
        # A sequence can hold two videos, whose tokens do not attend to each other. Padding is a group of its own.
        joint=PaddedSequences(_scale(coordinates, dtype), _mask(group[:, :, None] == group[:, None], dtype)),
        targets=Targets(
            **{
                name: moved(value) if name in ("pool_rows", "audio_rows", "span_rows") else value
                for name, value in vars(targets).items()
            }
        ),
    )


def _sequence_lengths(batch: PretrainBatch) -> np.ndarray:
    """Tokens of each joint sequence, in the packed order."""
    rows = batch.joint.rows
    images = len(batch.joint.image_index) // sum(len(rows[name]) for name in STREAMS_WITH_IMAGES)
    return np.concatenate([(part >= 0).sum(1) + images * (name in STREAMS_WITH_IMAGES) for name, part in rows.items()])


def _slots(lengths: np.ndarray, padded: int) -> torch.Tensor:
    """The row of each packed token among sequences padded to the length `padded`."""
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return torch.from_numpy(sequence * padded + np.arange(len(sequence)) - first)


def _scattered(values: torch.Tensor, slots: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """[*shape, ...]: `values` [tokens, ...] at `slots` [tokens] of the first two axes, zeros elsewhere."""
    out = values.new_zeros(shape[0] * shape[1], *values.shape[1:])
    out[slots] = values
    return out.view(*shape, *values.shape[1:])


def _scale(coordinates: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[..., axes] -> [..., 64]: sin a - cos a and sin a + cos a for each angle a, then ones (SPEC 5)."""
    angles = rotary_angles(coordinates, torch.float64)
    rotated = torch.stack((angles.sin() - angles.cos(), angles.sin() + angles.cos()), -1).flatten(-2)
    return torch.cat((rotated, torch.ones_like(rotated)), -1).to(dtype)


def _mask(attends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """bool [n, queries, keys] -> what is added to the scores [n, 1, queries, keys]."""
    return torch.zeros(attends.shape, dtype=dtype).masked_fill_(~attends, -torch.inf)[:, None]


def _wide(x: torch.Tensor) -> torch.Tensor:
    """float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class PaddedLayer(nn.Module):
    """`Layer` on [n, L, hidden]."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = layer.attention_norm, layer.mlp_norm
        self.qkv, self.projection = layer.attention.qkv, layer.attention.projection
        self.intermediate, self.out = layer.mlp.intermediate, layer.mlp.out

    def forward(self, x: torch.Tensor, scale: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, -1, HEAD_SIZE))
        qk = qkv[:, :, :2] * scale[:, :, None, None].to(qkv.dtype)
        q, k, v = (part.transpose(1, 2) for part in (qk[:, :, 0], qk[:, :, 1], qkv[:, :, 2]))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.projection(attended.transpose(1, 2).flatten(-2))
        hidden = self.intermediate(self.mlp_norm(x))
        return x + self.out(hidden * torch.sigmoid(1.702 * hidden))


class PaddedTransformer(nn.Module):
    """`Transformer` on [n, L, hidden]."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.pre_norm, self.final_norm = transformer.pre_norm, transformer.final_norm
        self.layers = nn.ModuleList(PaddedLayer(layer) for layer in transformer.layers)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, sequences: PaddedSequences) -> torch.Tensor:
        x = self.pre_norm(x)
        for layer in self.layers:
            x = layer(x, sequences.scale, sequences.mask)
        return self.final_norm(x)


class PaddedEncoder(nn.Module):
    """A `ClsTransformer` on [n, L, hidden]."""

    def __init__(self, encoder: ClsTransformer) -> None:
        super().__init__()
        self.transformer, self.cls_projection = PaddedTransformer(encoder.transformer), encoder.cls_projection
        self.cls = encoder.cls

    def forward(self, x: torch.Tensor, sequences: PaddedSequences) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [n, L, hidden] -> cls [n, hidden], the other tokens' outputs [n, L, hidden]."""
        cls = self.cls.to(x.dtype).expand(len(x), 1, -1)
        out = self.transformer(torch.cat((cls, x), 1), sequences)
        return self.cls_projection(out[:, 0]), out[:, 1:]


class PaddedModel(nn.Module):
    """The loss of a `PaddedBatch`, with the weights of `model`."""

    def __init__(self, model: MerlotReserve) -> None:
        super().__init__()
        vision: VisionEncoder = model.vision_encoder
        audio: AudioEncoder = model.audio_encoder
        span: SpanEncoder = model.span_encoder
        self.patch, self.ratio = vision.patch, vision.ratio
        self.audio_patch, self.audio_window = audio.patch, audio.window
        self.patch_embedding, self.clip_embedding = vision.embedding, audio.embedding
        self.vision_pool, self.audio_pool = vision.pool, audio.pool
        self.vision = PaddedEncoder(vision.encoder)
        self.audio = PaddedEncoder(audio.encoder)
        self.span = PaddedEncoder(span.encoder)
        self.joint = PaddedTransformer(model.joint_transformer)
        self.token_embedding, self.head = model.token_embedding, model.head
        self.contrastive_scales = model.contrastive_scales

    def compile_layers(self) -> None:
        """Compiles the layers, once for each shape that an encoder has."""
        for module in self.modules():
            if isinstance(module, PaddedLayer):
                module.compile(dynamic=False)

    def loss(self, batch: PaddedBatch) -> Loss:
        """The loss that the trainer lowers, from dense logits in float32 at least."""
        vectors = self(batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            losses = [
                dense(_wide(x), _wide(y), scale) for (x, y), scale in zip(vectors, self.contrastive_scales, strict=True)
            ]
        return Loss(torch.stack(losses).sum())

    def forward(self, batch: PaddedBatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Predictions and candidates of the three contrastive problems, each prediction's own candidate first."""
        frames, windows = self._frames(batch)
        sounds, pooled_audio = self._sounds(batch)
        pooled = torch.cat((pooled_audio.flatten(0, 1), windows.flatten(0, 1)))
        words = self.token_embedding(batch.joint_ids).to(pooled.dtype)
        x = torch.where(batch.joint_is_pooled[..., None], pooled[batch.joint_pooled], words)
        joint = self.joint(x, batch.joint).flatten(0, 1)
        spans, _ = self.span(self.token_embedding(batch.span_ids[:, 1:]), batch.spans)
        targets = batch.targets
        clips = torch.cat((targets.audio_index, targets.audio_extra))
        return [
            (self._predictions(joint, targets.pool_rows), frames),
            (self._predictions(joint, targets.audio_rows), sounds[clips]),
            (self._predictions(joint, targets.span_rows), spans),
        ]

    def _frames(self, batch: PaddedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        images = batch.images.flatten(0, -4)
        pixels = images.to(self.patch_embedding.weight.dtype) / 255
        patches = rearrange(pixels, "n (h p) (w q) c -> n h w (p q c)", p=self.patch, q=self.patch)
        _, h, w, _ = patches.shape
        cls, seq = self.vision(self.patch_embedding(patches.flatten(1, 2)), batch.vision)
        windows = rearrange(
            seq, "n (h i w j) d -> n (h w) (i j) d", i=self.ratio, j=self.ratio, h=h // self.ratio, w=w // self.ratio
        )
        return cls, self.vision_pool(windows)

    def _sounds(self, batch: PaddedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        clips = batch.audio_clips.flatten(0, -3).to(self.clip_embedding.weight.dtype)
        x = self.clip_embedding(rearrange(clips, "n (t p) c -> n t (p c)", p=self.audio_patch))
        cls, seq = self.audio(x, batch.audio)
        return cls, self.audio_pool(seq.unflatten(1, (-1, self.audio_window)))

    def _predictions(self, joint: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.where((rows >= 0)[:, None], self.head(joint[rows.clamp_min(0)]), 0.0)

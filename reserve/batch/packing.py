"""Packing: from padded token streams to the joint encoder's and the span encoder's packed sequences.

This is integer bookkeeping in numpy, once per batch and before the batch moves to its device: the model never
synchronises with a GPU to learn a length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.coordinates import MAX_SEGMENT, MAX_TOKEN, grid_coordinates_array
from reserve.batch.movable import Movable
from reserve.batch.streams import JointStream
from reserve.batch.vocabulary import AUDIOSPAN, PAD

SPAN_POSITIONS = 16.0


@dataclass
class PackedSpans(Movable):
    """Text spans one after another, each a CLS and its tokens without padding (SPEC 6).

    `token_ids` int64 [tokens], PAD where `is_cls` bool [tokens]; `coordinates` float32 [tokens, 1];
    `cu_seqlens` int32 [spans + 1].
    """

    token_ids: torch.Tensor
    is_cls: torch.Tensor
    coordinates: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int


def pack_spans(spans: np.ndarray) -> PackedSpans:
    """Packs spans int [n, length] padded with PAD. Padding before a token counts towards its position."""
    n, length = spans.shape
    ids = np.concatenate((np.zeros((n, 1), np.int64), spans.astype(np.int64)), axis=1)
    taken = ids != PAD
    taken[:, 0] = True
    position = np.broadcast_to(np.arange(length + 1, dtype=np.float32) / np.float32(SPAN_POSITIONS), ids.shape)
    is_cls = np.broadcast_to(np.arange(length + 1) == 0, ids.shape)
    lengths = taken.sum(1)
    return PackedSpans(
        token_ids=torch.from_numpy(ids[taken]),
        is_cls=torch.from_numpy(is_cls[taken]),
        coordinates=torch.from_numpy(position[taken])[:, None],
        cu_seqlens=_cu_seqlens(lengths),
        max_seqlen=int(lengths.max(initial=1)),
    )


@dataclass
class PackedSequences(Movable):
    """The joint encoder's sequences of a batch, one after another, without padding or masks.

    The tokens of one (sequence, source video) form an attention group. `text_ids` int64 [*] are embedded;
    `audio_index` and `image_index` int64 [*] select rows of the flattened pooled audio and image tokens; `order` int64
    [tokens] permutes the concatenated text, audio and image tokens into the packed sequence. `coordinates` float32
    [tokens, 4]; `cu_seqlens` int32 [groups + 1]. `rows` of each stream, int64 [sequences, length], are the packed rows
    of its language tokens, -1 for padding; they stay on the CPU.
    """

    text_ids: torch.Tensor
    audio_index: torch.Tensor
    image_index: torch.Tensor
    order: torch.Tensor
    coordinates: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    rows: dict[str, np.ndarray]


_TEXT, _AUDIO, _IMAGE = 0, 1, 2


class _Collector:
    """Accumulates tokens as columns."""

    def __init__(self) -> None:
        self.columns: dict[str, list[np.ndarray]] = {k: [] for k in ("kind", "value", "sequence", "source", "slot")}
        self.coordinates: list[np.ndarray] = []

    def add(self, coordinates: np.ndarray, **columns: np.ndarray) -> None:
        for name, column in columns.items():
            self.columns[name].append(column.ravel())
        self.coordinates.append(coordinates.reshape(-1, 4))

    def column(self, name: str) -> np.ndarray:
        return np.concatenate(self.columns[name])


def pack_joint(
    streams: list[JointStream], *, subsegments: int, audio_tokens: int, pooled_grid: tuple[int, int]
) -> PackedSequences:
    """Packs the streams of a batch (SPEC 6, 7).

    `subsegments` is the number of audio subsegments of an example, `audio_tokens` the number of joint tokens of each,
    `pooled_grid` the height and width of a frame in joint tokens.
    """
    collected = _Collector()
    first_sequence = first_slot = 0
    for stream in streams:
        _add_language(collected, stream, first_sequence, first_slot, subsegments, audio_tokens)
        if stream.images is not None:
            _add_images(collected, stream, first_sequence, pooled_grid)
        first_sequence += len(stream.ids)
        first_slot += stream.ids.size

    kind, value = collected.column("kind"), collected.column("value")
    sequence, source = collected.column("sequence"), collected.column("source")
    packed = np.lexsort((source, sequence))
    # The row of each token in the concatenated text, audio and image embeddings.
    stacked_row = np.empty(len(kind), np.int64)
    stacked_row[np.argsort(kind, kind="stable")] = np.arange(len(kind))
    new_group = np.ones(len(packed), bool)
    new_group[1:] = (np.diff(sequence[packed]) != 0) | (np.diff(source[packed]) != 0)
    lengths = np.diff(np.append(np.flatnonzero(new_group), len(packed)))
    return PackedSequences(
        text_ids=torch.from_numpy(value[kind == _TEXT]),
        audio_index=torch.from_numpy(value[kind == _AUDIO]),
        image_index=torch.from_numpy(value[kind == _IMAGE]),
        order=torch.from_numpy(stacked_row[packed]),
        coordinates=torch.from_numpy(np.concatenate(collected.coordinates)[packed]),
        cu_seqlens=_cu_seqlens(lengths),
        max_seqlen=int(lengths.max(initial=0)),
        rows=_language_rows(streams, collected.column("slot")[packed]),
    )


def _add_language(
    collected: _Collector,
    stream: JointStream,
    first_sequence: int,
    first_slot: int,
    subsegments: int,
    audio_tokens: int,
) -> None:
    n, length = stream.ids.shape
    is_audio = (stream.ids == AUDIOSPAN) & stream.with_audio
    # The k-th AUDIOSPAN of a sequence is pooled token k mod audio_tokens, whatever its subsegment.
    nth = np.maximum(np.cumsum(is_audio, axis=1) - 1, 0) % audio_tokens
    subsegment = stream.example[:, None] * subsegments + np.maximum(stream.audio_ptr, 0)
    coordinates = np.zeros((n, length, 4), np.float32)
    coordinates[..., 2] = stream.segment / np.float32(MAX_SEGMENT)
    coordinates[..., 3] = np.arange(1, length + 1, dtype=np.float32) / np.float32(MAX_TOKEN)
    sequence = np.broadcast_to(first_sequence + np.arange(n)[:, None], (n, length))
    source = np.zeros_like(sequence)
    if stream.source is not None:
        source = np.take_along_axis(stream.source, stream.segment, axis=1)
    taken = stream.ids != PAD
    collected.add(
        coordinates[taken],
        kind=np.where(is_audio, _AUDIO, _TEXT)[taken],
        value=np.where(is_audio, subsegment * audio_tokens + nth, stream.ids).astype(np.int64)[taken],
        sequence=sequence[taken],
        source=source[taken],
        slot=first_slot + np.flatnonzero(taken),
    )


def _add_images(collected: _Collector, stream: JointStream, first_sequence: int, grid: tuple[int, int]) -> None:
    assert stream.images is not None
    n, segments = stream.images.shape
    cells = grid[0] * grid[1]
    shape = (n, segments, cells)
    coordinates = np.zeros((*shape, 4), np.float32)
    coordinates[..., :2] = grid_coordinates_array(*grid)
    segment = np.arange(stream.first_segment, stream.first_segment + segments, dtype=np.float32)
    coordinates[..., 2] = (segment / np.float32(MAX_SEGMENT))[:, None]
    source = np.zeros((n, segments), np.int64) if stream.source is None else stream.source
    collected.add(
        coordinates,
        kind=np.full(shape, _IMAGE),
        value=(stream.images[..., None] * cells + np.arange(cells)).astype(np.int64),
        sequence=np.broadcast_to(first_sequence + np.arange(n)[:, None, None], shape),
        source=np.broadcast_to(source[..., None], shape),
        slot=np.full(shape, -1),
    )


def _language_rows(streams: list[JointStream], slot: np.ndarray) -> dict[str, np.ndarray]:
    """The packed row of each language token by stream; `slot` [tokens] is in packed order."""
    table = np.full(sum(stream.ids.size for stream in streams), -1, np.int64)
    language = slot >= 0
    table[slot[language]] = np.flatnonzero(language)
    bounds = np.cumsum([stream.ids.size for stream in streams])[:-1]
    parts = np.split(table, bounds)
    return {stream.name: part.reshape(stream.ids.shape) for stream, part in zip(streams, parts, strict=True)}


def _cu_seqlens(lengths: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))

"""Video decoders: one protocol, one table of implementations, and the choice between them."""

from __future__ import annotations

from reserve.data.decode.choice import Candidates, DecoderChoice, PassedOverDecoder
from reserve.data.decode.dali import DaliDecoder
from reserve.data.decode.protocol import (
    AudioTrack,
    BatchDecoder,
    Deadline,
    Decoder,
    Fallback,
    FileDecoder,
    FrameRequest,
    Media,
    MediaInfo,
    MediaLimits,
    Soundtrack,
    TextTrack,
    Track,
    VideoTrack,
)
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.torchcodec import TorchCodecDecoder

__all__ = [
    "DECODERS",
    "AudioTrack",
    "BatchDecoder",
    "Candidates",
    "Deadline",
    "Decoder",
    "DecoderChoice",
    "Fallback",
    "FileDecoder",
    "FrameRequest",
    "Media",
    "MediaInfo",
    "MediaLimits",
    "PassedOverDecoder",
    "Soundtrack",
    "TextTrack",
    "Track",
    "VideoTrack",
    "candidates",
    "choose_decoder",
    "choose_file_decoder",
    "decoder_table",
]

DECODERS: tuple[Decoder, ...] = (DaliDecoder(), TorchCodecDecoder(), PyAVDecoder())
"""In the order in which "auto" tries them, fastest first by the measurements of docs/decoding.md."""


def candidates(requested: str = "auto") -> Candidates:
    """The decoders of this machine in the order in which files try them. Raises as `Candidates.of` does."""
    return Candidates.of(DECODERS, requested)


def choose_decoder(requested: str = "auto") -> Decoder:
    """The decoder that files try first: the one of that name, or the first of the machine if `requested` is "auto".

    Raises ValueError for an unknown name, and RuntimeError with the reasons if no such decoder can run here.
    """
    return candidates(requested).decoders[0]


def choose_file_decoder(*, for_spans: bool = False) -> FileDecoder:
    """The first decoder that opens files and can run; `for_spans` leaves out those that read a whole file first.

    Raises RuntimeError with the reasons if there is none.
    """
    files = [decoder for decoder in DECODERS if isinstance(decoder, FileDecoder)]
    return Candidates.of([each for each in files if not (for_spans and each.reads_ahead)], "auto").files[0]


def decoder_table() -> str:
    """Which decoders can run on this machine, which one "auto" picks first, and why others cannot or are not picked, as
    aligned text."""
    rows = [("decoder", "decodes", "status")]
    picked = False
    for decoder in DECODERS:
        status = decoder.unavailable()
        if status is None:
            slow = decoder.slow_here()
            status = f"available by name; {slow}" if slow else "available" if picked else "picked"
            picked = picked or slow is None
        unit = f"batches of {decoder.batch_size} files" if isinstance(decoder, BatchDecoder) else "file by file"
        rows.append((decoder.name, unit, status))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)

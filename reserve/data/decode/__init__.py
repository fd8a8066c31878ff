"""Video decoders: one protocol, one table of implementations, and the choice between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from reserve.data.decode.dali import DaliDecoder
from reserve.data.decode.protocol import (
    AudioTrack,
    BatchDecoder,
    Deadline,
    Decoder,
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
    "Deadline",
    "Decoder",
    "FileDecoder",
    "FrameRequest",
    "Media",
    "MediaInfo",
    "MediaLimits",
    "Soundtrack",
    "TextTrack",
    "Track",
    "VideoTrack",
    "choose_decoder",
    "choose_file_decoder",
    "decoder_table",
]

DECODERS: tuple[Decoder, ...] = (PyAVDecoder(), TorchCodecDecoder(), DaliDecoder())
"""In the order in which "auto" tries them, fastest first."""


AnyDecoder = TypeVar("AnyDecoder", bound=Decoder)


def choose_decoder(requested: str = "auto") -> Decoder:
    """The decoder to run: the first that can if `requested` is "auto", otherwise the one of that name.

    Raises ValueError for an unknown name, and RuntimeError with the reasons if no such decoder can run here.
    """
    if requested == "auto":
        return _first_available(DECODERS)
    for decoder in DECODERS:
        if decoder.name == requested:
            return _first_available([decoder])
    allowed = ", ".join(repr(decoder.name) for decoder in DECODERS)
    raise ValueError(f"decoder must be 'auto' or one of {allowed}; got {requested!r}")


def choose_file_decoder() -> FileDecoder:
    """The first decoder that opens files and can run: it gives a batch decoder's files their sound and text.

    Raises RuntimeError with the reasons if there is none.
    """
    return _first_available([decoder for decoder in DECODERS if isinstance(decoder, FileDecoder)])


def _first_available(decoders: Sequence[AnyDecoder]) -> AnyDecoder:
    reasons = []
    for decoder in decoders:
        reason = decoder.unavailable()
        if reason is None:
            return decoder
        reasons.append(f"decoder {decoder.name!r} cannot run: {reason}")
    raise RuntimeError("; ".join(reasons))


def decoder_table() -> str:
    """Which decoders can run on this machine, which one "auto" picks, and why the others cannot, as aligned text."""
    rows = [("decoder", "decodes", "status")]
    picked = False
    for decoder in DECODERS:
        reason = decoder.unavailable()
        status = reason or ("available" if picked else "picked")
        picked = picked or reason is None
        unit = f"batches of {decoder.batch_size} files" if isinstance(decoder, BatchDecoder) else "file by file"
        rows.append((decoder.name, unit, status))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)

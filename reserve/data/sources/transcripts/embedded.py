"""Text tracks inside a container (mov_text, SubRip, WebVTT, ASS): captions muxed with the video."""

from __future__ import annotations

import re
from typing import Any

from reserve.data.decode.pyav import MediaFile, decode_packet, demux
from reserve.data.decode.sound import packet_start
from reserve.data.sources.transcripts.cues import Cue, plain_cues_to_words
from reserve.data.sources.transcripts.plausible import plausible_words
from reserve.data.types import Word
from reserve.errors import BadInput

_MAX_CUES = 200_000
# ASS, which FFmpeg turns all captions into, writes a space that does not break as \h and a soft line end as \n.
_SPACE = re.compile(r"\\[hn]")


def load_embedded_transcripts(media: MediaFile) -> tuple[list[Word] | None, list[str]]:
    """Words of the first plausible text track of `media`, or None, and the reasons against the tracks before it."""
    reasons: list[str] = []
    for track in range(len(media.container.streams.subtitles)):
        try:
            return plausible_words(plain_cues_to_words(_read_cues(media, track))), reasons
        except BadInput as error:
            reasons.append(f"text track {track}: {error}")
    return None, reasons


def _read_cues(media: MediaFile, track: int) -> list[Cue]:
    media.rewind()
    stream = media.container.streams.subtitles[track]
    if stream.codec_context is None:
        raise BadInput("no decoder for it")
    cues: list[Cue] = []
    for packet in demux(media, stream):
        start = packet_start(packet, media.origin)
        if start is None or not packet.size:
            continue
        lines = [line for subtitle in decode_packet(media, packet) for line in _lines(subtitle)]
        if lines:
            duration = float((packet.duration or 0) * packet.time_base)
            cues.append(Cue(start, start + duration, tuple(lines)))
        if len(cues) > _MAX_CUES:
            raise BadInput(f"more than {_MAX_CUES} cues")
    return cues


def _lines(subtitle: Any) -> list[str]:
    """Lines of a decoded subtitle; none where it is a picture."""
    dialogue = getattr(subtitle, "dialogue", b"").decode("utf-8", errors="replace")
    return _SPACE.sub(" ", dialogue).replace("\\N", "\n").split("\n") if dialogue else []

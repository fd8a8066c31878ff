"""Text tracks through PyAV (mov_text, SubRip, WebVTT, ASS): captions muxed with the video."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from reserve.data.decode.pyav.container import Container, import_av
from reserve.data.decode.pyav.picture import side_data
from reserve.data.types import Cue
from reserve.errors import BadInput

_MAX_CUES = 200_000
# FFmpeg turns all captions into ASS, which writes a no-break space as \h and a soft line end as \n.
_SPACE = re.compile(r"\\[hn]")
_FIELDS_BEFORE_TEXT = 8
_OVERRIDES = re.compile(r"(\{[^{}]*\})")
_DRAWING = re.compile(r"\\p(\d+)")
# Closed captions come with every picture, or with none for the first seconds until someone speaks.
_FIRST_FRAMES = 300


def read_cues(container: Container, track: int) -> list[Cue]:
    """See `Media.cues`."""
    container.rewind()
    stream = container.text_stream(track)
    cues: list[Cue] = []
    for packet in container.demux(stream):
        start = container.start_of(packet)
        if start is None or not packet.size:
            continue
        lines = [line for subtitle in container.decode(packet) for line in _lines(subtitle)]
        if lines:
            duration = float((packet.duration or 0) * packet.time_base)
            cues.append(Cue(start, start + duration, tuple(lines)))
        if len(cues) > _MAX_CUES:
            raise BadInput(f"more than {_MAX_CUES} cues")
    return cues


def _lines(subtitle: Any) -> list[str]:
    """Lines of a decoded subtitle; none if it is a picture."""
    event = getattr(subtitle, "ass", b"").decode("utf-8", errors="replace")
    # FFmpeg's events: ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect, Text.
    fields = event.split(",", _FIELDS_BEFORE_TEXT)
    if len(fields) <= _FIELDS_BEFORE_TEXT:
        return []
    text = _spoken(fields[-1]).replace("\\{", "{")  # FFmpeg writes a brace that is text as \{{}.
    return _SPACE.sub(" ", text).replace("\\N", "\n").split("\n")


def _spoken(text: str) -> str:
    """ASS text with its overrides, which may time words, but without comments (braces with anything else) and drawings:
    what follows a {\\p1}, up to a {\\p0}, is coordinates of lines and curves."""
    parts, is_drawing = [], False
    for part in _OVERRIDES.split(text):
        if part.startswith("{"):
            for scale in _DRAWING.findall(part):
                is_drawing = bool(scale.strip("0"))
        if "\\" in part if part.startswith("{") else not is_drawing:
            parts.append(part)
    return "".join(parts)


def has_closed_captions(container: Container) -> bool:
    """See `Media.has_closed_captions`."""
    container.rewind()
    stream = container.video_stream()
    kind = import_av().sidedata.sidedata.Type.A53_CC
    frames = (frame for packet in container.demux(stream) for frame in container.decode(packet))
    return any(side_data(frame).get(kind) is not None for frame in islice(frames, _FIRST_FRAMES))

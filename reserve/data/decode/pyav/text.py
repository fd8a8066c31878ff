"""Text tracks through PyAV (mov_text, SubRip, WebVTT, ASS): captions muxed with the video."""

from __future__ import annotations

import re
from typing import Any

from reserve.data.decode.pyav.container import Container
from reserve.data.types import Cue
from reserve.errors import BadInput

_MAX_CUES = 200_000
# FFmpeg turns all captions into ASS, which writes a no-break space as \h and a soft line end as \n.
_SPACE = re.compile(r"\\[hn]")


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
    dialogue = getattr(subtitle, "dialogue", b"").decode("utf-8", errors="replace")
    return _SPACE.sub(" ", dialogue).replace("\\N", "\n").split("\n") if dialogue else []

"""Which frame is on screen at a time: the rules that reading frames and the table of their timestamps share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reserve.data.decode.pyav.container import Container

if TYPE_CHECKING:
    import av

# Seconds; above the rounding of a float that counts seconds.
_ROUNDING = 1e-6
# Containers with a tick of at most this many seconds round the times of frames to it. A longer tick may be a frame.
_FINE_TICK = 0.002


def latest_timestamp(time: float, origin: float, tick: float) -> float:
    """The latest timestamp, in seconds, of a frame that is on screen at `time`, in a file whose time 0 has the
    timestamp `origin` and whose stream counts ticks of `tick` seconds.

    A time computed from a frame's number or its own timestamp finds that frame.
    """
    return time + origin + _ROUNDING + (tick / 2 if tick <= _FINE_TICK else 0)


def lacks_presentation_times(container: Container, stream: av.VideoStream) -> bool:
    """Whether the container has decoding times alone, in a codec for which FFmpeg guesses the others wrongly."""
    codec = stream.codec_context
    return container.raw.format.name == "avi" and codec.name in ("h264", "hevc") and bool(codec.has_b_frames)

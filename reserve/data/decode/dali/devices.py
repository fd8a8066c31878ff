"""Where DALI decodes a stream: on the GPU's video decoders, on the CPU, or nowhere, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from reserve.data.decode.dali.nvdec import VideoHardware
from reserve.data.decode.dali.pipeline import Device
from reserve.data.decode.dali.request import Stream
from reserve.data.decode.protocol import VideoTrack
from reserve.errors import Unsuited

ON_CPU = ("vp8", "vp9", "mjpeg")
"""Codecs of DALI's CPU decoder. It has no H.264, HEVC, AV1 and MPEG-4."""
ON_GPU = ("h264", "hevc", "vp9")
"""Codecs that are sent to a GPU. DALI counts a picture for each packet there: AV1 shows pictures again that it has
coded before, and VP8 codes some that are never shown, which upsets that count."""
_EIGHT_BITS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv440p", "yuvj440p", "yuv444p", "yuvj444p")
_EIGHT_BITS_420 = ("yuv420p", "yuvj420p")


@dataclass(frozen=True, slots=True)
class Devices:
    """What this machine can decode with DALI. Picklable, so that hardware is asked once."""

    hardware: VideoHardware

    @classmethod
    def here(cls) -> Devices:
        return cls(VideoHardware.of_this_machine())

    def unsuited(self, track: VideoTrack) -> str | None:
        """Why DALI is not for a stream, as a short phrase, or None; by its headers alone."""
        on_gpu = self._gpu_refuses(track)
        if on_gpu is None:
            return None
        on_cpu = self._cpu_refuses(track)
        if on_cpu is None:
            return None
        return f"{on_cpu}; on a GPU: {on_gpu}"

    def choose(self, stream: Stream) -> Device:
        """The device for a stream. Raises Unsuited with the reason if there is none."""
        on_gpu = self._gpu_refuses(stream.track) or _miscounted(stream)
        if on_gpu is None:
            return "mixed"
        on_cpu = self._cpu_refuses(stream.track)
        if on_cpu is None:
            return "cpu"
        raise Unsuited(f"{on_cpu}; on a GPU: {on_gpu}")

    def _gpu_refuses(self, track: VideoTrack) -> str | None:
        if track.codec not in ON_GPU:
            return f"{track.codec or 'an unknown codec'} is not sent there"
        if track.pixel_format not in _EIGHT_BITS_420:
            return f"pictures in {track.pixel_format or 'an unknown format'}, not 8 bits in 4:2:0"
        return self.hardware.refuses(track.codec, track.width, track.height)

    def _cpu_refuses(self, track: VideoTrack) -> str | None:
        if track.codec not in ON_CPU:
            return f"DALI does not decode {track.codec or 'an unknown codec'} on a CPU"
        if track.pixel_format not in _EIGHT_BITS:
            return f"pictures in {track.pixel_format or 'an unknown format'}, not in 8 bits of YCbCr"
        return None


def _miscounted(stream: Stream) -> str | None:
    """Why DALI's GPU decoder would give wrong pictures or colours of a stream that the hardware decodes."""
    if stream.repeats or stream.hides:
        return "it shows pictures again or hides them"
    if stream.is_interlaced:
        return "its pictures are interlaced"
    if stream.is_full_range and stream.track.codec == "vp9":
        return "its colours have full range"
    return None

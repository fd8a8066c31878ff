"""Asks a GPU's video decoders (NVDEC) what they decode, through the driver's libraries alone."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

CODECS = {"mpeg1video": 0, "mpeg2video": 1, "mpeg4": 2, "vc1": 3, "h264": 4, "mjpeg": 5, "hevc": 8, "vp8": 9} | {
    "vp9": 10,
    "av1": 11,
}
"""NVDEC's numbers (cudaVideoCodec) for codecs by FFmpeg's names."""
CHROMA = {"4:0:0": 0, "4:2:0": 1, "4:2:2": 2, "4:4:4": 3}
"""NVDEC's numbers (cudaVideoChromaFormat)."""
_LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1")
_MACROBLOCK = 16 * 16


class Caps(ctypes.Structure):
    """CUVIDDECODECAPS of the Video Codec SDK: the first three fields ask, the others answer."""

    _fields_ = [
        ("codec", ctypes.c_int),
        ("chroma", ctypes.c_int),
        ("depth_minus_8", ctypes.c_uint),
        ("reserved_1", ctypes.c_uint * 3),
        ("is_supported", ctypes.c_ubyte),
        ("decoders", ctypes.c_ubyte),
        ("output_formats", ctypes.c_ushort),
        ("max_width", ctypes.c_uint),
        ("max_height", ctypes.c_uint),
        ("max_macroblocks", ctypes.c_uint),
        ("min_width", ctypes.c_ushort),
        ("min_height", ctypes.c_ushort),
        ("has_histogram", ctypes.c_ubyte),
        ("counter_bits", ctypes.c_ubyte),
        ("histogram_bins", ctypes.c_ushort),
        ("reserved_3", ctypes.c_uint * 10),
    ]


@dataclass(frozen=True, slots=True)
class Format:
    """What NVDEC says of one kind of stream: pictures from `least` to `most` (width, height) and up to `macroblocks` of
    16x16 pixels; `decoders` is how many units the GPU has for it."""

    least: tuple[int, int]
    most: tuple[int, int]
    macroblocks: int
    decoders: int


@dataclass(frozen=True, slots=True)
class VideoHardware:
    """What the first GPU decodes: a Format for each (codec, chroma, bits) that it knows, or the `reason` why there is
    nothing to ask."""

    formats: dict[tuple[str, str, int], Format] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of_this_machine(cls) -> VideoHardware:
        """Asks the driver. Never raises: what is missing is the reason."""
        libraries = []
        for name in _LIBRARIES:
            try:
                libraries.append(ctypes.CDLL(name))
            except OSError:
                return cls(reason=f"{name} of the NVIDIA driver is not here")
        try:
            return ask(*libraries)
        except AttributeError as error:
            return cls(reason=f"the NVIDIA driver is too old: {error}")

    def refuses(self, codec: str, width: int, height: int, chroma: str = "4:2:0", bits: int = 8) -> str | None:
        """Why the GPU does not decode pictures of this kind and size, or None."""
        if self.reason:
            return self.reason
        found = self.formats.get((codec, chroma, bits))
        if found is None:
            return f"this GPU has no decoder for {codec} in {chroma} with {bits} bits"
        if not (found.least[0] <= width <= found.most[0] and found.least[1] <= height <= found.most[1]):
            return (
                f"this GPU decodes {codec} from {found.least[0]}x{found.least[1]} to {found.most[0]}x{found.most[1]} "
                f"pixels, not {width}x{height}"
            )
        if width * height > found.macroblocks * _MACROBLOCK:
            return f"this GPU decodes {codec} up to {found.macroblocks * _MACROBLOCK} pixels a picture"
        return None


def ask(cuda: Any, nvcuvid: Any) -> VideoHardware:
    """What the first GPU decodes, from the libraries libcuda and libnvcuvid as ctypes loads them."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return VideoHardware(reason="no CUDA device")
    # The primary context is the one that PyTorch and DALI use too.
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return VideoHardware(reason="the CUDA device cannot be used")
    try:
        if cuda.cuCtxPushCurrent_v2(context):
            return VideoHardware(reason="the CUDA device cannot be used")
        try:
            return VideoHardware(_formats(nvcuvid))
        finally:
            cuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(device)


def _formats(nvcuvid: Any) -> dict[tuple[str, str, int], Format]:
    found = {}
    for codec, codec_number in CODECS.items():
        for chroma, chroma_number in CHROMA.items():
            for bits in (8, 10, 12):
                caps = Caps(codec=codec_number, chroma=chroma_number, depth_minus_8=bits - 8)
                if nvcuvid.cuvidGetDecoderCaps(ctypes.byref(caps)) == 0 and caps.is_supported:
                    found[codec, chroma, bits] = Format(
                        (caps.min_width, caps.min_height),
                        (caps.max_width, caps.max_height),
                        caps.max_macroblocks,
                        caps.decoders,
                    )
    return found

"""Videos in codecs and orders of coding that `write_media` does not write, and their frames through a piece."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from reserve.data.decode.dali.pieces import PieceCutter
from reserve.data.decode.dali.request import ClipRequest
from reserve.data.decode.protocol import Deadline
from reserve.data.decode.pyav.container import Container
from tests.helpers.media_files import SIZE, number_picture

try:
    import av
except ImportError:  # a GPU machine without PyAV collects tests that would need it
    av = None

VP9 = {"deadline": "good", "cpu-used": "5", "crf": "20", "b": "2M", "auto-alt-ref": "1", "lag-in-frames": "16"}


def write_coded(
    path: Path,
    codec: str,
    frame_times: Sequence[float],
    *,
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    gop: int = 24,
    colorspace: int | None = None,
    color_range: int | None = None,
    picture=number_picture,
) -> Path:
    """Writes frame i, showing `picture(i)`, at `frame_times[i]` seconds."""
    tick = Fraction(1, 10) if codec == "mjpeg" else Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        size = picture(0).shape
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], pixel_format
        stream.time_base = stream.codec_context.time_base = tick
        stream.codec_context.gop_size = gop
        stream.options = options or {}
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        for index, time in enumerate(frame_times):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_colorspace=colorspace, dst_color_range=color_range)
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def colourful(size: tuple[int, int] = SIZE, seed: int = 0):
    """A function of a frame's number that returns pictures of soft stains in all colours."""

    def picture(number: int) -> np.ndarray:
        from PIL import Image

        rng = np.random.default_rng([seed, number])
        stains = rng.integers(0, 256, (max(size[0] // 16, 2), max(size[1] // 16, 2), 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(stains).resize((size[1], size[0]), Image.Resampling.BICUBIC))

    return picture


def frames_of_pieces(request: ClipRequest) -> list[np.ndarray]:
    """What a decoder that counts frames makes of a request, with PyAV in its place."""
    container = Container(request.path, request.limits, Deadline(1e9))
    cutter, found = PieceCutter(container), []
    try:
        for piece in request.pieces:
            with av.open(io.BytesIO(cutter.cut(piece).tobytes())) as file:
                frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
            found += [frames[number] for number in piece.numbers]
    finally:
        cutter.close()
    return found


REGULAR = [index / 10 for index in range(40)]
IRREGULAR = np.cumsum(np.random.default_rng(3).uniform(0.01, 0.3, 40)).tolist()
HD = (720, 1280)
CASES = {
    "vp9.webm": ("libvpx-vp9", IRREGULAR, {"options": VP9}),
    "vp9.mp4": ("libvpx-vp9", REGULAR, {"options": VP9}),
    "full.webm": ("libvpx-vp9", REGULAR, {"options": VP9, "color_range": 2}),
    "bt709.webm": ("libvpx-vp9", REGULAR, {"options": VP9, "colorspace": 1}),
    "bt2020.webm": ("libvpx-vp9", REGULAR, {"options": VP9, "colorspace": 9}),
    "odd.webm": ("libvpx-vp9", REGULAR, {"options": VP9, "picture": colourful((49, 65))}),
    "large.webm": ("libvpx-vp9", REGULAR[:6], {"options": {**VP9, "cpu-used": "8"}, "picture": colourful(HD)}),
    "vp8.webm": ("libvpx", IRREGULAR, {"options": {"deadline": "realtime", "b": "1M"}}),
    "motion.avi": ("mjpeg", REGULAR, {"pixel_format": "yuvj420p"}),
    "motion.mkv": ("mjpeg", REGULAR, {"pixel_format": "yuvj422p"}),
}
"""Strongly coloured videos by their file names: codec, times of the frames, and how `write_coded` differs."""


def write_case(folder: Path, name: str) -> Path:
    """Writes one of CASES into a folder."""
    codec, times, options = CASES[name]
    return write_coded(folder / name, codec, times, **{"picture": colourful(), **options})

"""Pictures of a segment, as data URIs that a page can embed."""

from __future__ import annotations

import base64
import io
import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from reserve.config import DataConfig
from reserve.data.images import encode_jpeg
from reserve_kernels.log_mel.filters import hz_to_mel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, TARGET = "#333b46", "#d5dae1", "#1f6feb"
LOUDEST = 8.0
"""Log-mel value at the top of a spectrogram's colour scale; loud speech reaches it."""
SPECTRUM_COLOURS = "magma"
MEL_RANGE = (20.0, 11025.0)
"""Frequency range of the mel bands in Hz (SPEC 2)."""
FREQUENCY_TICKS = {500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 8000: "8k"}
JPEG_QUALITY = 92

# matplotlib's settings are the process's, and a run's page is drawn by a thread beside the training.
_DRAWING = threading.Lock()


def frame_uri(image: np.ndarray) -> str:
    """An RGB image uint8 [height, width, 3] as a JPEG data URI."""
    return file_uri("image/jpeg", encode_jpeg(image, JPEG_QUALITY))


def clip_uri(log_mel: np.ndarray) -> str:
    """A log-mel [frames, mels] as an image data URI without axes: time to the right, low frequencies at the bottom."""
    from matplotlib import colormaps
    from PIL import Image

    shades = colormaps[SPECTRUM_COLOURS](np.clip(log_mel.T[::-1] / LOUDEST, 0, 1), bytes=True)[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shades)).save(buffer, format="PNG")
    return file_uri("image/png", buffer.getvalue())


def spectrogram_uri(
    log_mel: np.ndarray, playback_speed: int, starts: np.ndarray, length: int, masked: np.ndarray, data: DataConfig
) -> str:
    """A segment's log-mel [frames, mels] as an SVG's data URI, with axes in seconds of the video and in Hz.

    Brackets above it mark the audio subsegments of `length` frames from `starts` int [A]; `masked` bool [A] says which
    of them are masked.
    """
    frames, mels = log_mel.shape
    second = data.fft_hop_length * playback_speed / data.sample_rate
    figure, axes = new_axes(6.4, 2.5)
    axes.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        cmap=SPECTRUM_COLOURS,
        vmin=0,
        vmax=LOUDEST,
        extent=(-second / 2, (frames - 0.5) * second, -0.5, mels - 0.5),
        interpolation="nearest",
    )
    for start, is_masked in zip(starts, masked, strict=True):
        ends = [(start - 0.5) * second, (start + length - 0.5) * second]
        colour = TARGET if is_masked else FAINT
        axes.plot(ends, [mels + 2.5] * 2, color=colour, linewidth=4, clip_on=False, solid_capstyle="butt")
    axes.set_ylim(-0.5, mels - 0.5)
    ticks = {f: label for f, label in FREQUENCY_TICKS.items() if f <= data.sample_rate / 2}
    axes.set_yticks([mel_band(f, mels) for f in ticks], list(ticks.values()))
    axes.set_ylabel("Hz (mel scale)")
    axes.set_xlabel("seconds")
    return file_uri("image/svg+xml", svg_text(figure, "spectrogram").encode())


def mel_band(frequency: float, mels: int) -> float:
    """The position of a frequency in Hz among `mels` bands, where 0 is the centre of the lowest."""
    low, high = (hz_to_mel(end) for end in MEL_RANGE)
    return (hz_to_mel(frequency) - low) / (high - low) * (mels + 1) - 1


def new_axes(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of `width` x `height` inches with one pair of axes in the page's colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=INK, labelsize=10, length=3)
    axes.xaxis.label.set(color=INK, size=10)
    axes.yaxis.label.set(color=INK, size=10)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#9aa3af")
    return figure, axes


def svg_text(figure: Figure, salt: str) -> str:
    """A figure as an <svg> that keeps text as text. Its ids depend on `salt` and its content only."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with _DRAWING, rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def file_uri(kind: str, data: bytes) -> str:
    """A file of a MIME type, such as image/png, as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
